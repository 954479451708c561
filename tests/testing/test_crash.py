"""Is an unchanged application caught where it is guilty, and let pass where it is not, by a server that really dies?"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from crashlab.errors import UsageProblem
from crashlab.model import Outcome
from crashlab.observer import read_conversation
from crashlab.observer.moment import PHASES
from crashlab.testing import Crash, CrashFailure
from crashlab.trial.judged import verdict_of
from tests.campaign.test_pool import gone
from tests.testing.shop import WORKER, Shop
from tests.trial.test_broken_before import BREAK, INDEXED

pytestmark = pytest.mark.server
ORDERS = "SELECT id FROM orders"


def test_told_before_commit(dying):
    """Guilty at the moment before its COMMIT; told after it, nothing is wrong at the same moment."""
    guilty = dying("1:commit:3:before")
    shop = Shop(guilty.url).create_tables()
    with guilty:
        for number in range(5):
            shop.insert(number)
            guilty.told(number)
            shop.connection.commit()
    with pytest.raises(CrashFailure, match=r"TOLD-BEFORE-COMMIT.*key 2") as caught:
        guilty.check(ORDERS)
    assert "the server died: connection 1, commit 3 (COMMIT), before the server sees it" in str(caught.value)
    assert "had not reached the server then" in str(caught.value)


@pytest.mark.parametrize("phase", ["before", "unheard", "answered"])
def test_told_after_commit(dying, phase):
    """The innocent twin, at each moment of the same commit; what is stored judges the same again."""
    crash = dying(f"1:commit:3:{phase}")
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(5):
            crash.told(shop.order(number))
    (verdict,) = crash.check(ORDERS)
    assert verdict.outcome == Outcome.INTACT
    assert verdict.counts.acked == (4 if phase == "answered" else 3)  # one of them made the tables
    assert crash.connect().execute("SELECT count(*) FROM orders").fetchone() == (2 + (phase != "before"),)
    assert verdict_of(crash.folder / "crash-1") == verdict


def test_a_commit_that_failed(dying):
    """An error that is swallowed, a COMMIT that is answered ROLLBACK; and one whose error is heard."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        crash.told(shop.order_carelessly(1))
        crash.told(shop.order_after_an_error(2))
    with pytest.raises(CrashFailure, match="TOLD-AFTER-FAILURE") as caught:
        crash.check(ORDERS)
    assert "its COMMIT failed: duplicate key" in str(caught.value)
    assert [one.code for one in crash.judged[1].findings] == ["TOLD-AFTER-FAILURE"]
    assert crash.judged[1].findings[0].count == 2


def test_a_commit_that_failed_and_was_heard(dying):
    """The innocent twin of both."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        with pytest.raises(psycopg.errors.UniqueViolation):
            crash.told(shop.order_and_fail(1))
        crash.told(shop.order(2))
    crash.check(ORDERS)


@pytest.mark.crashlab(profile="async-commit")
def test_asynchronous_by_accident(dying):
    """A setting that stays in a session: who set it is named; a test may accept it. Nobody else writes the WAL out."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        shop.hurry()
        for number in range(5):
            crash.told(shop.order(number))
    with pytest.raises(CrashFailure, match="TOLD-ASYNC-COMMIT") as caught:
        crash.check(ORDERS)
    assert "set by connection 1 itself: 'SET synchronous_commit = off'" in str(caught.value)
    assert [one.kind for one in crash.observed.crashes[0].injections] == ["stop", "kill"]
    assert 'say so: crash.check(allow=["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"])' in str(caught.value)
    with pytest.raises(CrashFailure) as told:
        crash.check(ORDERS, allow=["LOSS-ASYNC-WINDOW"])  # a commit may be lost, and no user was to be told of it
    assert "TOLD-ASYNC-COMMIT: " in str(told.value)
    assert "LOSS-ASYNC-WINDOW: " not in str(told.value)
    with pytest.raises(CrashFailure) as lost:
        crash.check(ORDERS, allow=["TOLD-ASYNC-COMMIT"])
    assert "LOSS-ASYNC-WINDOW: " in str(lost.value)
    assert "TOLD-ASYNC-COMMIT: " not in str(lost.value)
    crash.check(ORDERS, allow=["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"])


