"""Can a report be read: in a real browser, at any width, in any light, with the keyboard, by a screen reader, printed?

Times are those of the processors, not those that pass: a busy machine changes little.
"""

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from crashlab.chronicle import Fate
from crashlab.exploration.overview import in_flight
from crashlab.exploration.recording import find
from crashlab.exploration.steps import steps_of
from crashlab.report import html_report, json_report
from crashlab.report.compare import compare
from crashlab.report.compare_page import page_bytes as comparison_bytes
from crashlab.report.lanes import kind_of
from crashlab.report.recording_page import page_bytes
from crashlab.results import RunResult
from tests.conftest import chromium
from tests.made_results import broken, intact, permitted_loss, result, run
from tests.report.made_chronicles import chronicle, told, transaction
from tests.report.test_lanes import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page, Request

pytestmark = pytest.mark.browser
WIDTHS, SCHEMES = (400, 1600), ("light", "dark")
SERIOUS = ("serious", "critical")
SECONDS_MAX, BYTES_MAX = 3.0, 5_000_000
STATES = 2000


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Debian's chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


class Reader:
    """A page, and whatever the browser had to say about it."""

    def __init__(self, browser: "Browser", content: bytes, folder: Path, **context) -> None:
        file = folder / "page.html"
        file.write_bytes(content)
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", self._asked)
        self.page.on("request", self._requested)
        self.page.goto(file.as_uri())

    def _asked(self, dialog: "Dialog") -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _requested(self, request: "Request") -> None:
        if not request.url.endswith("/page.html"):
            self.said.append(f"request: {request.url}")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def page_of(made: RunResult, code: int = 0) -> bytes:
    """The page."""
    return html_report.report_bytes(made, code)


def everything() -> RunResult:
    """A run with all that a page can hold: every fate, a disk, windows, broken promises."""
    made = run(
        result("async-commit", permitted_loss(), permitted_loss(1, oldest_ms=12.0), intact(2)),
        result("kill9-all", intact(), broken(1)),
        command="crashlab run async-commit kill9-all --seed 42",
    )
    made.begun, made.machine = "2026-11-26T20:01:00+00:00", "Linux 6.1, x86_64, 2 processors, 8 GB"
    dice, fates = Random(3), list(Fate)
    made.told = [
        told(
            chronicle(*(transaction(tx, dice.choice(fates), client=tx % 4, begin=tx - 400.0) for tx in range(1, 400))),
            trial=1,
        )
    ]
    return made


def contents(name: str, request: pytest.FixtureRequest) -> tuple[RunResult, bytes]:
    """A run and its page; of a stored one with the first trial only, where one is as good as six."""
    if name == "everything":
        made = everything()
    else:
        made = copy.copy(request.getfixturevalue(name.removeprefix("one ")))
        made.told = made.told[:1] if name.startswith("one ") else made.told
    return made, page_of(made)


@pytest.mark.parametrize("name", ["recorded", "live", "everything"])
def test_the_browser_has_nothing_to_complain_about(browser, name, request, tmp_path):
    """No message, no error, nothing fetched; and nothing is cut off at the side of a phone."""
    _, content = contents(name, request)
    for width in WIDTHS:
        with Reader(browser, content, tmp_path, viewport={"width": width, "height": 900}) as reader:
            reader.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert reader.page.evaluate("document.documentElement.scrollWidth") == width
            assert reader.said == []


@pytest.mark.parametrize("name", ["recorded", "live"])
def test_what_is_drawn_is_what_the_json_report_says(browser, name, request, tmp_path):
    """As many transactions lost, lost against the promise, and there, in each trial: counted in the drawing itself."""
    made, content = contents(name, request)
    report = json.loads(json_report.report_bytes(made))
    counts = [trial["counts"] for trial in report["trials"]]
    with Reader(browser, content, tmp_path) as reader:
        found = reader.page.evaluate(
            """() => [...document.querySelectorAll(".drawn")].map((trial) => ({
                title: trial.querySelector("h3").textContent,
                marks: [...trial.querySelector(".section").querySelectorAll("[data-count]")].map(
                    (mark) => [mark.classList[1], Number(mark.dataset.count)]),
                legend: [...trial.querySelectorAll("[data-total]")].map(
                    (item) => [item.dataset.fate, Number(item.dataset.total)]) }))"""
        )
    assert len(found) == len(counts)
    for trial in found:
        drawn: Counter[str] = Counter()
        for kind, count in trial["marks"]:
            drawn[kind] += count
        assert drawn == dict(trial["legend"])
        known = counts[int(trial["title"].rpartition(" ")[2])]
        gone = drawn[kind_of(Fate.PERMITTED)] + drawn[kind_of(Fate.FORBIDDEN)]
        assert (gone, drawn[kind_of(Fate.FORBIDDEN)]) == (known["lost"], known["lost_forbidden"])
        assert drawn.total() == known["begun"]


