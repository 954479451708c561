"""Which relations of a recovered server are, byte for byte, those of the base image?

Those were checked once, when the base image was, and need no second look.

Choices:
    Asked between recovery and the first check, of the files' inodes, sizes and times: a file that the server wrote
    counts as changed, whatever it wrote. Hint bits and pruning are changes too.
    A relation is all its forks and segments. One more or one less of them is a change.
    Rows of unchanged pages mean what they meant only as long as their transactions have the same fate. So unless
    pg_xact and pg_multixact still say what they said in the base image, nothing counts as unchanged.
"""

import os
import re

from crashlab.disk.filehistory import FileHistory
from crashlab.disk.operations import root_label
from crashlab.exploration.images import ImageFolder, Scan

_RELATION = re.compile(r"pgdata/((?:base|pg_tblspc/\d+/PG_[^/]+)/\d+/\d+|global/\d+)(?:_[a-z]+)?(?:\.\d+)?")
_SPACE = re.compile(r"(tblspc\d+)/(PG_[^/]+/\d+/\d+)(?:_[a-z]+)?(?:\.\d+)?")
_LINK = re.compile(r"pgdata/(pg_tblspc/\d+)")
_STATUS = re.compile(r"pgdata/(?:pg_xact|pg_multixact/(?:offsets|members))/[0-9A-F]+")


class BaseRelations:
    """The relations of a base image, to hold a recovered directory against."""

    def __init__(self, images: ImageFolder) -> None:
        self._images = images
        base = images.base
        labels = {root: root_label(index) for index, root in enumerate(images.recorded_roots)}
        links = [(entry, _LINK.fullmatch(entry.path)) for entry in base.files if entry.kind == "link"]
        self._spaces = {labels[entry.link]: match[1] for entry, match in links if match and entry.link in labels}
        files = [entry for entry in base.files if entry.kind == "file"]
        self._original = {
            entry.path: (entry.file, FileHistory(entry.file, 1, 1, entry.size).fingerprint(0, entry.size, {}))
            for entry in files
        }
        self._relations = {entry.path: name for entry in files if (name := self._relation(entry.path))}
        self._names = frozenset(self._relations.values())
        self._statuses = {
            entry.path: images.contents.base_bytes(entry.file, 0, entry.size).rstrip(b"\0")
            for entry in files
            if _STATUS.fullmatch(entry.path)
        }

    def unchanged(self) -> frozenset[str]:
        """Return the relations that are as in the base image, as pg_relation_filepath() names them."""
        found = self._images.look()
        if not self._statuses_kept(found):
            return frozenset()
        changed = {name for path in found.keys() - self._original.keys() if (name := self._relation(path))}
        for path in self._images.may_differ(self._original):
            status = found.get(path)
            if status is None or self._images.held_fingerprint(path, status) != self._original[path]:
                changed.add(self._relations.get(path, ""))
        return self._names - changed

    def _relation(self, path: str) -> str | None:
        if match := _RELATION.fullmatch(path):
            return match[1]
        match = _SPACE.fullmatch(path)
        return f"{self._spaces[match[1]]}/{match[2]}" if match and match[1] in self._spaces else None

    def _statuses_kept(self, found: Scan) -> bool:
        for path, said in self._statuses.items():
            status = found.get(path)
            if status is None:
                return False
            if self._images.held_fingerprint(path, status) == self._original[path]:
                continue
            with (self._images.image / path).open("rb", buffering=0) as file:
                says = os.pread(file.fileno(), len(said), 0)
            if said and (says[:-1] != said[:-1] or not _extends(said[-1], says[-1:])):
                return False
        return True


def _extends(said: int, says: bytes) -> bool:
    """Say whether a byte still holds those of its four transactions' fates that were known, two bits each."""
    known = sum(3 << shift for shift in (0, 2, 4, 6) if said >> shift & 3)
    return bool(says) and says[0] & known == said