@pytest.mark.crashlab(profile="async-commit")
def test_asynchronous_since_it_connected(dying):
    """No statement set it: the address did."""
    crash = dying()
    Shop(crash.url).create_tables().connection.close()
    shop = Shop(f"{crash.url}?options=-csynchronous_commit%3Doff")
    with crash:
        crash.told(shop.order(1))
    with pytest.raises(CrashFailure, match="itself: as it connected, with options = '-csynchronous_commit=off'"):
        crash.check(ORDERS)


@pytest.mark.crashlab(profile="async-commit")
def test_asynchronous_once(dying):
    """The innocent twin: SET LOCAL."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        shop.hurry_once()
        for number in range(5):
            crash.told(shop.order(number))
    crash.check(ORDERS)


@pytest.mark.parametrize("together", [False, True])
def test_two_transactions_that_should_be_one(dying, together):
    """The crash between them breaks the invariant, and accuses no database; one transaction keeps it."""
    crash = dying("1:commit:3:answered" if not together else "1:commit:2:before")
    shop = Shop(crash.url).create_tables()
    shop.connection.execute("CREATE TABLE paid (id integer)")
    shop.connection.commit()
    crash.invariant("each order is paid", "SELECT id FROM orders EXCEPT SELECT id FROM paid")
    with crash:
        for number in range(5):
            shop.insert(number)
            if not together:
                shop.connection.commit()
            shop.connection.execute("INSERT INTO paid VALUES (%s)", (number,))
            shop.connection.commit()
    if together:
        crash.check()
        return
    with pytest.raises(CrashFailure, match=r"APPLICATION-INVARIANT.*each order is paid"):
        crash.check()
    assert crash.judged[1].promise == "kept"


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(name, marks=pytest.mark.crashlab(profile=name))
        for name in ("kill9-backend", "kill9-postmaster", "immediate-shutdown")
    ],
)
def test_other_ways_to_die(dying, profile):
    """Also where the postmaster lives on and recovers by itself; an application may have a database of its own."""
    crash = dying("1:commit:2:answered")
    with crash.connect(autocommit=True) as connection:
        connection.execute("CREATE DATABASE app")
    shop = Shop(f"{crash.url.rpartition('/')[0]}/app").create_tables()
    with crash:
        for number in range(5):
            crash.told(shop.order(number))
    with pytest.raises(UsageProblem, match="cannot run the query"):
        crash.check(ORDERS)  # it is in another database
    (verdict,) = crash.check(ORDERS, database="app")
    assert (verdict.outcome, verdict.counts.acked, crash.told_keys) == ("intact", 3, [0, 1])
    assert crash.observed.crashes[0].observation.checks["databases"].count > 0


def test_many_crashes_with_life_between(dying):
    """The address stays; each crash has evidence of its own; what was told once must stay."""
    crash = dying()
    url = crash.url
    Shop(url).create_tables().connection.close()
    for block in range(3):
        shop = Shop(url)
        with crash:
            for number in range(3):
                crash.told(shop.order(10 * block + number))
        crash.told(Shop(url).order(10 * block + 9))
    assert [verdict.outcome for verdict in crash.check(ORDERS)] == ["intact"] * 3
    assert (crash.url, len(list(crash.folder.glob("crash-*/verdict.json")))) == (url, 3)


def test_an_application_that_tries_again_finds_its_server(dying):
    """Inside the block, after the crash."""
    crash = dying("1:commit:1:unheard")
    shop = Shop(crash.url).create_tables()
    tries = 0
    with crash:
        for number in range(5):
            while True:
                try:
                    shop.connection.execute("INSERT INTO orders VALUES (%s) ON CONFLICT DO NOTHING", (number,))
                    shop.connection.commit()
                    break
                except psycopg.OperationalError:
                    tries += 1
                    while True:
                        try:
                            shop = Shop(crash.url)
                            break
                        except psycopg.OperationalError:
                            time.sleep(0.01)
            crash.told(number)
    assert tries == 1
    crash.check(ORDERS)


def test_async_with_and_threads(dying):
    """A coroutine's connection dies with the server, and other threads may tell, too."""
    crash = dying("1:commit:4:answered")
    Shop(crash.url).create_tables().connection.close()

    async def work() -> None:
        connection = await psycopg.AsyncConnection.connect(crash.url)
        async with crash:
            for number in range(10):
                await connection.execute("INSERT INTO orders VALUES (%s)", (number,))
                await connection.commit()
                teller = threading.Thread(target=crash.told, args=(number,))
                teller.start()
                teller.join()

    asyncio.run(work())
    (verdict,) = crash.check(ORDERS)
    assert verdict.counts.acked == 5  # the tables, and four orders


