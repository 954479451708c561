"""How does a stored trial of a recording become the smallest reproduction of what it found?

    README.md        what is lost, by file, page, LSN and WAL record, and what to do with it
    image/           the data directory as the crash leaves it, before any recovery
    trial.json ...   the evidence of the smallest state's own trial: judge and replay take this folder

Choices:
    The code of the worst finding has to stay; another finding beside it may come or go.
    Only states of recordings: a live trial is other each time. Of a recorded recovery the second cut is shrunk, its
    first one stays as it was.
    A recording's transactions cannot be left out: fewer of them means an earlier crash point.
"""

import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crashlab import evidence, files
from crashlab.disk.lost import lost_changes, lost_writes
from crashlab.disk.model import CrashState
from crashlab.disk.states import losses
from crashlab.errors import UsageProblem
from crashlab.exploration import recording
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.losttold import LostTold, WalText
from crashlab.exploration.shrink import Progress, Shrinker
from crashlab.model import Family, Finding, Verdict
from crashlab.profile import stored_profile
from crashlab.recording.base import copy_tree
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.server.base import Version
from crashlab.server.choose import choice_again
from crashlab.trial.judged import judge_trial, recording_of

README = "README.md"
IMAGE = "image"
SETTLED = "what was lost was shrunk"


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """What became of a trial."""

    result: TrialResult
    code: str
    lost_before: int  # writes and changes of names, sizes and lengths
    lost: int
    position_before: int
    position: int
    tried: int
    complete: bool  # False: the time was up before nothing smaller was found
    lines: list[str]


def shrink(
    folder: Path,
    *,
    out: Path,
    server: ServerChoice,
    code: str | None = None,
    trust: bool = False,
    time_limit_s: float | None = None,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Shrunk:
    """Shrink the crash state of a stored trial, into the folder `out`, which is there and empty.

    Args:
        code: the finding that has to stay; None: the worst one.

    Raises:
        UsageProblem: it is no trial of a recording, or found nothing, or not that; or it does not find it again.
        CrashlabError: the evidence is missing or damaged, or the environment does not allow it.
    """
    record = evidence.load_trial(folder)
    if record.recording is None:
        raise UsageProblem(
            f'cannot shrink "{folder}": it is no trial of a recording',
            detail=f"A {record.kind} trial is another one each time it runs; a recorded state is always the same.",
            hint="Shrink a trial of a recorded profile, such as power-loss or kill9-every-write.",
        )
    code = _wanted(folder, code)
    state = evidence.load(folder / evidence.STATE, CrashState, digest=record.digests.get(evidence.STATE))
    facts = record.server
    server = choice_again(server, facts.kind, facts.source, Version.parse(facts.version), trust=trust)
    explorer = Explorer(
        recording.load(recording_of(folder, record)),
        stored_profile(record.profile_resolved).profile,
        server=server,
        run_seed=record.run_seed,
        contract=record.disk_contract,
        keep="none",
    )
    with explorer:
        return _shrink(explorer, state, code, record.trial, out, time_limit_s, told)


def _wanted(folder: Path, code: str | None) -> str:
    """Return the code that has to stay."""
    findings = [one for one in judge_trial(folder).findings if _accuses(one)]
    if code is None and findings:
        return findings[0].code
    if code is None or code not in [one.code for one in findings]:
        have = ", ".join(dict.fromkeys(one.code for one in findings)) or "nothing"
        raise UsageProblem(
            f'cannot shrink "{folder}": it did not find {code or "anything"}', detail=f"It found {have}."
        )
    return code


def _accuses(finding: Finding) -> bool:
    return finding.family not in (Family.NOTE, Family.INCONCLUSIVE)


def _shrink(
    explorer: Explorer,
    state: CrashState,
    code: str,
    trial: int,
    out: Path,
    time_limit_s: float | None,
    told: Callable[[Progress], None],
) -> Shrunk:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tries-", dir=out) as tries:

        def still_wrong(tried: CrashState) -> bool:
            place = Path(tempfile.mkdtemp(dir=tries))
            try:
                verdict = explorer.try_state(tried, trial, place).verdict
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return code in _codes(verdict)

        if not still_wrong(state):
            raise UsageProblem(
                f"cannot shrink trial {trial}: {code} is not found again",
                hint="Try crashlab replay: a state is always the same, a server's timing is not.",
            )
        search = Shrinker(
            state,
            model_at=explorer.walk.to,
            still_wrong=still_wrong,
            first=explorer.conditions.survey.first,
            may_go_on=lambda tried: time_limit_s is None or time.monotonic() - begun < time_limit_s,
            told=told,
        )
        best = search.run()
    before = explorer.walk.to(state.position)
    lost_before = len(lost_changes(before, state)) + len(lost_writes(before, state))
    model = explorer.walk.to(best.position)
    best = msgspec.structs.replace(best, note=f"{SETTLED}; {losses(model, best)}")
    explorer.make_real(best)
    copy_tree(explorer.worker.images.data_directory, out / IMAGE)
    contents = explorer.worker.images.contents
    lines = LostTold(WalText(out / IMAGE), contents.base_bytes, explorer.walk.log.read).lines(model, best)
    result = explorer.try_state(best, trial, out)
    shrunk = Shrunk(
        result=result,
        code=code,
        lost_before=lost_before,
        lost=len(lost_changes(model, best)) + len(lost_writes(model, best)),
        position_before=state.position,
        position=best.position,
        tried=search.tried,
        complete=search.complete,
        lines=lines,
    )
    files.write_whole(out / README, _readme(shrunk, out).encode())
    return shrunk


def _codes(verdict: Verdict) -> list[str]:
    return [one.code for one in verdict.findings]


def _readme(shrunk: Shrunk, out: Path) -> str:
    """Tell the smallest state on a page."""
    result = shrunk.result
    finding = next((one for one in result.verdict.findings if one.code == shrunk.code), None)
    counts = result.verdict.counts
    assert result.server is not None
    told = [finding.summary, "", finding.explanation] if finding is not None else ["It was not found again at the end."]
    where = (
        f"The crash comes after operation {shrunk.position} of the recording (before: {shrunk.position_before}); "
        f"{counts.begun} transactions had begun by then, {counts.acked} were acknowledged. "
        f"{_number(shrunk.lost)} lost of what was written and not flushed (before: {shrunk.lost_before}); "
        "everything else is as the server saw it."
    )
    by_hand = (
        "does so, as long as the recording is there. Without crashlab, start PostgreSQL "
        f"{result.server.version} on a copy of `{IMAGE}/`, which is the data directory as the crash leaves it:"
    )
    lines = [
        f"# {shrunk.code}, in as little as was found",
        "",
        *told,
        "",
        "## What the crash has lost",
        "",
        *([f"- {line}" for line in shrunk.lines] or ["Nothing: a kill -9 at this point is enough."]),
        "",
        where,
        _how_far(shrunk),
        "",
        "## Again",
        "",
        f"    {shlex.join(['crashlab', 'replay', str(out)])}",
        "",
        by_hand,
        "",
        f"    cp -a {IMAGE} again && chmod 700 again && postgres -D again",
        "",
    ]
    return "\n".join(lines)


def _number(lost: int) -> str:
    return f"{lost} {'write or name is' if lost == 1 else 'writes and names are'}"


def _how_far(shrunk: Shrunk) -> str:
    tried = f"{shrunk.tried} states were recovered on the way"
    if not shrunk.complete:
        return f"{tried}; the time was up before the search ended, so that there may be a smaller one."
    return f"{tried}; of its neighbours none is smaller. That nothing smaller exists is not proven."
