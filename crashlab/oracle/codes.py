"""What can a verdict say? The one table of finding codes.

A code is stable: reports, profiles and users' scripts name it. Its rank orders findings, worst first, as design.md
does: a server that does not start, silent corruption, loud corruption, forbidden loss, not looked, permitted loss.

Sources: postgres-contract.md 7.4 (verdicts), 2, 4; design.md (severity).
"""

from dataclasses import dataclass

from crashlab.model import Family

WAL_ASYNC = "wal-async-commit.html"
WAL_INTRO = "wal-intro.html"
RELIABILITY = "wal-reliability.html"
ISOLATION = "transaction-iso.html"


@dataclass(frozen=True)
class Code:
    """One kind of finding; `rank` is smaller for worse."""

    code: str
    family: Family
    rank: int
    title: str
    explanation: str  # one paragraph, for `crashlab explain CODE`
    manual: str  # page of https://www.postgresql.org/docs/current/


SEVERITIES = (
    "no start",
    "silent corruption",
    "loud corruption",
    "forbidden loss",
    "not looked",
    "permitted loss",
    "note",
)
"""What a rank means, worst first."""
NO_START_RANK, SILENT, LOUD, FORBIDDEN_LOSS, NOT_LOOKED, PERMITTED_LOSS, NOTED = range(len(SEVERITIES))


def _corruption(code: str, title: str, explanation: str, manual: str, rank: int = SILENT) -> Code:
    return Code(f"CORRUPT-{code}", Family.CORRUPTION, rank, title, explanation, manual)


def _loss(code: str, rank: int, title: str, explanation: str, manual: str) -> Code:
    return Code(f"LOSS-{code}", Family.LOSS, rank, title, explanation, manual)


def _inconclusive(code: str, title: str, explanation: str) -> Code:
    return Code(f"INCONCLUSIVE-{code}", Family.INCONCLUSIVE, NOT_LOOKED, title, explanation, RELIABILITY)


