"""How does pytest run one test once for each moment at which the server may die?

The test itself runs first, and its server dies at the end of each block: that counts the moments. Then a copy of it
runs for each moment, or for as many as `limit` says: an item of its own, so with fresh fixtures and its own result.

With pytest-xdist no worker knows how many moments there are, so each test is there once a worker, and each of them runs
its share of the moments.

Choices: a moment that was armed and did not come says nothing: it is skipped, with that reason. If it was asked for by
    --crashlab-point, the test fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from crashlab.errors import UsageProblem

if TYPE_CHECKING:
    from crashlab.testing.crash import Crash
    from crashlab.testing.points import Point

POINT: pytest.StashKey[Point] = pytest.StashKey()
"""Of a copy: its moment."""
FOUND: pytest.StashKey[list[Point]] = pytest.StashKey()
"""Of the test that counted: all moments."""
SHARE = "crashlab_share"


def arguments(item: Any) -> dict[str, Any]:
    """Return what the test's marker says, checked. Raises UsageProblem."""
    marker = item.get_closest_marker("crashlab")
    found: dict[str, Any] = {"points": "random", "limit": None, "profile": None}
    found |= {"states": None, "disk": None, "settings": {}}
    if marker is None:
        return found
    from crashlab.testing.points import check_arguments  # most runs of pytest have nothing of ours

    unknown = sorted(set(marker.kwargs) - set(found))
    if unknown or len(marker.args) > 1:
        raise UsageProblem(
            f"cannot use the marker crashlab({', '.join(unknown) or 'two positional arguments'})",
            hint=f"It takes {', '.join(found)}.",
        )
    found |= marker.kwargs
    if marker.args:
        found["profile"] = marker.args[0]
    check_arguments(found["points"], found["limit"], 1 if found["states"] is None else found["states"])
    return found


def is_swept(item: pytest.Item) -> bool:
    """Say whether a test is to run once a moment."""
    try:
        points = arguments(item)["points"]
    except UsageProblem:
        return False  # its set-up says why
    return (
        isinstance(item, pytest.Function)
        and "crash" in item.fixturenames
        and POINT not in item.stash
        and item.config.getoption("--crashlab-point") is None
        and points != "random"
    )


def share_of(item: pytest.Function) -> tuple[int, int]:
    """Return which share of the moments is this item's, and how many shares there are."""
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    share: tuple[int, int] = params.get(SHARE, (0, 1))
    return share


def plain_nodeid(item: pytest.Function) -> str:
    """Return the id by which a test is run without xdist."""
    nodeid = str(item.stash.get(ORIGIN, item.nodeid))
    share, shares = share_of(item)
    if shares == 1:
        return nodeid
    base, _, ids = nodeid.rpartition("[")
    rest = [one for one in ids.removesuffix("]").split("-") if one != share_id((share, shares))]
    return f"{base}[{'-'.join(rest)}]" if rest else base


ORIGIN = pytest.StashKey[str]()
"""Of a copy: the id of the test."""


def share_id(share: tuple[int, int]) -> str:
    """Return the id of one share."""
    return f"share {share[0] + 1} of {share[1]}"


def generate_shares(metafunc: pytest.Metafunc) -> None:
    """Give each worker of xdist a share of a swept test."""
    workers = getattr(metafunc.config, "workerinput", {}).get("workercount", 1)
    if workers == 1 or "crash" not in metafunc.fixturenames or SHARE in metafunc.fixturenames:
        return
    marker = next(metafunc.definition.iter_markers("crashlab"), None)
    if marker is None or marker.kwargs.get("points", "random") == "random":
        return
    if metafunc.config.getoption("--crashlab-point") is not None:
        return
    metafunc.fixturenames.append(SHARE)
    shares = [(share, workers) for share in range(workers)]
    metafunc.parametrize(SHARE, shares, ids=list(map(share_id, shares)))


def run_sweep(item: pytest.Function, nextitem: pytest.Item | None, seed: int) -> None:
    """Run a test, then a copy of it for each moment."""
    from crashlab.testing.points import spread

    copy = _copy(item, "counted")
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=copy, log=True)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    passed = all(report.passed for report in reports)
    points = item.stash.get(FOUND, [])
    share, shares = share_of(item)
    chosen = spread(points, arguments(item)["limit"], seed)[share::shares] if passed else []
    if passed and not points:
        _fail(item, copy)
    copies = [_copy(item, point.told, point) for point in chosen]
    place = item.session.items.index(item)
    for one in copies:
        if item.session.shouldfail or item.session.shouldstop:
            break
        item.session.testscollected += 1
        item.session.items[place] = one  # a worker of xdist reports about nothing but the item in this place
        item.config.hook.pytest_runtest_protocol(item=one, nextitem=copy)
    item.session.items[place] = item
    # Whatever belongs to module and session lives on until here
    call = pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(nextitem), when="teardown")
    if call.excinfo is not None:
        report = item.ihook.pytest_runtest_makereport(item=item, call=call)
        item.ihook.pytest_runtest_logreport(report=report)


def tell_missed(item: pytest.Item, crash: Crash, report: Any) -> None:
    """Change the report of a test that passed, although the moment for which it ran did not come."""
    if crash.point is None or crash.point_reached is not None:
        return
    words = f"crashlab: this run never came to the moment {crash.point} ({crash.point.told}); the server died "
    words += "at the end of the block instead, and nothing is known of that moment"
    if POINT in item.stash:
        tell_skipped(item, report, words)
    else:
        report.outcome, report.longrepr = "failed", words


def tell_skipped(item: pytest.Item, report: Any, words: str) -> None:
    """Change the report of a test that passed into that of one that has tested nothing."""
    report.outcome = "skipped"
    report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {words}")


def _copy(item: pytest.Function, name: str, point: Point | None = None) -> pytest.Function:
    copy = type(item).from_parent(
        item.parent, name=f"{item.name}[{_safe(name)}]", callobj=item.obj, fixtureinfo=item._fixtureinfo
    )
    # Not given above: newer releases of pytest make the node's id of them alone, and not of its name.
    copy.originalname = item.originalname
    if hasattr(item, "callspec"):
        copy.callspec = item.callspec
    if item.cls is not None:  # each has an instance of its own
        del copy._instance, copy._obj
    copy.own_markers = list(item.own_markers)
    copy.keywords.update(item.keywords)
    copy.stash[ORIGIN] = item.nodeid
    if point is not None:
        copy.stash[POINT] = point
    return copy


def _safe(name: str) -> str:
    """Return a name without what separates the parts of an id."""
    return name.replace("::", ":").replace("[", "(").replace("]", ")")


def _fail(item: pytest.Function, copy: pytest.Function) -> None:
    """Report a sweep without a moment."""
    what = arguments(item)["points"]
    words = f"nothing to sweep: no moment of the kind {what!r} in any `with crash:` of this test"
    report = pytest.TestReport(
        nodeid=copy.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"crashlab: {words}\nHint: Does the application commit inside the block, and through crash.url?",
        when="call",
    )
    item.session.testscollected += 1
    item.ihook.pytest_runtest_logstart(nodeid=copy.nodeid, location=item.location)
    item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=copy.nodeid, location=item.location)
