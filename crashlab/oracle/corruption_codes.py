"""Which kinds of corruption are there, worst first?

Sources: postgres-contract.md 7.4 (verdicts), 4, 6 (what checksums and amcheck do not see).
"""

from crashlab.contract import Ground
from crashlab.model import Family
from crashlab.oracle.code import EXCLUDED_BY, LOUD, SILENT, Code

WAL_INTRO = "wal-intro.html"
ISOLATION = "transaction-iso.html"

_WHOLE_PAGES = "Checksums see a page that is torn or rotten, not one that is whole and old, empty or gone."
_BY_COMPARISON = "Neither checksums nor amcheck see it; only a comparison with what the clients were told does."


def _corruption(
    code: str,
    title: str,
    explanation: str,
    manual: str,
    *,
    detection: str,
    like: str = "",
    rank: int = SILENT,
    ground: Ground = "redo",
) -> Code:
    return Code(
        code=code,
        family=Family.CORRUPTION,
        rank=rank,
        title=title,
        explanation=explanation,
        manual=manual,
        remedy=f"{EXCLUDED_BY} {detection}",
        like=like,
        detection=detection,
        ground=ground,
    )


SILENT_CORRUPTION = (
    _corruption(
        "CORRUPT-WRONG-VALUE",
        "a row holds what no transaction wrote",
        "The row's key, version and writer point to a surviving transaction, but the row's content is not what that "
        "transaction wrote. No error was raised: a reader would believe the value.",
        WAL_INTRO,
        like="That is what a page torn between two versions looks like, or bytes that changed on the disk.",
        detection="Checksums refuse a page that is torn, or whose bytes changed on the disk; an old one they accept.",
        ground="pages",
    ),
    _corruption(
        "CORRUPT-PARTIAL-TRANSACTION",
        "a transaction is there in part",
        "Some effects of one transaction survived and others did not, and no later survivor explains the difference. "
        "Each transaction inserts one marker row in the same commit as its data, so marker and data must agree. "
        "Atomicity is broken; no setting for asynchronous commit permits that.",
        WAL_INTRO,
        like="That is what a page looks like that was not written, or was replaced by an older copy of itself.",
        detection=_WHOLE_PAGES,
        ground="order",
    ),
    _corruption(
        "CORRUPT-HOLE",
        "a transaction is missing although a later one is there",
        "The missing transaction's commit record certainly precedes that of a surviving one: it was acknowledged "
        "before the survivor sent COMMIT, or the survivor built on its row version. Recovery replays the log in "
        "order, so survivors must be a prefix. A hole is corruption, not loss, whatever synchronous_commit says.",
        "wal-async-commit.html",
        like="That is what lost pages look like: its rows on old pages, or its commit bits in pg_xact.",
        detection=_WHOLE_PAGES,
        ground="order",
    ),
    _corruption(
        "CORRUPT-PHANTOM",
        "something is there that nobody committed",
        "A row or a marker comes from a transaction that rolled back, failed, never sent COMMIT, or that the ledger "
        "does not know. Such a transaction must leave no trace.",
        ISOLATION,
        like="That is what commit bits in pg_xact, or hint bits on the page, look like that say committed wrongly.",
        detection=_BY_COMPARISON,
        ground="isolation",
    ),
    _corruption(
        "CORRUPT-DISCARDED-ROW",
        "a row is there that ROLLBACK TO SAVEPOINT undid",
        "The transaction committed, but this row was written inside a savepoint that it rolled back. The rolled-back "
        "subtransaction must leave no trace.",
        "sql-rollback-to.html",
        like="That is what a subtransaction's commit bits, or hint bits on the page, look like that are wrong.",
        detection=_BY_COMPARISON,
        ground="isolation",
    ),
    _corruption(
        "CORRUPT-RESURRECTED",
        "a deleted row is back",
        "A surviving transaction deleted the row, yet an earlier version of it is visible again.",
        WAL_INTRO,
        like="That is what a page looks like that was not written, or was replaced by an older copy of itself.",
        detection=_WHOLE_PAGES,
    ),
    _corruption(
        "CORRUPT-STALE-VERSION",
        "a row is older than its last surviving writer",
        "A surviving transaction overwrote the row, yet the version from before is visible: as if the page had not "
        "been written, or had been replaced by an old copy.",
        WAL_INTRO,
        like="That is what a page looks like that was not written, or was replaced by an older copy of itself.",
        detection=_WHOLE_PAGES,
    ),
    _corruption(
        "CORRUPT-MISSING-ROW",
        "a row of a surviving transaction is gone",
        "A surviving transaction wrote the row and no survivor deleted it, yet a sequential scan does not return it. "
        "A truncated or replaced file passes checksums and amcheck, so only the ledger sees this.",
        WAL_INTRO,
        like="That is what a page looks like that was not written or is empty, or a file that was cut.",
        detection=_WHOLE_PAGES,
    ),
    _corruption(
        "CORRUPT-DUPLICATE-KEY",
        "a unique key is there twice",
        "A sequential scan returned more than one visible row for a key that the table declares unique.",
        "indexes-unique.html",
        like="That is what it looks like when one of two pages, or an index page, is older than the other.",
        detection="amcheck's bt_index_check with checkunique (from 17) sees it if the index has both rows.",
    ),
    _corruption(
        "CORRUPT-VERSION-FORK",
        "two surviving transactions made the same version of a row",
        "Each writer counts the row's version up by one under a row lock, so two surviving writers cannot have made "
        "the same version: one of them did not see the other.",
        ISOLATION,
        like="That is what a lost row lock, or a page that went back in time while the server ran, looks like.",
        detection=_BY_COMPARISON,
        ground="isolation",
    ),
    _corruption(
        "CORRUPT-INDEX-MISMATCH",
        "an index and its table disagree",
        "A forced index scan and a forced sequential scan of the same table returned different rows. Queries give "
        "different answers depending on the plan.",
        "routine-reindex.html",
        like="That is what it looks like when a page of either is older than the pages of the other.",
        detection="amcheck sees most of these in a btree with heapallindexed; REINDEX repairs the index, not the "
        "table.",
        ground="indexes",
    ),
    _corruption(
        "CORRUPT-VISIBILITY-MAP",
        "the visibility map calls rows visible or frozen that are not",
        "A page is marked all-visible or all-frozen although a row on it is not. An index-only scan believes the mark "
        "and returns rows that a sequential scan does not; vacuum passes over the page.",
        "pgvisibility.html",
        like="That is what it looks like when the map's page is newer than the table's, or was torn.",
        detection="pg_check_visible and pg_check_frozen see it; pg_truncate_visibility_map and VACUUM repair it.",
    ),
    _corruption(
        "CORRUPT-FUTURE-LSN",
        "a page is newer than the log",
        "The page's LSN lies behind the end of the log that recovery found, so it was changed by a record that is not "
        "there. Log must be on disk before any page that it changed.",
        WAL_INTRO,
        like="That is what it looks like when a page was written before the log of its change, or that log is gone.",
        detection="Checksums do not see it; the server does once it flushes the page (xlog flush request is not "
        "satisfied).",
    ),
    _corruption(
        "CORRUPT-COMMIT-STATUS",
        "the commit log contradicts the data",
        "pg_xact_status and the table contents disagree about a transaction, or its status cannot be read. The commit "
        "bits are in pg_xact, two bits a transaction, without checksums.",
        "storage-file-layout.html",
        like="That is what a page of pg_xact looks like that was not written, or a flipped bit in it.",
        detection="pg_xact has no checksums, and amcheck does not read it.",
        ground="status",
    ),
    _corruption(
        "CORRUPT-WAL-STATE-MISMATCH",
        "the log and the data disagree about a commit",
        "A transaction survives exactly when its commit record ends at or before the end of the valid log. Before "
        "recovery the log held the record and the transaction is missing, or the record was not there and the "
        "transaction is.",
        WAL_INTRO,
        like="That is what it looks like when recovery did not replay what it found, or pages changed without log.",
        detection="pg_waldump on a copy from before the recovery shows the record; no check of the server sees it.",
    ),
    _corruption(
        "CORRUPT-REDO-END",
        "recovery did not end where the valid log ends",
        "The log was read before the recovery, with the tests that PostgreSQL itself makes of each page and record: "
        "address, length, link to the record before, checksum. Redo must replay all records up to the first one that "
        "fails them, and none behind it. It went past that end, and replayed what is no valid log, or stopped before.",
        WAL_INTRO,
        like="That is what it looks like when the server's reading of its log is wrong, or the disk gives other bytes "
        "the second time.",
        detection="pg_waldump on a copy from before the recovery shows where the log ends; no check of the server "
        "sees it.",
        ground="order",
    ),
    _corruption(
        "CORRUPT-SURVIVORS-CHANGED",
        "a second crash during the recovery changed who survived",
        "The same crash state was recovered twice: once without a hitch, once cut off in the middle and recovered "
        "again. Both times the same log was there to be replayed, so the same transactions must be there.",
        WAL_INTRO,
        like="That is what it looks like when a recovery that was cut off had changed or removed log.",
        detection=_BY_COMPARISON,
    ),
    _corruption(
        "CORRUPT-AFTERLIFE-CHANGED",
        "what had survived is other after use, a restart or another crash",
        "The recovered server was read, used, restarted and crashed again. The use writes each row as it was, so every "
        "table holds what it held; a decided prepared transaction stays decided, and a sequence goes on.",
        WAL_INTRO,
        like="That is what it looks like when the state that recovery left was right in memory, and not in the files "
        "or in the log that a later start reads.",
        detection="No look at the recovered server shows it: it has to be used and started again.",
        ground="redo",
    ),
    _corruption(
        "CORRUPT-PREPARED-UNLOCKED",
        "a recovered prepared transaction does not hold its locks",
        "A transaction that is prepared keeps its locks until it is decided, also over a restart. Another session got "
        "one of them, so two transactions can write the same row, each without the other.",
        "sql-prepare-transaction.html",
        like="That is what it looks like when recovery did not take the locks of the transaction's file.",
        detection="pg_locks shows no row for the transaction.",
        ground="prepared",
    ),
    _corruption(
        "CORRUPT-SEQUENCE-REGRESS",
        "a sequence hands out a value again",
        "The sequence's next value is not above a value that a surviving transaction already received. Gaps of up to "
        "32 values after a crash are normal; going backwards is not.",
        "functions-sequence.html",
        like="That is what it looks like when the sequence's page is older than the rows that used its values.",
        detection="A unique key on the column turns it into an error; nothing else sees it.",
    ),
    _corruption(
        "CORRUPT-INVARIANT",
        "a statement that always holds does not hold",
        "The statement holds after every transaction, so it must hold after any prefix of them, whatever was lost.",
        ISOLATION,
        like="That is what it looks like when a transaction is there in part.",
        detection="Only the statement itself sees it; neither checksums nor amcheck know of it.",
        ground="order",
    ),
    _corruption(
        "CORRUPT-PREPARED-VISIBLE",
        "data of an undecided prepared transaction is visible",
        "The transaction was prepared, or PREPARE was sent, but COMMIT PREPARED was never sent. Its rows must not be "
        "visible to anybody.",
        "sql-prepare-transaction.html",
        like="That is what commit bits in pg_xact, or hint bits on the page, look like that say committed wrongly.",
        detection=_BY_COMPARISON,
        ground="prepared",
    ),
    _corruption(
        "CORRUPT-PREPARED-RESURRECTED",
        "a decided prepared transaction is prepared again",
        "COMMIT PREPARED or ROLLBACK PREPARED was acknowledged, or its commit is visible, yet pg_prepared_xacts lists "
        "the transaction. It holds its locks again, and can be decided a second time the other way.",
        "two-phase.html",
        like="That is what it looks like when its file in pg_twophase came back, or the record of the decision went.",
        detection="A look at pg_prepared_xacts after each crash shows it.",
        ground="prepared",
    ),
    _corruption(
        "CORRUPT-PREPARED-UNKNOWN",
        "a prepared transaction exists that nobody prepared",
        "pg_prepared_xacts lists a transaction that the ledger does not know.",
        "two-phase.html",
        like="That is what a file in pg_twophase looks like that belongs elsewhere.",
        detection="A look at pg_prepared_xacts after each crash shows it.",
        ground="prepared",
    ),
    _corruption(
        "CORRUPT-TWO-PHASE-FILE",
        "a prepared transaction's file is there, and the server does not know the transaction",
        "A file in pg_twophase belongs to a transaction that is neither decided nor in pg_prepared_xacts. So its locks "
        "are not held, and its rows are taken for those of a transaction that failed; at the next start it is prepared "
        "again.",
        "two-phase.html",
        like="That is what it looks like when a start passes over the file, or fails to remove it (PostgreSQL 17 and "
        "18, up to 18.6 at least, for a transaction that is newer than the last checkpoint).",
        detection="A look into pg_twophase beside pg_prepared_xacts shows it.",
        ground="prepared",
    ),
    _corruption(
        "CORRUPT-UNLOGGED",
        "an unlogged table, or an index of one, is not as recovery must leave it",
        "Unlogged tables are not in the log, so after a crash any part of them may be there. So recovery empties "
        "them, and makes their indexes anew of the init forks. A table that still has rows may have wrong ones, and an "
        "index that is not equal to its init fork fails, or leads elsewhere.",
        "sql-createtable.html#SQL-CREATETABLE-UNLOGGED",
        like="That is what it looks like when an init fork is not there, or was not flushed.",
        detection="count(*) after a crash shows the rows; no check of the server looks at the indexes. TRUNCATE makes "
        "both anew.",
        ground="unlogged",
    ),
)

