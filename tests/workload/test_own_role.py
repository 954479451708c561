"""As whom does a profile's SQL run, and with what around it?"""

import contextlib
import os
from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.cli import invoke
from crashlab.errors import ProfileError
from crashlab.model import Outcome
from crashlab.profile import load_profile
from crashlab.server import Server
from crashlab.server.privileges import KEPT_VARIABLES

PROFILE = """
description = "a stranger's"
extends = "kill9-all"
{superuser}
[workload]
kinds = ["sql", "transfer", "indexed"]
acked_min = 5
[workload.sql]
tables = ["t"]
setup = '''CREATE TABLE t (id bigint PRIMARY KEY, who text); {setup}'''
transactions = ["INSERT INTO t VALUES (:tx, current_user)"]
[[invariants]]
name = "nobody else"
sql = '''SELECT who FROM t WHERE who <> {role}{invariant}'''
"""
TAKES_OVER = "COPY t (who) FROM PROGRAM 'id'"
READS = " OR length(pg_read_file('/etc/passwd')) > 1e9"


def run(tmp_path: Path, setup: str = "", invariant: str = "", superuser: bool | None = None) -> int:
    said = "" if superuser is None else f"superuser = {str(superuser).lower()}"
    role = "'postgres'" if superuser else "'crashlab_application'"
    profile = tmp_path / "strange.toml"
    profile.write_text(PROFILE.format(superuser=said, setup=setup, invariant=invariant, role=role))
    out = tmp_path / "out"
    return invoke(["run", str(profile), "--trials", "1", "--server", "local", "-j", "1", "--out", str(out)])


def outcome(tmp_path: Path) -> Outcome:
    (trial,) = (file.parent for file in (tmp_path / "out").rglob(evidence.TRIAL))
    return evidence.load_verdict(trial).outcome


@pytest.mark.server
def test_it_is_no_superuser(tmp_path):
    """Own kinds beside it work as ever; its invariants are looked at before the crash and after it."""
    assert run(tmp_path) == 0
    assert outcome(tmp_path) is Outcome.INTACT


@pytest.mark.server
@pytest.mark.parametrize(("setup", "invariant"), [(TAKES_OVER, ""), ("", READS)])
def test_what_needs_a_superuser_is_refused_unless_the_profile_says_so(setup, invariant, tmp_path, capfd):
    """With the server's own words, as a mistake in the profile."""
    assert run(tmp_path, setup, invariant) == 2
    assert "permission denied" in capfd.readouterr().err


@pytest.mark.server
def test_with_superuser_the_same_runs(tmp_path):
    """The innocent twin."""
    assert run(tmp_path, invariant=READS, superuser=True) == 0


@pytest.mark.parametrize("name", ["archive_command", "shared_preload_libraries"])
def test_a_setting_that_names_a_program_needs_superuser(name):
    """It runs as the server's user, outside of all SQL."""
    setting = f"server.settings.{name}=x"
    with pytest.raises(ProfileError) as refused:
        load_profile("kill9-all", [setting])
    assert f"{name} names a program or a library, which needs superuser = true" in str(refused.value)
    load_profile("kill9-all", [setting, "superuser=true"])


@pytest.mark.server
def test_the_servers_environment_is_nearly_empty(local_server: Server, monkeypatch):
    """No token of the caller's reaches it."""
    monkeypatch.setenv("A_TOKEN", "secret")
    local_server.stop()
    local_server.start()
    postmaster = local_server.processes()[0].pid
    names = {item.partition(b"=")[0].decode() for item in Path(f"/proc/{postmaster}/environ").read_bytes().split(b"\0")}
    assert "A_TOKEN" in os.environ
    assert names - {""} <= {*KEPT_VARIABLES, "LC_ALL"} | {"PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.server
def test_a_session_goes_to_its_own_server_whatever_the_environment_says(local_server: Server, monkeypatch):
    """PGHOSTADDR would win over the host."""
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    with contextlib.closing(local_server.connect(connect_timeout=2)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
