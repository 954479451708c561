"""Which events does a ledger's file hold?

Choices:
    A last line cut short is what a killed writer leaves: tolerated and reported. Any other damage is an error.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from crashlab.errors import LedgerError
from crashlab.ledger import Event

BLOCK_BYTES = 128 << 10
"""Decoded events of one block still fit the cache when they are folded: a third faster than 4 MB."""

Block = Sequence[Event | None] | str
"""Events; None is one that does not count. A string is a last line cut short."""


def read_blocks(path: Path, file: BinaryIO) -> Iterator[Block]:
    """Yield a ledger's events, in blocks and in the order of its lines.

    Raises:
        LedgerError: damage anywhere but in a cut last line; names line and reason.
    """
    decoder = msgspec.json.Decoder(Event)
    rest = b""
    line = 0
    while block := file.read(BLOCK_BYTES):
        block = rest + block
        end = block.rfind(b"\n") + 1
        block, rest = block[:end], block[end:]
        events = _decode_block(path, line, block, decoder)
        line += len(events)
        yield events
    if rest:
        try:
            yield [decoder.decode(rest)]  # only its newline is missing
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield rest.decode(errors="replace")


def _decode_block(path: Path, line: int, block: bytes, decoder: msgspec.json.Decoder[Event]) -> list[Event]:
    try:
        events = decoder.decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError):
        events = []
    if len(events) == block.count(b"\n"):
        return events
    # Slow, to name the line. An event cut in two by a stray newline, or a blank line, is damage too.
    for offset, text in enumerate(block.split(b"\n")[:-1]):
        try:
            decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LedgerError(
                f"{path}:{line + offset + 1}: damaged ledger: {error}",
                detail=f"The line reads: {text[:120].decode(errors='replace')!r}.",
            ) from error
    raise LedgerError(f"{path}:{line + 1}: damaged ledger: lines cannot be told apart")
