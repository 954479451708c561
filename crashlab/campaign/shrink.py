"""How does a stored trial become the smallest reproduction of what it found?

    README.md        what is lost, by file, page, LSN and WAL record, and what to do with it
    image/           the data directory as the crash leaves it, before any recovery
    trial.json ...   the evidence of the smallest state's own trial: judge and replay take this folder
    profile.toml     of a shorter run, where one shows the same in no more lost writes; shorter/ has its recording

Of a live trial there is no state that could be made smaller, only a shorter run: the README and profile.toml, and the
trial that found it in shorter/.

Choices:
    The worst finding has to stay, for the same cause (`same`); another finding beside it may come or go.
    First the trial's own state is made smaller, then the run shorter (`shorter`), and a state of the shortest one
    smaller in its turn. Of the two states the one with fewer lost writes is taken, else that with fewer transactions.
    Of a recorded recovery the second cut is shrunk, its first one stays as it was.
"""

import contextlib
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crashlab import evidence, files
from crashlab.campaign.anew import Anew, Wanted, looking_for
from crashlab.campaign.same import Same, same_as
from crashlab.campaign.shorter import Shorter, Tried
from crashlab.campaign.shrunk import (
    INTERRUPTED,
    PROFILE,
    README,
    SHORTER,
    TIME_UP,
    Run,
    Shrunk,
    ShrunkRun,
    readme,
    readme_of_run,
)
from crashlab.disk.lost import lost_changes, lost_writes
from crashlab.disk.model import CrashState
from crashlab.disk.states import losses
from crashlab.errors import UsageProblem, Warn
from crashlab.exploration import recording
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.losttold import LostTold, WalText
from crashlab.exploration.shrink import Progress, Shrinker
from crashlab.model import Family, Finding, Verdict
from crashlab.profile import Profile, parse_profile, stored_profile
from crashlab.server import ServerChoice
from crashlab.server.base import Version
from crashlab.server.choose import choice_again
from crashlab.trial.judged import judge_trial, recording_of

IMAGE = "image"
SETTLED = "what was lost was shrunk"
TRIALS = 20
"""Crash states, or live trials, of a shorter run before nothing is taken to be there."""
LAST_SHARE = 0.3
"""Of the time, for the state of the shortest run."""

