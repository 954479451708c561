"""How does a server die inside a commit, whatever driver sends it?

Commits are made to wait at one of two moments, and the server is killed as soon as one does. It recovers at once, so
that an application that tries again finds it.

    before it is done   a deferred trigger on each table waits for a lock: COMMIT has arrived, and left no record yet
    after it is done    the server waits for a standby that does not exist: it is on disk, and was not answered

Assumes: before, that the transaction changes rows of a plain table, in the database `postgres`, and no other session
    holds locks on it when the trigger is made. After, that the commit waits for standbys: synchronous_commit is on or
    remote_*, max_wal_senders is not 0. A commit that does not wait is answered as always.
Choices: the trigger is made by an asynchronous commit, lest it save what the application had committed like that.

Source: PostgreSQL CommitTransaction (AfterTriggerFireDeferred, then RecordTransactionCommit, SyncRepWaitForLSN).
"""

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from crashlab.errors import ServerTimeout, UsageProblem
from crashlab.strategies.spare import SpareServer

if TYPE_CHECKING:
    import psycopg

AUTO_CONF = "postgresql.auto.conf"
POLL_S = 0.001
HOLD_TIMEOUT_S = 10.0
END_TIMEOUT_S = 60.0
LOCK = (1668244853, 1751346276)  # an advisory lock that no application takes
HOLD_BEFORE = f"""
SELECT pg_advisory_lock{LOCK};
SET synchronous_commit = off;
SET lock_timeout = '5s';
CREATE FUNCTION public.crashlab_hold() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock{LOCK}; RETURN NULL; END $$;
DO $$
DECLARE one regclass;
BEGIN
  FOR one IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relpersistence <> 't'
             AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^(pg_|information_schema$)') LOOP
    EXECUTE format('CREATE CONSTRAINT TRIGGER crashlab_hold AFTER INSERT OR UPDATE OR DELETE ON %s '
                   'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.crashlab_hold()', one);
  END LOOP;
END $$
"""
RELEASE_BEFORE = "SET client_min_messages = warning; DROP FUNCTION IF EXISTS public.crashlab_hold() CASCADE"
HOLD_AFTER = "ALTER SYSTEM SET synchronous_standby_names = 'crashlab_nobody'"
PROBE = b"SELECT pg_logical_emit_message(true, 'crashlab', '')"  # writes WAL, and changes nothing
WAITS_BEFORE = f"SELECT pid FROM pg_locks WHERE (classid, objid) = {LOCK} AND locktype = 'advisory' AND NOT granted"
WAITS_AFTER = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


class MidCommit:
    """Kills a server inside its next commit, from a thread of its own, and has it recover. For one commit."""

    def __init__(self, spare: SpareServer, *, done: bool) -> None:
        """Have commits wait from now on.

        Args:
            done: wait once the commit is on disk; False: before.

        Raises:
            UsageProblem: with the server's settings no commit waits, or a session keeps a table locked.
            ServerTimeout: it did not take up the order.
        """
        self._spare = spare
        assert spare.server.data_directory is not None
        self._conf = spare.server.data_directory / AUTO_CONF
        self._conf_before = self._conf.read_bytes()
        self._waits_sql = WAITS_AFTER if done else WAITS_BEFORE
        self._watcher = spare.connect()
        self._over = threading.Event()
        self.died = False  # inside a commit
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="crashlab: inside a commit", daemon=True)
        try:
            if done:
                self._hold_after()
            else:
                self._hold_before()
        except BaseException:
            self._watcher.close()
            raise
        self._thread.start()

    def _hold_before(self) -> None:
        from psycopg.errors import LockNotAvailable

        try:
            self._watcher.execute(HOLD_BEFORE)
        except LockNotAvailable as error:
            raise UsageProblem(
                "cannot crash inside a commit: a table is locked by a transaction that began before", detail=str(error)
            ) from error

    def _hold_after(self) -> None:
        (senders,) = self._watcher.execute("SHOW max_wal_senders").fetchone() or ("",)
        if senders == "0":
            raise UsageProblem("cannot crash after a commit is done: max_wal_senders is 0, so no commit waits")
        self._watcher.execute(HOLD_AFTER)
        self._watcher.execute("SELECT pg_reload_conf()")
        # The checkpointer takes it up, for all sessions at once; only a commit shows that it has
        deadline = time.monotonic() + HOLD_TIMEOUT_S
        with contextlib.closing(self._spare.connect()) as probe:
            probe.execute("SET synchronous_commit = on")
            while time.monotonic() < deadline:
                if self._waits(probe):
                    return
        raise ServerTimeout(f"could not make commits wait within {HOLD_TIMEOUT_S:g} s")

    def _waits(self, probe: "psycopg.Connection[Any]") -> bool:
        """Commit something and say whether the commit had to wait; it does no longer."""
        waited = False
        probe.pgconn.send_query(PROBE)
        while True:
            probe.pgconn.consume_input()
            if not probe.pgconn.is_busy():
                break
            if not waited and self._someone_waits():
                self._watcher.execute("SELECT pg_cancel_backend(%s)", [probe.info.backend_pid])
                waited = True
            time.sleep(POLL_S)
        while probe.pgconn.get_result() is not None:
            pass
        return waited

    def _someone_waits(self) -> bool:
        return self._watcher.execute(self._waits_sql.encode()).fetchone() is not None

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                if self._someone_waits():
                    self.died = True
                    self._crash()
                    return
                time.sleep(POLL_S)
        except BaseException as error:
            self._error = error
        finally:
            self._watcher.close()

    def _crash(self) -> None:
        self._spare.kill()
        self._conf.write_bytes(self._conf_before)
        self._spare.recover()
        with contextlib.closing(self._spare.connect()) as connection:
            connection.execute(RELEASE_BEFORE)

    def end(self) -> None:
        """Leave no commit waiting: where none came, the server dies now. It has recovered in any case.

        Raises:
            ServerError: it has not recovered.
        """
        self.give_up()
        self._thread.join(END_TIMEOUT_S)
        if self._thread.is_alive():
            raise ServerTimeout(f"the crash inside a commit did not end within {END_TIMEOUT_S:g} s")
        if self._error is not None:
            raise self._error
        if not self.died:
            self._crash()

    def give_up(self) -> None:
        """Watch no longer; a server that has commits wait must go, too."""
        self._over.set()