@pytest.mark.parametrize("name", ["one recorded", "everything"])
def test_the_keyboard_reaches_every_detail(browser, name, request, tmp_path):
    """Tab leads to each drawing, arrows to each of its marks, and what it stands for is told where it is announced."""
    _, content = contents(name, request)
    with Reader(browser, content, tmp_path) as reader:
        page = reader.page
        stops = tabbed_marks(page)
        drawings = page.locator("svg.lanes:visible, [data-roving]:visible")
        assert len(stops) == drawings.count() > 1
        for number in range(drawings.count()):
            drawing = drawings.nth(number)
            marks = drawing.locator("[data-mark]")
            wanted = marks.evaluate_all("marks => marks.map((mark) => mark.querySelector('title')?.textContent"
                                        " ?? mark.getAttribute('aria-label'))")  # fmt: skip
            drawing.locator("[data-mark][tabindex='0']").focus()
            page.keyboard.press("Home")
            heard = [told_below(page)]
            for _ in range(len(wanted) - 1):
                page.keyboard.press("ArrowRight")
                heard.append(told_below(page))
            if drawing.locator("xpath=ancestor::figure//*[@aria-live]").count():
                assert sorted(heard) == sorted(wanted)
            page.keyboard.press("ArrowRight")
            assert told_below(page) == heard[-1]  # it is the last one


def tabbed_marks(page: "Page") -> list[str]:
    """Press Tab through the whole page; return the marks that had the focus."""
    found: list[str] = []
    for _ in range(2000):
        page.keyboard.press("Tab")
        tag = page.evaluate(
            "document.activeElement.dataset.mark === undefined ? document.activeElement.tagName : 'mark'"
        )
        if tag == "BODY":
            return found
        if tag == "mark":
            found.append(page.evaluate("document.activeElement.outerHTML"))
    raise AssertionError("Tab never comes to an end")


def told_below(page: "Page") -> str:
    """What is told of the mark that has the focus."""
    return page.evaluate("document.activeElement.closest('figure')?.querySelector('[aria-live]')?.textContent ?? ''")


def test_the_keyboard_zooms(browser, tmp_path):
    """One section is shown at a time, and the arrow keys choose it."""
    with Reader(browser, page_of(everything()), tmp_path) as reader:
        chosen = reader.page.locator(".timeline > input:checked")
        shown = reader.page.locator(".section:visible")
        chosen.focus()
        seen = set()
        for _ in range(3):
            assert shown.count() == 1
            seen.add(shown.locator("svg.lanes").get_attribute("aria-label"))
            reader.page.keyboard.press("ArrowRight")
        assert len(seen) == reader.page.locator(".section").count() == 3


@pytest.mark.parametrize(
    ("name", "scheme"), [("one recorded", "dark"), ("everything", "light"), ("everything", "dark")]
)
def test_no_serious_barrier(browser, name, scheme, request, tmp_path):
    """axe-core finds none, with everything unfolded, on a phone and on a wide screen."""
    _, content = contents(name, request)
    for width in WIDTHS:
        context = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
        with Reader(browser, content, tmp_path, **context) as reader:
            reader.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            assert barriers(reader.page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_barrier_is_found(browser, scheme, tmp_path):
    """The guilty twin: no language, and words that can hardly be seen; a small page is as good as any."""
    content = page_of(run(result("kill9-all", intact())))
    with Reader(browser, content, tmp_path, color_scheme=scheme) as reader:
        assert barriers(reader.page) == []
    with Reader(browser, content.replace(b'<html lang="en">', b"<html>"), tmp_path, color_scheme=scheme) as reader:
        reader.page.evaluate("document.querySelector('h1').style = 'color: #777; background: #888'")
        assert {name for name, _ in barriers(reader.page)} == {"color-contrast", "html-has-lang"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_fates_differ_in_more_than_colour(browser, scheme, tmp_path):
    """What is there, what may be gone and what must not be gone: by fill, outline, size or sign; and in colour, too."""
    with Reader(browser, page_of(everything()), tmp_path, color_scheme=scheme) as reader:
        looks = reader.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll(".legend [data-fate]")].map((item) => {
                const shape = item.querySelector("rect"), style = getComputedStyle(shape);
                const paper = getComputedStyle(document.body).backgroundColor;
                return [item.dataset.fate, {
                    colour: style.stroke === "none" ? style.fill : style.stroke,
                    form: [style.strokeDasharray, style.fill === paper, item.querySelector("svg text")?.textContent]
                        .join("|") }]; }))"""
        )
    three = [looks[kind_of(fate)] for fate in (Fate.SURVIVED, Fate.PERMITTED, Fate.FORBIDDEN)]
    assert len({one["colour"] for one in three}) == 3
    assert len({one["form"] for one in three}) == 3


def test_a_recording_is_stepped_through(browser, recorded_folder, tmp_path):
    """At each point the slider tells of the files that `show --at` has in flight, by mouse or by keyboard."""
    recording = find(recorded_folder)
    content = page_bytes(steps_of(recording), str(recording.folder), 100)
    with Reader(browser, content, tmp_path, viewport={"width": 400, "height": 900}) as reader:
        page, slider = reader.page, reader.page.locator("#at")
        assert slider.input_value() == "100"
        for position in (0, 41, 124, int(slider.get_attribute("max") or 0)):
            slider.fill(str(position))
            there = {one.path: one.units for one in in_flight(recording, position).files}
            cells = page.locator("#flight tr").evaluate_all("rows => rows.map((row) => [row.cells[1].textContent, "
                                                            "Number(row.cells[2].textContent)])")  # fmt: skip
            assert {path.removeprefix("● "): units for path, units in cells} == there
        slider.fill("41")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#number").text_content() == "42"
        assert (slider.get_attribute("aria-valuetext") or "").startswith("42: Operation 41: ")
        page.get_by_role("button", name="Next flush").click()
        assert " ended" in (page.locator("#says").text_content() or "")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert reader.said == []
        assert barriers(page) == []


def test_two_runs_are_read_side_by_side(browser, tmp_path):
    """On a phone, too."""
    runs = [{"kill9-all": result("kill9-all", intact(), made)} for made in (intact(1), broken(1))]
    content = comparison_bytes(compare(*runs), "one", "two")
    with Reader(browser, content, tmp_path, viewport={"width": 400, "height": 900}) as reader:
        assert reader.page.evaluate("document.documentElement.scrollWidth") == 400
        assert reader.said == []
        assert barriers(reader.page) == []


def barriers(page: "Page") -> list[tuple[str, str]]:
    """What axe-core finds serious."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], node["html"][:200]) for one in found if one["impact"] in SERIOUS for node in one["nodes"]]


