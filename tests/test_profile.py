"""Profiles: found, merged, checked with every mistake at once, written and read again."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.duration import format_ms, parse_ms
from crashlab.errors import ProfileError
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import (
    Profile,
    expand,
    list_profiles,
    load_profile,
    parse_profile,
    stored_profile,
    to_toml,
)

SHIPPED = Path(__file__).parent.parent / "fault_profiles"
FAULT = '[[faults]]\nkind = "kill"\ntarget = "all"\nwhen = { acks = 5 }\n'
CONTAINER_KILL = '[[faults]]\nkind = "container_kill"\nwhen = { acks = 1 }\n'

SQL = """
description = "x"
[workload]
kinds = ["sql"]
[workload.sql]
setup = "CREATE TABLE t (id integer PRIMARY KEY)"
tables = ["t"]
transactions = ["INSERT INTO t VALUES (:id)", { sql = "DELETE FROM t WHERE id = :id OR id = :tx", weight = 2 }]
[workload.sql.variables]
id = { between = [1, 9] }
name = { choice = ["a", 1, 2.5] }
"""
INVARIANT = '''
[[invariants]]
name = "none"
sql = """
SELECT 1
WHERE false"""
'''

texts = st.text(st.characters(codec="utf-8"), max_size=20)
durations = st.integers(0, 10**8).map(format_ms)
shares = st.floats(0, 1)
whens = st.one_of(
    st.builds(lambda n: {"acks": n}, st.integers(0, 10**6)),
    st.builds(lambda t: {"after": t}, durations),
    st.builds(
        lambda pair: {"between": [format_ms(ms) for ms in sorted(pair)]},
        st.tuples(st.integers(0, 9999), st.integers(0, 9999)),
    ),
)
faults = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["kill", "stop"]),
            "target": st.sampled_from(["all", "io worker", "logger"]),
            "when": whens,
        }
    ),
    st.fixed_dictionaries({"kind": st.just("shutdown"), "when": whens}),
)
setting_names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(\.[a-z_][a-z0-9_]{0,8})?", fullmatch=True).filter(
    lambda n: n != "port"
)
profiles = st.fixed_dictionaries(
    {"name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}", fullmatch=True), "description": texts.filter(bool)},
    optional={
        "trials": st.integers(1, 1000),
        "faults": st.lists(faults, max_size=3),
        "server": st.fixed_dictionaries(
            {},
            optional={
                "initdb": st.lists(texts, max_size=2),
                "settings": st.dictionaries(setting_names, st.one_of(texts, st.integers(), st.booleans()), max_size=3),
            },
        ),
        "workload": st.fixed_dictionaries(
            {},
            optional={
                "clients": st.integers(1, 1000),
                "two_phase": shares,
                "checkpoint_every": durations,
                "synchronous_commit": st.sampled_from(["off", {"on": 0.25, "remote_apply": 0.75}]),
            },
        ),
        "expect": st.fixed_dictionaries(
            {"outcomes": st.lists(st.sampled_from([*Outcome]).map(str), min_size=1), "note": texts}
        ),
    },
)


@given(table=profiles)
def test_a_profile_written_and_read_is_equal(table, tmp_path_factory):
    """What a profile says survives TOML, and the plain table that evidence keeps."""
    profile = parse_profile(table)
    file = tmp_path_factory.mktemp("profiles") / "other-name.toml"
    file.write_text(to_toml(profile), encoding="utf-8")
    assert load_profile(str(file)) == profile
    assert parse_profile(profile.table()) == profile
    assert Profile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile


@given(st.integers(0, 10**9))
def test_a_duration_written_and_read_is_equal(value_ms):
    """Durations lose nothing on the way through text."""
    assert parse_ms(format_ms(value_ms)) == value_ms


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path):
    """One run of validate shows everything that is wrong, and where."""
    file = tmp_path / "bad.toml"
    file.write_text(
        "\n".join(
            [
                'description = "x"',  # 1
                'trials = "ten"',  # 2
                "[server.settings]",  # 3
                "port = 5432",  # 4
                "[workload]",  # 5
                "clinets = 4",  # 6
                "checkpoint_every = 500",  # 7
                "synchronous_commit = { on = 0.5, off = 0.2 }",  # 8
                "[[faults]]",  # 9
                'kind = "kill"',  # 10
                'target = "walwriter"',  # 11
                'when = { after = "5 parsecs" }',  # 12
                "[[faults]]",  # 13
                'kind = "stop"',  # 14
                "when = { acks = 1 }",  # 15
            ]
        )
    )
    with pytest.raises(ProfileError) as raised:
        load_profile(str(file))
    assert raised.value.detail is not None
    lines = raised.value.detail.splitlines()
    found = {line.removeprefix(f"{file}:").split(": ")[0]: line for line in lines}
    assert sorted(found, key=int) == ["2", "4", "6", "7", "8", "12", "13"]
    assert 'did you mean "clients"?' in found["6"]
    assert "unit" in found["7"]
    assert "must add up to 1" in found["8"]
    assert "needs a target" in found["13"]
    assert raised.value.exit_code == 2


def test_a_sound_profile_has_no_mistakes(tmp_path):
    """The innocent twin: the same keys, spelled well, load."""
    file = tmp_path / "good.toml"
    file.write_text(
        'description = "x"\ntrials = 10\n[server.settings]\nfsync = false\n[workload]\nclients = 4\n'
        'checkpoint_every = "500ms"\nsynchronous_commit = { on = 0.5, off = 0.5 }\n' + FAULT
    )
    profile = load_profile(str(file))
    assert (profile.name, profile.workload.checkpoint_every_ms, profile.faults[0].when.acks) == ("good", 500, 5)
    assert profile.server.settings == {"fsync": "off", "autovacuum": "off"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('description = "x"\ntrials = = 3\n', ":2: "),
        ('description = "x"\ncrash_class = "power_loss"\n' + FAULT, "recorded run"),
        (
            'description = "x"\n[[faults]]\nkind = "container_kill"\nwhen = { acks = 1 }\n',
            'server.kinds = ["container"]',
        ),
        (
            'description = "x"\n[[faults]]\nkind = "kill"\ntarget = "all"\nwhen = { acks = 1, after = "1s" }\n',
            "exactly one",
        ),
        (
            'description = "x"\n[[faults]]\nkind = "kil"\nwhen = { acks = 1 }\n',
            "not 'kil'; did you mean \"kill\"?",
        ),
        ('description = "x"\n' + FAULT.replace('"all"', '"walwritter"'), 'did you mean "walwriter"?'),
        ('description = "x"\n[workload]\nkinds = ["regster"]\n' + FAULT, 'did you mean "register"?'),
        ('description = "x"\n[server]\nkinds = ["locl"]\n' + FAULT, "input should be 'local'"),
        ('description = "x"\ntour = ["kill9-all"]\n' + FAULT, "not faults"),
        ('description = "x"\nextends = "quick"\n', "is a tour"),
        ('extends = "./bad.toml"\n', "form a circle"),
        ('description = "x"\n[server.settings]\nsynchronous_commit = "off"\n' + FAULT, "workload.synchronous_commit"),
        ('description = "x"\n[workload]\nkinds = ["sql"]\n' + FAULT, "need each other"),
        ('description = "x"\n[workload.sql]\ntables = ["t"]\ntransactions = ["SELECT"]\n' + FAULT, "need each other"),
        (SQL.replace("between", "choose"), "workload.sql.variables.id.choose: unknown key"),
        (SQL.replace("1, 9", "9, 1"), "the smaller number first"),
        (SQL.replace("id =", "tx ="), "crashlab sets this one itself"),
        (SQL.replace(":id", ":ib"), "not defined: ib"),
        (SQL.replace("setup =", "setup_file = 'x'\nsetup ="), "only one of setup and setup_file"),
        (SQL.replace("setup =", "setup_file ="), 'could not read "'),
        (SQL.replace("tables", "table"), 'did you mean "tables"?'),
        (
            SQL.replace('VALUES (:id)"', 'VALUES (:id); COMMIT;"'),
            'workload.sql.transactions.0.sql: "COMMIT" has no place here',
        ),
        (SQL.replace('PRIMARY KEY)"', 'PRIMARY KEY); COMMIT"'), 'workload.sql.setup: "COMMIT" has no place here'),
        (SQL.replace("OR id = :tx", "; end"), 'workload.sql.transactions.1.sql: "end" has no place here'),
        (SQL + INVARIANT + INVARIANT, "two invariants have the same name"),
    ],
)
def test_each_kind_of_mistake_is_named(tmp_path, text, expected):
    """A mistake of meaning is refused with its reason, not found out when a server runs."""
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ProfileError, match="cannot use profile") as raised:
        load_profile(str(file))
    assert expected in str(raised.value)


ENDS = ("BEGIN", "start transaction", "COMMIT AND CHAIN", "end", "ROLLBACK", "abort", "PREPARE TRANSACTION 'a'")
INSIDE = (
    "ROLLBACK TO SAVEPOINT a",
    "SAVEPOINT a",
    "DO 'BEGIN NULL; END'",
    "DO $$ BEGIN COMMIT; END $$",
    "SELECT CASE WHEN :id = 1 THEN 'COMMIT;' END",
    "/* COMMIT; */ SELECT 1 -- ; COMMIT",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
)


@pytest.mark.parametrize("words", ENDS)
def test_a_transaction_that_would_begin_or_end_itself_is_refused(tmp_path, words):
    """Alone, first, between and last."""
    for text in (words, f"{words}; SELECT :id", f"SELECT 1;\n{words};\nSELECT 2"):
        with pytest.raises(ProfileError, match=r"transactions\.0\.sql: .* has no place here: crashlab begins and ends"):
            load_application(tmp_path, text)


@pytest.mark.parametrize("words", INSIDE)
def test_what_only_reads_like_the_end_of_a_transaction_is_let_pass(tmp_path, words):
    """The innocent twins: savepoints, bodies, quotes and comments."""
    sql = load_application(tmp_path, f"SELECT 1; {words}").workload.sql
    assert sql is not None
    assert sql.transactions[0].sql == f"SELECT 1; {words}"


def load_application(folder: Path, text: str) -> Profile:
    """Load a profile whose first transaction is this."""
    file = folder / "own.toml"
    file.write_text(SQL.replace('"INSERT INTO t VALUES (:id)"', json.dumps(text)) + FAULT)
    return load_profile(str(file))


def test_an_application_is_loaded_whole(tmp_path):
    """A set-up file's text is in the profile, which survives being written and read without that file."""
    schema = tmp_path / "schema.sql"
    schema.write_text('CREATE TABLE t (id integer PRIMARY KEY); -- it\'s "mine"\n')
    file = tmp_path / "shop.toml"
    file.write_text(re.sub("(?m)^setup = .*", 'setup_file = "schema.sql"', SQL) + INVARIANT + FAULT)
    profile = load_profile(str(file))
    other = tmp_path / "other.toml"
    other.write_text(f'extends = "{file}"\n[workload.sql]\ntables = ["t", "u"]\n')
    again = load_profile(str(other))
    assert profile.workload.sql is not None
    assert again.workload.sql is not None
    assert (again.workload.sql.setup, again.workload.sql.tables) == (schema.read_text(), ["t", "u"])
    schema.unlink()
    assert [one.weight for one in profile.workload.sql.transactions] == [1, 2]
    assert parse_profile(profile.table()) == profile
    file.write_text(to_toml(profile))
    assert load_profile(str(file)) == profile


