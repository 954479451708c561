"""How is a server made to write down what it does?

Its processes get a library by LD_PRELOAD, and variables; nothing else about the server changes. The log must exist
before it starts: a server that cannot record ends at once and says why on its stderr. The same library holds processes
at file operations (`jitter`), of servers that are recorded and of others.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePath

import msgspec

from crashlab.errors import RecordingError
from crashlab.recording import build, jitter

LIBRARY = "recorder.so"
_ROOTS_MAX = 32


class Recorder(msgspec.Struct, frozen=True):
    """The recorder's library, at a path where the server's processes find it; in a container, a path inside."""

    library: PurePath

    @classmethod
    def install(cls, folder: Path, machine: str = "") -> "Recorder":
        """Put the library for a machine (default: this one) into a folder, readable by every user.

        Raises:
            RecordingError: it is not there and cannot be compiled; the folder cannot be written.
        """
        target = folder / LIBRARY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(build.library(machine), target)
            target.chmod(0o755)
        except OSError as error:
            raise RecordingError(f'could not install the recorder in "{folder}": {error.strerror}') from error
        return cls(target)

    def environment(
        self, log: PurePath | None, roots: Sequence[PurePath], page: PurePath | None = None
    ) -> dict[str, str]:
        """Return the variables that make a server record, or hold its processes, or both.

        Args:
            log: made by `iolog.create`, writable for the server's user; None: nothing is recorded.
            roots: the data directory, then the directories of tablespaces, existing or to come; none inside another.
            page: made by `jitter.Page`, likewise; None: nobody is held.
        """
        if not roots or len(roots) > _ROOTS_MAX:
            raise RecordingError(f"cannot record {len(roots)} directories", detail=f"One to {_ROOTS_MAX} are possible.")
        given = {"LD_PRELOAD": self.library, "CRASHLAB_RECORD_LOG": log, jitter.VARIABLE: page}
        variables = {name: str(path) for name, path in given.items() if path is not None}
        for path in [*variables.values(), *map(str, roots)]:
            if not path.startswith("/") or ":" in path or " " in path:
                raise RecordingError(
                    f'cannot record with the path "{path}"', detail="It must be absolute, without : and space."
                )
        return {**variables, "CRASHLAB_RECORD_ROOTS": ":".join(map(str, roots))}
