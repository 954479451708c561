"""Chronicles made by hand: of any size, and with any words in them."""

from crashlab.chronicle import (
    Chronicle,
    DiskMap,
    Fate,
    Happening,
    MappedFile,
    MappedName,
    PageRun,
    QuietClass,
    Transaction,
    WalLevel,
)
from crashlab.model import Recovery
from crashlab.results import Told


def transaction(
    tx: int, fate: Fate, *, client: int = 1, begin: float = 0.0, wrote: str = "account key 1"
) -> Transaction:
    """One that took a fifth of a millisecond, and was answered if it was acknowledged."""
    acked = fate in (Fate.SURVIVED, Fate.PERMITTED, Fate.FORBIDDEN, Fate.READ_ONLY)
    return Transaction(
        tx=tx,
        client=client,
        fate=fate,
        sync="on",
        flushed=True,
        xid=700 + tx,
        wrote=wrote,
        begin_line=3 * tx,
        sent_line=3 * tx + 1,
        told_line=3 * tx + 2 if acked else 0,
        begin=begin,
        sent=begin + 0.1,
        told=begin + 0.2 if acked else None,
        answer="acknowledged" if acked else "no answer",
    )


def chronicle(*transactions: Transaction, words: str = "words", disk: bool = True) -> Chronicle:
    """A trial of a recording's kind; `words` stand wherever evidence has text."""
    first = min((one.begin for one in transactions), default=-1.0)
    lost = MappedFile(
        path=f"pgdata/base/{words}",
        file_class="relation",
        seen_bytes=5 * 8192,
        left_bytes=4 * 8192,
        runs=[PageRun("durable", 20), PageRun("kept", 2), PageRun("torn", 1), PageRun("lost", 3)],
    )
    gone = MappedFile(path="", file_class=words, seen_bytes=8192, left_bytes=-1, runs=[PageRun("lost", 1)])
    return Chronicle(
        axis="ms",
        first=first,
        cut=0.0,
        transactions=list(transactions),
        levels=[WalLevel(first + number, number, 1000 + 10 * number, 900 + 10 * number, 800) for number in range(3)],
        happenings=[
            Happening(kind="flush", at=first, until=first / 2, says=f"fsync pg_wal/{words}"),
            Happening(kind="ignored flush", at=first, until=None, says=words),
            Happening(kind="checkpoint", at=first, until=None, says=words),
            Happening(kind="fault", at=0.0, says=words),
        ],
        recovery=Recovery(
            started=True, ran=True, seconds=0.1, redo_start=words, redo_end=words, end_reason=words, fatal=[words]
        ),
        redo=800,
        wal_end=850,
        disk=DiskMap(
            position=7,
            note=words,
            unit_bytes=4096,
            files=[lost, gone],
            names=[MappedName(position=3, says=words, kept=False)],
            quiet=[QuietClass(file_class=words, files=2, pages=9)],
        )
        if disk
        else None,
        without=words,
    )


def told(made: Chronicle, *, profile: str = "kill9-all", trial: int = 0) -> Told:
    """The trial of a profile."""
    return Told(profile=profile, trial=trial, chronicle=made)
