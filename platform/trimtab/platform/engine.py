"""The story of one audit: take, freeze, propose, plan and rehearse, rank, store; only this file sequences."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from trimtab.platform.clocks import WallClock
from trimtab.platform.contracts import Compute, Goal, Planner, Rehearse
from trimtab.platform.errors import Conflict, InvalidInput, StrategyError, TrimtabError
from trimtab.platform.lease import while_held
from trimtab.platform.outcome import (
    LONGEST_MESSAGE,
    NOTHING,
    Entry,
    candidate_rows,
    choose,
    message_of,
    plan_rows,
    verdict,
)
from trimtab.platform.plugins import Plugins
from trimtab.platform.proposal import Candidate, Limits
from trimtab.platform.records import Action, ActionPlan, Audit, Explanation
from trimtab.platform.records import Goal as GoalRecord
from trimtab.platform.records import Strategy as StrategyRecord
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.platform.states import ActionState, AuditState, PlanState
from trimtab.platform.store.port import StorePort
from trimtab.platform.trial import ExplainJob, ProposeJob, Tried, TryJob, explain_plan, propose, try_out

log = logging.getLogger(__name__)

# CPU seconds of the steps of an audit, measured on one core of the benchmarks' machine; they only decide whether work
# is sent to the cluster or done here, so a factor of two is no harm.
PROPOSE_S, PROPOSE_PER_PAIR_S = 0.01, 2e-8  # a strategy, and per host x instance
REHEARSE_PER_SAMPLE_S, REHEARSE_PER_STEP_S = 5e-8, 2e-4  # per recorded sample of an instance, and per step of a plan
EXPLAIN_PER_PAIR_S = 2e-7  # per action and host


class Frozen(NamedTuple):
    """A snapshot to look at here, and the same one in the form that `Compute.map` takes as `shared`."""

    snapshot: Snapshot
    shared: Any


# How the engine gets a snapshot of (scope, needs, instances that failed before, models): see
# `collector.Collector.freeze`.
Freeze = Callable[[Sequence[Mapping[str, Any]], Sequence[Need], Sequence[str], Sequence[str]], Awaitable[Frozen]]


class Tell(Protocol):
    """Where the engine counts what it does (Ray metrics, or nothing)."""

    def __call__(self, what: str, value: float, **labels: str) -> None:
        """Count or observe one thing."""
        ...


def silent(what: str, value: float, **labels: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with; wired in the composition root."""

    store: StorePort
    freeze: Freeze
    compute: Compute
    plugins: Plugins
    planners: Mapping[str, Planner]
    rehearse: Rehearse
    limits: Limits
    seed: int = 0
    hostname: str = "trimtab"
    owner: str = "engine"  # who claims audits; another name for every process
    lease_s: float = 30.0
    tell: Tell = silent
    weigh: bool = True  # leave out moves that cost more than they bring


async def run_audit(parts: Parts, audit_uuid: str) -> ActionPlan | None:
    """Take one audit and bring it to an end; returns the plan it recommends, if any.

    Whatever goes wrong inside ends in a FAILED audit that says why. An audit cancelled meanwhile stays CANCELLED and
    its outcome is dropped.

    Raises:
        Conflict: somebody else has the audit.
    """
    audit = await parts.store.claim(Audit, audit_uuid, parts.owner, parts.lease_s)
    epoch = audit.epoch
    if audit.state == AuditState.PENDING:
        if not audit.force and await parts.store.count(ActionPlan, {"state": PlanState.ONGOING}):
            message = "Cancelled: an action plan is ongoing (use force to audit all the same)"
            await parts.store.transition(Audit, audit_uuid, "cancel", message=message, epoch=epoch)
            return None
        changes = {"hostname": parts.hostname}
        audit = await parts.store.transition(Audit, audit_uuid, "run", changes, epoch=epoch)
    if audit.state != AuditState.ONGOING:
        await parts.store.release(Audit, audit_uuid, parts.owner, epoch)
        return None
    try:
        work = _work(parts, audit, epoch)
        return await while_held(parts.store, audit, parts.owner, parts.lease_s, WallClock(), work)
    except Conflict as conflict:
        log.warning("audit %s: outcome dropped: %s", audit_uuid, conflict)
        return None
    except Exception as problem:  # noqa: BLE001 (an audit never dies silently: it ends FAILED and says why)
        known = isinstance(problem, TrimtabError)
        message = str(problem) if known else f"{type(problem).__name__}: {problem}"
        (log.warning if known else log.exception)("audit %s failed: %s", audit_uuid, message)
        with contextlib.suppress(Conflict):  # cancelled meanwhile: it stays so
            await parts.store.transition(Audit, audit_uuid, "fail", message=message[:LONGEST_MESSAGE], epoch=epoch)
        return None
    finally:
        with contextlib.suppress(Conflict):
            await parts.store.release(Audit, audit_uuid, parts.owner, epoch)