def test_a_child_changes_what_it_names_and_keeps_the_rest(tmp_path):
    """extends merges tables, replaces lists and shares, and blames the file that a mistake is in."""
    parent = tmp_path / "parent.toml"
    parent.write_text(
        'description = "parent"\ntrials = 3\n[server.settings]\nfsync = "off"\nwal_level = "replica"\n'
        "[workload]\nclients = 2\nsynchronous_commit = { off = 1.0 }\n" + FAULT + FAULT
    )
    child = tmp_path / "child.toml"
    child.write_text(
        'extends = "./parent.toml"\n[server.settings]\nfsync = true\n[workload]\nsynchronous_commit = { local = 1.0 }\n'
        + FAULT
    )
    profile = load_profile(str(child))
    assert (profile.name, profile.description, profile.trials, profile.extends) == ("child", "parent", 3, None)
    assert profile.server.settings == {"fsync": "on", "wal_level": "replica", "autovacuum": "off"}
    assert (profile.workload.clients, profile.workload.synchronous_commit) == (2, {"local": 1.0})
    assert len(profile.faults) == 1

    parent.write_text(parent.read_text().replace("clients = 2", "clients = 0"))
    with pytest.raises(ProfileError) as raised:
        load_profile(str(child))
    assert f"{parent}:7: workload.clients" in str(raised.value)


