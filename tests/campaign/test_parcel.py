"""Is a folder that arrives from another machine seen as whole only once it is?"""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.campaign.parcel import pack
from crashlab.errors import EvidenceError

NAMES = st.sampled_from(["ledger.jsonl", "trial.json", "verdict.json", "data/base/1/1259"])


class Killed(BaseException):
    """What follows does not happen any more."""


@given(content=st.dictionaries(NAMES, st.binary(max_size=40), min_size=1))
def test_what_arrives_is_what_was_sent(content: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("parcel")
    for name, value in content.items():
        (home / "sent" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "sent" / name).write_bytes(value)
    pack(home / "sent").unpack(home / "arrived", last=min(content) if "/" not in min(content) else None)
    arrived = {os.fspath(path.relative_to(home / "arrived")): path.read_bytes()
               for path in (home / "arrived").rglob("*") if path.is_file()}  # fmt: skip
    assert arrived == content


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "not killed"])
def test_whoever_is_killed_in_between_leaves_nothing_that_looks_whole(dies: bool, tmp_path: Path) -> None:
    """The last file has its name when the rest is there and it says where everything is here."""
    sent, arrived = tmp_path / "sent", tmp_path / "arrived"
    sent.mkdir()
    for name in ("trial.json", "verdict.json", "zzz"):
        (sent / name).write_text("of the worker")

    def settle(path: Path) -> None:
        assert {one.name for one in arrived.iterdir()} == {"verdict.json", "zzz", path.name}
        if dies:
            raise Killed
        path.write_text("of the client")

    if dies:
        with pytest.raises(Killed):
            pack(sent).unpack(arrived, last="trial.json", settle=settle)
        assert not (arrived / "trial.json").exists()
        return
    pack(sent).unpack(arrived, last="trial.json", settle=settle)
    told = {path.name: path.read_text() for path in arrived.iterdir()}
    assert told == {"trial.json": "of the client", "verdict.json": "of the worker", "zzz": "of the worker"}


def test_without_its_last_file_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    with pytest.raises(EvidenceError, match=r"trial\.json"):
        pack(tmp_path / "sent").unpack(tmp_path / "arrived", last="trial.json")