async def _work(parts: Parts, audit: Audit, epoch: int) -> ActionPlan | None:
    goal_row = await parts.store.get(GoalRecord, audit.goal_id)
    if goal_row.name not in parts.plugins.goals:
        raise InvalidInput(f"goal {goal_row.name} is not installed any more; install it or use another goal")
    goal = parts.plugins.goals[goal_row.name]
    named = (await parts.store.get(StrategyRecord, audit.strategy_id)).name if audit.strategy_id else None
    jobs = jobs_for(parts.plugins, goal, named, audit.parameters, parts.seed)
    chosen_strategies = [(parts.plugins.strategy(job.strategy), job.parameters) for job in jobs]
    needs = [need for strategy, given in chosen_strategies for need in strategy.needs(read_parameters(strategy, given))]
    models = tuple(dict.fromkeys(model for strategy, _ in chosen_strategies for model in strategy.models))
    frozen = await parts.freeze(audit.scope, needs, await _failed_before(parts.store, audit), models)
    entries = await explore(parts, goal, frozen, jobs)
    chosen, message = choose(goal, entries, named=named is not None)
    for position, entry in enumerate(entries):
        parts.tell("candidates", 1, strategy=entry.job.strategy, verdict=verdict(entry, position == chosen))
        parts.tell("rehearsal_seconds", entry.rehearse_s, strategy=entry.job.strategy)
    rows = candidate_rows(frozen.snapshot, goal, entries, chosen)
    # A plan always names a strategy: where none is chosen, the first that was tried.
    ran = entries[chosen].job.strategy if chosen is not None else jobs[0].strategy
    strategy = await parts.store.get(StrategyRecord, ran)
    plan, actions, indicators = plan_rows(goal, strategy.id, entries, chosen)
    explanations = await _explanations(parts, goal, frozen, entries[chosen] if chosen is not None else None, actions)
    return await parts.store.save_outcome(
        audit.uuid,
        event="succeed",
        epoch=epoch,
        status_message=message_of([*([message] if message else []), *frozen.snapshot.notes]),
        candidates=rows,
        plan=plan,
        actions=actions,
        indicators=indicators,
        explanations=explanations,
        launch=audit.auto_trigger and bool(actions),
    )


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


async def explore(parts: Parts, goal: Goal, frozen: Frozen, jobs: Sequence[ProposeJob]) -> list[Entry]:
    """Propose with every job, then judge, plan and rehearse every candidate; doing nothing comes first."""
    model = frozen.snapshot.model
    size = model.hosts * model.instances
    proposed = await parts.compute.map(
        propose, frozen.shared, jobs, len(jobs) * (PROPOSE_S + size * PROPOSE_PER_PAIR_S)
    )
    nothing = ProposeJob(NOTHING, {}, parts.seed)
    found: list[tuple[ProposeJob, Candidate, float]] = []
    failed: list[Entry] = []
    if goal.ordering:
        found.append((nothing, Candidate((), because="leave everything as it is"), 0.0))
    for job, ran in zip(jobs, proposed, strict=True):
        if ran.error is not None:
            failed.append(Entry(job, None, Tried(None, None), ran.node, ran.worker, ran.seconds, error=ran.error))
        else:
            found += [(job, candidate, ran.seconds) for candidate in ran.value]
    rehearse = parts.rehearse if goal.ordering else None
    weigh = goal if goal.weighed and parts.weigh else None
    tries = [
        TryJob(candidate, parts.planners.get(candidate.planner), rehearse, parts.limits, parts.seed, weigh, job)
        for job, candidate, _ in found
    ]
    steps = sum(len(candidate.steps) for _, candidate, _ in found)
    history = frozen.snapshot.history
    samples = model.instances * (len(history.cpu_pct) if history is not None else 1)
    tried = await parts.compute.map(
        try_out, frozen.shared, tries, len(tries) * samples * REHEARSE_PER_SAMPLE_S + steps * REHEARSE_PER_STEP_S
    )
    entries = [
        Entry(job, done.candidate or candidate, done, ran.node, ran.worker, seconds, ran.seconds, ran.error)
        for (job, candidate, seconds), ran in zip(found, tried, strict=True)
        for done in [ran.value or Tried(None, None)]
    ]
    return [*entries, *failed]


async def _explanations(
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


async def _failed_before(store: StorePort, audit: Audit) -> list[str]:
    """Instances whose migration failed in an earlier plan of this audit."""
    plans = await store.list(ActionPlan, {"audit_id": audit.id})
    if not plans:
        return []
    where = {"action_plan_id": [plan.id for plan in plans], "state": ActionState.FAILED, "action_type": "migrate"}
    return [str(action.input_parameters["resource_id"]) for action in await store.list(Action, where)]


async def serve_audits(parts: Parts, wake: asyncio.Event, *, workers: int = 2, idle_s: float = 1.0) -> None:
    """Take PENDING and abandoned audits, oldest first, until cancelled; several engines share the work by claims."""
    running: dict[str, asyncio.Task[Any]] = {}
    while True:
        running = {name: task for name, task in running.items() if not task.done()}
        try:
            waiting = await parts.store.claimable(Audit, [AuditState.PENDING, AuditState.ONGOING])
        except Exception as error:  # noqa: BLE001 (the queue must outlive whatever the store's process is going through)
            log.warning("the queue of audits could not be read: %s: %s", type(error).__name__, error)
            await asyncio.sleep(idle_s)
            continue
        todo = [audit for audit in waiting if audit.audit_type == "ONESHOT" and audit.uuid not in running]
        parts.tell("audit_queue_length", float(len(todo)))
        for audit in todo[: max(0, workers - len(running))]:
            task = asyncio.create_task(run_audit(parts, audit.uuid), name=f"audit {audit.name}")
            task.add_done_callback(_log_end)
            running[audit.uuid] = task
        waiters = [asyncio.create_task(wake.wait()), *running.values()]
        _, pending = await asyncio.wait(waiters, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        if waiters[0] in pending:
            waiters[0].cancel()
        wake.clear()


def _log_end(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("%s: %s", task.get_name(), error)