Teller = Callable[[Progress | Tried], None]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The smallest state of one recording."""

    state: CrashState
    begun: int  # transactions
    lost: int
    tried: int
    complete: bool
    passed_over: int  # states that had the code for another cause

    @property
    def cost(self) -> tuple[int, int]:
        """What is smaller comes first."""
        return self.lost, self.begun


class Clock:
    """How much of the time is left, and whether somebody asked for an end."""

    def __init__(self, limit_s: float | None, interrupted: Callable[[], bool]) -> None:
        self._limit_s = limit_s
        self._begun = time.monotonic()
        self.interrupted = interrupted

    def left_s(self, share: float = 1.0) -> float | None:
        """Return what is left of a share of the time; None: there is no limit."""
        return None if self._limit_s is None else self._limit_s * share - (time.monotonic() - self._begun)

    def goes_on(self, share: float = 1.0) -> bool:
        """Whether a share of the time is not up, and nobody asked for an end."""
        left = self.left_s(share)
        return (left is None or left > 0) and not self.interrupted()

    @property
    def ended_by(self) -> str:
        """Why it does not go on."""
        return INTERRUPTED if self.interrupted() else TIME_UP


def shrink(
    folder: Path,
    *,
    out: Path,
    server: ServerChoice,
    code: str | None = None,
    trust: bool = False,
    time_limit_s: float | None = None,
    trials: int = TRIALS,
    told: Teller = lambda step: None,
    warn: Warn | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Shrunk | ShrunkRun:
    """Shrink a stored trial, into the folder `out`, which is there and empty.

    Args:
        code: the finding that has to stay; None: the worst one.
        trials: so many states, or live trials, of each shorter run; 0: no shorter run is tried.
        warn: is told of a server of another release that takes the place of the one that the evidence names.
        interrupted: asked before each step: whether to come to an end with the best so far.

    Raises:
        KeyboardInterrupt: it was to come to an end before it had anything.
        UsageProblem: it is a trial of a test, or found nothing, or not that; or it does not find it again.
        CrashlabError: the evidence is missing or damaged, or the environment does not allow it.
    """
    record = evidence.load_trial(folder)
    if record.kind not in ("live", "recorded"):
        raise UsageProblem(f'cannot shrink "{folder}": it is a trial of a test, and only the test has its transactions')
    same, verdict = _wanted(folder, code)
    facts, other = record.server, record.recovered_with
    recovers = None
    if other is not None and server == ServerChoice():
        recovers = choice_again(server, facts.kind, other.source, Version.parse(other.version), trust=trust, warn=warn)
    server = choice_again(server, facts.kind, facts.source, Version.parse(facts.version), trust=trust, warn=warn)
    wanted = Wanted(same=same, run_seed=record.run_seed, server=server, recover_with=recovers, trials=trials)
    clock = Clock(time_limit_s, interrupted)
    search = _Search(wanted, out, clock, told)
    if record.recording is None:
        if not trials:
            raise UsageProblem(
                f'cannot shrink "{folder}": of a live trial only shorter runs can be tried',
                detail="It is another one each time it runs; a recorded state is always the same.",
                hint="Leave --trials away.",
            )
        return search.of_live_trials(stored_profile(record.profile_resolved).profile, verdict.counts.begun)
    return search.of_state(folder, record, verdict)


def _lost(explorer: Explorer, state: CrashState) -> int:
    model = explorer.walk.to(state.position)
    return len(lost_changes(model, state)) + len(lost_writes(model, state))


def _wanted(folder: Path, code: str | None) -> tuple[Same, Verdict]:
    """Return the finding that has to stay, and the verdict that it is from."""
    verdict = judge_trial(folder)
    findings = [one for one in verdict.findings if _accuses(one)]
    if code is not None:
        findings = [one for one in findings if one.code == code]
    if not findings:
        have = ", ".join(dict.fromkeys(one.code for one in verdict.findings if _accuses(one))) or "nothing"
        raise UsageProblem(
            f'cannot shrink "{folder}": it did not find {code or "anything"}', detail=f"It found {have}."
        )
    return same_as(findings[0]), verdict


def _accuses(finding: Finding) -> bool:
    return finding.family not in (Family.NOTE, Family.INCONCLUSIVE)


class _Search:
    """One search, and where its result goes."""

    def __init__(self, wanted: Wanted, out: Path, clock: Clock, told: Teller) -> None:
        self._wanted = wanted
        self._same = wanted.same
        self._out = out
        self._clock = clock
        self._told = told
        self._anew = Anew(wanted, out / SHORTER, left_s=clock.left_s, interrupted=clock.interrupted)
        self.begun = 0  # transactions of the shortest run

    # --- a state of a recording

    def of_state(self, folder: Path, record: evidence.TrialRecord, verdict: Verdict) -> Shrunk:
        """Make the state smaller, and the run shorter."""
        with contextlib.ExitStack() as exits:
            explorer = exits.enter_context(self._explorer(folder, record))
            state = evidence.load(folder / evidence.STATE, CrashState, digest=record.digests.get(evidence.STATE))
            best = self._smallest(explorer, state)
            if best is None:
                raise UsageProblem(
                    f"cannot shrink trial {record.trial}: {self._same.code} is not found again",
                    hint="Try crashlab replay: a state is always the same, a server's timing is not.",
                )
            before = _lost(explorer, state)
            run = self._shorter(explorer, best.begun)
            if run is not None and (other := self._of_shortest(exits)) is not None and other[1].cost < best.cost:
                explorer, best = other
                (self._out / PROFILE).write_text(run.profile)
            else:
                run = None if run is None else msgspec.structs.replace(run, taken=False)
            shrunk = self._write(explorer, record.trial, best, run, before, state.position, verdict)
        self._forget(keep=run is not None and run.taken)
        return shrunk

    def _explorer(self, folder: Path, record: evidence.TrialRecord) -> Explorer:
        return Explorer(
            recording.load(recording_of(folder, record)),
            looking_for(self._same.code, stored_profile(record.profile_resolved).profile),
            server=self._wanted.recover_with or self._wanted.server,
            run_seed=record.run_seed,
            contract=record.disk_contract,
            keep="none",
        )

    def _smallest(self, explorer: Explorer, state: CrashState) -> Best | None:
        """Return the smallest state of a recording that still shows it; None: not even this one does."""
        begun: dict[tuple[int, int], int] = {}
        passed_over = 0
        with tempfile.TemporaryDirectory(prefix="tries-", dir=self._out) as tries:

            def still_wrong(tried: CrashState) -> bool:
                nonlocal passed_over
                place = Path(tempfile.mkdtemp(dir=tries))
                try:
                    verdict = explorer.try_state(tried, 0, place).verdict
                finally:
                    shutil.rmtree(place, ignore_errors=True)
                begun[tried.position, tried.fingerprint] = verdict.counts.begun
                passed_over += self._same.other_cause_in(verdict)
                return self._same.found_in(verdict)

            if not still_wrong(state):
                return None
            search = Shrinker(
                state,
                model_at=explorer.walk.to,
                still_wrong=still_wrong,
                first=explorer.conditions.survey.first,
                may_go_on=lambda tried: self._clock.goes_on(),
                told=self._told,
            )
            best = search.run()
        return Best(
            state=best,
            begun=begun[best.position, best.fingerprint],
            lost=_lost(explorer, best),
            tried=search.tried,
            complete=search.complete,
            passed_over=passed_over,
        )

    def _shorter(self, explorer: Explorer, begun: int) -> Run | None:
        """Look for a shorter run than the recorded one; None: none was tried."""
        record = explorer.recording.record
        nested = record.ledger_io is not None
        profile = stored_profile(record.profile_resolved).profile if nested else explorer.profile
        assert profile.power_loss is not None
        if not self._wanted.trials or record.in_test is not None or profile.power_loss.at:
            return None
        return self._shortest(profile, begun)

    def _shortest(self, profile: Profile, begun: int) -> Run:
        search = Shorter(
            profile,
            begun,
            found=self._anew.found,
            may_go_on=lambda: self._clock.goes_on(1.0 - LAST_SHARE),
            told=self._told,
        )
        best = search.run()
        self.begun = search.transactions
        return Run.of(profile, best, tried=search.tried, complete=search.complete, ended_by=self._clock.ended_by)

    def _of_shortest(self, exits: contextlib.ExitStack) -> tuple[Explorer, Best] | None:
        """Make the state of the shortest run smaller; None: no shorter run showed it."""
        folder = self._anew.best
        if folder is None:
            return None
        record = evidence.load_trial(folder)
        explorer = exits.enter_context(self._explorer(folder, record))
        state = evidence.load(folder / evidence.STATE, CrashState, digest=record.digests.get(evidence.STATE))
        best = self._smallest(explorer, state)
        return None if best is None else (explorer, best)

    # --- live trials

    def of_live_trials(self, profile: Profile, begun: int) -> ShrunkRun:
        """Make the run shorter, and say how often each of both finds it."""
        before = self._anew.rate(profile)
        run = self._shortest(profile, begun)
        best = parse_profile(tomllib.loads(run.profile))
        after = self._anew.rate(best) if run.taken else before
        if not run.taken and not before[0]:
            if self._clock.interrupted():
                raise KeyboardInterrupt
            raise UsageProblem(
                f"cannot shrink the trial: {self._same} is not found again in {before[1]} trials",
                hint="Ask for more of them with --trials.",
            )
        (self._out / PROFILE).write_text(run.profile)
        shrunk = ShrunkRun(
            same=self._same,
            folder=self._anew.best,
            begun_before=begun,
            begun=self.begun,
            rate_before=before,
            rate=after,
            run=run,
            seed=self._wanted.run_seed,
        )
        files.write_whole(self._out / README, readme_of_run(shrunk, self._out).encode())
        return shrunk

    # --- what comes of it

    def _write(
        self, explorer: Explorer, trial: int, best: Best, run: Run | None, lost: int, position: int, verdict: Verdict
    ) -> Shrunk:
        out = self._out
        model = explorer.walk.to(best.state.position)
        state = msgspec.structs.replace(best.state, note=f"{SETTLED}; {losses(model, best.state)}")
        explorer.make_real(state)
        explorer.worker.keep_data(out / IMAGE)
        contents = explorer.worker.images.contents
        lines = LostTold(WalText(out / IMAGE), contents.base_bytes, explorer.walk.log.read).lines(model, state)
        result = explorer.try_state(state, trial, out)
        shrunk = Shrunk(
            result=result,
            same=self._same,
            lost_before=lost,
            lost=best.lost,
            position_before=position,
            position=state.position,
            begun_before=verdict.counts.begun,
            begun=result.verdict.counts.begun,
            tried=best.tried,
            complete=best.complete,
            passed_over=best.passed_over,
            run=run,
            lines=lines,
            ended_by=self._clock.ended_by,
        )
        files.write_whole(out / README, readme(shrunk, out).encode())
        return shrunk

    def _forget(self, *, keep: bool) -> None:
        """Remove what the shorter runs left, but for the recording that the result is a state of."""
        if not keep:
            shutil.rmtree(self._out / SHORTER, ignore_errors=True)
        elif self._anew.best is not None:
            shutil.rmtree(self._anew.best)
