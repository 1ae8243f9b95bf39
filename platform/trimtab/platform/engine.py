"""The story of one audit: take, freeze, propose, plan and rehearse, rank, store; only this file sequences."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

from trimtab.platform import ranking, rules, worth
from trimtab.platform.clocks import WallClock
from trimtab.platform.contracts import Compute, Context, Goal, Planner, Rehearsal, Rehearse, Score
from trimtab.platform.efficacy import Ask, asking, recounted
from trimtab.platform.errors import Conflict, InvalidInput, PlanError, StrategyError, TrimtabError
from trimtab.platform.explain import explain, reason_to_json
from trimtab.platform.lease import while_held
from trimtab.platform.planner.wire import understood
from trimtab.platform.plugins import Plugins, load
from trimtab.platform.proposal import Candidate, Limits, Plan, steps_to_json
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, EfficacyIndicator, Explanation
from trimtab.platform.records import Goal as GoalRecord
from trimtab.platform.records import Strategy as StrategyRecord
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.platform.states import ActionState, AuditState, PlanState
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

NOTHING = "do_nothing"
NO_PROPOSAL = "No strategy had anything to propose"
LONGEST_MESSAGE = 255

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


class Entry(NamedTuple):
    """A candidate on its way through one audit."""

    job: ProposeJob
    candidate: Candidate | None
    tried: Tried
    node: str = ""
    worker: str = ""
    propose_s: float = 0.0
    rehearse_s: float = 0.0
    error: str | None = None


def propose(snapshot: Snapshot, job: ProposeJob) -> list[Candidate]:
    """Run one strategy on a snapshot (on any worker)."""
    strategy = load().strategy(job.strategy)
    return list(strategy.propose(snapshot, read_parameters(strategy, job.parameters), Context(seed=job.seed)))


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
        parts.tell("candidates", 1, strategy=entry.job.strategy, verdict=_verdict(entry, position == chosen))
        parts.tell("rehearsal_seconds", entry.rehearse_s, strategy=entry.job.strategy)
    rows = candidate_rows(frozen.snapshot, goal, entries, chosen)
    plan, actions, indicators = await _plan_rows(parts, goal, jobs[0].strategy, entries, chosen)
    explanations = await _explanations(parts, goal, frozen, entries[chosen] if chosen is not None else None, actions)
    return await parts.store.save_outcome(
        audit.uuid,
        event="succeed",
        epoch=epoch,
        status_message=_message([*([message] if message else []), *frozen.snapshot.notes]),
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


def choose(goal: Goal, entries: Sequence[Entry], *, named: bool) -> tuple[int | None, str | None]:
    """Position of the recommended entry, and what to tell the person when none is (or why it is empty).

    Raises:
        StrategyError: every strategy failed, so nothing can be said.
    """
    sound = [p for p, e in enumerate(entries) if e.tried.plan is not None and not e.tried.reasons and e.error is None]
    proposals = [p for p in sound if entries[p].job.strategy != NOTHING]
    broken = [e for e in entries if e.error is not None]
    if not goal.ordering:
        if broken:
            raise StrategyError(f"strategy {broken[0].job.strategy} failed: {broken[0].error}")
        return (proposals[0], None) if proposals else (None, _rejections(entries) or NO_PROPOSAL)
    if not proposals:
        if broken and not any(e.tried.reasons for e in entries):
            raise StrategyError(f"strategy {broken[0].job.strategy} failed: {broken[0].error}")
        return None, _rejections(entries) or NO_PROPOSAL
    scores = {p: entries[p].tried.score or Score() for p in sound}
    if not named:
        nothing = next(p for p in sound if entries[p].job.strategy == NOTHING)
        better = [p for p in proposals if ranking.beats(goal, scores[p], scores[nothing]) is not None]
        if not better:
            fields = ", ".join(goal.ordering)
            return None, f"Doing nothing is best: none of {len(proposals)} candidates beats it ({fields})"
        proposals = better
    best = min(proposals, key=lambda p: (ranking.key(goal, scores[p]), p))
    candidate = entries[best].candidate
    return best, candidate.because if candidate is not None and not candidate.steps else None


def _rejections(entries: Sequence[Entry]) -> str | None:
    reasons = [f"{e.job.strategy}: {e.tried.reasons[0]}" for e in entries if e.tried.reasons]
    reasons += [f"{e.job.strategy}: {e.error}" for e in entries if e.error is not None]
    return f"All candidates were rejected: {'; '.join(dict.fromkeys(reasons))}" if reasons else None


def _verdict(entry: Entry, chosen: bool) -> str:
    if entry.error is not None:
        return "failed"
    if entry.tried.reasons or entry.tried.plan is None:
        return "rejected"
    return "chosen" if chosen else "ranked"


def candidate_rows(
    snapshot: Snapshot, goal: Goal, entries: Sequence[Entry], chosen: int | None
) -> list[CandidateRecord]:
    """Every candidate as it is stored: winner, losers with their ranks, rejected ones with their reasons."""
    scored = [p for p, e in enumerate(entries) if e.tried.score is not None and not e.tried.reasons and not e.error]
    order = ranking.rank(goal, [entries[p].tried.score or Score() for p in scored])
    rank = {scored[position]: place for place, position in enumerate(order, start=1)}
    rows = []
    for number, entry in enumerate(entries):
        candidate = entry.candidate or Candidate(())
        reasons = [entry.error] if entry.error is not None else list(entry.tried.reasons)
        told = [candidate.because, *candidate.notes, *(entry.tried.plan.notes if entry.tried.plan else ())]
        rows.append(
            CandidateRecord(
                uuid=str(uuid.uuid4()),
                audit_id=0,
                number=number,
                strategy_name=entry.job.strategy,
                parameters=dict(entry.job.parameters),
                verdict=_verdict(entry, number == chosen),
                rank=rank.get(number),
                reason="; ".join(reasons) or None,
                because="; ".join(dict.fromkeys(told)),
                indicators=dict(candidate.indicators),
                score=asdict(entry.tried.score) if entry.tried.score is not None else {},
                steps=steps_to_json(snapshot.model, candidate.steps),
                node=entry.node,
                worker=entry.worker,
                propose_s=entry.propose_s,
                rehearse_s=entry.rehearse_s,
            )
        )
    return rows


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


async def _plan_rows(
    parts: Parts, goal: Goal, first: str, entries: Sequence[Entry], chosen: int | None
) -> tuple[ActionPlan, list[Action], list[EfficacyIndicator]]:
    """The plan as it is stored: RECOMMENDED with its actions, or SUCCEEDED and empty when there is nothing to do."""
    entry = entries[chosen] if chosen is not None else None
    # A plan always names a strategy: where none is chosen, the first that was tried.
    strategy = await parts.store.get(StrategyRecord, entry.job.strategy if entry else first)
    candidate = entry.candidate if entry and entry.candidate else Candidate(())
    plan = entry.tried.plan if entry and entry.tried.plan else Plan(())
    actions = action_rows(plan)
    indicators = [
        EfficacyIndicator(
            uuid=str(uuid.uuid4()),
            action_plan_id=0,
            name=indicator.name,
            description=indicator.description,
            unit=indicator.unit,
            data=float(candidate.indicators[indicator.name]),
        )
        for indicator in goal.indicators
        if indicator.name in candidate.indicators
    ]
    row = ActionPlan(
        uuid=str(uuid.uuid4()),
        audit_id=0,
        strategy_id=strategy.id,
        state=PlanState.RECOMMENDED if actions else PlanState.SUCCEEDED,
        candidate=chosen if chosen is not None else -1,
        global_efficacy=goal.global_efficacy(candidate.indicators),
        rehearsed=asdict(entry.tried.score) if entry and entry.tried.score else {},
        notes=list(dict.fromkeys((*candidate.notes, *plan.notes))),
    )
    return row, actions, indicators


def action_rows(plan: Plan) -> list[Action]:
    """The nodes of a plan's graph as records that name each other by uuid."""
    ids = [str(uuid.uuid4()) for _ in plan.actions]
    return [
        Action(
            uuid=ids[position],
            action_plan_id=0,
            action_type=action.action_type,
            input_parameters=dict(action.parameters),
            state=ActionState.PENDING,
            parents=[ids[parent] for parent in action.parents],
            needs_room_of=[ids[parent] for parent in action.needs_room_of],
        )
        for position, action in enumerate(plan.actions)
    ]


async def _failed_before(store: StorePort, audit: Audit) -> list[str]:
    """Instances whose migration failed in an earlier plan of this audit."""
    plans = await store.list(ActionPlan, {"audit_id": audit.id})
    if not plans:
        return []
    where = {"action_plan_id": [plan.id for plan in plans], "state": ActionState.FAILED, "action_type": "migrate"}
    return [str(action.input_parameters["resource_id"]) for action in await store.list(Action, where)]


def _message(parts: Sequence[str]) -> str | None:
    text = "; ".join(parts)
    return (text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…") or None


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
