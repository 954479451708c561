"""Does the disk model allow exactly the crash states that its rules define?

Small logs are generated and every state is listed a second time, naively, by naive_disk.
"""

from collections.abc import Sequence
from itertools import islice
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from crashlab.disk.allowed import allows
from crashlab.disk.contract import DiskContract, disk_contract
from crashlab.disk.model import DiskModel
from crashlab.disk.operations import BaseFile, Kind, Operation
from crashlab.disk.states import draw_state, enumerate_states, everything, nothing_extra
from crashlab.errors import EvidenceError, UsageProblem
from crashlab.seeds import stream
from tests.disk.disk_text import CONTRACTS, Disk, Image
from tests.disk.naive_disk import all_images
from tests.examples import examples

RULES = ("linux", "strict", "lying", "lying later", "process")
MOST_STATES = 1500

_DATA = st.text("abc.", min_size=1, max_size=7)
_SIZE = st.integers(0, 11)


@st.composite
def disks(draw: st.DrawFn, kinds: str = "data names") -> Disk:
    """Draw a base image of two files and a log of up to seven operations that a server could have issued on it."""
    disk = Disk()
    disk.add_base("d", None)
    disk.add_base("d/x", b"ABCDEF")
    if draw(st.booleans()):
        disk.add_base("y", b"STUV")
    opened: list[str] = []
    for step in range(draw(st.integers(1, 7))):
        verbs = ["fsync", "fdatasync", "syncfs", "begin", *(["end"] if opened else [])]
        verbs += ["write", "write", "dsync", "truncate", "allocate", "content"] * ("data" in kinds)
        verbs += ["create", "mkdir", "symlink", "rename", "rename", "link", "unlink", "exchange"] * ("names" in kinds)
        line = _line(draw, disk, draw(st.sampled_from(verbs)), step, opened)
        if line:
            note(line)
            disk.run(line)
    return disk


def _line(draw: st.DrawFn, disk: Disk, verb: str, step: int, opened: list[str]) -> str:
    paths = disk.paths()
    links = {op.file for op in disk.log if op.kind is Kind.SYMLINK}
    directories = [path for path, file in paths.items() if file in disk.tree]
    files = [path for path, file in paths.items() if file not in disk.tree and file not in links]
    if verb == "syncfs":
        return "syncfs"
    if verb == "end":
        return f"end {opened.pop(draw(st.integers(0, len(opened) - 1)))}"
    if verb in ("fsync", "fdatasync", "begin") and (files or directories):
        target = draw(st.sampled_from(["syncfs"] * (verb == "begin") + files + directories))
        if verb != "begin":
            return f"{verb} {target}"
        opened.append(f"t{step}")
        return f"begin t{step} {target}"
    if verb in ("create", "mkdir", "symlink"):
        path = draw(st.sampled_from([*(f"{directory}/" for directory in directories), ""])) + draw(
            st.sampled_from("uvwx")
        )
        return "" if path in paths else f"{verb} {path} {'somewhere' if verb == 'symlink' else ''}"
    if verb in ("write", "dsync", "content", "truncate", "allocate"):
        if not files:
            return ""
        words: dict[str, Sequence[st.SearchStrategy[object]]] = {
            "content": [_DATA],
            "truncate": [_SIZE],
            "allocate": [_SIZE, st.integers(1, 6)],
        }
        drawn = [str(draw(one)) for one in words.get(verb, (_SIZE, _DATA))]
        return f"{verb} {draw(st.sampled_from(files))} {' '.join(drawn)}"
    return _names_line(draw, disk, verb, paths, directories)


def _names_line(draw: st.DrawFn, disk: Disk, verb: str, paths: dict[str, int], directories: list[str]) -> str:
    if not paths or verb not in ("unlink", "exchange", "rename", "link"):
        return ""
    path = draw(st.sampled_from(sorted(paths)))
    is_directory = paths[path] in disk.tree
    if verb == "unlink":
        if is_directory:
            return f"rmdir {path}" if not disk.tree[paths[path]] else ""
        return f"unlink {path}"
    if verb == "exchange":
        other = draw(st.sampled_from(sorted(paths)))
        inside = path.startswith(other) or other.startswith(path)
        return "" if inside else f"exchange {path} {other}"
    target = draw(st.sampled_from([*(f"{directory}/" for directory in directories), ""])) + draw(
        st.sampled_from("uvxy")
    )
    if target.startswith(path + "/") or (verb == "link" and (is_directory or target in paths)):
        return ""
    if target in paths:
        replaced_directory = paths[target] in disk.tree
        if is_directory != replaced_directory or (replaced_directory and disk.tree[paths[target]]):
            return ""
    return f"{verb} {path} {target}"