def test_a_name_is_looked_for_here_first_then_among_the_shipped(tmp_path, monkeypatch):
    """./fault_profiles hides a shipped profile of the same name; an unknown name gets the nearest one."""
    monkeypatch.chdir(tmp_path)
    assert load_profile("kill9-all").faults[0].target == "all"
    (tmp_path / "fault_profiles").mkdir()
    (tmp_path / "fault_profiles" / "kill9-all.toml").write_text('description = "mine"\n' + FAULT)
    assert load_profile("kill9-all").description == "mine"
    with pytest.raises(ProfileError) as raised:
        load_profile("kil9-all")
    assert raised.value.hint is not None
    assert raised.value.hint.startswith('Did you mean "kill9-all"?')


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("fsync=off", lambda p: p.server.settings["fsync"], "off"),
        ("server.settings.wal_writer_delay=10s", lambda p: p.server.settings["wal_writer_delay"], "10s"),
        ("server.settings.auto_explain.log_nested=on", lambda p: p.server.settings["auto_explain.log_nested"], "on"),
        ("work_mem=010", lambda p: p.server.settings["work_mem"], "010"),
        ("workload.clients=8", lambda p: p.workload.clients, 8),
        ("clients=8", lambda p: p.workload.clients, 8),
        ("synchronous_commit=off", lambda p: p.workload.synchronous_commit, {"off": 1.0}),
        ("trials=2", lambda p: p.trials, 2),
        ('faults.0.when={ after = "2s" }', lambda p: p.faults[0].when.after_ms, 2000),
        ("faults.0.target=walwriter", lambda p: p.faults[0].target, "walwriter"),
    ],
)
def test_set_changes_profile_keys_and_settings(override, read, value):
    """--set reaches every key, and a bare PostgreSQL setting means that setting."""
    assert read(load_profile("kill9-all", [override])) == value


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("workload.clinets=3", '--set workload.clinets=3: workload.clinets: unknown key; did you mean "clients"?'),
        ("trails=3", 'Did you mean "trials"?'),
        ("clients=many", "workload.clients: input should be a valid integer, not 'many'"),
        ("faults.7.kind=kill", "faults.7.kind: unknown key"),
        ("port=1", "crashlab sets this one itself"),
        ("fsync", "Write --set key=value"),
    ],
)
def test_a_bad_set_is_named(override, expected):
    """A mistake in --set is blamed on the option, not on the file."""
    with pytest.raises(ProfileError) as raised:
        load_profile("kill9-all", [override])
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        ("autovacuum launcher", {"autovacuum": "on", "autovacuum_naptime": "1d"}),
        ("archiver", {"autovacuum": "off", "archive_mode": "on", "archive_command": "true"}),
        ("logger", {"autovacuum": "off", "logging_collector": "on"}),
    ],
)
def test_a_target_brings_the_settings_without_which_it_does_not_exist(target, needed):
    """A fault on the archiver needs an archiver; what the profile sets itself is left alone."""
    assert load_profile("kill9-all", [f"faults.0.target={target}"]).server.settings == needed
    own = load_profile("kill9-all", [f"faults.0.target={target}", "autovacuum_naptime=5d"])
    assert own.server.settings["autovacuum_naptime"] == "5d"


