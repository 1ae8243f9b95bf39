"""What an audit may choose from: strategies to ask, their proposals, and what trying each one shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trimtab.platform.contracts import Goal
from trimtab.platform.engine.parts import Frozen, Parts
from trimtab.platform.errors import StrategyError
from trimtab.platform.outcome import NOTHING, Entry
from trimtab.platform.plugins import Plugins
from trimtab.platform.proposal import Candidate
from trimtab.platform.records import Action, Explanation
from trimtab.platform.trial import ExplainJob, ProposeJob, Tried, TryJob, explain_plan, propose, try_out

log = logging.getLogger(__name__)

# CPU seconds of the steps of an audit, measured on one core of the benchmarks' machine; they only decide whether work
# is sent to the cluster or done here, so a factor of two is no harm.
PROPOSE_S, PROPOSE_PER_PAIR_S = 0.01, 2e-8  # a strategy, and per host x instance
REHEARSE_PER_SAMPLE_S, REHEARSE_PER_STEP_S = 5e-8, 2e-4  # per recorded sample of an instance, and per step of a plan
EXPLAIN_PER_PAIR_S = 2e-7  # per action and host


class Proposed(NamedTuple):
    """One candidate, who proposed it, and how many seconds that took."""

    job: ProposeJob
    candidate: Candidate
    seconds: float


def jobs_for(
    plugins: Plugins, goal: Goal, named: str | None, parameters: Mapping[str, Any], seed: int
) -> list[ProposeJob]:
    """Which strategies to try with which parameters.

    Raises:
        StrategyError: the goal has no strategy.
    """
    if named is not None:
        return [ProposeJob(named, parameters, seed)]
    strategies = plugins.of_goal(goal.name)
    if not strategies:
        raise StrategyError(f"No strategy is installed for goal {goal.name}")
    if not goal.ordering:  # cannot be scored: nothing to choose by
        return [ProposeJob(strategies[0].name, {}, seed)]
    return [ProposeJob(strategy.name, point, seed) for strategy in strategies for point in strategy.grid()]


async def ask_all(parts: Parts, frozen: Frozen, jobs: Sequence[ProposeJob]) -> tuple[list[Proposed], list[Entry]]:
    """The proposals of every job, and entries of the jobs that failed.

    Raises:
        StrategyError: some failed and nobody else had anything to propose.
    """
    model = frozen.snapshot.model
    size = model.hosts * model.instances
    answers = await parts.compute.map(propose, frozen.shared, jobs, len(jobs) * (PROPOSE_S + size * PROPOSE_PER_PAIR_S))
    proposals: list[Proposed] = []
    failed: list[Entry] = []
    for job, ran in zip(jobs, answers, strict=True):
        if ran.error is not None:
            failed.append(Entry(job, None, Tried(None, None), ran.node, ran.worker, ran.seconds, error=ran.error))
        else:
            proposals += [Proposed(job, candidate, ran.seconds) for candidate in ran.value]
    if failed and not proposals:
        raise StrategyError(f"strategy {failed[0].job.strategy} failed: {failed[0].error}")
    return proposals, failed


async def try_all(parts: Parts, goal: Goal, frozen: Frozen, proposals: Sequence[Proposed]) -> list[Entry]:
    """Judge, plan and rehearse every proposal; where the goal can compare, doing nothing comes first."""
    nothing = Proposed(ProposeJob(NOTHING, {}, parts.seed), Candidate((), because="leave everything as it is"), 0.0)
    found = [*([nothing] if goal.ordering else []), *proposals]
    rehearse = parts.rehearse if goal.ordering else None
    weigh = goal if goal.weighed and parts.weigh else None
    tries = [
        TryJob(one.candidate, parts.planners.get(one.candidate.planner), rehearse, parts.limits, parts.seed, weigh,
               one.job)
        for one in found
    ]  # fmt: skip
    steps = sum(len(one.candidate.steps) for one in found)
    history = frozen.snapshot.history
    samples = frozen.snapshot.model.instances * (len(history.cpu_pct) if history is not None else 1)
    tried = await parts.compute.map(
        try_out, frozen.shared, tries, len(tries) * samples * REHEARSE_PER_SAMPLE_S + steps * REHEARSE_PER_STEP_S
    )
    return [
        Entry(one.job, done.candidate or one.candidate, done, ran.node, ran.worker, one.seconds, ran.seconds, ran.error)
        for one, ran in zip(found, tried, strict=True)
        for done in [ran.value or Tried(None, None)]
    ]


async def explore(parts: Parts, goal: Goal, frozen: Frozen, jobs: Sequence[ProposeJob]) -> list[Entry]:
    """Propose with every job, then try every candidate; those of failed jobs come last.

    Raises:
        StrategyError: see `ask_all`.
    """
    proposals, failed = await ask_all(parts, frozen, jobs)
    return [*await try_all(parts, goal, frozen, proposals), *failed]


async def explanations(
    parts: Parts, goal: Goal, frozen: Frozen, entry: Entry | None, actions: Sequence[Action]
) -> list[Explanation]:
    """One for each action of the recommended plan; none when it cannot be explained, which fails no audit."""
    if entry is None or entry.candidate is None or entry.tried.plan is None or not actions:
        return []
    job = ExplainJob(entry.candidate, entry.tried.plan, goal, tuple(action.uuid for action in actions))
    estimated_s = len(actions) * frozen.snapshot.model.hosts * EXPLAIN_PER_PAIR_S
    (ran,) = await parts.compute.map(explain_plan, frozen.shared, [job], estimated_s)
    if ran.error is not None:
        log.error("the plan of %s cannot be explained: %s", entry.job.strategy, ran.error)
        return []
    return [
        Explanation(uuid=action.uuid, action_plan_id=0, reason=reason)
        for action, reason in zip(actions, ran.value, strict=True)
    ]
