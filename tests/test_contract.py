"""Does the promise for each combination of settings and crash stand as PostgreSQL's documentation gives it?

The table is postgres-contract.md 1.3b.
"""

import pytest

from crashlab.contract import WEAK_DISKS, contract_for, time_ms
from crashlab.errors import UsageProblem
from crashlab.model import CrashClass

P, L = CrashClass.PROCESS_CRASH, CrashClass.POWER_LOSS


@pytest.mark.parametrize("synchronous_commit", ["on", "off", "local", "remote_write", "remote_apply"])
@pytest.mark.parametrize(
    ("fsync", "full_page_writes", "crash_class", "sync_commits_survive", "corruption_excluded"),
    [
        ("on", "on", P, True, True),
        ("on", "on", L, True, True),
        ("on", "off", P, True, False),
        ("on", "off", L, True, False),
        ("off", "on", P, True, True),
        ("off", "off", P, True, False),
        ("off", "on", L, False, False),
        ("off", "off", L, False, False),
    ],
)
def test_each_row_of_the_table(
    fsync, full_page_writes, crash_class, sync_commits_survive, corruption_excluded, synchronous_commit
):
    """fsync = off voids everything after a power loss and nothing after a process crash."""
    settings = {
        "fsync": fsync,
        "full_page_writes": full_page_writes,
        "synchronous_commit": synchronous_commit,
        "wal_writer_delay": "200ms",
    }
    contract = contract_for(settings, crash_class, version_num=180006, bounded_window=True)
    assert contract.crash_class is crash_class
    assert contract.sync_commits_survive is sync_commits_survive
    assert contract.corruption_excluded is corruption_excluded
    assert contract.async_window_ms == (600 if sync_commits_survive else None)
    assert [clause.setting for clause in contract.clauses] == list(settings)
    assert [clause.value for clause in contract.clauses] == list(settings.values())


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("200ms", 600), ("10s", 30_000), ("1min", 180_000), ("1h", 10_800_000), ("1d", 259_200_000), ("50", 150)],
)
def test_the_window_is_three_delays_in_any_unit(text, expected_ms):
    """Units as SHOW prints them; a bare number has the setting's own."""
    assert contract_for({"wal_writer_delay": text}, P).async_window_ms == expected_ms


def test_a_fault_can_void_the_window():
    """A stopped walwriter or a dead postmaster bounds nothing; the rest of the promise stays."""
    bounded, unbounded = (contract_for({}, P, bounded_window=bounded) for bounded in (True, False))
    assert bounded.async_window_ms == 600
    assert unbounded.async_window_ms is None
    assert unbounded.sync_commits_survive
    assert unbounded.corruption_excluded


@pytest.mark.parametrize("version_num", [140023, 160014, 170010, 180006, 190000])
def test_the_version_changes_words_and_never_the_promise(version_num):
    """Later versions wake walwriter less often: same bound."""
    now, then = contract_for({}, L, version_num=version_num), contract_for({}, L, version_num=180006)
    assert (now.async_window_ms, now.corruption_excluded) == (then.async_window_ms, then.corruption_excluded)
    wordy = "up to the whole delay" in next(c.says for c in now.clauses if c.setting == "wal_writer_delay")
    assert wordy is (version_num >= 170000)


@pytest.mark.parametrize("name", ["wal_sync_method", "wal_level", "commit_delay", "data_checksums", "wal_compression"])
def test_settings_that_change_nothing_are_quoted(name):
    """They are often suspected; the clause says that the promise is the same."""
    plain, quoted = contract_for({}, P), contract_for({name: "off"}, P)
    assert name not in [clause.setting for clause in plain.clauses]
    assert name in [clause.setting for clause in quoted.clauses]
    assert (plain.async_window_ms, plain.corruption_excluded) == (quoted.async_window_ms, quoted.corruption_excluded)


def test_every_clause_cites_a_page_of_the_manual():
    """Title, page, and for a setting its anchor."""
    settings = {"wal_level": "minimal", "data_checksums": "on", "synchronous_standby_names": "a"}
    for clause in contract_for(settings, P).clauses:
        title, page = clause.manual.split(", ")
        assert title
        assert ".html" in page
    (fsync,) = (clause for clause in contract_for({}, P).clauses if clause.setting == "fsync")
    assert fsync.manual.endswith("runtime-config-wal.html#GUC-FSYNC")


@pytest.mark.parametrize("disk", sorted(WEAK_DISKS))
def test_on_a_weaker_disk_nothing_is_promised_and_the_reason_is_given(disk):
    """Beyond PostgreSQL's contract; killed processes do not care, and the ordinary disk has no such clause."""
    weak, ordinary = contract_for({}, L, disk=disk), contract_for({}, L, disk="linux")
    assert (weak.sync_commits_survive, weak.corruption_excluded, weak.async_window_ms) == (False, False, None)
    assert [clause.says for clause in weak.clauses if clause.setting == "disk"] == [WEAK_DISKS[disk]]
    assert ordinary == contract_for({}, L)
    assert (ordinary.sync_commits_survive, ordinary.corruption_excluded) == (True, True)
    assert contract_for({}, P, disk=disk) == contract_for({}, P)


@pytest.mark.parametrize(
    "settings",
    [
        {"fsync": "maybe"},
        {"full_page_writes": ""},
        {"synchronous_commit": "sometimes"},
        {"wal_writer_delay": "fast"},
        {"wal_writer_delay": "3 fortnights"},
    ],
)
def test_a_value_without_a_meaning_is_refused(settings):
    """With the setting and the value in the message."""
    with pytest.raises(UsageProblem) as error:
        contract_for(settings, P)
    ((name, value),) = settings.items()
    assert name in error.value.primary
    assert value in error.value.primary


def test_microseconds_are_not_milliseconds():
    """PostgreSQL prints some times in us."""
    assert time_ms("500us", "commit_delay", unit="us") == 0.5
    assert time_ms("500", "commit_delay", unit="us") == 0.5