def reference(disk: Disk, contract: DiskContract) -> set[Image]:
    """Every image that a disk may hold, listed naively; an example with too many is left out."""
    images = list(islice(all_images(disk, contract), MOST_STATES + 1))
    assume(len(images) <= MOST_STATES)
    return set(images)


def _check_against_reference(disk: Disk, contract: DiskContract) -> None:
    expected = reference(disk, contract)
    model = disk.model(contract)
    states = list(enumerate_states(model))
    found = {state.fingerprint: disk.image(model, state) for state in states}
    assert set(found.values()) == expected
    assert len(found) == len(states)
    rng = stream(0, "states")
    for _ in range(10):
        state = draw_state(model, rng)
        image = disk.image(model, state)
        assert image in expected
        assert found.get(state.fingerprint, image) == image, "equal fingerprints, different images"


_settings = settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", RULES)
@_settings
@given(disks())
def test_enumeration_is_the_definition(name: str, disk: Disk) -> None:
    """All enumerated states together are all states that the rules allow, and each drawn one is among them."""
    _check_against_reference(disk, CONTRACTS[name])


@pytest.mark.parametrize("name", ["linux", "lying later"])
@settings(_settings, max_examples=examples(150))
@given(disks("data"))
def test_enumeration_is_the_definition_for_content(name: str, disk: Disk) -> None:
    """The same for logs that only change content: more truncations, overlays and flushes of the same file."""
    _check_against_reference(disk, CONTRACTS[name])


@pytest.mark.parametrize("name", ["linux", "strict"])
@_settings
@given(disks("names"))
def test_enumeration_is_the_definition_for_names(name: str, disk: Disk) -> None:
    """The same for logs that only change names: more renames, replacements and directories."""
    _check_against_reference(disk, CONTRACTS[name])


class _Found:
    """A disk as it was found, from an image."""

    def __init__(self, image: Image) -> None:
        self._entries = {path: (kind, data) for path, kind, data in image}

    def paths(self) -> dict[str, str]:
        return {path: kind for path, (kind, _) in self._entries.items()}

    def link(self, path: str) -> str:
        return self._entries[path][1].decode()

    def read(self, path: str) -> bytes:
        return self._entries[path][1]


def _mutants(image: Image, rng: Random) -> list[Image]:
    path, kind, data = rng.choice(sorted(image) or [("", "", b"")])
    if not path:
        return [frozenset({("stray", "file", b"")})]
    rest = image - {(path, kind, data)}
    mutants = [rest, image | {("stray", "file", b"")}]
    if kind != "dir":
        mutants += [rest | {(path, kind, data + b"\0")}, rest | {(path, kind, data[:-1])}]
        mutants += [rest | {(path, kind, data[:at] + b"\0" + data[at + 1 :])} for at in range(len(data))]
        mutants += [rest | {(path, kind, data[:at] + b"A" + data[at + 1 :])} for at in range(len(data))]
    return mutants


@pytest.mark.parametrize("name", RULES)
@settings(_settings, max_examples=examples(40))
@given(disks(), st.randoms(use_true_random=False))
def test_allows_accepts_exactly_the_states(name: str, disk: Disk, rng: Random) -> None:
    """A disk as found is accepted if and only if it is one of the states: damage of any kind has a reason."""
    expected = reference(disk, CONTRACTS[name])
    model = disk.model(CONTRACTS[name])
    chosen = rng.sample(sorted(expected, key=sorted), min(4, len(expected)))
    for image in [*chosen, *(mutant for one in chosen for mutant in _mutants(one, rng))]:
        reasons = allows(model, _Found(image), disk.logged, disk.base_range)
        assert (reasons == []) == (image in expected), (image, reasons)


