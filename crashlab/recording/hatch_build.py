"""How does a wheel come to carry the recorder's library?

A build ships the library for its own machine, so that the installed package needs no compiler. Where `cc` cannot make
it, the build asks for `ziglang`, which is installed for the build alone. With CRASHLAB_ALL_RECORDERS set, as for a
release, all machines' libraries are built, and a missing one is an error.
The library is data for the server's machine, not for Python's: the wheel stays one for all platforms.
"""

import contextlib
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ALL = "CRASHLAB_ALL_RECORDERS"
COMPILER = "ziglang>=0.13"


class RecorderHook(BuildHookInterface):
    """Compiles the recorder into a wheel."""

    def dependencies(self) -> list[str]:
        """Ask for a compiler if what is here cannot make every library that is wanted."""
        with tempfile.TemporaryDirectory() as folder:
            return [] if len(self._compile(Path(folder))) == len(self._wanted()) else [COMPILER]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what can be compiled; for an editable install into the cache, where it is looked for later."""
        if version == "editable":
            self._fill_cache()
            return
        self._folder = tempfile.TemporaryDirectory()
        made = self._compile(Path(self._folder.name), needed=bool(os.environ.get(ALL)))
        for target in made:
            build_data["force_include"][str(target)] = f"crashlab/recording/{target.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if version != "editable":
            self._folder.cleanup()

    def _wanted(self) -> list[str]:
        build = self._build()
        here = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        return [machine for machine in build.MACHINES if os.environ.get(ALL) or machine == here]

    def _compile(self, folder: Path, *, needed: bool = False) -> list[Path]:
        """Compile into a folder and return what could be compiled; if all are needed, a missing one is an error."""
        build, made = self._build(), []
        for machine in self._wanted():
            target = folder / build.shipped_name(machine)
            try:
                build.compile_library(machine, target)
            except build.RecordingError:
                if needed:
                    raise
                continue
            made.append(target)
        return made

    def _fill_cache(self) -> None:
        build = self._build()
        from crashlab.errors import CrashlabError

        for machine in self._wanted():
            with contextlib.suppress(CrashlabError):
                build.library(machine)

    def _build(self) -> Any:
        if self.root not in sys.path:
            sys.path.insert(0, self.root)
        from crashlab.recording import build

        return build
