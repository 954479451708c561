"""Is a JSON file of evidence still what was written? Each bears a digest of its own content.

A flipped bit may turn one valid value into another, and nothing but a digest tells. It is one more key of the table,
over what the table says and not over its bytes: a file that was only laid out anew, or its keys sorted, is as good.

Choices: a file without one is of an older release, and taken as it is. This finds damage, not forgery: whoever writes a
    file can write its digest.
"""

import hashlib
from typing import Any, BinaryIO

import msgspec

KEY = "digest"
_PREFIX = "sha256:"
_READ_BYTES = 1 << 20
_WORD_BYTES = len(_PREFIX) + 64
PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What damaged JSON raises, `check` included; the last of it from thousands of brackets."""


def sealed(value: Any) -> tuple[bytes, str]:
    """Return a record as JSON that holds its digest, and that digest."""
    table = msgspec.json.decode(msgspec.json.encode(value))
    table.pop(KEY, None)
    digest = _digest(table)
    table[KEY] = digest
    return msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n", digest


def check(data: bytes) -> str | None:
    """Return the digest of a JSON file's content; None: it is no table.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no JSON, or its content has changed since it was
            written.
    """
    table = msgspec.json.decode(data)
    if not isinstance(table, dict):
        return None
    told = table.pop(KEY, None)
    if told is None and any(_is_digest(one) for one in table.values()):
        raise msgspec.ValidationError("its digest stands under another key")
    found = _digest(table)
    if told not in (None, found):
        raise msgspec.ValidationError("its content is not what was written: the digest does not match")
    return found


def digest_of(file: BinaryIO) -> str:
    """Return the digest of a file that is no JSON table; it ends with the file's size."""
    found = hashlib.sha256()
    while block := file.read(_READ_BYTES):
        found.update(block)
    return f"{_PREFIX}{found.hexdigest()} {file.tell()}"


def _digest(table: dict[str, Any]) -> str:
    return _PREFIX + hashlib.sha256(msgspec.json.encode(table, order="sorted")).hexdigest()


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _WORD_BYTES and value.startswith(_PREFIX)
