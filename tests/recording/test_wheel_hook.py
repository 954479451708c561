"""When does a build ask for a compiler of its own? The hook itself, with the one class that it needs of the build tool.

That a wheel built so records is the business of `wheel_without_cc.py`, which takes a download and half a minute.
"""

import importlib.util
import platform
import shutil
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from crashlab.recording import build

ROOT = Path(build.__file__).parents[2]
MODULE = "hatchling.builders.hooks.plugin.interface"


@pytest.fixture
def hook(monkeypatch):
    """The hook as the build tool makes it, for this folder."""
    interface = types.ModuleType(MODULE)
    interface.BuildHookInterface = type("BuildHookInterface", (), {"root": str(ROOT)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, interface)
    monkeypatch.delenv("CRASHLAB_ALL_RECORDERS", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no ziglang before it was asked for
    spec = importlib.util.spec_from_file_location("hook", Path(build.__file__).parent / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RecorderHook()


@pytest.fixture
def a_folder_as_path(tmp_path, monkeypatch):
    """PATH is one empty folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def compiled_once(folder: Path, compile_library: Callable[[str, Path], None], machine: str, target: Path) -> None:
    """Compile for a machine, or take what was compiled for it before: it takes a second."""
    made = folder / machine
    if not made.exists():
        compile_library(machine, made)
    shutil.copy(made, target)


def test_without_a_compiler_the_build_asks_for_one(hook, a_folder_as_path):
    """No cc: ziglang becomes a dependency of the build."""
    assert hook.dependencies() == ["ziglang>=0.13"]


def test_a_compiler_that_cannot_compile_is_none(hook, a_folder_as_path):
    """A cc without the kernel's headers, say."""
    cc = a_folder_as_path / "cc"
    cc.write_text(f'#!/bin/sh\n[ "$1" = -dumpmachine ] && echo {platform.machine()}-linux-gnu && exit 0\nexit 1\n')
    cc.chmod(0o755)
    assert hook.dependencies() == ["ziglang>=0.13"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no cc on this machine")
def test_with_a_compiler_the_build_asks_for_none_but_for_a_release(hook, tmp_path, monkeypatch):
    """cc serves its own machine; a release wants the other one's library, too."""
    monkeypatch.setattr(build, "compile_library", partial(compiled_once, tmp_path, build.compile_library))
    assert hook.dependencies() == []
    monkeypatch.setenv("CRASHLAB_ALL_RECORDERS", "1")
    assert hook.dependencies() == ["ziglang>=0.13"]
