"""How is the picture of a report in the README made?

    python .github/picture.py

Runs three profiles on a server of this machine, has the report written as HTML, and has Chromium, without a window,
take its picture: `apt-get install chromium`, or `--browser PROGRAM`. What the picture shows is what that run found.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).parent / "report.png"
RUN = ("run", "kill9-all", "async-commit", "fsync-off-power-loss", "--trials", "20", "--seed", "1")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT, SCALE = 1120, 760, 2  # pixels of the page; each is SCALE pixels of the picture, in both directions


def main() -> int:
    """Make the report, or take the one that is named, and its picture."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--report", type=Path, help="a report that is there already")
    options.add_argument("--browser", default=next(filter(shutil.which, BROWSERS), BROWSERS[0]))
    options.add_argument("--out", type=Path, default=PICTURE)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="crashlab-picture-") as made:
        report = asked.report or report_in(Path(made))
        take(asked.browser, report.resolve(), asked.out.resolve(), Path(made))
    return 0


def report_in(folder: Path) -> Path:
    """Run crashlab and return its report. That a promise is broken (1) is a result like any other."""
    report = folder / "report.html"
    command = [sys.executable, "-m", "crashlab", *RUN, "--out", str(folder / "run"), "--html", str(report)]
    code = subprocess.run(command, timeout=900).returncode
    if code not in (0, 1):
        sys.exit(code)
    return report


def take(browser: str, report: Path, picture: Path, profile: Path) -> None:
    """Take the picture of the first screen of a page."""
    sandbox = ["--no-sandbox"]  # root has none, and the page is our own
    size = [f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={SCALE}", "--hide-scrollbars"]
    where = [f"--user-data-dir={profile}", f"--screenshot={picture}", report.as_uri()]
    command = [browser, "--headless", *sandbox, *size, *where]
    subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
