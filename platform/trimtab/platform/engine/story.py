"""The story of one audit: take it, freeze, propose, try, choose, store; only this file sequences."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from trimtab.platform import schedule
from trimtab.platform.engine.admission import admitted
from trimtab.platform.engine.exploration import ask_all, explanations, jobs_for, try_all
from trimtab.platform.engine.parts import Parts
from trimtab.platform.errors import Conflict, IllegalTransition, InvalidInput, NotFound, TrimtabError
from trimtab.platform.lease import while_held
from trimtab.platform.outcome import LONGEST_MESSAGE, candidate_rows, message_of, plan_rows, verdict
from trimtab.platform.records import Action, ActionPlan, Audit
from trimtab.platform.records import Goal as GoalRecord
from trimtab.platform.records import Strategy as StrategyRecord
from trimtab.platform.schema import read_parameters
from trimtab.platform.states import ActionState, AuditState, PlanState
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

BEGIN = {AuditState.PENDING: "run", AuditState.SUCCEEDED: "trigger"}  # an ONGOING audit runs as it is
BUSY = "an action plan is ongoing (use force to audit all the same)"


async def run_audit(parts: Parts, audit_uuid: str) -> ActionPlan | None:
    """Run one audit that is due; returns the plan it recommends, if any.

    ONESHOT and EVENT audits end SUCCEEDED, CONTINUOUS ones stay ONGOING and wait for their next tick. Whatever goes
    wrong inside ends in a FAILED audit that says why. An audit cancelled meanwhile stays CANCELLED and its outcome is
    dropped. While an action plan is ONGOING nothing runs, unless forced: a ONESHOT audit is CANCELLED, of others this
    run is skipped.

    Raises:
        Conflict: somebody else has the audit.
    """
    seen = await parts.store.get(Audit, audit_uuid)
    audit = await parts.store.claim(Audit, audit_uuid, parts.owner, parts.lease_s)
    plan = None
    try:
        # Since it was seen to be due, somebody may have run it, or it was cancelled.
        if _due(parts, replace(audit, owner=seen.owner)):
            plan = await _run(parts, audit)
    except IllegalTransition as moved_on:
        log.warning("audit %s: outcome dropped: %s", audit_uuid, moved_on)
    except Conflict as conflict:
        log.warning("audit %s: its lease is lost, so this run comes to nothing: %s", audit_uuid, conflict)
        return None
    # Whoever stops otherwise leaves its claim behind: when it runs out, others see that a run was broken off.
    with contextlib.suppress(Conflict, NotFound):
        await parts.store.release(Audit, audit_uuid, parts.owner, audit.epoch)
    return plan


def _due(parts: Parts, audit: Audit) -> bool:
    try:
        return schedule.due(audit, parts.now())
    except InvalidInput:
        return True  # it is run to say what is wrong with it


async def _run(parts: Parts, audit: Audit) -> ActionPlan | None:
    if not audit.force and await parts.store.count(ActionPlan, {"state": PlanState.ONGOING}):
        await _skip(parts, audit)
        return None
    audit = await _begin(parts, audit)
    try:
        return await while_held(parts.store, audit, parts.owner, parts.lease_s, parts.wall, _work(parts, audit))
    except Conflict:
        raise
    except Exception as problem:  # noqa: BLE001 (an audit never dies silently: it ends FAILED and says why)
        message = _words(problem)
        known = isinstance(problem, TrimtabError)
        (log.warning if known else log.exception)("audit %s failed: %s", audit.uuid, message)
        changes = _next(parts, audit)
        with contextlib.suppress(Conflict, NotFound):  # cancelled meanwhile: it stays so
            await parts.store.transition(Audit, audit.uuid, "fail", changes, message=message, epoch=audit.epoch)
        return None


async def _skip(parts: Parts, audit: Audit) -> None:
    if audit.audit_type == "ONESHOT":
        await parts.store.transition(Audit, audit.uuid, "cancel", message=f"Cancelled: {BUSY}", epoch=audit.epoch)
        return
    changes = {"triggered_at": None, "status_message": f"Run skipped: {BUSY}", **_next(parts, audit)}
    await parts.store.update(Audit, audit.uuid, changes, epoch=audit.epoch)


async def _begin(parts: Parts, audit: Audit) -> Audit:
    """The audit, ONGOING."""
    wanted = {"hostname": parts.hostname, "triggered_at": None}
    changes = {name: value for name, value in wanted.items() if getattr(audit, name) != value}
    event = BEGIN.get(AuditState(audit.state))
    if event is not None:
        return await parts.store.transition(Audit, audit.uuid, event, changes, epoch=audit.epoch)
    return await parts.store.update(Audit, audit.uuid, changes, epoch=audit.epoch) if changes else audit


def _next(parts: Parts, audit: Audit) -> dict[str, Any]:
    """When a continuous audit runs again: at the next tick of the grid that this run's tick is on."""
    if audit.audit_type != "CONTINUOUS":
        return {}
    now = parts.now()
    try:
        interval = schedule.parse_interval(audit.interval or "")
    except InvalidInput:
        return {}  # it is FAILED for that reason
    return {"next_run_time": schedule.next_run(interval, now, audit.next_run_time)}


