"""How does a folder get to another machine, whole? As one packed text with a digest."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import EvidenceError

COMPRESSION = 1
"""Most of a data directory is zeros; more than the fastest level is not worth its time."""


@dataclass(frozen=True)
class Parcel:
    """The content of a folder."""

    content: bytes
    digest: str

    def unpack(self, folder: Path, *, last: str | None = None, settle: Callable[[Path], None] | None = None) -> None:
        """Make a folder of it, which must not exist.

        Args:
            last: the file by which others know that the folder is whole; it gets its name when all else is done.
            settle: changes that file before it gets its name.

        Raises:
            EvidenceError: it is damaged, or the folder cannot be made.
        """
        if hashlib.sha256(self.content).hexdigest() != self.digest:
            raise EvidenceError(f'could not unpack "{folder}": it arrived damaged')
        try:
            folder.mkdir(parents=True)
            with tarfile.open(fileobj=io.BytesIO(self.content), mode="r:gz") as archive:
                archive.extractall(folder, [one for one in archive if one.name != f"./{last}"], filter="tar")
                if last is not None:
                    arriving = archive.getmember(f"./{last}").replace(name=f"{last}.arriving")
                    archive.extract(arriving, folder, filter="tar")
                    if settle is not None:
                        settle(folder / arriving.name)
                    (folder / arriving.name).rename(folder / last)
        except (OSError, KeyError, tarfile.TarError) as error:
            raise EvidenceError(f'could not unpack "{folder}": {error}') from error


def pack(folder: Path) -> Parcel:
    """Pack a folder. Raises EvidenceError: it cannot be read."""
    content = io.BytesIO()
    try:
        with tarfile.open(fileobj=content, mode="w:gz", compresslevel=COMPRESSION) as archive:
            archive.add(folder, arcname=".")
    except OSError as error:
        raise EvidenceError(f'could not pack "{folder}": {error}') from error
    packed = content.getvalue()
    return Parcel(packed, hashlib.sha256(packed).hexdigest())