@pytest.mark.parametrize("kill", ["with server", "alone"])
def test_a_worker_process_is_killed_and_started_again(dying, kill):
    """It gets the environment, tells by a file, and goes on after the recovery; alone, its server lives on."""
    crash = dying()
    Shop(crash.url).create_tables().connection.close()
    postmaster = crash.server.processes()[0].pid
    worker = crash.process([sys.executable, "-c", WORKER], kill=kill)
    with crash:
        crash.wait_told(10, timeout_s=20)
    count = len(crash.told_keys)
    crash.wait_told(count + 5, timeout_s=20)
    crash.check(ORDERS)
    assert worker.starts == 2
    assert (crash.server.processes()[0].pid == postmaster) == (kill == "alone")
    crash.close()
    assert not worker.running


def test_whatever_is_raised_before_the_crash_is_raised(dying):
    """And what came after it ends the block quietly, unless it is an assertion."""
    crash = dying("1:commit:2:before")
    shop = Shop(crash.url).create_tables()
    with pytest.raises(ZeroDivisionError), crash:
        raise ZeroDivisionError
    with pytest.raises(UsageProblem, match="has not been crashed"):
        crash.check(ORDERS)
    assert crash.server.running()
    with crash:  # another block: the moment was for the first one
        shop.order(1)
    assert [str(point) for point in crash.points("commits")] == [f"2/1:commit:1:{phase}" for phase in PHASES]
    crash.check()
    other = dying("1:commit:2:before")
    shop = Shop(other.url)

    def work() -> None:
        shop.order(2)
        with pytest.raises(psycopg.OperationalError):
            shop.order(3)
        raise AssertionError("the application says no")

    with pytest.raises(AssertionError, match="the application says no"), other:
        work()
    other.check()


@pytest.mark.parametrize("hang", ["in the application", "in the server"])
def test_a_block_that_hangs_is_ended(dying, hang):
    """Whatever it waits for: a failure, soon, and the server is dead."""
    crash = dying(block_timeout_s=0.5)
    shop = Shop(crash.url).create_tables()
    begun = time.monotonic()

    def work() -> None:
        if hang == "in the server":
            shop.connection.execute("SELECT pg_sleep(600)")
        time.sleep(600)

    with pytest.raises(CrashFailure, match="the application hangs"), crash:
        work()
    assert time.monotonic() - begun < 30
    assert not crash.server.running()


def test_a_server_that_does_not_come_back(dying, monkeypatch):
    """The block itself says so, with its last words."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    kill = crash.observed.kill

    def kill_and_damage():
        receipts = kill()
        (crash.server.data_directory / "global" / "pg_control").write_bytes(bytes(8192))
        return receipts

    monkeypatch.setattr(crash.observed, "kill", kill_and_damage)
    with pytest.raises(CrashFailure, match="NO-START"), crash:
        shop.order(1)
    with pytest.raises(UsageProblem, match="did not come back"), crash:
        pass


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("grants", [True, False])
def test_a_server_that_forgets_is_accused(dying, monkeypatch, grants, cut):
    """Its WAL is cut off before a commit that it had answered: the database's fault, told or not; uncut, nobody's."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    kill = crash.observed.kill

    def kill_and_cut():
        receipts = kill()
        last = read_conversation(crash.folder / "conversation.jsonl").transactions[-1]
        assert last.lsn is not None
        high, low = last.lsn.split("/")
        segment = crash.server.data_directory / "pg_wal" / f"00000001{int(high, 16):08X}{int(low, 16) >> 24:08X}"
        with segment.open("r+b") as file:
            file.seek(int(low, 16) & 0xFFFFFF)
            file.write(bytes(64))
        return receipts

    if cut:
        monkeypatch.setattr(crash.observed, "kill", kill_and_cut)
    with crash:
        for number in range(3):
            shop.order(number)
        if grants:
            shop.connection.autocommit = True
            shop.connection.execute("GRANT SELECT ON orders TO PUBLIC")
    if not cut:
        crash.check()
        return
    with pytest.raises(CrashFailure, match="LOSS-SYNC-COMMIT"):
        crash.check()
    assert (crash.judged[1].promise, crash.judged[1].counts.lost) == ("broken", 1)


