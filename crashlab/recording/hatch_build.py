"""How does a wheel come to carry the recorder's library?

A build with a compiler at hand ships the library for its own machine, so that the installed package needs none. With
CRASHLAB_ALL_RECORDERS set, as for a release, all machines' libraries are built, and a missing one is an error.
The library is data for the server's machine, not for Python's: the wheel stays one for all platforms.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ALL = "CRASHLAB_ALL_RECORDERS"


class RecorderHook(BuildHookInterface):
    """Compiles the recorder into a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what can be compiled; an editable install compiles when it first records."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from crashlab.errors import RecordingError
        from crashlab.recording import build

        wanted = build.MACHINES if os.environ.get(ALL) else [platform.machine()]
        self._folder = tempfile.TemporaryDirectory()
        for machine in wanted:
            target = Path(self._folder.name) / build.shipped_name(machine)
            try:
                build.compile_library(machine, target)
            except (RecordingError, KeyError):
                if os.environ.get(ALL):
                    raise
                continue
            build_data["force_include"][str(target)] = f"crashlab/recording/{target.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if version != "editable":
            self._folder.cleanup()
