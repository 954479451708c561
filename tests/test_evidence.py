"""Does a trial's record come back from disk as it was written?"""

from dataclasses import asdict

import msgspec
import pytest

from crashlab import evidence, sealed
from crashlab.disk.contract import CONTRACT_NAMES, disk_contract
from crashlab.disk.fileclass import FileClass
from crashlab.errors import EvidenceError
from crashlab.profile import load_profile
from crashlab.trial.written import trial_record
from tests.made_results import FACTS, KILL


def record(**more):
    """The record of a recorded trial."""
    profile = load_profile("power-loss")
    return trial_record(
        profile,
        "recorded",
        trial=3,
        seed=4,
        run_seed=5,
        server=FACTS,
        injections=[KILL],
        seconds={"total": 0.7},
        **more,
    )


@pytest.mark.parametrize("name", CONTRACT_NAMES)
def test_a_disk_contract_needs_no_profile_to_come_back(tmp_path, name):
    """Whole, with what is swallowed; what a later version adds is left out, what it lacks has its default."""
    swallowed = frozenset({FileClass.WAL, FileClass.SLRU})
    contract = disk_contract(name, tear_bytes=512, flushes_ignored_for=swallowed, flush_left_out=17)
    written = record(disk_contract=contract, recording="../recording", crash_io=99)
    evidence.save(tmp_path, evidence.TRIAL, written)
    assert evidence.load_trial(tmp_path) == written
    table = msgspec.json.decode((tmp_path / evidence.TRIAL).read_bytes())
    assert table["disk_contract"].keys() == asdict(contract).keys()
    table["disk_contract"]["made_of"] = "glass"
    del table["disk_contract"]["durable_symlinks"]
    (tmp_path / evidence.TRIAL).write_bytes(sealed.sealed(table)[0])
    assert evidence.load_trial(tmp_path) == written


def test_a_record_of_an_old_schema_that_lacks_a_part_is_damaged(tmp_path):
    """Named as such, not a traceback."""
    evidence.save(tmp_path, evidence.TRIAL, record())
    table = msgspec.json.decode((tmp_path / evidence.TRIAL).read_bytes())
    for gone in ("kind", "disk", "reproduce"):
        del table[gone]
    old = table | {"schema": 1}
    (tmp_path / evidence.TRIAL).write_bytes(sealed.sealed(old | {"reproduce": "crashlab replay there"})[0])
    assert evidence.load_trial(tmp_path).kind == "live"
    for damaged in (old, old | {"reproduce": 3}, old | {"reproduce": "x", "profile_resolved": "gone"}):
        (tmp_path / evidence.TRIAL).write_bytes(sealed.sealed(damaged)[0])
        with pytest.raises(EvidenceError, match="damaged evidence"):
            evidence.load_trial(tmp_path)