def test_what_was_broken_before_accuses_no_crash(dying):
    """An index over a function that is called immutable and is not; without the change that breaks it, all is well."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute(INDEXED.format(method="btree"))
    shop.connection.commit()
    with crash:
        crash.told(shop.order(1))
    crash.check(ORDERS)
    shop = Shop(crash.url)
    shop.connection.execute(BREAK)
    shop.connection.commit()
    with crash:
        crash.told(shop.order(2))
    with pytest.raises(CrashFailure, match="INCONCLUSIVE-BROKEN-BEFORE"):
        crash.check(ORDERS)
    assert {one.code for one in crash.judged[2].findings} == {"INCONCLUSIVE-BROKEN-BEFORE"}
    crash.check(ORDERS, allow=["INCONCLUSIVE-BROKEN-BEFORE"])


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "UTC"])
def test_an_index_by_day_depends_on_the_session(dying, zone):
    """It is another day for who asks; no accusation, and where both sessions agree on the day, all is well."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute(f"SET TimeZone = '{zone}'")
    shop.connection.execute("CREATE TABLE visit (at timestamptz)")
    shop.connection.execute("CREATE FUNCTION day(timestamptz) RETURNS date IMMUTABLE AS 'SELECT $1::date' LANGUAGE sql")
    shop.connection.execute("CREATE INDEX visit_day ON visit (day(at))")
    shop.connection.commit()
    with crash:
        shop.connection.execute("INSERT INTO visit VALUES ('2026-01-01 12:00:00+00')")
        crash.told(shop.order(1))
    if zone == "UTC":
        crash.check(ORDERS)
        return
    with pytest.raises(CrashFailure, match="INCONCLUSIVE-OWN-FUNCTION"):
        crash.check(ORDERS)
    crash.check(ORDERS, allow=["INCONCLUSIVE-OWN-FUNCTION"])


@pytest.mark.parametrize("partitioned", [True, False])
def test_an_index_of_a_partitioned_table_has_no_file_and_hides_nothing(dying, partitioned):
    """The index of each partition is named; that of the table itself stands nowhere."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    hour = "'SELECT extract(hour from $1)::integer'"
    shop.connection.execute(f"CREATE FUNCTION hour(timestamptz) RETURNS integer IMMUTABLE AS {hour} LANGUAGE sql")
    if partitioned:
        shop.connection.execute("CREATE TABLE visit (at timestamptz) PARTITION BY RANGE (at)")
        shop.connection.execute("CREATE TABLE visit_of_all PARTITION OF visit DEFAULT")
    else:
        shop.connection.execute("CREATE TABLE visit (at timestamptz)")
    shop.connection.execute("CREATE INDEX visit_hour ON visit (hour(at))")
    shop.connection.execute("SET TimeZone = 'Asia/Seoul'")
    shop.connection.commit()
    with crash:
        shop.connection.execute("INSERT INTO visit VALUES ('2026-01-01 12:00:00+00')")
        shop.connection.commit()
    with pytest.raises(CrashFailure, match=r"INCONCLUSIVE-OWN-FUNCTION: .*visit"):
        crash.check()


BACKWARDS = """
CREATE FUNCTION compare(text, text) RETURNS integer IMMUTABLE LANGUAGE sql AS
  $$SELECT CASE current_setting('TimeZone') WHEN 'Asia/Seoul' THEN -bttextcmp($1, $2) ELSE bttextcmp($1, $2) END$$;
