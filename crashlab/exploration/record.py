"""How is a recorded run made? One workload on one server, with every file operation written down.

Assumes: the base is durable as it is: it is taken from a server that was stopped cleanly, after the set-up.
Choices: a recording that fails its self-check is kept, so that it can be looked into, and gives no verdict.

Source: design.md "The recorder".
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import crashlab
from crashlab import evidence
from crashlab.errors import NoRoom, RecordingError
from crashlab.exploration.recording import BASE, LOG, RECORDING, Recording, RecordingRecord, digests_of
from crashlab.exploration.walcut import read_run
from crashlab.ledger import LedgerWriter
from crashlab.profile import PowerLoss, Profile
from crashlab.recording import base, iolog
from crashlab.recording.base import BaseImage
from crashlab.recording.iolog import LogPosition
from crashlab.recording.recorder import Recorder
from crashlab.recording.replay import self_check
from crashlab.recovery import look_before
from crashlab.recovery.fulldisk import full_disk
from crashlab.recovery.wal import WalReader
from crashlab.seeds import derive
from crashlab.server import Restartable, Server, create_server
from crashlab.trial.jitter import RECORDER_FOLDER, Jitter
from crashlab.trial.setup import (
    TrialPlan,
    invariants_before,
    make_workload,
    require_amcheck,
    server_facts,
    server_spec,
)
from crashlab.trial.vary import drawn
from crashlab.workload.databases import make_places
from crashlab.workload.run import Workload

RUN_TIMEOUT_S = 120.0
POLL_S = 0.002
DIFFERENCES_MAX = 20


def make(plan: TrialPlan, folder: Path, *, number: int = 0) -> Recording:
    """Run a profile's workload once under the recorder.

    Args:
        number: of the recording in its run; each has a seed of its own.

    Raises:
        CrashlabError: no server, no compiler for the recorder, folder not writable.
    """
    names = ("recording", number) if number else ("recording",)
    seed = derive(plan.run_seed, plan.profile.name, *names)
    plan, chosen = drawn(plan, seed)
    profile = plan.profile
    assert profile.power_loss is not None
    folder.mkdir(parents=True)
    seconds: dict[str, float] = {}
    begun = time.monotonic()
    with create_server(server_spec(profile, plan.server)) as server:
        position = _Position()
        ledger = LedgerWriter(folder / evidence.LEDGER, seed=seed, io_position=position)
        try:
            server.share_data()
            workload = _set_up(profile, server, ledger, seed)
            assert server.data_directory is not None
            roots = [server.data_directory, server.tablespaces]
            jitter = Jitter(server, profile, seed)
            image, log = attach(server, roots, server.data_directory.parent, folder, jitter=jitter.path)
            _start(server, log, position)
            first_bytes = _run(profile, workload, ledger, position, jitter)
            broken = look_before(lambda name: server.connect(autocommit=True, dbname=name), workload.tables)
            facts = server_facts(server, plan.server)
            _end(server, profile.power_loss, position)
            end_bytes = position()
        except Exception as error:
            refuse_full_disk("could not record", server.log_since(0), server.data_directory, error)
            raise
        finally:
            ledger.close()
            position.close()
            evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(0))
        evidence.move_in(log, folder, LOG)
        seconds["record"] = round(time.monotonic() - begun, 4)
        begun = time.monotonic()
        differences = self_check(image, folder / LOG)
        seconds["self-check"] = round(time.monotonic() - begun, 4)
    record = RecordingRecord(
        crashlab=crashlab.__version__,
        profile=profile.name,
        profile_resolved=profile.model_dump(mode="json", by_alias=True),
        run_seed=plan.run_seed,
        seed=seed,
        server=facts,
        first_bytes=first_bytes,
        end_bytes=end_bytes,
        roots=[str(server.seen(root)) for root in image.roots],
        digests=digests_of(folder),
        base_digest=base.digest(image),
        differences=[str(difference) for difference in differences[:DIFFERENCES_MAX]],
        workload_errors=list(workload.errors),
        tables=workload.tables,
        invariants_before=invariants_before(workload.violations),
        broken_before=broken,
        seconds=seconds,
        drawn=chosen,
        held=jitter.held(),
    )
    run = read_run(Recording(folder, record, image), WalReader())
    record = msgspec.structs.replace(record, written=[kind.name for kind in run.kinds])
    evidence.save(folder, RECORDING, record)
    return Recording(folder, record, image)


class _Position:
    """The length of the I/O log; 0 as long as there is none."""

    def __init__(self) -> None:
        self._log: LogPosition | None = None

    def follow(self, log: Path) -> None:
        self._log = LogPosition(log)

    def __call__(self) -> int:
        return self._log.bytes() if self._log is not None else 0

    def wait_until_quiet(self) -> None:
        if self._log is not None:
            self._log.wait_until_quiet()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def _set_up(profile: Profile, server: Server, ledger: LedgerWriter, seed: int) -> Workload:
    """Fill the tables before the recording begins, so that they are part of the base image, and durable."""
    server.tablespaces.mkdir()
    server.own(server.tablespaces)
    assert server.data_directory is not None
    make_places(server.data_directory, server.tablespaces, server.own, server.seen(server.tablespaces))
    server.start()
    require_amcheck(server)
    workload = make_workload(profile, server, ledger, seed)
    workload.set_up()
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        # Otherwise the first reader sets hint bits, and pages that no transaction touched differ from the base image
        connection.execute("VACUUM FREEZE")
    server.stop("fast")
    return workload


def attach(
    server: Restartable, roots: Sequence[Path], home: Path, folder: Path, *, jitter: Path | None = None
) -> tuple[BaseImage, Path]:
    """Take the base image, make the server's next start a recorded one, and return where its log is.

    Args:
        roots: the data directory, then those of tablespaces.
        home: takes the log, and the recorder: the server's user cannot reach the evidence.
        folder: takes the base image.
        jitter: the page by which its processes are held.
    """
    image = base.take(roots, folder / BASE)
    log = home / LOG
    iolog.create(log)
    server.own(log)
    installed = Recorder.install(home / RECORDER_FOLDER, server.machine)
    recorder = Recorder(server.seen(Path(installed.library)))
    page = None if jitter is None else server.seen(jitter)
    server.environment.update(recorder.environment(server.seen(log), [server.seen(root) for root in roots], page))
    return image, log


def refuse_full_disk(primary: str, log: str, place: Path | None, error: Exception | None) -> None:
    """Raise NoRoom: a full disk is at the bottom of it, says a server's log."""
    said = full_disk(log, (), place)
    if said is not None:
        raise NoRoom(f"{primary}: no room is left on the disk", detail=f"{said[:1].upper()}{said[1:]}.") from error