_TABLE = (
    Code(
        "NO-START",
        Family.NO_START,
        NO_START_RANK,
        "the server does not start after the crash",
        "Crash recovery did not end in a server that accepts connections, and the reason lies in the data directory. "
        "The server's FATAL or PANIC lines are in the evidence, with the files they name. Keep a copy of the data "
        "directory before you try anything; pg_resetwal destroys evidence.",
        RELIABILITY,
    ),
    _corruption(
        "WRONG-VALUE",
        "a row holds what no transaction wrote",
        "The row's key, version and writer point to a surviving transaction, but the row's content is not what that "
        "transaction wrote. No error was raised: a reader would believe the value.",
        WAL_INTRO,
    ),
    _corruption(
        "PARTIAL-TRANSACTION",
        "a transaction is there in part",
        "Some effects of one transaction survived and others did not, and no later survivor explains the difference. "
        "Each transaction inserts one marker row in the same commit as its data, so marker and data must agree. "
        "Atomicity is broken; no setting for asynchronous commit permits that.",
        WAL_INTRO,
    ),
    _corruption(
        "HOLE",
        "a transaction is missing although a later one is there",
        "The missing transaction's commit record certainly precedes that of a surviving one: it was acknowledged "
        "before the survivor sent COMMIT, or the survivor built on its row version. Recovery replays the log in "
        "order, so survivors must be a prefix. A hole is corruption, not loss, whatever synchronous_commit says.",
        WAL_ASYNC,
    ),
    _corruption(
        "PHANTOM",
        "something is there that nobody committed",
        "A row or a marker comes from a transaction that rolled back, failed, never sent COMMIT, or that the ledger "
        "does not know. Such a transaction must leave no trace.",
        ISOLATION,
    ),
    _corruption(
        "DISCARDED-ROW",
        "a row is there that ROLLBACK TO SAVEPOINT undid",
        "The transaction committed, but this row was written inside a savepoint that it rolled back. The rolled-back "
        "subtransaction must leave no trace.",
        "sql-rollback-to.html",
    ),
    _corruption(
        "RESURRECTED",
        "a deleted row is back",
        "A surviving transaction deleted the row, yet an earlier version of it is visible again.",
        WAL_INTRO,
    ),
    _corruption(
        "STALE-VERSION",
        "a row is older than its last surviving writer",
        "A surviving transaction overwrote the row, yet the version from before is visible: as if the page had not "
        "been written, or had been replaced by an old copy.",
        WAL_INTRO,
    ),
    _corruption(
        "MISSING-ROW",
        "a row of a surviving transaction is gone",
        "A surviving transaction wrote the row and no survivor deleted it, yet a sequential scan does not return it. "
        "A truncated or replaced file passes checksums and amcheck, so only the ledger sees this.",
        WAL_INTRO,
    ),
    _corruption(
        "DUPLICATE-KEY",
        "a unique key is there twice",
        "A sequential scan returned more than one visible row for a key that the table declares unique.",
        "indexes-unique.html",
    ),
    _corruption(
        "VERSION-FORK",
        "two surviving transactions made the same version of a row",
        "Each writer counts the row's version up by one under a row lock, so two surviving writers cannot have made "
        "the same version: one of them did not see the other.",
        ISOLATION,
    ),
    _corruption(
        "INDEX-MISMATCH",
        "an index and its table disagree",
        "A forced index scan and a forced sequential scan of the same table returned different rows. Queries give "
        "different answers depending on the plan.",
        "routine-reindex.html",
    ),
    _corruption(
        "COMMIT-STATUS",
        "the commit log contradicts the data",
        "pg_xact_status and the table contents disagree about a transaction, or its status cannot be read. The commit "
        "bits are in pg_xact, two bits a transaction, without checksums.",
        "storage-file-layout.html",
    ),
    _corruption(
        "WAL-STATE-MISMATCH",
        "the log and the data disagree about a commit",
        "A transaction survives exactly when its commit record ends at or before the end of the valid log. Before "
        "recovery the log held the record and the transaction is missing, or the record was not there and the "
        "transaction is.",
        WAL_INTRO,
    ),
    _corruption(
        "SEQUENCE-REGRESS",
        "a sequence hands out a value again",
        "The sequence's next value is not above a value that a surviving transaction already received. Gaps of up to "
        "32 values after a crash are normal; going backwards is not.",
        "functions-sequence.html",
    ),
    _corruption(
        "INVARIANT",
        "a statement that always holds does not hold",
        "The statement holds after every transaction, so it must hold after any prefix of them, whatever was lost.",
        ISOLATION,
    ),
    _corruption(
        "PREPARED-VISIBLE",
        "data of an undecided prepared transaction is visible",
        "The transaction was prepared, or PREPARE was sent, but COMMIT PREPARED was never sent. Its rows must not be "
        "visible to anybody.",
        "sql-prepare-transaction.html",
    ),
    _corruption(
        "PREPARED-RESURRECTED",
        "a decided prepared transaction is prepared again",
        "COMMIT PREPARED or ROLLBACK PREPARED was acknowledged, or its commit is visible, yet pg_prepared_xacts lists "
        "the transaction. It holds its locks again, and can be decided a second time the other way.",
        "two-phase.html",
    ),
    _corruption(
        "PREPARED-UNKNOWN",
        "a prepared transaction exists that nobody prepared",
        "pg_prepared_xacts lists a transaction that the ledger does not know.",
        "two-phase.html",
    ),
    _corruption(
        "INDEX-AMCHECK",
        "amcheck rejects an index",
        "bt_index_check found an index that breaks its own rules, or a table row that has no index entry.",
        "amcheck.html",
        LOUD,
    ),
    _corruption(
        "HEAP-AMCHECK",
        "amcheck rejects a table",
        "verify_heapam found a tuple, a line pointer or a transaction id that cannot be.",
        "amcheck.html",
        LOUD,
    ),
    _corruption(
        "UNREADABLE",
        "stored data cannot be read",
        "The server raised an error for damaged storage while it read the object: an invalid page, a short or missing "
        "file, a missing TOAST chunk, a value that cannot be decoded.",
        "checksums.html",
        LOUD,
    ),
    _corruption(
        "MISSING-RELATION",
        "a table is gone from the catalog",
        "A table that a committed transaction created is not known to the recovered server.",
        "catalogs.html",
        LOUD,
    ),
    _corruption(
        "DIED-ON-READ",
        "the recovered server died while it was read",
        "Recovery ended and connections were accepted, but reading the data made the server go away.",
        RELIABILITY,
        LOUD,
    ),
    _loss(
        "SYNC-COMMIT",
        FORBIDDEN_LOSS,
        "an acknowledged synchronous commit is missing",
        "The client received COMMIT with synchronous_commit not off (or for a command that is always flushed), and the "
        "transaction is gone. The rest is an unbroken prefix: lost, not corrupt, and never permitted while fsync is "
        "on, nor by a process crash.",
        "runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT",
    ),
    _loss(
        "PROTECTED-ASYNC",
        FORBIDDEN_LOSS,
        "an asynchronous commit is missing that was already durable",
        "The commit was asynchronous, but a flush that was acknowledged later, or a WAL position seen later, proves "
        "that its record had left the window before the crash. Every flush flushes all log before it.",
        WAL_ASYNC,
    ),
    _loss(
        "PREPARED",
        FORBIDDEN_LOSS,
        "a prepared transaction is missing",
        "PREPARE TRANSACTION was acknowledged, which always flushes, and no decision was acknowledged. Yet the "
        "transaction is neither prepared nor committed.",
        "sql-prepare-transaction.html",
    ),
    _loss(
        "ASYNC-WINDOW",
        PERMITTED_LOSS,
        "the newest asynchronous commits are missing, as documented",
        "With synchronous_commit off the client is told before the log is flushed. A crash may lose the newest of "
        "these commits, in commit order and without corruption. How old they may be is bounded by wal_writer_delay "
        "only where walwriter could do its work until the crash.",
        WAL_ASYNC,
    ),
    _loss(
        "ASYNC-WINDOW-EXCEEDED",
        PERMITTED_LOSS,
        "lost asynchronous commits are older than the documented window",
        "The commits were asynchronous and nothing proves that they had been flushed, but they are older than three "
        "times wal_writer_delay. The bound is soft: flush time and scheduling come on top of it. Repeated over many "
        "trials it deserves a look at the disk or the load.",
        WAL_ASYNC,
    ),
    _loss(
        "NOTHING-PROMISED",
        PERMITTED_LOSS,
        "acknowledged commits are missing, and nothing was promised",
        "With these settings and this crash PostgreSQL promises nothing, even for synchronous commits. The loss is "
        "real all the same.",
        "runtime-config-wal.html#GUC-FSYNC",
    ),
    _inconclusive("NO-INJECTION", "no fault was injected", "There is no receipt of a fault, so nothing was tested."),
    _inconclusive(
        "INJECTION-UNCONFIRMED",
        "nothing proves that the fault happened",
        "A fault was sent, but its receipt holds no proof. Sent is not happened.",
    ),
    _inconclusive(
        "NO-CRASH",
        "the server did not crash",
        "The fault should have made the server recover, but its log shows no recovery: nothing was tested.",
    ),
    _inconclusive(
        "TOO-FEW-ACKS",
        "too few transactions were acknowledged before the fault",
        "With next to nothing acknowledged there is next to nothing to lose. Let the workload run longer, or lower "
        "the profile's minimum.",
    ),
    _inconclusive(
        "CHECK-NOT-RUN",
        "a check did not look",
        "A required check was skipped, failed for a reason outside the data, or looked at nothing. Not run is not "
        "passed.",
    ),
    _inconclusive(
        "TOOL-FAULT",
        "the server could not be started for a reason outside the data",
        "A port, a permission, a lock file or a limit kept the server from starting. That says nothing about the data.",
    ),
    _inconclusive(
        "WORKLOAD-ERROR",
        "the workload failed before the fault",
        "A client met an error that the fault does not explain, so the ledger may not mean what it says.",
    ),
    Code(
        "NOTE-LEDGER-TRUNCATED",
        Family.NOTE,
        NOTED,
        "the ledger's last line is cut short",
        "The writer of the ledger was stopped in the middle of a line. The rest is judged; the event of that line "
        "counts as never written down.",
        RELIABILITY,
    ),
    Code(
        "NOTE-STATISTICS-LOST",
        Family.NOTE,
        NOTED,
        "the statistics are gone although the server had been stopped cleanly",
        "A clean stop writes the cumulative statistics to a file, and the next start reads them back. Up to 17 that "
        "file is renamed into place without being flushed, so a power cut soon after the stop may leave it empty or "
        "not there; the server then begins to count anew. No data is concerned, only what autovacuum and the "
        "pg_stat views know.",
        "monitoring-stats.html",
    ),
    Code(
        "NOTE-UNEXPECTED-RECOVERY",
        Family.NOTE,
        NOTED,
        "the server recovered although the fault should not crash it",
        "The process that was killed is restarted alone as a rule, yet the log shows a crash recovery.",
        RELIABILITY,
    ),
)

CODES = {entry.code: entry for entry in _TABLE}
"""Every code that a verdict may hold, worst rank first within the table's order."""