def test_two_thousand_states_are_light(browser, tmp_path):
    """A page with 2,000 rows and as many drawn trials as there may be: its size, and the time that rendering takes."""
    states = [permitted_loss(number) if number % 3 else intact(number) for number in range(STATES)]
    made = run(result("async-commit", *states), command="crashlab run async-commit --trials 2000")
    dice, fates = Random(4), list(Fate)
    big = chronicle(
        *(transaction(tx, dice.choice(fates), client=1 + tx % 8, begin=tx - 3000.0) for tx in range(1, 3000))
    )
    made.told = [told(big, trial=number) for number in range(6)]
    content = page_of(made)
    assert len(content) < BYTES_MAX
    (tmp_path / "page.html").write_bytes(content)
    context = browser.new_context()
    page = context.new_page()
    before = renderers_seconds(browser)
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert (
        page.evaluate("document.body.offsetHeight && document.querySelectorAll('table.trials tbody tr').length")
        == STATES
    )
    spent = renderers_seconds(browser) - before
    context.close()
    assert 0 < spent < SECONDS_MAX


def renderers_seconds(browser: "Browser") -> float:
    """How long the processors have worked for the browser's renderers."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(one["cpuTime"] for one in processes if one["type"] == "renderer")


def test_hostile_evidence_runs_nothing(browser, tmp_path):
    """Whatever a stranger put into each text: no script, no request, no dialog; it is read as it stands."""
    made = run(result("kill9-all", broken()), command=HOSTILE)
    made.begun, made.machine = HOSTILE, HOSTILE
    made.told = [told(chronicle(transaction(1, Fate.FORBIDDEN, begin=-5.0, wrote=HOSTILE), words=HOSTILE))]
    with Reader(browser, page_of(made, 1), tmp_path) as reader:
        assert reader.said == []
        assert "<script>alert(1)</script>" in reader.page.locator("body").inner_text()
    guilty = page_of(made, 1).replace(b"</body>", b"<script>alert(2)</script></body>")
    with Reader(browser, guilty, tmp_path) as reader:  # even then the page's own policy holds
        assert [word for word in reader.said if word.startswith("dialog")] == []
        assert any("Content Security Policy" in word for word in reader.said)


def test_it_is_whole_without_scripts_and_on_paper(browser, tmp_path):
    """The same facts stand in tables; printed, what is folded up is shown, and what can only be clicked is not."""
    content = page_of(everything())
    with Reader(browser, content, tmp_path, java_script_enabled=False) as reader:
        reader.page.locator(".timeline > label").first.click()
        assert reader.page.locator(".section:visible").count() == 1
        reader.page.locator("summary", has_text="The same as a table").first.click()
        assert reader.page.locator("table:visible", has_text="COMMIT sent").count() == 1
    with Reader(browser, content, tmp_path) as reader:
        reader.page.emulate_media(media="print")
        assert not reader.page.locator("nav").is_visible()
        assert reader.page.locator("table", has_text="COMMIT sent").first.evaluate("one => one.offsetHeight > 100")
        assert len(reader.page.pdf()) > 10_000
