"""The trial of candidates, on whatever worker has room: propose, judge, plan, rehearse, weigh, count, explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from trimtab.platform import ranking, rules, worth
from trimtab.platform.contracts import Context, Goal, Planner, Rehearsal, Rehearse, Score
from trimtab.platform.efficacy import Ask, asking, check_indicators, recounted
from trimtab.platform.errors import PlanError
from trimtab.platform.explain import explain, reason_to_json
from trimtab.platform.planner.wire import understood
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Candidate, Limits, Plan
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot


class ProposeJob(NamedTuple):
    """One strategy with one set of parameters."""

    strategy: str
    parameters: Mapping[str, Any]
    seed: int


class TryJob(NamedTuple):
    """One candidate to be judged, planned and rehearsed."""

    candidate: Candidate
    planner: Planner | None  # None: there is none of the name the candidate asks for
    rehearse: Rehearse | None  # None: its goal has no ordering, so a score would not be used
    limits: Limits
    seed: int
    weigh: Goal | None = None  # None: every move is worth it
    proposed_by: ProposeJob | None = None  # whom to ask for indicators that only a strategy can tell


class ExplainJob(NamedTuple):
    """The recommended plan, to be explained."""

    candidate: Candidate
    plan: Plan
    goal: Goal
    ids: tuple[str, ...]  # uuids of its actions


class Tried(NamedTuple):
    """What became of a candidate: a plan and its score, or the reasons why not."""

    plan: Plan | None
    score: Score | None
    reasons: tuple[str, ...] = ()
    candidate: Candidate | None = None  # what was planned, with its own indicators, where it is not what was proposed


def propose(snapshot: Snapshot, job: ProposeJob) -> list[Candidate]:
    """Run one strategy on a snapshot (on any worker).

    Raises:
        StrategyError: what it says of its candidates is not what its goal wants to know.
    """
    plugins = load()
    strategy = plugins.strategy(job.strategy)
    found = list(strategy.propose(snapshot, read_parameters(strategy, job.parameters), Context(seed=job.seed)))
    for candidate in found:
        check_indicators(plugins.goals[strategy.goal], candidate.indicators)
    return found


def try_out(snapshot: Snapshot, job: TryJob) -> Tried:
    """Judge, plan and rehearse one candidate, without moves that are not worth it (on any worker).

    What comes back has the indicators of its plan, which may do less than was proposed.
    """
    tried = _worthwhile(snapshot, job)
    if tried.plan is None:
        return tried
    planned = tried.candidate or job.candidate
    counted = recounted(snapshot, job.candidate, planned, tried.plan, _asking(snapshot, job.proposed_by))
    return tried if counted == planned else tried._replace(candidate=counted)


def _asking(snapshot: Snapshot, by: ProposeJob | None) -> Ask:
    strategies = load().strategies
    if by is None or by.strategy not in strategies:
        return lambda _: None
    return asking(snapshot, strategies[by.strategy], by.parameters, by.seed)


def _worthwhile(snapshot: Snapshot, job: TryJob) -> Tried:
    """What becomes of a candidate without moves that are not worth it.

    Those moves stay in where the goal's own order says that the plan is worse without them, or where the rest of it
    cannot be done without them.
    """
    whole = _try(snapshot, job)
    if job.weigh is None or whole.plan is None or whole.score is None or whole.reasons:
        return whole
    kept: list[str] = []
    seen: set[int] = set()
    for hosts_too in (True, False):
        reduced, left_out = worth.weigh(snapshot, job.candidate, job.weigh, hosts_too=hosts_too)
        if not left_out or len(left_out) in seen:
            continue
        seen.add(len(left_out))
        tried = _try(snapshot, job._replace(candidate=reduced))
        if tried.plan is None or tried.score is None or tried.reasons:
            continue
        if not _moved(whole.plan) - {one.instance for one in left_out} <= _moved(tried.plan):
            continue
        worse = ranking.beats(job.weigh, whole.score, tried.score)
        if worse is None:
            return tried._replace(candidate=reduced)
        kept.append(
            f"{len(left_out)} moves cost more than they bring, but without them {worse} is worse: they are done"
        )
    return whole._replace(candidate=replace(job.candidate, notes=(*job.candidate.notes, *kept))) if kept else whole


def _moved(plan: Plan) -> set[int]:
    return {action.instance for action in plan.actions if action.instance >= 0}


def _try(snapshot: Snapshot, job: TryJob) -> Tried:
    model = snapshot.model
    if job.planner is None:
        return Tried(None, None, (f"there is no planner {job.candidate.planner!r}",))
    # Acts of type migrate move instances too: they are judged as what they do.
    meant = replace(job.candidate, steps=tuple(understood(model, job.candidate.steps)))
    if reasons := rules.judge(model, meant):
        return Tried(None, None, tuple(reasons))
    try:
        plan = job.planner(model, job.candidate, job.limits)
    except PlanError as error:
        return Tried(None, None, (str(error),))
    if reasons := rules.judge_plan(model, plan):
        return Tried(None, None, tuple(reasons))
    if job.rehearse is None:
        return Tried(plan, None)
    rehearsal: Rehearsal = job.rehearse(snapshot, plan, job.limits, job.seed)
    return Tried(plan, rehearsal.score, rehearsal.violations)


def explain_plan(snapshot: Snapshot, job: ExplainJob) -> list[dict[str, Any]]:
    """Why each action of the recommended plan is there, as it is stored (on any worker)."""
    reasons = explain(snapshot, job.candidate, job.plan, job.goal)
    return [reason_to_json(snapshot.model, reason, job.ids) for reason in reasons]
