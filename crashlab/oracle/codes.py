"""What can a verdict say? The one table of finding codes.

A code is stable: reports, profiles and users' scripts name it. Its rank orders findings, worst first, as design.md
does: a server that does not start, silent corruption, loud corruption, forbidden loss, not looked, permitted loss.

Sources: postgres-contract.md 7.4 (verdicts), 2, 4; design.md "Severity".
"""

from crashlab.contract import Ground
from crashlab.model import Family
from crashlab.oracle.code import (
    EXCLUDED_BY,
    FORBIDDEN_LOSS,
    NO_START_RANK,
    NOT_LOOKED,
    NOTED,
    PERMITTED_LOSS,
    SEVERITIES,
    Code,
)
from crashlab.oracle.corruption_codes import LOUD_CORRUPTION, SILENT_CORRUPTION

__all__ = ["CODES", "SEVERITIES", "Code"]

WAL_ASYNC = "wal-async-commit.html"
RELIABILITY = "wal-reliability.html"
REMOVE_THE_REASON = "Remove the reason that is named, then run the trial again."

_NOT_THE_SETTINGS = (
    "No setting does more for it: after a process crash look for a fault of PostgreSQL, after a power loss also for a "
    "flush that did not reach the disk."
)


def _loss(
    code: str, rank: int, title: str, explanation: str, manual: str, remedy: str, *, ground: Ground = "order"
) -> Code:
    return Code(
        code=code,
        family=Family.LOSS,
        rank=rank,
        title=title,
        explanation=explanation,
        manual=manual,
        remedy=remedy,
        ground=ground,
    )


def _told(
    code: str, title: str, explanation: str, remedy: str, *, manual: str = RELIABILITY, application: bool = True
) -> Code:
    return Code(
        code=code,
        family=Family.LOSS,
        rank=PERMITTED_LOSS,
        title=title,
        explanation=explanation,
        manual=manual,
        remedy=remedy,
        ground="order",
        application=application,
    )


def _inconclusive(code: str, title: str, explanation: str, remedy: str) -> Code:
    return Code(
        code=code,
        family=Family.INCONCLUSIVE,
        rank=NOT_LOOKED,
        title=title,
        explanation=explanation,
        manual=RELIABILITY,
        remedy=remedy,
    )


def _note(code: str, title: str, explanation: str, manual: str, remedy: str) -> Code:
    return Code(
        code=code,
        family=Family.NOTE,
        rank=NOTED,
        title=title,
        explanation=explanation,
        manual=manual,
        remedy=remedy,
    )


