"""Where does the recorder's library come from?

One library per architecture serves every libc, so it is chosen for the machine of the server, not for this one:
shipped with the package, or compiled before, or compiled now, by `cc` for its own machine and by `ziglang` for any.
Compiled libraries are kept under their source's hash.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crashlab.errors import RecordingError

MACHINES = ("x86_64", "aarch64")
_FOLDER = Path(__file__).parent
_SOURCE = _FOLDER / "recorder.c"
_FLAGS = [
    *("-std=gnu11", "-O3", "-Wall", "-Wextra", "-fPIC", "-shared", "-nostdlib", "-ffreestanding", "-fno-builtin"),
    *("-fvisibility=hidden", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-Wl,-z,now", "-Wl,-z,relro", "-s"),
]
_MACHINE_FLAGS = {"x86_64": [], "aarch64": ["-mno-outline-atomics"]}
_COMPILE_SECONDS_MAX = 300


def library(machine: str = "") -> Path:
    """Return the recorder for a machine ("x86_64", "aarch64"; default: this one), compiling it where needed.

    Raises:
        RecordingError: the machine is not supported, or there is no compiler for it.
    """
    wanted = _machine(machine)
    shipped = _FOLDER / shipped_name(wanted)
    if shipped.is_file():
        return shipped
    # Not above: a wheel is built without anything else installed.
    from crashlab.server import owned
    from crashlab.server.caches import recorder_cache

    cache = recorder_cache()
    target = cache / f"recorder-{source_hash()}-{wanted}.so"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with owned.temporary_folder(cache, "crashlab-compile-") as folder:
            compile_library(wanted, folder / target.name)
            (folder / target.name).replace(target)
    return target


def shipped_name(machine: str) -> str:
    """Return the file name under which a wheel carries the library, beside this module."""
    return f"recorder-{machine}.so"


def compile_library(machine: str, target: Path) -> None:
    """Compile the recorder for a machine, with `cc` or else `ziglang`, and put it whole at `target`.

    A `cc` that fails, as one without the kernel's headers does, leaves it to `ziglang`, which brings its own.

    Raises:
        RecordingError: there is no compiler for it, or it failed.
    """
    said = None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / target.name
        # or zig keeps 100 MB in the user's home
        caches = {f"ZIG_{name}_CACHE_DIR": str(Path(folder) / "zig") for name in ("GLOBAL", "LOCAL")}
        for compiler in _compilers(machine):
            command = [*compiler, *_FLAGS, *_MACHINE_FLAGS[machine], "-o", str(partial), str(_SOURCE)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMPILE_SECONDS_MAX, env={**os.environ, **caches}
            )
            if done.returncode == 0:
                partial.replace(target)
                return
            said = done.stderr.strip()[-2000:]
    if said is not None:
        raise RecordingError(f"could not compile the recorder for {machine}", detail=said)
    raise RecordingError(
        f"could not find a C compiler for {machine}",
        detail="Power-loss and other recorded trials need the recorder, a small C library.",
        hint="Install a C compiler (apt install gcc libc6-dev), or ziglang (pip install ziglang).",
    )


@functools.cache
def source_hash() -> str:
    """Return what identifies this source: the C files and how they are compiled."""
    digest = hashlib.sha256(repr((_FLAGS, _MACHINE_FLAGS)).encode())
    for source in sorted([*_FOLDER.glob("recorder*.h"), _SOURCE]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _machine(machine: str) -> str:
    wanted = machine or platform.machine()
    wanted = {"amd64": "x86_64", "arm64": "aarch64"}.get(wanted.lower(), wanted)
    if wanted not in MACHINES:
        raise RecordingError(f"cannot record on {wanted}", detail=f"The recorder knows {' and '.join(MACHINES)}.")
    return wanted


def _compilers(machine: str) -> Iterator[list[str]]:
    cc = shutil.which("cc")
    if cc:
        done = subprocess.run([cc, "-dumpmachine"], capture_output=True, text=True, timeout=_COMPILE_SECONDS_MAX)
        triple = done.stdout.strip()
        if triple.startswith(f"{machine}-") and "linux" in triple:
            yield [cc]
    zig = importlib.util.find_spec("ziglang")
    if zig and zig.submodule_search_locations:
        headers = Path(zig.submodule_search_locations[0]) / "lib" / "libc" / "include"
        kernel = [headers / f"{machine.removesuffix('_64')}-linux-any", headers / "any-linux-any"]  # x86_64: x86
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl"]
        yield [*command, *(f"-isystem{folder}" for folder in kernel)]