def test_a_stored_profile_loads_whatever_keys_came_and_went_since():
    """Unknown keys are left out and named, missing ones have defaults; a value without a meaning is still an error."""
    whole = load_profile("own-application")
    table = whole.model_dump(mode="json", by_alias=True)
    assert stored_profile(table) == (whole, [])
    table["quantum"] = {"foam": 1}
    table["workload"]["kinky"] = True
    table["workload"]["sql"]["transactions"][1]["odd"] = 1
    table["faults"][0]["when"]["moon"] = "full"
    del table["description"], table["workload"]["rollbacks"], table["invariants"]
    before = repr(table)
    profile, ignored = stored_profile(table)
    assert sorted(ignored) == ["faults.0.when.moon", "quantum", "workload.kinky", "workload.sql.transactions.1.odd"]
    assert profile == whole.model_copy(update={"description": "own-application", "invariants": []})
    assert repr(table) == before
    with pytest.raises(ProfileError, match=r"crash_class"):
        stored_profile(table | {"crash_class": "meteor"})


def test_every_shipped_profile_loads_and_opens_with_what_it_is_about():
    """Each file says what it does, what is promised and what to expect, before the first key."""
    files = sorted(SHIPPED.glob("*.toml"))
    shipped = [name for name in list_profiles() if (SHIPPED / f"{name}.toml").exists()]
    assert sorted(file.stem for file in files) == shipped
    for file in files:
        comment = file.read_text().split("\ndescription")[0]
        assert "# Documentation promises:" in comment
        assert "# Expected:" in comment
        for profile in expand(str(file)):
            assert PromiseStatus.BROKEN not in profile.expect.promise


