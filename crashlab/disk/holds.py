"""At which file operations can a process be held?

The vocabulary of a profile's table `[jitter]`; `recording.jitter` hands it to the recorder's library.
"""

from typing import Literal, Self, get_args

import msgspec

from crashlab.disk.fileclass import FileClass
from crashlab.errors import did_you_mean

Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
HELD_OPERATIONS = ("create", "write", "truncate", "rename", "unlink", "flush")
"""In the order of the library's numbers (recorder_jitter.h)."""
HOLDS_MAX = 32


class Hold(msgspec.Struct, frozen=True):
    """One place: "before unlink of relation", "after flush". A rename counts by the old name."""

    moment: Moment
    operation: str
    file_class: FileClass | None = None  # None: any

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it. Raises ValueError: there is no such place."""
        moment, _, rest = text.partition(" ")
        operation, of, name = rest.partition(" of ")
        if moment not in MOMENTS:
            raise ValueError(f'"{text}" must begin with before or after, as in "before unlink of relation"')
        if operation not in HELD_OPERATIONS:
            raise ValueError(_unknown("file operation", operation, HELD_OPERATIONS))
        classes = [str(one) for one in FileClass]
        if of and name not in classes:
            raise ValueError(_unknown("class of files", name, classes))
        return cls(moment, operation, FileClass(name) if of else None)

    def __str__(self) -> str:
        of = "" if self.file_class is None else f" of {self.file_class}"
        return f"{self.moment} {self.operation}{of}"


def _unknown(what: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    near = did_you_mean(name, known)
    said = f'"{name}" is no {what} that can be held at; they are {", ".join(known)}'
    return f"{said}; {near[:1].lower()}{near[1:]}" if near else said