async def _work(parts: Parts, audit: Audit) -> ActionPlan | None:
    if audit.audit_type == "CONTINUOUS":
        schedule.parse_interval(audit.interval or "")  # raises
        # The grid of its ticks begins with its first run.
        audit = replace(audit, next_run_time=audit.next_run_time or parts.now())
    telling = _Telling(parts.store, audit)
    async with _told(telling, "strategy"):
        goal_row, named_row, failed_before = await asyncio.gather(
            parts.store.get(GoalRecord, audit.goal_id),
            _named_strategy(parts.store, audit),
            _failed_before(parts.store, audit),
        )
        if goal_row.name not in parts.plugins.goals:
            raise InvalidInput(f"goal {goal_row.name} is not installed any more; install it or use another goal")
        goal = parts.plugins.goals[goal_row.name]
        named = named_row.name if named_row is not None else None
        jobs = jobs_for(parts.plugins, goal, named, audit.parameters, parts.seed)
        asked = [(parts.plugins.strategy(job.strategy), job.parameters) for job in jobs]
        needs = [need for strategy, given in asked for need in strategy.needs(read_parameters(strategy, given))]
        models = tuple(dict.fromkeys(model for strategy, _ in asked for model in strategy.models))
        frozen = await parts.freeze(audit.scope, needs, failed_before, models)
        proposals, failed = await ask_all(parts, frozen, jobs)
    async with _told(telling, "planner", ends=False):
        entries = [*await try_all(parts, goal, frozen, proposals), *failed]
        entries, chosen, message = await admitted(parts, goal, frozen, entries, named=named is not None)
        for position, entry in enumerate(entries):
            parts.tell("candidates", 1, strategy=entry.job.strategy, verdict=verdict(entry, position == chosen))
            parts.tell("rehearsal_seconds", entry.rehearse_s, strategy=entry.job.strategy)
        # A plan always names a strategy: where none is chosen, the first that was tried.
        ran = entries[chosen].job.strategy if chosen is not None else jobs[0].strategy
        strategy = named_row or await parts.store.get(StrategyRecord, ran)
        plan, actions, indicators = plan_rows(goal, strategy.id, entries, chosen)
        best = entries[chosen] if chosen is not None else None
        reasons = await explanations(parts, goal, frozen, best, actions)
        continuous = audit.audit_type == "CONTINUOUS"
        status = message_of([*([message] if message else []), *frozen.snapshot.notes])
        await telling.told()
        return await parts.store.save_outcome(
            audit.uuid,
            event="ran" if continuous else "succeed",
            epoch=audit.epoch,
            audit_changes={"status_message": status, **_next(parts, audit)},
            candidates=candidate_rows(frozen.snapshot, goal, entries, chosen),
            plan=plan,
            actions=actions,
            indicators=indicators,
            explanations=reasons,
            launch=audit.auto_trigger and bool(actions),
            replaces=continuous,
            note="planner.end",
        )


class _Telling:
    """Tells those who listen of one audit's steps, one after the other, while the audit goes on."""

    def __init__(self, store: StorePort, audit: Audit) -> None:
        self._store, self._audit = store, audit
        self._last: asyncio.Task[None] | None = None

    def tell(self, event: str, message: str | None = None) -> None:
        """Something happened just now."""
        self._last = asyncio.create_task(self._note(self._last, event, message))

    async def told(self) -> None:
        """Return when everything has been told."""
        if self._last is not None:
            await self._last

    async def _note(self, before: asyncio.Task[None] | None, event: str, message: str | None) -> None:
        if before is not None:
            await before
        try:
            await self._store.note(Audit, self._audit.uuid, event, message)
        except TrimtabError as error:  # no reason to fail an audit
            log.warning("audit %s: nobody will hear of %s: %s", self._audit.uuid, event, error)


@contextlib.asynccontextmanager
async def _told(telling: _Telling, step: str, *, ends: bool = True) -> AsyncIterator[None]:
    """Tell of a step of an audit: its start, and its end (unless that is told elsewhere) or error."""
    telling.tell(f"{step}.start")
    try:
        yield
    except Conflict as error:  # somebody else has the audit by now, and the story is theirs
        if isinstance(error, IllegalTransition):
            telling.tell(f"{step}.error", _words(error))
        await telling.told()
        raise
    except Exception as error:
        telling.tell(f"{step}.error", _words(error))
        await telling.told()
        raise
    if ends:
        telling.tell(f"{step}.end")


def _words(problem: Exception) -> str:
    message = str(problem) if isinstance(problem, TrimtabError) else f"{type(problem).__name__}: {problem}"
    return message[:LONGEST_MESSAGE]


async def _named_strategy(store: StorePort, audit: Audit) -> StrategyRecord | None:
    return await store.get(StrategyRecord, audit.strategy_id) if audit.strategy_id else None


async def _failed_before(store: StorePort, audit: Audit) -> list[str]:
    """Instances whose migration failed in an earlier plan of this audit."""
    plans = await store.list(ActionPlan, {"audit_id": audit.id})
    if not plans:
        return []
    where = {"action_plan_id": [plan.id for plan in plans], "state": ActionState.FAILED, "action_type": "migrate"}
    return [str(action.input_parameters["resource_id"]) for action in await store.list(Action, where)]
