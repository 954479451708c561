"""A server that dies, for tests that say themselves when."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashlab.testing import Crash

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests that run pytest in a process of its own import tests/."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def dying(crash_server, crashlab_profile, tmp_path) -> Iterator[Callable[..., Crash]]:
    """Makes a Crash on a server that is up; without a point it dies at the end of each block."""
    made: list[Crash] = []

    def make(point: str | None = None, **more) -> Crash:
        folder = tmp_path / f"crash{len(made)}"
        folder.mkdir()
        made.append(
            Crash(crashlab_profile, server=crash_server, folder=folder, seed=7, point=point, points="commits", **more)
        )
        return made[-1].start()

    yield make
    for crash in made:
        crash.close()
