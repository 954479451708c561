"""If it is written, it is so: README and pages against commands, options, profiles, codes, exit codes and CI."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crashlab.cli import EXIT_CODES, cli
from crashlab.disk.fileclass import FileClass
from crashlab.errors import CrashlabError
from crashlab.fault import FAULTS, TARGETS
from crashlab.oracle.codes import CODES
from crashlab.profile import list_profiles, load_profile
from crashlab.profile_schema import Profile
from crashlab.report.formats import FORMATS
from crashlab.report.json_report import report_bytes
from crashlab.workload.kinds import KINDS
from tests.documents import DOCUMENTS, PAGES, README, ROOT, WHOLE, blocks, rows, shell_lines
from tests.made_results import intact, result, run

COMMANDS = [
    pytest.param(line, id=f"{name}: {line}")
    for name, text in DOCUMENTS.items()
    for line in shell_lines(text)
    if line.startswith("crashlab ")
]


def options_of(command: str) -> set[str]:
    """Return every spelling of every option of a command."""
    return {name for param in cli.commands[command].params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_can_be_parsed(line):
    """A reader who copies a line gets no usage error: command, options and their values are real."""
    _, command, *args = shlex.split(line, comments=True)
    context = cli.commands[command].make_context(command, args)
    for profile in context.params.get("profiles") or ():
        load_profile(profile, context.params["overrides"])


def test_every_command_is_documented_and_every_option_named_exists():
    """Commands: both ways. Options: what is named exists somewhere."""
    named = set(re.findall(r"(?:^|`|bin/)crashlab ([a-z]+)", WHOLE, re.MULTILINE)) - {"crashes"}
    assert named == set(cli.commands)
    known = {option for command in cli.commands for option in options_of(command)}
    prose = re.sub(r"(?:pip install|dask worker|pg_waldump|docker run|docker compose|\"compose\")[^&\n]*", "", WHOLE)
    options = {
        option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose) if not option.startswith("--crashlab-")
    }
    assert options <= known | {"--help"}


def test_the_table_of_commands_says_what_their_help_says():
    """Each command, in the order of --help, with its first sentence."""
    told = {name: command.help or "" for name, command in cli.commands.items()}
    firsts = {f"crashlab {name}": " ".join(text.split("\n\n")[0].split()) for name, text in told.items()}
    table = {name: f"{cells[0]}." for name, cells in rows(PAGES["commands"], "command").items()}
    assert list(table.items()) == list(firsts.items())


def test_the_readmes_words_are_those_of_the_page():
    """Said twice, for readers without a terminal, and the same."""
    assert rows(README, "word") == rows(PAGES["words"], "word")


def test_the_table_of_profiles_is_that_of_the_files():
    """Each shipped profile with its description and its expected outcome, and no other."""
    table = rows(PAGES["profiles"], "profile")
    shipped = {file.stem for file in (ROOT / "fault_profiles").glob("*.toml")}
    assert set(table) == shipped <= set(list_profiles())
    for name, (description, expected) in table.items():
        profile = load_profile(str(ROOT / "fault_profiles" / f"{name}.toml"))
        assert description == profile.description
        if not profile.tour:
            assert expected == f"{' or '.join(profile.expect.outcomes)}, {' or '.join(profile.expect.promise)}"


@pytest.mark.parametrize("example", blocks(WHOLE, "toml"))
def test_the_example_profiles_are_valid(tmp_path, example):
    """Each profile can be run as it stands."""
    file = tmp_path / "example.toml"
    file.write_text(example)
    assert load_profile(str(file)).faults


def test_the_faults_and_their_targets_are_those_that_declare_themselves():
    """Each kind of fault with what it does, each target, and no other."""
    section = PAGES["profiles"].split("A fault is one of these:\n")[1].split("\n#")[0]
    assert dict(re.findall(r"^- `(\w+)`: (.*)", section, re.MULTILINE)) == {
        name: fault.summary for name, fault in FAULTS.items()
    }
    aimed, targets = re.sub(r"\s+", " ", section).split(" are aimed at one target: ")
    assert {name for name, fault in FAULTS.items() if fault.targets} == set(re.findall("`(\\w+)`", aimed[-20:]))
    assert re.findall("`([^`]+)`", targets) == list(TARGETS)


def test_the_table_of_findings_is_that_of_the_code():
    """Each code with its title, and no other."""
    assert {code: cells[1] for code, cells in rows(PAGES["findings"], "code").items()} == {
        code: entry.title for code, entry in CODES.items()
    }


def test_exit_codes_are_the_same_on_the_page_and_in_help():
    """The page and --help list the same codes."""
    assert list(rows(PAGES["exit-codes"], "code")) == re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE)


def test_ci_runs_the_readmes_test_command():
    """The command that readers are given is the one that is tested."""
    (command,) = [line for line in shell_lines(README) if line.endswith("pytest")]
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_readme_of_the_tests_names_what_there_is(pytestconfig):
    """Markers, options and folders; and the README's own command for all tests."""
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert next(line for line in shell_lines(README) if line.endswith("pytest")) in text
    markers = {line.split(":")[0].split("(")[0] for line in pytestconfig.getini("markers")}
    for names in re.findall(r"pytest -m '?([^'#\n]+)", text):
        assert set(re.findall(r"\w+", names)) - {"not", "or"} <= markers
    assert pytestconfig.getoption("--update-golden", default=None) is not None
    for folder in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / folder).exists(), folder


