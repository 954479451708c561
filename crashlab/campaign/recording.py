"""How is a recorded run made? One workload on one server, with every file operation written down.

A recording is a folder:

    recording.json   what was run, on which server, and what the self-check said
    base/            the data directory before the start, and the list of its files
    io.log           every file operation of the server, format in `recording.iolog`
    ledger.jsonl     what the clients were told, each intent and answer with the length of io.log at that moment
    server.log       the server's own log

Assumes: the base is durable as it is: it is taken from a server that was stopped cleanly.
Choices: a recording that fails its self-check is kept, so that it can be looked into, and gives no verdict.

Source: design.md "The recorder".
"""

import time
from pathlib import Path
from typing import Any

import msgspec

import crashlab
from crashlab import evidence
from crashlab.campaign.results import RunRequest
from crashlab.campaign.trial import make_workload, server_facts, server_spec
from crashlab.errors import RecordingError, ServerError
from crashlab.ledger import LedgerWriter
from crashlab.profile import PowerLoss, Profile
from crashlab.recording import base, iolog
from crashlab.recording.base import BaseImage
from crashlab.recording.iolog import LogPosition
from crashlab.recording.recorder import Recorder
from crashlab.recording.replay import self_check
from crashlab.seeds import derive
from crashlab.server import Server, create_server
from crashlab.server.local import LocalServer
from crashlab.workload.run import Workload

SCHEMA = 1
RECORDING = "recording.json"
BASE = "base"
LOG = "io.log"
RUN_TIMEOUT_S = 120.0
POLL_S = 0.002
DIFFERENCES_MAX = 20


class RecordingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a recording but its base, its log and its ledger."""

    schema: int = SCHEMA
    crashlab: str
    profile: str
    profile_resolved: dict[str, Any]
    run_seed: int
    seed: int
    server: evidence.ServerFacts
    first_bytes: int  # length of io.log when enough was acknowledged: the power is cut later
    end_bytes: int
    differences: list[str]  # what the self-check found; empty: it passed
    workload_errors: list[str] = []
    seconds: dict[str, float] = {}


class Recording(msgspec.Struct, frozen=True):
    """A recording on disk."""

    folder: Path
    record: RecordingRecord
    base: BaseImage

    @property
    def log(self) -> Path:
        """The I/O log."""
        return self.folder / LOG

    @property
    def ledger(self) -> Path:
        """The ledger."""
        return self.folder / evidence.LEDGER


def load(folder: Path) -> Recording:
    """Open a recording.

    Raises:
        RecordingError, EvidenceError: it is missing, damaged, or of another schema.
    """
    record = evidence.load(folder / RECORDING, RecordingRecord)
    if not (folder / LOG).exists():
        raise RecordingError(f'the recording "{folder}" has no log', detail=f"{LOG} is missing.")
    return Recording(folder, record, base.load(folder / BASE))


def make(request: RunRequest, folder: Path) -> Recording:
    """Run a profile's workload once under the recorder.

    Raises:
        CrashlabError: no server, no compiler for the recorder, folder not writable.
    """
    profile = request.profile
    assert profile.power_loss is not None
    seed = derive(request.seed, profile.name, "recording")
    folder.mkdir(parents=True)
    seconds: dict[str, float] = {}
    begun = time.monotonic()
    with create_server(server_spec(request)) as server:
        if not isinstance(server, LocalServer):
            raise ServerError("cannot record in a container yet", hint="Use --server local.")
        image, position = _attach(server, folder)
        try:
            server.start()
            errors, first_bytes = _run(profile, profile.power_loss, server, folder, position, seed)
            facts = server_facts(server)
            _end(server, profile.power_loss)
            seconds["record"] = round(time.monotonic() - begun, 4)
            begun = time.monotonic()
            differences = self_check(image, folder / LOG)
            seconds["self-check"] = round(time.monotonic() - begun, 4)
            end_bytes = position.bytes()
        finally:
            position.close()
            (folder / evidence.SERVER_LOG).write_text(server.log_since(0), errors="replace")
    record = RecordingRecord(
        crashlab=crashlab.__version__,
        profile=profile.name,
        profile_resolved=profile.model_dump(mode="json", by_alias=True),
        run_seed=request.seed,
        seed=seed,
        server=facts,
        first_bytes=first_bytes,
        end_bytes=end_bytes,
        differences=[str(difference) for difference in differences[:DIFFERENCES_MAX]],
        workload_errors=errors,
        seconds=seconds,
    )
    evidence.save(folder, RECORDING, record)
    return Recording(folder, record, image)


def _attach(server: LocalServer, folder: Path) -> tuple[BaseImage, LogPosition]:
    """Take the base image and make the server's next start a recorded one."""
    assert server.data_directory is not None
    home = server.data_directory.parent
    server.tablespaces.mkdir()
    server.own(server.tablespaces)
    roots = [server.data_directory, server.tablespaces]
    image = base.take(roots, folder / BASE)
    iolog.create(folder / LOG)
    # The server's user cannot reach the evidence; its own folder holds a link to the log's file
    log = home / LOG
    log.hardlink_to(folder / LOG)
    server.own(log)
    recorder = Recorder.install(home / "recorder")
    server.environment.update(recorder.environment(log, roots))
    return image, LogPosition(folder / LOG)


def _run(
    profile: Profile, power_loss: PowerLoss, server: LocalServer, folder: Path, position: LogPosition, seed: int
) -> tuple[list[str], int]:
    """Run the workload; return its errors, and the log's length when there was enough to judge by."""
    ledger = LedgerWriter(folder / evidence.LEDGER, seed=seed, io_position=position.bytes)
    workload = make_workload(profile, server, ledger, seed)
    try:
        workload.set_up()
        workload.start()
        deadline = time.monotonic() + RUN_TIMEOUT_S
        _wait_for_acks(workload, ledger, ledger.acked + 2 * profile.workload.acked_min, deadline)
        first_bytes = position.bytes()
        _wait_for_acks(workload, ledger, ledger.acked + power_loss.acks, deadline)
        if not workload.finish(timeout_s=20):
            workload.errors.append("sessions did not end in time")
    finally:
        ledger.close()
    return list(workload.errors), first_bytes


def _wait_for_acks(workload: Workload, ledger: LedgerWriter, goal: int, deadline: float) -> None:
    while ledger.acked < goal and workload.running and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if ledger.acked < goal:
        workload.errors.append(f"{ledger.acked} of {goal} transactions were acknowledged in {RUN_TIMEOUT_S:g} s")


def _end(server: Server, power_loss: PowerLoss) -> None:
    if power_loss.end == "stop":
        server.stop("fast")
    else:
        server.kill_all()
