"""When was the I/O log of a recording that long?

The log has no clock. The ledger notes beside each event the time and the length of the log, so any place of the log
lies between two events: a bound from below and one from above, and no more is claimed.

Choices: the time of a begin is taken after the length is read, that of every other event before. So only begins tell
    until when a place had been reached, and only the others from when on it had not.

Source: `ledger.LedgerWriter`.
"""

from bisect import bisect_left
from itertools import accumulate
from pathlib import Path

from crashlab import files
from crashlab.errors import LedgerError
from crashlab.ledger import Begin, Event, Header
from crashlab.ledgerfile import read_blocks


class LogClock:
    """Dates the places of one recording's log."""

    def __init__(self, ledger: Path) -> None:
        """Read the ledger. Raises LedgerError: it cannot be read."""
        try:
            with files.opened(ledger) as file:
                events = [event for block in read_blocks(ledger, file) for event in block if isinstance(event, Event)]
        except OSError as error:
            raise LedgerError(f'could not read ledger "{ledger}": {error}') from error
        begins = sorted((event.io, event.at_ns) for event in events if type(event) is Begin)
        others = sorted((event.io, event.at_ns) for event in events if not isinstance(event, Begin | Header))
        self._reached = [io for io, _ in begins]
        self._until_ns = list(accumulate((at_ns for _, at_ns in reversed(begins)), min))[::-1]
        self._not_reached = [io for io, _ in others]
        self._since_ns = list(accumulate((at_ns for _, at_ns in others), max))

    def bounds_ns(self, log_bytes: int) -> tuple[int | None, int | None]:
        """Return from when on, at the earliest, and until when, at the latest, the log became this long.

        Returns:
            two moments of the ledger's clock; None where it notes nothing before or after.
        """
        before = bisect_left(self._not_reached, log_bytes)
        after = bisect_left(self._reached, log_bytes)
        since = self._since_ns[before - 1] if before else None
        until = self._until_ns[after] if after < len(self._reached) else None
        return since, until
