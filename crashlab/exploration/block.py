"""How is a server recorded that a test works on, from one crash of it to the next?

A recording begins with a data directory that nobody works on: after the set-up, or after a kill. All of it counts as
durable. It ends with the kill at the end of a block; so each block has a recording of its own, whose crash points lie
inside the block, and what the application did before is part of it.

Choices: before the kill no client is let through any more, and it is waited until nothing is written: a process that
    dies between a call and its record leaves an operation unlogged.
"""

import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import crashlab
from crashlab import evidence
from crashlab.exploration.record import DIFFERENCES_MAX, attach, refuse_full_disk, require_recording
from crashlab.exploration.recording import LOG, RECORDING, InTest, Recording, RecordingRecord, digests_of, share_ledger
from crashlab.model import Broken, Invariant
from crashlab.profile import Profile
from crashlab.recording import base
from crashlab.recording.base import BaseImage
from crashlab.recording.iolog import LogPosition
from crashlab.recording.replay import self_check
from crashlab.server import Server
from crashlab.trial.jitter import RECORDER_FOLDER

FOLDER = "recording-{}"


@dataclass(frozen=True)
class _Cut:
    """A recording at its end, without its ledger."""

    folder: Path
    image: BaseImage
    first_bytes: int
    end_bytes: int
    differences: list[str]
    seconds: dict[str, float]


class BlockRecorder:
    """Makes one recording after the other of one server."""

    def __init__(self, server: Server, profile: Profile, *, seed: int, folder: Path) -> None:
        """Take a server that is stopped, and have its next start recorded.

        Args:
            folder: takes a folder a recording.

        Raises:
            CrashlabError: the server's files are out of reach, or there is no recorder.
        """
        self.number = 0
        self._server = server
        self._profile = profile
        self._seed = seed
        self._folder = folder
        self._lock = threading.Lock()
        self._position: LogPosition | None = None
        self._cut: _Cut | None = None
        self._first_bytes = 0
        self._attach()

    def _attach(self) -> None:
        server = self._server
        assert server.data_directory is not None
        home = server.data_directory.parent
        shutil.rmtree(home / RECORDER_FOLDER, ignore_errors=True)
        (server.data_directory / "postmaster.pid").unlink(missing_ok=True)  # a start removes it, unrecorded
        self.folder = self._folder / FOLDER.format(self.number + 1)
        self.folder.mkdir()
        self._image, self.log = attach(server, [server.data_directory], home, self.folder)
        self._begun = time.monotonic()
        with self._lock:
            self._close_position()
            self._position = LogPosition(self.log)
            self.number += 1

    def require(self) -> None:
        """Raise RecordingError: the server has started, and writes down nothing."""
        require_recording(self.log)

    def begin_block(self) -> None:
        """From here on the power may fail."""
        self._first_bytes = self.position()[1]

    def position(self) -> tuple[int, int]:
        """Return the number of the recording and the length of its log, now."""
        with self._lock:
            return self.number, self._position.bytes() if self._position is not None else 0

    def wait_until_quiet(self) -> None:
        """Wait until nothing is written any more, so that the server can be killed."""
        assert self._position is not None
        self._position.wait_until_quiet()

    def cut(self) -> None:
        """The server has been killed: end this recording, and have the next start recorded as well."""
        end_bytes = self.position()[1]
        begun = time.monotonic()
        evidence.move_in(self.log, self.folder, LOG)
        differences = self_check(self._image, self.folder / LOG)
        self._cut = _Cut(
            self.folder,
            self._image,
            self._first_bytes,
            end_bytes,
            [str(one) for one in differences[:DIFFERENCES_MAX]],
            {"record": round(begun - self._begun, 4), "self-check": round(time.monotonic() - begun, 4)},
        )
        self._attach()

    def complete(
        self,
        ledger: Path,
        server: evidence.ServerFacts,
        in_test: InTest,
        *,
        invariants_before: list[Invariant],
        broken_before: Broken,
    ) -> Recording:
        """Write the record of the recording that was cut last.

        Args:
            ledger: what the clients were told, with positions of its log.
            server: as it was when the block began.
        """
        cut, self._cut = self._cut, None
        assert cut is not None
        log = self._server.log_since(0)
        refuse_full_disk("could not record", log, self._server.data_directory, None)
        share_ledger(ledger, cut.folder / evidence.LEDGER)
        evidence.save_text(cut.folder, evidence.SERVER_LOG, log)
        made = RecordingRecord(
            crashlab=crashlab.__version__,
            profile=self._profile.name,
            profile_resolved=self._profile.model_dump(mode="json", by_alias=True),
            run_seed=self._seed,
            seed=self._seed,
            server=server,
            first_bytes=cut.first_bytes,
            end_bytes=cut.end_bytes,
            roots=[str(self._server.seen(root)) for root in cut.image.roots],
            digests=digests_of(cut.folder),
            base_digest=base.digest(cut.image),
            differences=cut.differences,
            invariants_before=invariants_before,
            broken_before=broken_before,
            in_test=in_test,
            seconds=cut.seconds,
        )
        evidence.save(cut.folder, RECORDING, made)
        return Recording(cut.folder, made, cut.image)

    def close(self) -> None:
        """Let go of the log, and of the base image that no recording has come of."""
        with self._lock:
            self._close_position()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _close_position(self) -> None:
        if self._position is not None:
            self._position.close()
            self._position = None
