"""Which events does a ledger's file hold?

Choices:
    The end mark must be the last line, and fit what stands above it. A ledger of schema 1 has none: there a last line
    cut short, which a killed writer leaves, is tolerated and reported. Any other damage is an error.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from crashlab.errors import LedgerError
from crashlab.ledger import End, Event, Header, ledger_digest

BLOCK_BYTES = 128 << 10
"""Decoded events of one block still fit the cache when they are folded: a third faster than 4 MB."""

Block = Sequence[Event | None] | str
"""Events; None is one that does not count. A string is a last line cut short."""


def read_blocks(path: Path, file: BinaryIO) -> Iterator[Block]:
    """Yield a ledger's events, in blocks and in the order of its lines; the end mark is checked, and not among them.

    Raises:
        LedgerError: damage anywhere but in a cut last line of schema 1; names line and reason.
    """
    decoder = msgspec.json.Decoder(Event)
    digest = ledger_digest()
    marked = False  # whether there is to be a mark
    rest = b""
    line = 0
    while block := file.read(BLOCK_BYTES):
        block = rest + block
        end = block.rfind(b"\n") + 1
        block, rest = block[:end], block[end:]
        last = block.rfind(b"\n", 0, -1) + 1
        if block.startswith(_MARK, last):
            block, rest = block[:last], block[last:] + rest + file.read()
        events = _decode_block(path, line, block, decoder)
        digest.update(block)
        marked = marked or (line == 0 and _has_mark(events))
        line += len(events)
        yield events
    if rest and not marked:
        try:
            tail = [decoder.decode(rest)]  # only its newline is missing
        except _DAMAGE:
            yield rest.decode(errors="replace")
            return
        marked = line == 0 and _has_mark(tail)
        yield tail
    if marked:
        _check_end(path, rest, End(line, digest.hexdigest()))


_DAMAGE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MARK = b'{"event":"end"'


def _has_mark(events: Sequence[Event]) -> bool:
    return bool(events) and type(events[0]) is Header and events[0].schema > 1


def _check_end(path: Path, rest: bytes, wanted: End) -> None:
    """Hold what stands below a ledger's events against the mark that belongs there."""
    try:
        mark = msgspec.json.decode(rest, type=End)  # its newline may be missing: nothing else is
    except _DAMAGE:
        mark = None
    if mark == wanted:
        return
    if not rest.startswith(_MARK):
        problem = f"its end is missing: it stops after line {wanted.lines}"
    elif mark is None:
        problem = f"line {wanted.lines + 1} is no whole end mark"
    else:
        problem = f"its end mark speaks of other lines than the {wanted.lines} above it"
    raise LedgerError(
        f"{path}: damaged ledger: {problem}",
        detail="Transactions that it no longer tells of would look like ones that nobody has made.",
    )


def _decode_block(path: Path, line: int, block: bytes, decoder: msgspec.json.Decoder[Event]) -> list[Event]:
    try:
        events = decoder.decode_lines(block)
    except _DAMAGE:
        events = []
    if len(events) == block.count(b"\n"):
        return events
    # Slow, to name the line. An event cut in two by a stray newline, or a blank line, is damage too.
    for offset, text in enumerate(block.split(b"\n")[:-1]):
        try:
            decoder.decode(text)
        except _DAMAGE as error:
            raise LedgerError(
                f"{path}:{line + offset + 1}: damaged ledger: {error}",
                detail=f"The line reads: {text[:120].decode(errors='replace')!r}.",
            ) from error
    raise LedgerError(f"{path}:{line + 1}: damaged ledger: lines cannot be told apart")
