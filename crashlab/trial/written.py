"""What is written down about a trial, and in which order? The same for live, recorded and application trials.

Choices:
    First what the recovered server holds, its log and the crash state, then trial.json: a folder with that file holds
    everything that a judge needs. Then the verdict, made from these files alone, as `crashlab judge` makes it.
    The checksums of all files need a server that is stopped. A live trial is over by then. A test of an application may
    go on with its server, and a recorded state is only one of many on the same folder: there the observation says that
    they were skipped, and why.
"""

from pathlib import Path
from typing import Any

import msgspec

import crashlab
from crashlab import evidence
from crashlab.disk.contract import DiskContract
from crashlab.model import Held, Injection, Observation, Told
from crashlab.profile import Profile
from crashlab.recovery.fulldisk import full_disk
from crashlab.trial.judged import ledger_of


def trial_record(
    profile: Profile,
    kind: evidence.TrialKind,
    *,
    trial: int,
    seed: int,
    run_seed: int,
    server: evidence.ServerFacts,
    injections: list[Injection],
    seconds: dict[str, float],
    acked_min: int | None = None,
    workload_errors: list[str] | None = None,
    timed_out: str | None = None,
    recording: str | None = None,
    crash_io: int | None = None,
    disk_contract: DiskContract | None = None,
    recovered_with: evidence.RecoveredWith | None = None,
    reproduce: str | None = None,
    drawn: dict[str, str] | None = None,
    held: list[Held] | None = None,
) -> evidence.TrialRecord:
    """Return the record of a trial: what its profile promises and asks for, and what the trial itself was.

    Args:
        acked_min: None: as the profile says.
        reproduce: None: a replay of the trial's own folder.
        drawn: which values of the profile's table [vary] its server had.
        held: where its processes were held, as the profile's table [jitter] says.
    """
    return evidence.TrialRecord(
        crashlab=crashlab.__version__,
        profile=profile.name,
        profile_resolved=profile.model_dump(mode="json", by_alias=True),
        kind=kind,
        disk="linux" if profile.power_loss is None else profile.power_loss.promised_disk,
        trial=trial,
        seed=seed,
        run_seed=run_seed,
        crash_class=profile.crash_class,
        server=server,
        acked_min=profile.workload.acked_min if acked_min is None else acked_min,
        injections=injections,
        seconds=seconds,
        recording=recording,
        crash_io=crash_io,
        disk_contract=disk_contract,
        workload_errors=workload_errors or [],
        timed_out=timed_out,
        recovered_with=recovered_with,
        reproduce=reproduce,
        drawn=drawn or {},
        held=held or [],
    )


def write_evidence(
    folder: Path,
    record: evidence.TrialRecord,
    observation: Observation,
    *,
    server_log: str,
    place: Path | None = None,
    state: Any = None,
    told: Told | None = None,
) -> None:
    """Write everything that a trial leaves but its ledger, which is there already.

    Args:
        server_log: what the server said, from before the fault on.
        place: where the server's files are; None: not on this machine.
        state: a recorded trial's crash state.
        told: of a test of an unchanged application.

    Raises:
        EvidenceError: the folder cannot be written.
    """
    evidence.save_text(folder, evidence.SERVER_LOG, server_log)
    disk_full = full_disk(server_log, record.workload_errors, place)
    observation = msgspec.structs.replace(observation, disk_full=disk_full)
    digests = {evidence.OBSERVATION: evidence.save(folder, evidence.OBSERVATION, observation)}
    if state is not None:
        digests[evidence.STATE] = evidence.save(folder, evidence.STATE, state)
    if told is not None:
        digests[evidence.TOLD] = evidence.save(folder, evidence.TOLD, told)
    digests[evidence.LEDGER] = evidence.digest_of(ledger_of(folder, record))
    evidence.save(folder, evidence.TRIAL, msgspec.structs.replace(record, digests=digests))
