"""Does a machine without a C compiler get a crashlab that records, from the README's command?

    python tests/recording/wheel_without_cc.py

Makes a fresh environment, with a PATH on which there is no compiler; installs this folder, with all recorders as for a
release; looks for them in the package, and for the manual; and runs two power cuts. Takes a download of 100 MB, and
half a minute.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("sh", "env", "id", "uname", "ls", "cat", "cp", "chmod", "mkdir", "unshare", "ldconfig", "ldd")
TIMEOUT_S = 600


def main() -> int:
    """Build, look and record; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="crashlab-wheel-") as made:
        home = Path(made)
        home.chmod(0o755)
        programs = home / "programs"
        programs.mkdir()
        for name in PROGRAMS:
            if found := shutil.which(name):
                (programs / name).symlink_to(found)
        assert shutil.which("cc", path=str(programs)) is None
        network = {name: value for name, value in os.environ.items() if name.lower().endswith(("proxy", "_cert"))}
        environment = {**network, "HOME": str(Path.home()), "PATH": str(programs), "TMPDIR": made}
        environment |= {"CRASHLAB_ALL_RECORDERS": "1", "XDG_CACHE_HOME": str(home / "cache")}

        def do(*command: str) -> None:
            subprocess.run(command, env=environment, cwd=home, check=True, timeout=TIMEOUT_S)

        do(sys.executable, "-m", "venv", "venv")
        begun = time.monotonic()
        do("venv/bin/python", "-m", "pip", "install", "--quiet", f"{ROOT}[embedded]")
        print(f"installed without cc in {time.monotonic() - begun:.1f} s")
        package = next((home / "venv/lib").glob("python3*/site-packages/crashlab/recording"))
        recorders = sorted(path.name for path in package.glob("*.so"))
        assert recorders == ["recorder-aarch64.so", "recorder-x86_64.so"], recorders
        do("venv/bin/crashlab", "docs", "exit-codes")
        do("venv/bin/crashlab", "run", "power-loss", "--trials", "2", "-j", "1", "--seed", "1", "--out", "out", "-q")
    return 0


if __name__ == "__main__":
    sys.exit(main())
