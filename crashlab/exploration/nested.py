"""What if the power fails again while the server recovers?

A recovery is recorded like a run: its base image is a crash state of the recording before it, and the clients' ledger
ends where it ended at the first cut, for nobody was served since. So a recorded recovery is a recording, and everything
that explores, judges and replays recordings does so with this one. It can be cut in its turn, and so on. With it goes
who is there if the first crash state is recovered in one go: no later crash may change that.

Assumes: what the first cut left is durable by then.
Choices: the recovery is recorded with fsync and full_page_writes as the server had them. The pass in which it flushes
    everything that it finds is left out of the crash points: it changes nothing.

Source: design.md "A recorded recovery"; postgres-contract.md section 8.
"""

import contextlib
import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import crashlab
from crashlab import evidence
from crashlab.disk.model import DiskModel
from crashlab.disk.operations import Kind, root_label
from crashlab.exploration import recording as recordings
from crashlab.exploration.explorer import Candidate, Explorer
from crashlab.exploration.recording import Recording, RecordingRecord
from crashlab.profile import Profile
from crashlab.recording import base
from crashlab.recording.decoder import Decoder
from crashlab.recording.iolog import LogPosition
from crashlab.recording.replay import self_check
from crashlab.recovery import recover
from crashlab.recovery.restart import durable_settings
from crashlab.results import RunRequest
from crashlab.seeds import derive

STATES_PER_POINT = 2
CONTROL = f"{root_label(0)}/global/pg_control"


def recoveries_of(request: RunRequest) -> int:
    """Return how many recoveries are to be recorded, for as many trials as asked for."""
    assert request.profile.power_loss is not None
    return -(-request.trials // request.profile.power_loss.states_per_point)


def few_states_a_point(profile: Profile) -> Profile:
    """Return the profile to draw with what is recovered under the recorder: rather from many points."""
    return _changed(profile, states_per_point=STATES_PER_POINT)


def inner_request(request: RunRequest, done: int, *, recoveries: int) -> RunRequest:
    """Return the request for the crash states of one recorded recovery: one level less, cut anywhere.

    A recovery ends with a checkpoint, so what aims at checkpoints goes on doing so.

    Args:
        done: how many of the request's trials were done before.
        recoveries: how many recorded ones, this one included, share the rest.
    """
    assert request.profile.power_loss is not None
    depth = request.profile.power_loss.recovery_depth - 1
    points = "checkpoint" if request.profile.power_loss.points == "checkpoint" else "any"
    profile = request.profile if depth else few_states_a_point(request.profile)
    return dataclasses.replace(
        request,
        profile=_changed(profile, recovery_depth=depth, points=points),
        trials=-(-(request.trials - done) // recoveries),
        first_trial=request.first_trial + done,
    )


def _changed(profile: Profile, **update: Any) -> Profile:
    assert profile.power_loss is not None
    return profile.model_copy(update={"power_loss": profile.power_loss.model_copy(update=update)})


def record_recovery(explorer: Explorer, model: DiskModel, candidate: Candidate) -> Recording:
    """Recover a crash state under the recorder, into a folder inside that of its own recording.

    Raises:
        RecordingError: it cannot be recorded here.
    """
    parent = explorer.recording
    once = parent.record.ledger_io is None
    first_survivors = explorer.survivors(model, candidate) if once else parent.record.first_survivors
    folder = parent.folder / f"recovery-{candidate.trial:04d}"
    folder.mkdir()
    (folder / evidence.LEDGER).hardlink_to(parent.ledger)
    worker = explorer.make_real(model, candidate)
    server = worker.server
    roots = [worker.images.image / root_label(index) for index in range(len(parent.base.roots))]
    begun = time.monotonic()
    home = worker.images.folder.parent
    image, log = recordings.attach(server, roots, home, folder)
    log_begin = server.log_position()
    try:
        recover(server, restart=True, log_position=log_begin, overrides=durable_settings(server.version.major))
        with contextlib.closing(LogPosition(log)) as position:
            position.wait_until_quiet()
    finally:
        worker.kill()
        server.environment.clear()
        shutil.rmtree(home / recordings.RECORDER_FOLDER)
        evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(log_begin))
    evidence.move_in(log, folder, recordings.LOG)
    end_bytes = (folder / recordings.LOG).stat().st_size
    recorded = time.monotonic()
    differences = self_check(image, folder / recordings.LOG)
    record = RecordingRecord(
        crashlab=crashlab.__version__,
        profile=parent.record.profile,
        profile_resolved=parent.record.profile_resolved,
        run_seed=parent.record.run_seed,
        seed=derive(parent.record.seed, folder.name),
        server=parent.record.server,
        first_bytes=_after_flushing(image, folder / recordings.LOG),
        end_bytes=end_bytes,
        roots=[str(server.seen(root)) for root in image.roots],
        base_digest=base.digest(image),
        ledger_io=explorer.ledger_io(candidate),
        first_survivors=first_survivors,
        differences=[str(difference) for difference in differences[: recordings.DIFFERENCES_MAX]],
        workload_errors=parent.record.workload_errors,
        tables=parent.record.tables,
        invariants_before=parent.record.invariants_before,
        seconds={"record": round(recorded - begun, 4), "self-check": round(time.monotonic() - recorded, 4)},
    )
    evidence.save(folder, recordings.RECORDING, record)
    return Recording(folder, record, image)


def _after_flushing(image: base.BaseImage, log: Path) -> int:
    """Return the log's length right before recovery says in the control file that it has begun; 0 if it never did."""
    (control,) = [entry.file for entry in image.files if entry.path == CONTROL] or [0]
    end = 0
    for operation in Decoder(log, image.files):
        if operation.kind is Kind.WRITE and operation.file == control:
            return end
        end = operation.log_end
    return 0