def test_the_tours_hold_what_they_say():
    """A live profile that is added later is forgotten in neither tour; --set and trials reach all of their members."""
    members = {profile.name for profile in expand("quick")}
    known = [profile for name in list_profiles() if not (profile := load_profile(name)).tour]
    live = {one.name for one in known if one.power_loss is None and "local" in one.server.kinds}
    assert members == {name for name in live if not name.startswith("reach-")}
    reached = {profile.name for profile in [*expand("reach"), *expand("reach-power-loss")]}
    assert reached == {one.name for one in known if one.name.startswith("reach-")} - {"reach-unlogged"}
    assert all(profile.power_loss for profile in expand("reach-power-loss"))
    assert all(profile.power_loss for profile in expand("quick-power-loss"))
    changed = expand("quick", ["clients=2", "trials=1"])
    assert {(profile.workload.clients, profile.trials) for profile in changed} == {(2, 1)}


@pytest.mark.parametrize(
    ("profile", "override", "says"),
    [
        ("kill9-all", "jitter.share=0.5", "--set jitter.share=0.5: jitter.hold: this key is needed"),
        ("kill9-all", "workload.sql.tables=['t']", "--set workload.sql.tables=['t']: workload.sql.transactions: this"),
        (
            "reach-jitter",
            "jitter.between=['9ms', '1ms']",
            ".toml:22 with --set jitter.between=['9ms', '1ms']: jitter: between must name the shorter time first",
        ),
        ("kill9-all", "power_loss.acks=5", "kill9-all.toml with --set power_loss.acks=5: a recorded run is cut off"),
        ("reach-jitter", "jitter.between=['1ms']", ": jitter.between: must have at least 2 values, not ['1ms']"),
        ("reach-jitter", "jitter.hold=[]", ": jitter.hold: must have at least 1 value, not []"),
        ("reach-jitter", "jitter.hold=before flush", ": jitter.hold: must be a list, written [..., ...], not 'before"),
        (
            "kill9-all",
            "pg_stat_statements.max=100",
            "unknown key; a PostgreSQL setting is written --set server.settings.pg_stat_statements.max=...",
        ),
    ],
)
def test_what_an_option_made_wrong_is_not_said_of_the_file_alone(profile, override, says):
    """Where no file has the table the option alone is named; where both have a part in it, both."""
    with pytest.raises(ProfileError) as caught:
        load_profile(profile, [override])
    (line,) = str(caught.value.detail).splitlines()
    assert says in line
    assert line.startswith("--set ") == (" with " not in line)


def test_what_a_file_has_wrong_is_said_of_the_file(tmp_path):
    """Although an option has put something somewhere else."""
    file = tmp_path / "own.toml"
    file.write_text('extends = "kill9-all"\n[jitter]\nshare = 0.5\n')
    with pytest.raises(ProfileError) as caught:
        load_profile(str(file), ["workload.clients=2"])
    assert str(caught.value.detail) == f"{file}:2: jitter.hold: this key is needed"