LOUD_CORRUPTION = (
    _corruption(
        "CORRUPT-INDEX-AMCHECK",
        "amcheck rejects an index",
        "amcheck found an index that breaks its own rules, or a table row that has no index entry.",
        "amcheck.html",
        like="That is what it looks like when a page of the index is older than its neighbours, or was torn.",
        detection="REINDEX repairs the index once its table has been found to be sound.",
        rank=LOUD,
        ground="indexes",
    ),
    _corruption(
        "CORRUPT-HEAP-AMCHECK",
        "amcheck rejects a table",
        "amcheck found a tuple, a line pointer or a transaction id that cannot be.",
        "amcheck.html",
        like="That is what a torn page looks like, or one that is newer or older than pg_xact.",
        detection="Checksums refuse a page that is torn; one that is whole and old they accept.",
        rank=LOUD,
        ground="pages",
    ),
    _corruption(
        "CORRUPT-UNREADABLE",
        "stored data cannot be read",
        "The server raised an error for damaged storage while it read the object: an invalid page, a short or missing "
        "file, a missing TOAST chunk, a value that cannot be decoded.",
        "checksums.html",
        detection="Checksums detect and do not repair: a page that fails can come back from a backup only.",
        rank=LOUD,
        ground="pages",
    ),
    _corruption(
        "CORRUPT-MULTIXACT",
        "it cannot be read who locked or changed a row together with others",
        "A row that several transactions have locked or changed names a multixact, whose members are in "
        "pg_multixact/offsets and pg_multixact/members. The server cannot find this one's, so it cannot tell whether "
        "the row is there.",
        "routine-vacuuming.html#VACUUM-FOR-MULTIXACT-WRAPAROUND",
        like="That is what a page or a file of pg_multixact looks like that was not written, or is gone.",
        detection="pg_multixact has no checksums, and amcheck reads only its bounds.",
        rank=LOUD,
        ground="status",
    ),
    _corruption(
        "CORRUPT-MISSING-RELATION",
        "a table is gone from the catalog",
        "A table that a committed transaction created is not known to the recovered server.",
        "catalogs.html",
        like="That is what it looks like when a page of the catalogs is older than the log that was replayed.",
        detection=_WHOLE_PAGES,
        rank=LOUD,
    ),
    _corruption(
        "CORRUPT-AFTERLIFE-ERROR",
        "the recovered server can be read, and not used",
        "Everything could be read, and nothing was wrong with it; then a statement that writes, vacuums or checkpoints "
        "failed in a way in which it does not fail on a database without damage, or the server died of it.",
        WAL_INTRO,
        like="That is what a page looks like that only an insertion or a vacuum visits, or a file that only a write "
        "needs.",
        detection="No look at the recovered server shows it: it has to be used.",
        rank=LOUD,
        ground="pages",
    ),
    _corruption(
        "CORRUPT-DIED-ON-READ",
        "the recovered server died while it was read",
        "Recovery ended and connections were accepted, but reading the data made the server go away.",
        "wal-reliability.html",
        like="That is what it looks like when the server trusts a damaged page; its log has the last words.",
        detection="Checksums refuse a page that is torn; one that is whole and old they accept.",
        rank=LOUD,
        ground="pages",
    ),
)
