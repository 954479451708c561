"""How is the picture of a report in the README made?

    python .github/picture.py

Runs three profiles on a server of this machine, has the report written as HTML with one trial drawn, and has Chromium,
without a window, take its picture: `apt-get install chromium`, or `--browser PROGRAM`, and the extra `test`. What the
picture shows is what that run found.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "report.png"
RUN = ("run", "kill9-all", "async-commit", "fsync-off-power-loss", "--trials", "10", "--seed", "1")
DRAWN = "async-commit:0"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, SCALE = 1120, 2  # pixels of the page; each is SCALE pixels of the picture, in both directions
ONLY = """
nav, main > section:not([aria-labelledby=drawn]), .facts > :is(dt, dd):first-of-type { display: none }
h2 { margin-top: 1rem !important }
"""
"""What is left out: other sections, and where on this machine the server lies."""


def main() -> int:
    """Make the report, or take the one that is named, and its picture."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--report", type=Path, help="a report that is there already")
    options.add_argument("--browser", default=next(filter(shutil.which, BROWSERS), BROWSERS[0]))
    options.add_argument("--out", type=Path, default=PICTURE)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="crashlab-picture-") as made:
        report = asked.report or report_in(Path(made))
        take(shutil.which(asked.browser) or asked.browser, report.resolve(), asked.out.resolve())
    return 0


def report_in(folder: Path) -> Path:
    """Run crashlab and return its report, with a trial drawn. That a promise is broken (1) is a result like others."""
    crashlab, run, report = [sys.executable, "-m", "crashlab"], str(folder / "run"), folder / "report.html"
    code = subprocess.run([*crashlab, *RUN, "--out", run], timeout=900).returncode
    if code not in (0, 1):
        sys.exit(code)
    subprocess.run([*crashlab, "report", run, "--trial", DRAWN, "--html", str(report)], timeout=300, check=True)
    return report


def take(browser: str, report: Path, picture: Path) -> None:
    """Take the picture of the head of a page and of the first trial that it draws; what stands between is left out."""
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])  # root has none
        page = opened.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE)
        page.goto(report.as_uri())
        page.add_style_tag(content=ONLY)
        page.locator(".timeline > label").first.click()  # the whole trial
        page.evaluate("document.activeElement.blur()")
        drawing = page.locator(".drawn figure.timeline").first.bounding_box()
        assert drawing is not None
        height = drawing["y"] + drawing["height"] + 16
        page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        opened.close()


if __name__ == "__main__":
    sys.exit(main())
