"""What would a run do, and what would be promised for it?"""

from typing import TYPE_CHECKING

import click

from crashlab.contract import contract_for
from crashlab.duration import format_ms
from crashlab.fault import FAULTS
from crashlab.profile import Fault, PowerLoss, Profile
from crashlab.seeds import trial_seed
from crashlab.trial.setup import server_spec

if TYPE_CHECKING:
    from crashlab.campaign import Plan

SHOWN_SEEDS = 5


def print_plan(plan: "Plan") -> None:
    """Print each profile's resolved plan and contract. Starts and writes nothing."""
    click.echo(f"seed {plan.seed}  server {plan.server.described}")
    if plan.time_limit_s is not None:
        click.echo(f"time limit {plan.time_limit_s:g} s, shared by all profiles")
    for profile in (one.profile for one in plan.asked):
        trials = plan.trials_of(profile)
        power_loss = profile.power_loss
        seeds = [
            str(trial_seed(plan.seed, profile.name, trial)) for trial in range(min(trials or SHOWN_SEEDS, SHOWN_SEEDS))
        ]
        click.echo(f"\n{profile.name}: {profile.description}")
        more = " ..." if trials is None or trials > SHOWN_SEEDS else ""
        click.echo(f"  trials    {trials or f'until {plan.until}'}, seeds {' '.join(seeds)}{more}")
        _section("settings", [f"{name} = {value}" for name, value in profile.server.settings.items()])
        _section("initdb", profile.server.initdb)
        _section("workload", _workload(profile))
        _section("own SQL", _own_sql(profile))
        _section("invariant", [f"{one.name}: {_first_line(one.sql)}" for one in profile.invariants])
        faults = [_fault(fault) for fault in profile.faults] if power_loss is None else _power_loss(power_loss)
        _section("drawn", [f"{name}: {' | '.join(values)}" for name, values in profile.vary.items()])
        _section("jitter", _jitter(profile))
        _section("faults", faults or ["none: every trial will be inconclusive"])
        _section("contract", _contract(profile, server_spec(profile, plan.server).kind))
        expect = profile.expect
        _section("expected", [f"{' or '.join(expect.outcomes)}, promise {' or '.join(expect.promise)}. {expect.note}"])


def _section(title: str, lines: list[str]) -> None:
    for line in lines:
        click.echo(f"  {title:<9} {line}".rstrip())
        title = ""


def _workload(profile: Profile) -> list[str]:
    work = profile.workload
    modes = ", ".join(f"{mode} {share:g}" for mode, share in work.synchronous_commit.items())
    shares = {
        "two-phase": work.two_phase,
        "rollbacks": work.rollbacks,
        "savepoints": work.savepoints,
        "errors": work.errors,
        "read-only": work.read_only,
    }
    lines = [
        f"{work.clients} clients: {', '.join(work.kinds)}",
        f"synchronous_commit: {modes}",
        "shares: " + ", ".join(f"{name} {share:g}" for name, share in shares.items()),
    ]
    if work.checkpoint_every_ms is not None:
        lines.append(f"a checkpoint every {format_ms(work.checkpoint_every_ms)}")
    return lines


def _own_sql(profile: Profile) -> list[str]:
    own = profile.workload.sql
    if own is None:
        return []
    weights = sum(one.weight for one in own.transactions)
    return [
        f"tables in the ledger: {', '.join(own.tables)}",
        *(f"{one.weight / weights:.0%} {_first_line(one.sql)}" for one in own.transactions),
    ]


def _first_line(sql: str) -> str:
    first, *others = sql.strip().splitlines()
    return f"{first} ..." if others else first


def _jitter(profile: Profile) -> list[str]:
    jitter = profile.jitter
    if jitter is None:
        return []
    low, high = (format_ms(ms) for ms in jitter.between_ms)
    return [f"{jitter.share:.3g} of these are held for {low} to {high}: {', '.join(jitter.hold)}"]


def _fault(fault: Fault) -> str:
    when = fault.when
    if when.acks is not None:
        moment = f"after {when.acks} acknowledged writes"
    elif when.after_ms is not None:
        moment = f"after {format_ms(when.after_ms)}"
    else:
        assert when.between_ms is not None
        moment = f"at a seeded moment, {format_ms(when.between_ms[0])} to {format_ms(when.between_ms[1])}"
    return f"{fault.kind} {fault.target or ''}".rstrip() + f" {moment}"


def _power_loss(power_loss: PowerLoss) -> list[str]:
    where = {
        "any": "any operation",
        "checkpoint": "operations of checkpoints",
        "wal switch": "switches of the WAL file",
        "redo": "few points behind which recovery replays most",
    }
    lines = [
        f"one recorded run of {power_loss.acks} acknowledged writes, then a {power_loss.end}",
        f"cut at {where.get(power_loss.points, power_loss.points)}, {power_loss.states_per_point} states a point",
        f"{power_loss.disk} disk, units of {power_loss.tear_bytes} bytes survive on their own",
    ]
    if power_loss.aim:
        lines.append(f"only these files vary: {', '.join(power_loss.aim)}")
    if power_loss.swallow:
        lines.append(f"flushes of these files do nothing: {', '.join(power_loss.swallow)}")
    if power_loss.swallow_one:
        lines.append(
            f"one flush of these files is left out, and the cut follows it: {', '.join(power_loss.swallow_one)}"
        )
    return lines


def _contract(profile: Profile, server_kind: str) -> list[str]:
    """Say the promise for the settings that the profile asks for; the run itself reads them back from the server."""
    bounded = all(FAULTS[fault.kind].bounds_window(fault.target, server_kind) for fault in profile.faults)
    contract = contract_for(
        profile.server.settings,
        profile.crash_class,
        bounded_window=bounded and profile.power_loss is None and profile.jitter is None,
        disk="linux" if profile.power_loss is None else profile.power_loss.promised_disk,
    )
    return [f"{clause.setting} = {clause.value}: {clause.says} [{clause.manual}]" for clause in contract.clauses]
