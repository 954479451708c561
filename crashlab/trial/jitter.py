"""How are the processes of a trial's server held at file operations, and for which part of the trial?

While the workload runs, up to the crash: neither the set-up nor the recovery is held up. A live trial's server gets the
recorder's library for that, and records nothing; one without jitter does not get it.

Choices: any process may be held, the walwriter too, so nothing bounds the age of a lost asynchronous commit.
"""

from pathlib import Path

from crashlab.errors import ServerError
from crashlab.model import Held
from crashlab.profile import Profile
from crashlab.recording.jitter import Page
from crashlab.recording.recorder import Recorder
from crashlab.server import Server

RECORDER_FOLDER = "recorder"
PAGE = "jitter"


class Jitter:
    """The jitter of one run of a server's workload; without one in the profile it does nothing."""

    def __init__(self, server: Server, profile: Profile, seed: int) -> None:
        """Make the page that the server's processes look at, switched off.

        Args:
            server: whose data directory is there, and can be seen from here.
            seed: of the trial, or of the recording.

        Raises:
            RecordingError: the page cannot be made.
        """
        self._server = server
        self._page: Page | None = None
        self.path: Path | None = None
        wanted = profile.jitter
        if wanted is not None:
            assert server.data_directory is not None
            self.path = server.data_directory.parent / PAGE
            low_ms, high_ms = wanted.between_ms
            self._page = Page(self.path, wanted.places, seed=seed, share=wanted.share, between_ms=(low_ms, high_ms))
            server.own(self.path)

    def preload(self) -> None:
        """Give the server the library from its next start on, where no recording does."""
        if self.path is None:
            return
        data = self._server.data_directory
        assert data is not None
        installed = Recorder.install(data.parent / RECORDER_FOLDER, self._server.machine)
        recorder = Recorder(self._server.seen(Path(installed.library)))
        variables = recorder.environment(None, [self._server.seen(data)], self._server.seen(self.path))
        self._server.environment.update(variables)

    def begin(self) -> None:
        """Hold processes from here on."""
        if self._page is not None:
            self._page.on()

    def end(self) -> None:
        """Hold nobody any more, and wait until all who are held go on, unless the server is dead."""
        if self._page is not None:
            self._page.off()
            if self._server.running():
                self._page.wait_until_free()

    def held(self) -> list[Held]:
        """Return what has become of each place so far."""
        return self._page.held() if self._page is not None else []


def live_jitter(server: Server, profile: Profile, seed: int) -> Jitter:
    """Return a live trial's jitter, whose library is there from the server's first start on.

    Raises:
        ServerError: the server's files cannot be seen from here.
        RecordingError: there is no library for its machine.
    """
    if profile.jitter is not None:
        try:
            server.share_data()
        except ServerError as error:
            raise ServerError(
                f"cannot hold the processes of this {server.kind} server",
                detail=f"{error.primary[:1].upper()}{error.primary[1:]}; what holds them needs what a recording needs.",
                hint=error.hint,
            ) from error
    jitter = Jitter(server, profile, seed)
    jitter.preload()
    return jitter