def test_the_tests_run_without_plugins_that_somebody_switched_off():
    """`-p no:NAME` takes the plugin's options with it, and whoever reads those must not mind."""
    off = [word for name in ("cacheprovider", "debugging", "xdist") for word in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/test_lock.py"]
    for some in (off[:4], off):
        done = subprocess.run([*command, *some], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield each key of a profile by its dotted name; a table's own line is that of the table that holds it."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field
        for inner in models_in(field.annotation):
            named = "NAME." if get_origin(field.annotation) is dict else ""
            yield from keys_of(inner, f"{key}.{named}")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the tables that stand in a type, at whatever depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def told_default(key: str, field: FieldInfo) -> str:
    """Return a default as the page tells it."""
    if key == "name":
        return "the file's"
    value = list(field.default) if isinstance(field.default, list | dict) else field.default
    if field.is_required():
        return "needed"
    if field.default_factory is not None or value in (None, "", []):
        return "none"
    return ", ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


def test_every_key_of_a_profile_is_documented_with_its_default():
    """Both ways; the four tables that are only headings have none of their own."""
    headings = {"server", "workload", "faults", "power_loss", "invariants", "expect"}
    told = {key: cells[0] for key, cells in rows(PAGES["profile-keys"], "key").items()}
    known = {key: told_default(key, field) for key, field in keys_of(Profile) if key not in headings}
    assert told == {key: text.lower() if text in ("True", "False") else text for key, text in known.items()}


def test_the_kinds_of_transactions_and_files_are_those_of_the_code():
    """Every name that a profile may use there, and no other."""
    assert set(rows(PAGES["profile-keys"], "kind")) == set(KINDS)
    (classes,) = re.findall(r"Files are meant by class: (.*?)\.\n", PAGES["profile-keys"], re.DOTALL)
    assert re.findall(r"`(\w+)`", classes) == [str(one) for one in FileClass]


def test_every_key_of_the_json_report_is_documented():
    """Those of the report, those of a trial, and no other."""
    failed = CrashlabError("no room")
    whole = replace(run(result("kill9-all", intact()), error=failed), damaged=[failed])
    report = json.loads(report_bytes(whole))
    for head, known in (("key", report), ("key of a trial", report["trials"][0])):
        told = {key for cell in rows(PAGES["reports"], head) for key in re.findall(r"\w+", cell)}
        assert told == set(known)


def test_every_form_of_report_is_documented():
    """Each option that writes one."""
    told = set(rows(PAGES["reports"], "form")) - {"console"}
    assert told == {form.option for form in FORMATS}