def require_recording(log: Path) -> None:
    """Raise RecordingError: the server that has just started writes down nothing.

    Other programs may: an image's entry point, a shell, runs under the recorder too.
    """
    starts = (os.fsdecode(record.payload) for record in iolog.records(log) if record.kind == iolog.START)
    if not any("postgres" in Path(program).name for program in starts):
        raise RecordingError(
            "could not record the server: it runs without the recorder",
            detail="LD_PRELOAD did not reach it.",
            hint="A program that starts PostgreSQL, such as an image's entry point, must leave its environment alone.",
        )


def _start(server: Server, log: Path, position: _Position) -> None:
    position.follow(log)
    server.start()
    require_recording(log)


def _run(profile: Profile, workload: Workload, ledger: LedgerWriter, position: _Position, jitter: Jitter) -> int:
    """Run the workload; return the log's length when there was enough to judge by."""
    assert profile.power_loss is not None
    jitter.begin()
    workload.start()
    deadline = time.monotonic() + RUN_TIMEOUT_S
    # Twice, since profiles have chosen their minimum by where the first cut falls then
    _wait_for_acks(workload, lambda: ledger.acked_writes, 2 * profile.workload.acked_min, deadline)
    first_bytes = position()
    _wait_for_acks(workload, lambda: ledger.acked, ledger.acked + profile.power_loss.acks, deadline)
    if not workload.finish(timeout_s=20):
        workload.errors.append("sessions did not end in time")
    jitter.end()
    return first_bytes


def _wait_for_acks(workload: Workload, acked: Callable[[], int], goal: int, deadline: float) -> None:
    while acked() < goal and workload.running and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if acked() < goal:
        workload.errors.append(f"{acked()} of {goal} transactions were acknowledged in {RUN_TIMEOUT_S:g} s")


def _end(server: Server, power_loss: PowerLoss, position: _Position) -> None:
    if power_loss.end == "stop":
        server.stop("fast")
    else:
        position.wait_until_quiet()
        server.kill_all()
