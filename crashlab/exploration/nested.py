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
import shutil
import time
from pathlib import Path

import msgspec

import crashlab
from crashlab import evidence
from crashlab.disk.fileclass import FileClass
from crashlab.disk.model import CrashState
from crashlab.disk.operations import Kind, root_label
from crashlab.exploration import record
from crashlab.exploration.addresses import Address
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.recording import LOG, RECORDING, Recording, digests_of, share_ledger
from crashlab.profile import Profile
from crashlab.recording import base
from crashlab.recording.decoder import Decoder
from crashlab.recording.iolog import LogPosition
from crashlab.recording.replay import self_check
from crashlab.recovery import recover
from crashlab.recovery.restart import durable_settings
from crashlab.seeds import derive
from crashlab.trial.jitter import RECORDER_FOLDER

STATES_PER_POINT = 2
CONTROL = f"{root_label(0)}/global/pg_control"


def inner_profile(profile: Profile) -> Profile:
    """Return the profile by which a recovery is cut that was recorded under this one: one level less, cut anywhere.

    A recovery ends with a checkpoint, so what aims at checkpoints goes on doing so, and what aims at the control file,
    too. Of what else was near nothing need happen in a recovery.
    """
    power_loss = profile.power_loss
    assert power_loss is not None
    inner = power_loss.model_copy(
        update={
            "recovery_depth": power_loss.recovery_depth - 1,
            "points": "checkpoint" if power_loss.points == "checkpoint" else "any",
            "near": [name for name in power_loss.near if name == FileClass.CONTROL],
            "at": [],
        }
    )
    return profile.model_copy(update={"power_loss": inner})


def record_recovery(explorer: Explorer, state: CrashState, address: Address, folder: Path) -> Recording:
    """Recover a crash state under the recorder, into a folder that is made.

    Raises:
        RecordingError: it cannot be recorded here.
    """
    parent = explorer.recording
    once = parent.record.ledger_io is None
    first_survivors = explorer.survivors(state) if once else parent.record.first_survivors
    folder.mkdir(parents=True)
    share_ledger(parent.ledger, folder / evidence.LEDGER)
    explorer.make_real(state)
    worker = explorer.worker
    server = worker.server
    roots = [worker.images.image / root_label(index) for index in range(len(parent.base.roots))]
    begun = time.monotonic()
    away = worker.images.folder.parent
    image, log = record.attach(server, roots, away, folder)
    log_begin = server.log_position()
    try:
        recover(server, restart=True, log_position=log_begin, overrides=durable_settings(server.version.major))
        with contextlib.closing(LogPosition(log)) as position:
            position.wait_until_quiet()
    finally:
        worker.kill()
        server.environment.clear()
        shutil.rmtree(away / RECORDER_FOLDER)
        evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(log_begin))
    record.refuse_full_disk("could not record a recovery", server.log_since(log_begin), away, None)
    evidence.move_in(log, folder, LOG)
    recorded = time.monotonic()
    differences = self_check(image, folder / LOG)
    made = msgspec.structs.replace(
        parent.record,
        crashlab=crashlab.__version__,
        seed=derive(explorer.seed, "recovery", str(address)),
        first_bytes=_after_flushing(image, folder / LOG),
        end_bytes=(folder / LOG).stat().st_size,
        roots=[str(server.seen(root)) for root in image.roots],
        digests=digests_of(folder),
        base_digest=base.digest(image),
        ledger_io=explorer.ledger_io(),
        first_survivors=first_survivors,
        differences=[str(difference) for difference in differences[: record.DIFFERENCES_MAX]],
        seconds={"record": round(recorded - begun, 4), "self-check": round(time.monotonic() - recorded, 4)},
    )
    evidence.save(folder, RECORDING, made)
    return Recording(folder, made, image)


def recovery_name(address: Address) -> str:
    """Return the name of the folder of a recorded recovery."""
    return f"recovery-{address}"


def _after_flushing(image: base.BaseImage, log: Path) -> int:
    """Return the log's length right before recovery says in the control file that it has begun; 0 if it never did."""
    (control,) = [entry.file for entry in image.files if entry.path == CONTROL] or [0]
    end = 0
    for operation in Decoder(log, image.files):
        if operation.kind is Kind.WRITE and operation.file == control:
            return end
        end = operation.log_end
    return 0