CREATE FUNCTION less(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT compare($1, $2) < 0';
CREATE FUNCTION more(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT compare($1, $2) > 0';
CREATE OPERATOR <<< (LEFTARG = text, RIGHTARG = text, FUNCTION = less);
CREATE OPERATOR >>> (LEFTARG = text, RIGHTARG = text, FUNCTION = more);
CREATE OPERATOR CLASS backwards FOR TYPE text USING btree AS
  OPERATOR 1 <<<, OPERATOR 3 =, OPERATOR 5 >>>, FUNCTION 1 compare(text, text);
CREATE TABLE word (t text);
CREATE INDEX word_backwards ON word (t backwards);
"""


def test_an_order_of_ones_own_may_depend_on_the_session_too(dying):
    """As an expression may: what amcheck says of the order in such an index is not the database's fault."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute(BACKWARDS)
    shop.connection.execute("SET TimeZone = 'Asia/Seoul'")
    shop.connection.commit()
    with crash:
        shop.connection.execute("INSERT INTO word SELECT n::text FROM generate_series(1, 30) n")
        shop.connection.commit()
    with pytest.raises(CrashFailure, match=r"INCONCLUSIVE-OWN-FUNCTION: .*word_backwards") as caught:
        crash.check()
    assert "CORRUPT" not in str(caught.value)


@pytest.mark.parametrize("chain", ["COMMIT AND CHAIN", "COMMIT"])
def test_a_transaction_that_nothing_was_asked_in_is_none(dying, chain):
    """The server dies between a COMMIT AND CHAIN and whatever would have come next."""
    crash = dying("1:commit:1:unheard")
    shop = Shop(crash.url).create_tables()
    with crash:
        shop.insert(1)
        shop.connection.execute(chain)
    crash.check()
    assert crash.judged[1].counts.acked == 1
    assert crash.connect().execute("SELECT id FROM orders").fetchall() == [(1,)]


KEYS = [
    ("numeric(10,2)", 5, "6"),
    ("numeric(10,2)", Decimal("1.5"), Decimal("1.51")),
    ("boolean", True, False),
    ("uuid", "6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6BA7B810-9DAD-11D1-80B4-00C04FD430C9"),
    ("char(10)", "ab", "abc"),
    ("varchar(3)", "abc", "abcd"),
    ("jsonb", '{"a":1}', '{"a":2}'),
    ("text", "ab", "ab "),
    ("integer", "7", "seven"),
]


@pytest.mark.parametrize(("of_type", "key", "other"), KEYS)
def test_a_key_is_a_value_of_what_it_is_looked_for_in(dying, of_type, key, other):
    """However the application writes it; and another value is another key."""
    crash = dying()
    with psycopg.connect(crash.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE told (k {of_type})")
    with crash, psycopg.connect(crash.url, autocommit=True) as connection:
        connection.execute(f"INSERT INTO told VALUES (%s::text::{of_type})", [str(key)])
        crash.told(key)
    crash.check("SELECT k FROM told")
    crash.told(other)
    with pytest.raises(CrashFailure, match="TOLD-LOST"):
        crash.check("SELECT k FROM told")


def test_a_query_of_check_changes_nothing(dying):
    """What it inserts would be found, though nobody has ever written it."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        crash.told(shop.order(1))
    with pytest.raises(UsageProblem, match="read-only transaction"):
        crash.check("INSERT INTO orders VALUES (2) RETURNING id")
    crash.check(ORDERS)


def test_a_role_that_the_database_sets_is_the_applications_alone(dying):
    """crashlab's sessions look at everything, whoever the application's are."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute("CREATE ROLE clerk; GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
    shop.connection.execute("ALTER DATABASE postgres SET role = clerk")
    shop.connection.commit()
    with crash:
        crash.told(Shop(crash.url).order(1))
    crash.check(ORDERS)


WITH_A_PROCESS = """
import subprocess, sys, time
from pathlib import Path
from crashlab.testing import Crash
APPLICATION = "import subprocess as s, time; print(s.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
with Crash(folder=Path(sys.argv[1])) as crash:
    process = crash.process([sys.executable, "-c", APPLICATION], kill=sys.argv[2])
    while not process.last_words():
        time.sleep(0.01)
    print(process.pid, process.last_words(), flush=True)
    input()
"""


@pytest.mark.parametrize("kill", ["with server", "never"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_an_applications_process_does_not_outlive_the_test(tmp_path, kill, number):
    """Nor what it has started itself: killed, ended or at its end, while a test that goes on leaves them running."""
    command = [sys.executable, "-c", WITH_A_PROCESS, str(tmp_path), kill]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        pids = [int(word) for word in test.stdout.readline().split()]
        assert [gone(pid, 0.2) for pid in pids] == [False, False]
        if number is None:
            test.communicate("\n", timeout=60)
        else:
            test.send_signal(number)
        assert [gone(pid, 20) for pid in pids] == [True, True]


def test_nothing_told_and_nothing_checked(dying):
    """What a test has to do, said where it does not."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with pytest.raises(UsageProblem, match="never crashed"):
        crash.require_checked()
    with crash:
        crash.told(shop.order(1))
    with pytest.raises(UsageProblem, match="1 keys were told, and not checked"):
        crash.require_checked()
    with pytest.raises(UsageProblem, match="there is no query"):
        crash.check()
    with pytest.raises(UsageProblem, match="cannot run the query"):
        crash.check("SELECT id FROM nowhere")
    crash.check(ORDERS)
    crash.require_checked()
    with crash:
        Shop(crash.url).order(2)
    with pytest.raises(UsageProblem, match="nobody checked what came back"):
        crash.require_checked()  # the check before looked at the crash before
    crash.check(ORDERS)
    crash.require_checked()


def test_without_any_commit_nothing_was_tested(dying):
    """Inconclusive is not passed."""
    crash = dying()
    with crash:
        psycopg.connect(crash.url).execute("SELECT 1")
    with pytest.raises(CrashFailure, match=r"(?s)INCONCLUSIVE-TOO-FEW-ACKS.*through crash\.url"):
        crash.check()


def test_a_script_needs_no_pytest():
    """The outermost `with` is the server's life; nothing is left."""
    script = """
from crashlab.testing import Crash
from tests.testing.shop import Shop

with Crash(seed=3, points="commits") as crash:
    shop = Shop(crash.url).create_tables()
    with crash:
        crash.told(shop.order(1))
    print(crash.check("SELECT id FROM orders")[0].outcome, crash.server.data_directory, crash.folder)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome, *folders = done.stdout.split()
    assert outcome == "intact"
    assert not any(Path(folder).exists() for folder in folders)


def test_a_profile_that_crashes_nothing_is_refused(tmp_path):
    """And an unknown one."""
    profile = tmp_path / "gentle.toml"
    profile.write_text('description = "x"\n[[faults]]\nkind = "kill"\ntarget = "logger"\nwhen = { after = "1ms" }\n')
    with pytest.raises(UsageProblem, match="names no fault that crashes one"):
        Crash(str(profile))
    with pytest.raises(UsageProblem):
        Crash("kill9-everything")


def test_a_random_moment_comes_after_something_is_at_stake(crash_server, crashlab_profile, tmp_path):
    """However long the application takes to its first commit: every draw kills after it."""
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with contextlib.closing(Crash(crashlab_profile, server=crash_server, folder=folder, seed=seed)) as crash:
            shop = Shop(crash.start().url)
            shop.connection.execute(f"CREATE TABLE orders{seed} (id integer PRIMARY KEY)")
            shop.connection.commit()
            number = 0
            with crash:
                time.sleep(1.2)  # longer than any draw
                while True:
                    shop.connection.execute(f"INSERT INTO orders{seed} VALUES (%s)", (number,))
                    shop.connection.commit()
                    crash.told(number)
                    number += 1
            assert crash.told_keys
            assert crash.observed.crashes[0].moment == "at a time that was drawn"
            crash.check(f"SELECT id FROM orders{seed}")


@pytest.mark.parametrize("asks", ["nothing", "only reads"])
def test_a_block_without_a_commit_is_no_pass(dying, asks):
    """Whatever was committed before it."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    with crash:
        if asks == "only reads":
            shop.connection.execute(ORDERS)
            shop.connection.commit()
    with pytest.raises(CrashFailure, match="Inside the block no commit of a change was answered"):
        crash.check()


def test_a_coroutine_that_hangs_is_ended(dying):
    """As a function is; the loop's own handler of interrupts is no obstacle."""
    crash = dying(block_timeout_s=0.5)
    begun = time.monotonic()

    async def work() -> None:
        async with crash:
            await asyncio.sleep(600)

    with pytest.raises(CrashFailure, match="the application hangs"):
        asyncio.run(work())
    assert time.monotonic() - begun < 30
    assert not crash.server.running()