_TABLE = (
    Code(
        code="NO-START",
        family=Family.NO_START,
        rank=NO_START_RANK,
        title="the server does not start after the crash",
        explanation="Crash recovery did not end in a server that accepts connections, and the reason lies in the data "
        "directory. The server's FATAL or PANIC lines are in the evidence, with the files they name.",
        manual=RELIABILITY,
        remedy=f"{EXCLUDED_BY} Keep a copy of the data directory before you try anything: pg_resetwal destroys "
        "evidence.",
        like="That is what it looks like when log, control file or a page of the catalogs is torn, old or gone.",
        detection="Keep a copy of the data directory before you try anything: pg_resetwal destroys evidence.",
        ground="redo",
    ),
    Code(
        code="NO-START-AGAIN",
        family=Family.NO_START,
        rank=NO_START_RANK,
        title="the recovered server does not start once more",
        explanation="Recovery ended and connections were accepted; after a stop, or after another crash, the "
        "server does not start any more. The FATAL or PANIC lines of that start are in the evidence.",
        manual=RELIABILITY,
        remedy=f"{EXCLUDED_BY} Keep a copy of the data directory before you try anything: pg_resetwal destroys "
        "evidence.",
        like="That is what it looks like when a start needs what recovery did not write, or removed.",
        detection="Only a restart shows it.",
        ground="redo",
    ),
    Code(
        code="INIT-NO-START",
        family=Family.NO_START,
        rank=NO_START_RANK,
        title="no server can be had of what a killed first start left",
        explanation="The container was killed while its entry point initialised the data directory, and on the same "
        "volume it does not start again, or starts and lets nobody in. initdb removes what it made when it fails, and "
        "cannot when it is killed; PostgreSQL promises nothing about what is left then. No client had been told "
        "anything.",
        manual="app-initdb.html",
        remedy="Nothing was in it yet: remove the volume, and let the container begin anew.",
        application=True,
        blamed="that of whoever killed initdb; it promises nothing then",
    ),
    *SILENT_CORRUPTION,
    *LOUD_CORRUPTION,
    _loss(
        "LOSS-SYNC-COMMIT",
        FORBIDDEN_LOSS,
        "an acknowledged synchronous commit is missing",
        "The client received COMMIT with synchronous_commit not off (or for a command that is always flushed), and the "
        "transaction is gone. The rest is an unbroken prefix: lost, not corrupt, and never permitted while fsync is "
        "on, nor by a process crash. DROP, TRUNCATE, two-phase commit, CREATE DATABASE and their like are always "
        "flushed, whatever synchronous_commit says.",
        "runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT",
        _NOT_THE_SETTINGS,
    ),
    _loss(
        "LOSS-PROTECTED-ASYNC",
        FORBIDDEN_LOSS,
        "an asynchronous commit is missing that was already durable",
        "The commit was asynchronous, but a flush that was acknowledged later, or a WAL position seen later, proves "
        "that its record had left the window before the crash. Every flush flushes all log before it.",
        WAL_ASYNC,
        _NOT_THE_SETTINGS,
    ),
    _loss(
        "LOSS-PREPARED",
        FORBIDDEN_LOSS,
        "a prepared transaction is missing",
        "PREPARE TRANSACTION was acknowledged, which always flushes, and no decision was acknowledged. Yet the "
        "transaction is neither prepared nor committed.",
        "sql-prepare-transaction.html",
        _NOT_THE_SETTINGS,
        ground="prepared",
    ),
    _loss(
        "LOSS-ASYNC-WINDOW",
        PERMITTED_LOSS,
        "the newest asynchronous commits are missing, as documented",
        "With synchronous_commit off the client is told before the log is flushed. A crash may lose the newest of "
        "these commits, in commit order and without corruption. How old they may be is bounded by wal_writer_delay "
        "only where walwriter could do its work until the crash.",
        WAL_ASYNC,
        "synchronous_commit = on for this transaction would have saved it, and so would a later synchronous commit "
        "that was acknowledged in time: it flushes all log before its own.",
    ),
    _loss(
        "LOSS-ASYNC-WINDOW-EXCEEDED",
        PERMITTED_LOSS,
        "lost asynchronous commits are older than the documented window",
        "The commits were asynchronous and nothing proves that they had been flushed, but they are older than three "
        "times wal_writer_delay. The bound is soft: flush time and scheduling come on top of it. Repeated over many "
        "trials it deserves a look at the disk or the load.",
        WAL_ASYNC,
        "synchronous_commit = on for this transaction would have saved it, and so would a later synchronous commit "
        "that was acknowledged in time. A shorter wal_writer_delay helps only if the disk keeps up.",
    ),
    _loss(
        "LOSS-NOTHING-PROMISED",
        PERMITTED_LOSS,
        "acknowledged commits are missing, and nothing was promised",
        "With these settings and this crash PostgreSQL promises nothing, even for synchronous commits. The loss is "
        "real all the same.",
        "runtime-config-wal.html#GUC-FSYNC",
        "fsync = on and synchronous_commit = on would have saved it, on a disk that has flushed what it says it has.",
    ),
    _told(
        "TOLD-BEFORE-COMMIT",
        "the user was told before COMMIT was answered",
        "The application told its user before or while the transaction was open, or while its COMMIT had no answer. "
        "The server had promised nothing then, and the transaction is gone: with the crash, or rolled back.",
        "Tell the user after COMMIT has returned, and after nothing else.",
        manual="tutorial-transactions.html",
    ),
    _told(
        "TOLD-AFTER-FAILURE",
        "the user was told although the transaction was not committed",
        "COMMIT failed, or was answered ROLLBACK (which no driver calls an error: the transaction had failed before), "
        "or the application rolled back; and the user was told all the same.",
        "Let the error of COMMIT leave the function, and look at the command tag: a COMMIT that is answered ROLLBACK "
        "has committed nothing.",
        manual="sql-commit.html",
    ),
    _told(
        "TOLD-ASYNC-COMMIT",
        "the user was told of an asynchronous commit that is gone",
        "COMMIT was answered before its record was flushed, because synchronous_commit was off for this transaction. "
        "The manual permits that the newest such commits are lost in a crash; the user was told of this one.",
        "Commit what users are told of with synchronous_commit = on; SET LOCAL confines off to what may be lost.",
        manual=WAL_ASYNC,
        application=False,
    ),
    _told(
        "TOLD-NOTHING-PROMISED",
        "the user was told of a commit for which nothing was promised",
        "COMMIT was answered, and the user told, under a setting or on a disk with which PostgreSQL promises nothing "
        "once the power fails, even for synchronous commits.",
        "fsync = on, on a disk that has flushed what it says it has.",
        manual="runtime-config-wal.html#GUC-FSYNC",
        application=False,
    ),
    _told(
        "APPLICATION-INVARIANT",
        "the crash came between two transactions that the invariant needs as one",
        "After the recovery the test's invariant does not hold, although nothing is damaged and every commit that was "
        "answered is there. So the application leaves such a state behind between two of its transactions.",
        "Do both changes in one transaction; or have the application repair at its start what a crash left half done.",
        manual="tutorial-transactions.html",
    ),
    _told(
        "APPLICATION-DONE-TWICE",
        "something was done twice because its answer was lost",
        "The server did what a COMMIT asked for, and the crash took the answer. The application did the same once "
        "more, and now the test's invariant does not hold; right after the recovery it did. What is not answered may "
        "be there or not, and only the application can find out which.",
        "Make the repetition harmless: give the work a key of its own before it begins, and let a unique constraint "
        "refuse the second (INSERT ... ON CONFLICT DO NOTHING); or look first whether it is there.",
        manual="sql-insert.html#SQL-ON-CONFLICT",
    ),
    _told(
        "APPLICATION-AFTERWARDS",
        "the application broke an invariant after the recovery",
        "Right after the recovery the test's invariant held, and since then no server has crashed. No transaction "
        "whose answer was lost was seen to be asked again. So the application broke it in going on, from what it had "
        "in memory or in what it does as it starts.",
        "Look at what it does after it has lost its connection: what it keeps in memory may be older or newer than "
        "what is in the database.",
        manual="tutorial-transactions.html",
    ),
    Code(
        code="INIT-SCRIPTS-SKIPPED",
        family=Family.LOSS,
        rank=PERMITTED_LOSS,
        title="the server runs without what the image's init scripts were to make",
        explanation="The container was killed while its entry point initialised the data directory. On the next start "
        "that takes a data directory with a PG_VERSION for an initialised one, runs no script any more, and starts the "
        "server: it accepts connections, and what the scripts were to make is missing for good.",
        manual="app-initdb.html",
        remedy="Remove the volume, and let the container begin anew; nothing but the scripts has written to it. Let a "
        "readiness check ask for what the last script makes, or make it with migrations that may run again.",
        application=True,
        blamed="the image's entry point's",
    ),
    _told(
        "TOLD-LOST",
        "what the user was told is not there",
        "The test's query does not return a key that the application told its user. If a commit that was answered is "
        "gone, another finding says so; if none is, it was never written, or was removed, or the query leaves it out.",
        "Look at what the application did with this key, and at the query.",
    ),
    _inconclusive(
        "INCONCLUSIVE-NO-INJECTION",
        "no fault was injected",
        "There is no receipt of a fault, so nothing was tested.",
        "Give the profile a fault, in a table [[faults]].",
    ),
    _inconclusive(
        "INCONCLUSIVE-INJECTION-UNCONFIRMED",
        "nothing proves that the fault happened",
        "A fault was sent, but its receipt holds no proof. Sent is not happened.",
        "Run it again; if it stays so, look at the receipt in trial.json and at the server's log.",
    ),
    _inconclusive(
        "INCONCLUSIVE-NO-CRASH",
        "the server did not crash",
        "The fault should have made the server recover, but its log shows no recovery: nothing was tested.",
        "Aim at a process whose death makes the server recover (target in [[faults]]), or look at server.log for a "
        "stop in time.",
    ),
    _inconclusive(
        "INCONCLUSIVE-TOO-FEW-ACKS",
        "too few transactions were acknowledged before the fault",
        "With next to nothing acknowledged there is next to nothing to lose.",
        "Have more transactions acknowledged before the fault (acks, in its when); how many are enough, a profile says "
        "in workload.acked_min.",
    ),
    _inconclusive(
        "INCONCLUSIVE-CHECK-NOT-RUN",
        "a check did not look",
        "A required check was skipped, failed for a reason outside the data, or looked at nothing. Not run is not "
        "passed.",
        REMOVE_THE_REASON,
    ),
    _inconclusive(
        "INCONCLUSIVE-TOOL-FAULT",
        "the server could not be started for a reason outside the data",
        "A port, a permission, a lock file or a limit kept the server from starting. That says nothing about the data.",
        "Find the cause in server.log and remove it, then run the trial again.",
    ),
    _inconclusive(
        "INCONCLUSIVE-BROKEN-BEFORE",
        "something was broken before the fault",
        "The same check had found it on the running server, so it is no crash's doing, and what is wrong with the same "
        "table or index after the crash accuses nobody. Everything else is judged.",
        "Look for what breaks it without a crash, such as a function in an index that is called immutable and is not; "
        "or for damage that was there before.",
    ),
    _inconclusive(
        "INCONCLUSIVE-OWN-FUNCTION",
        "an index that computes with a function of your own differs from its table",
        "PostgreSQL takes your word that a function in an index is IMMUTABLE. If it reads a table, or depends on a "
        "setting such as TimeZone, DateStyle or search_path, then entries that one session made are not found by "
        "another, crashlab's among them, and no crash is needed. Or the index has lost entries: what differs does not "
        "tell which. The order in its pages is judged too, unless its operator class is your own, and so is all else.",
        "Write such a function so that it depends on its arguments alone (say AT TIME ZONE 'UTC'), or fix what it "
        "depends on (SET in CREATE FUNCTION), then REINDEX. If it is so already, look at the index as damaged.",
    ),
    _inconclusive(
        "INCONCLUSIVE-INVARIANT-BEFORE",
        "an invariant did not hold before the crash",
        "The query returned rows while the server had not crashed yet. So it is no invariant of this workload, or the "
        "workload itself breaks it, and nothing follows from what it returns after the crash.",
        "Correct the query ([[invariants]]), or the workload, until it holds at every moment without a crash.",
    ),
    _inconclusive(
        "INCONCLUSIVE-INVARIANT-EMPTIED",
        "an invariant reads what a crash empties",
        "The query reads an unlogged or temporary table, or what the server counts. A crash empties these, as "
        "documented, so nothing follows from what the query returns afterwards.",
        "Write the invariant over logged tables alone.",
    ),
    _inconclusive(
        "INCONCLUSIVE-INVARIANT-PREFIX",
        "an invariant does not hold for what a loss has left",
        "The query held before the crash. Since then transactions were lost, and no other damage was seen: what is "
        "left is a prefix of them, for which nobody had looked at it. An invariant must hold after every single "
        "transaction, whatever follows, and one that asks for a least number of rows, say, does not.",
        "Write the query so that it holds for every prefix of the transactions, or have them commit synchronously: "
        "where nothing is lost, it is judged.",
    ),
    _inconclusive(
        "INCONCLUSIVE-WORKLOAD-ERROR",
        "the workload failed before the fault",
        "A client met an error that the fault does not explain, so the ledger may not mean what it says.",
        "Remove the cause of the error, then run the trial again.",
    ),
    _inconclusive(
        "INCONCLUSIVE-DISK-FULL",
        "there was no room left on the server's disk",
        "The disk under the server, or under its recorder, was full: No space left on device. A server may refuse, "
        "panic or leave its own log and statistics unwritten then, so nothing is said about what came back.",
        "Make room there, or have the servers somewhere else (TMPDIR), then run the trial again.",
    ),
    _inconclusive(
        "INCONCLUSIVE-TRIAL-TIMEOUT",
        "the trial took longer than it was given",
        "The time limit of a single trial was reached, so crashlab killed the server, whatever it was doing. Nothing "
        "that is missing afterwards says anything about the database.",
        "Give each trial more time (--trial-timeout), or look at server.log for what held it up: a statement that "
        "sleeps or waits for a lock holds up the end of the workload.",
    ),
    _inconclusive(
        "INCONCLUSIVE-CHANGED-OUTSIDE",
        "a row was changed outside the ledger",
        "A row is not as the ledger has it, and a session that has no ledger changed it or may have: a worker, psql, a "
        "trigger of another service, the test's own statement. What that session was told is unknown, so the row "
        "accuses nobody. All others are judged.",
        "Change the row in a ledgered transaction, name another one, or have the test accept it: "
        'check(allow=["INCONCLUSIVE-CHANGED-OUTSIDE"]).',
    ),
    _note(
        "NOTE-ENDED-INSIDE",
        "a ledgered transaction was committed inside its block",
        "The application sent COMMIT, or COMMIT AND CHAIN, in the middle of a block that crashlab begins and ends. The "
        "ledger has no intent of it and no rows: it may be there or not.",
        "sql-commit.html",
        "Leave BEGIN and COMMIT to the block, and use a block for each transaction.",
    ),
    _note(
        "NOTE-LEDGER-TRUNCATED",
        "the ledger's last line is cut short",
        "The writer of the ledger was stopped in the middle of a line, and the ledger is one of 0.1.0, which had no "
        "end mark. The rest is judged; the event of that line counts as never written down.",
        RELIABILITY,
        "Nothing needs to be done: a client that was killed leaves such a line.",
    ),
    _note(
        "NOTE-STATISTICS-LOST",
        "the statistics are gone although the server had been stopped cleanly",
        "A clean stop writes the cumulative statistics to a file, and the next start reads them back. Up to 17 that "
        "file is renamed into place without being flushed, so a power cut soon after the stop may leave it empty or "
        "not there; the server then begins to count anew. No data is concerned, only what autovacuum and the "
        "pg_stat views know.",
        "monitoring-stats.html",
        "ANALYZE after such a start gives autovacuum its numbers back; 18 flushes the file.",
    ),
    _note(
        "NOTE-INVALID-INDEX",
        "an index is not valid",
        "CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY commit a row of the catalog before the index is built, and "
        "a crash in between leaves it there, marked as not valid. That is legal, and so is anything that stands in its "
        "pages: no query uses it. It was not looked at.",
        "sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY",
        "DROP INDEX, or REINDEX INDEX CONCURRENTLY; until then it may cost each write some time.",
    ),
    _note(
        "NOTE-FILES-LEFT",
        "files are left that no catalog names",
        "A transaction that makes a table, an index or a new copy of one makes its files at once; if a crash ends it, "
        "nothing removes them. The file of a prepared transaction that is decided is removed at the next start. "
        "Neither is damage; the space is lost, and what stands in such files was not judged.",
        "storage-file-layout.html",
        "Nothing needs to be done. Dump and restore gives the space back; never remove such a file while the server "
        "runs.",
    ),
    _note(
        "NOTE-SERVER-WARNING",
        "the server warned of something while it recovered or was read",
        "The server's log has a warning that may bear upon the data. Of itself it is no proof of damage: a two-phase "
        "file that is called stale belongs to a transaction that is decided, one of the future to one whose PREPARE "
        "is in the log and is replayed after that.",
        RELIABILITY,
        "Read the finding beside it, if there is one; the whole log is in the trial's folder.",
    ),
    _note(
        "NOTE-UNEXPECTED-RECOVERY",
        "the server recovered although the fault should not crash it",
        "The process that was killed is restarted alone as a rule, yet the log shows a crash recovery.",
        RELIABILITY,
        "Look at the server's log for what else ended, and how.",
    ),
)

CODES = {entry.code: entry for entry in _TABLE}
"""Every code that a verdict may hold, worst rank first within the table's order."""
