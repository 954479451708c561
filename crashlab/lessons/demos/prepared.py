"""Does a base backup hold a transaction that was prepared while it was made? By hand, without a crash.

The backup is made by the low level API, as the manual has it. In the middle of it a transaction is prepared, and a
checkpoint comes. Usage: python prepared.py [BINDIR]. Writes facts.json beside this file.
"""

import json
import shutil
import sys
from pathlib import Path

from crashlab.server import Server, ServerSpec, create_server

HERE = Path(__file__).parent
SETTINGS = {"max_prepared_transactions": "5", "autovacuum": "off", "checkpoint_timeout": "1h"}
NOT_IN_A_BACKUP = shutil.ignore_patterns("postmaster.pid", "postmaster.opts")


def back_up(original: Server, copy: Path, xids_between: int) -> None:
    """Make a base backup; `xids_between` transactions come between its start and the prepared one."""
    assert original.data_directory is not None
    with original.connect(autocommit=True) as backup, original.connect(autocommit=True) as session:
        session.execute("CREATE TABLE orders (id integer PRIMARY KEY, state text)")
        session.execute("INSERT INTO orders VALUES (7, 'new')")
        backup.execute("SELECT pg_backup_start('copy', fast => true)")
        for _ in range(xids_between):
            session.execute("SELECT pg_current_xact_id()")
        session.execute("BEGIN")
        session.execute("UPDATE orders SET state = 'paid' WHERE id = 7")
        session.execute("PREPARE TRANSACTION 'order 7'")  # its answer is a promise
        session.execute("INSERT INTO orders VALUES (8, 'new')")
        session.execute("CHECKPOINT")
        shutil.rmtree(copy)
        shutil.copytree(original.data_directory, copy, symlinks=True, ignore=NOT_IN_A_BACKUP)
        row = backup.execute("SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)").fetchone()
        assert row is not None
        (copy / "backup_label").write_text(row[0])
        shutil.copytree(original.data_directory / "pg_wal", copy / "pg_wal", dirs_exist_ok=True)


def prepared_in_backup(spec: ServerSpec, xids_between: int) -> int:
    """Return how many prepared transactions the restored server has."""
    with create_server(spec) as original, create_server(spec) as restored:
        original.start()
        assert restored.data_directory is not None
        back_up(original, restored.data_directory, xids_between)
        original.kill_all()
        for path in (restored.data_directory, *restored.data_directory.rglob("*")):
            restored.own(path)
        restored.start()
        with restored.connect(autocommit=True) as connection:
            found = connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall()
        print(f"  {xids_between} transactions between: pg_prepared_xacts of the restored server holds {found}")
        return len(found)


def main() -> None:
    """Try both, on the server that is found first or in a folder of programs."""
    bindir = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    spec = ServerSpec(kind="local", pg_bindir=bindir, settings=SETTINGS)
    with create_server(spec) as server:
        version = server.version.text
    print(f"PostgreSQL {version}")
    facts = {"version": version, "next": prepared_in_backup(spec, 0), "later": prepared_in_backup(spec, 2)}
    (HERE / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