@_settings
@given(disks())
def test_process_contract_is_the_replay(disk: Disk) -> None:
    """Under `process` there is one state, and under every contract it is the one in which everything survived."""
    model = disk.model(CONTRACTS["process"])
    states = list(enumerate_states(model))
    assert len(states) == 1
    replay = disk.image(model, states[0])
    assert {path for path, _, _ in replay} == set(disk.paths())
    for name in ("linux", "journal", "strict", "lying"):
        other = disk.model(CONTRACTS[name])
        assert disk.image(other, everything(other)) == replay


@_settings
@given(disks())
def test_lying_from_the_start_may_lose_everything(disk: Disk) -> None:
    """A disk that never flushes may come back as the base image, whatever was synced."""
    model = disk.model(CONTRACTS["lying"])
    base = DiskModel(disk.base, CONTRACTS["linux"])
    assert disk.image(model, nothing_extra(model)) == disk.image(base, nothing_extra(base))


@_settings
@given(disks())
def test_sync_leaves_one_state(disk: Disk) -> None:
    """After a sync nothing is pending, under every honest contract."""
    disk.run("syncfs")
    for name in ("linux", "journal", "strict"):
        model = disk.model(CONTRACTS[name])
        assert len(list(enumerate_states(model))) == 1
        pending = model.pending()
        assert not pending.files
        assert not pending.names


def test_same_seed_same_state() -> None:
    """A state is drawn again from its seed, and survives being written down."""
    disk = Disk()
    disk.add_base("f", b"ABCDEFGH")
    for line in ("write f 0 aaaaaaaabbbb", "create g", "write g 0 cccc", "truncate f 2"):
        disk.run(line)
    model = disk.model(CONTRACTS["linux"])
    drawn = [draw_state(model, stream(seed, "states")) for seed in range(40)]
    assert drawn == [draw_state(disk.model(CONTRACTS["linux"]), stream(seed, "states")) for seed in range(40)]
    assert len({state.fingerprint for state in drawn}) > 10
    again = model.state(drawn[0].names, drawn[0].files, drawn[0].note)
    assert again == drawn[0]


def test_equal_bytes_written_again_are_one_state() -> None:
    """Whole units, zeros and like partial writes have equal fingerprints when their bytes are equal."""
    for line in ("write f 0 aaaa", "write f 4 bb", "write f 8 ....", "create g"):
        disk = Disk()
        disk.add_base("f", b"")
        for one in (
            "write f 0 aaaa",
            "write f 4 bb",
            "allocate f 0 12",
            "create g",
            "syncfs",
            line * (line != "create g"),
        ):
            if one:
                disk.run(one)
        assert len(list(enumerate_states(disk.model(CONTRACTS["linux"])))) == 1, line


def test_zeros_behind_the_bytes_of_the_base_image_change_the_size_only() -> None:
    """They are there or not; and on disk already, the unit is the base image's again, at either size."""
    disk = Disk()
    disk.add_base("f", b"ABCDEF")
    disk.run("write f 6 .")
    assert len(list(enumerate_states(disk.model(CONTRACTS["linux"])))) == 2
    disk.run("syncfs")
    disk.run("truncate f 6")
    assert len(list(enumerate_states(disk.model(CONTRACTS["linux"])))) == 2


def test_bad_input_is_refused() -> None:
    """A recording that does not fit its base image, and a contract that does not exist, are clear errors."""
    model = DiskModel([BaseFile(file=1, path="d", kind="dir")], disk_contract())
    with pytest.raises(EvidenceError, match='file "d/x" of the recording does not exist'):
        model.apply(Operation(position=0, kind=Kind.UNLINK, path="d/x"))
    with pytest.raises(EvidenceError, match='directory "e" of the recording does not exist'):
        model.apply(Operation(position=1, kind=Kind.CREATE, file=2, path="e/x"))
    with pytest.raises(UsageProblem, match='unknown disk contract "ext4"'):
        disk_contract("ext4")
    with pytest.raises(UsageProblem, match="cannot tear writes at 256 bytes"):
        disk_contract(tear_bytes=256)
