"""The story of one plan: claim it, walk its graph of actions, undo or cancel what must be, end honestly.

An applier that dies leaves ONGOING actions behind; whoever claims the plan next executes those again, and their
handlers look at the cloud before they ask it for anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from trimtab.platform.applier.ledger import FINAL, UNFINISHED, Ledger, disables, named
from trimtab.platform.applier.room import CloudRoom, Room
from trimtab.platform.applier.step import ROLLBACK_FAILED, Steps
from trimtab.platform.applier.walk import Slots, check_graph, walk
from trimtab.platform.contracts import ActionHandler, Tools
from trimtab.platform.errors import Conflict, IllegalTransition, PlanError
from trimtab.platform.lease import cancelled, while_held
from trimtab.platform.proposal import Limits
from trimtab.platform.records import Action, ActionPlan, Audit
from trimtab.platform.states import ActionState, PlanState
from trimtab.platform.store.port import StorePort
from trimtab.platform.watch import Watch

CANCEL_LOOK_S = 0.5  # wall seconds between two looks whether the plan was cancelled, while something runs


async def run_plan(
    store: StorePort,
    plan_uuid: str,
    *,
    owner: str,
    handlers: Mapping[str, type[ActionHandler]],
    tools: Tools,
    limits: Limits,
    rollback: bool = False,
    lease_s: float = 30.0,
    room: Room | None = None,
    slots: Slots | None = None,
    abort: bool = False,
    timeouts_s: Mapping[str, float] | None = None,
) -> ActionPlan:
    """Run a PENDING plan, or one that somebody left unfinished, to its end.

    Args:
        store: where the plan and its actions are.
        plan_uuid: the plan.
        owner: who claims it; two running at the same time must have different names.
        handlers: action type -> handler.
        tools: the cloud, the clocks and the patience that handlers get.
        limits: migrations in flight, per host and in total.
        rollback: when an action fails, undo what succeeded.
        lease_s: wall seconds after which the plan of a dead owner is free; renewed three times as often.
        room: how to find out whether a destination still has room; by default from the cloud's inventory.
        abort: when the plan is cancelled, stop what runs and can be stopped, as live migrations can.
        timeouts_s: by action type, seconds of the cloud's clock after which an action is given up.
        slots: given when several plans share one set of limits; `limits` is not used then.

    Returns:
        The plan in its final state.

    Raises:
        Conflict: somebody else has claimed the plan, at the beginning or because our lease ran out.
        IllegalTransition: the plan was not started (RECOMMENDED).
    """
    plan = await store.get(ActionPlan, plan_uuid)
    if plan.state == PlanState.CANCELLED:
        await store.transition_all(Action, {"action_plan_id": plan.id, "state": ActionState.PENDING}, "cancel")
    if plan.state not in UNFINISHED:
        if plan.state == PlanState.RECOMMENDED:
            raise IllegalTransition(f"action plan {plan_uuid} is RECOMMENDED: start it first")
        return plan
    plan = await store.claim(ActionPlan, plan_uuid, owner, lease_s)
    tools = replace(tools, cloud=Watch(tools.cloud))
    slots = slots or Slots(limits)
    ledger = Ledger(store, plan, owner, tools.wall)
    cloud = CloudRoom(tools, rules=tools.extra.get("rules", ()), scope=await _scope(store, plan))
    outside = cloud.outside if cloud.narrows else None
    steps = Steps(ledger, handlers, tools, slots, room or cloud, outside, timeouts_s or {})
    story = _Story(ledger, steps, slots, rollback, abort)
    try:
        return await while_held(store, plan, owner, lease_s, tools.wall, story.tell())
    finally:
        with suppress(Conflict):  # it is somebody else's now
            await store.release(ActionPlan, plan_uuid, owner, plan.epoch)


async def _scope(store: StorePort, plan: ActionPlan) -> Sequence[Mapping[str, Any]]:
    """What the plan's audit may touch, as it says now; whoever asks for a plan to be undone means all of it."""
    if plan.rolls_back is not None:
        return []
    audit = await store.find(Audit, plan.audit_id, deleted=True)  # purged meanwhile: nobody knows its scope
    return audit.scope if audit is not None else []


@dataclass(slots=True)
class _Story:
    """One plan in one applier's hands."""

    ledger: Ledger
    steps: Steps
    slots: Slots
    rollback: bool
    abort: bool

    async def tell(self) -> ActionPlan:
        """Begin or resume, do what is to be done, end."""
        ledger = self.ledger
        if ledger.plan.state == PlanState.PENDING:
            await ledger.advance("run", None, hostname=ledger.owner)
        rows = await ledger.read()
        try:
            check_graph(rows)
        except PlanError as error:
            await ledger.cancel_rest(str(error))
            return await ledger.advance("fail", str(error))
        if self._rolling_back():
            rows = [action for action in rows if action.state == ActionState.ONGOING]
        for action in [one for one in rows if _being_aborted(one)]:
            await self.steps.finish_abort(action)
        rows = [self.ledger.actions[action.uuid] for action in rows]
        after = {action.uuid: action.parents for action in rows}
        watching = asyncio.ensure_future(self._abort_when_cancelled()) if self.abort else None
        try:
            await walk(rows, after, self.slots, self.steps.begin, idle=_final, may_start=self._may_start)
        finally:
            await cancelled([watching] if watching is not None else [])
        if self._rolling_back():
            return await self._roll_back()
        if ledger.plan.state == PlanState.CANCELLING:
            # What was disabled for as long as the plan takes is enabled again, however the plan ends.
            await walk(ledger.to_undo_now(), {}, self.slots, self.steps.begin)
            await ledger.cancel_rest(None)
        return await self._end()

    async def _may_start(self) -> bool:
        plan = await self.ledger.look()
        return plan.state == PlanState.ONGOING and not self._rolling_back()

    async def _abort_when_cancelled(self) -> None:
        """Ends with the first look that finds the plan CANCELLING, when all that runs has been asked to stop."""
        while True:
            await self.ledger.wall.sleep(CANCEL_LOOK_S)
            if not self.steps.running:
                continue
            try:
                plan = await self.ledger.look()
            except Conflict:
                return  # it is somebody else's; whoever holds the lease hears of it
            if plan.state == PlanState.CANCELLING and not self._rolling_back():
                await self.steps.abort_running()

    async def _end(self) -> ActionPlan:
        states = {action.state for action in self.ledger.actions.values()}
        message = self.ledger.outcome()
        if self.ledger.plan.state == PlanState.CANCELLING and ActionState.CANCELLED in states:
            return await self.ledger.advance("stopped", message)
        return await self.ledger.advance("fail" if ActionState.FAILED in states else "succeed", message)

    def _rolling_back(self) -> bool:
        """Whether a failure is to be undone; once begun it is brought to its end, whatever the settings say now."""
        states = {action.state for action in self.ledger.actions.values()}
        if any(
            action.state == ActionState.CANCELLING and action.finished_at for action in self.ledger.actions.values()
        ):
            return True
        return self.rollback and ActionState.FAILED in states and self.ledger.plan.state == PlanState.ONGOING

    async def _roll_back(self) -> ActionPlan:
        """Undo what succeeded, the last first.

        Services that the plan disabled are enabled before anything else: the cloud moves nothing back to a disabled
        host, and none may stay behind whatever else goes wrong.
        """
        ledger = self.ledger
        failed = next((a for a in ledger.actions.values() if _failed_forward(a)), None)
        why = f"{named(failed)} failed" if failed else "an action failed"
        await ledger.cancel_rest(f"Not started: {why} and the plan was rolled back")
        everything = list(ledger.actions.values())
        done = [a for a in everything if a.state in {ActionState.SUCCEEDED, ActionState.CANCELLING}]
        undo = [a for a in done if ledger.undone_by(a) not in done]  # undoing what undid something would do it again
        first = [a for a in undo if disables(a)]
        later = {a.uuid for a in undo} - {a.uuid for a in first}

        async def revert(action: Action) -> None:
            await self.steps.revert(action, why)

        await walk(first, {}, self.slots, revert)
        for action in everything:
            if disables(action) and action.state == ActionState.FAILED and action.started_at:
                await self.steps.enable_again(action)
        children: dict[str, list[str]] = {action.uuid: [] for action in everything}
        for action in everything:
            for parent in action.parents:
                children[parent].append(action.uuid)
        await walk(everything[::-1], children, self.slots, revert, idle=lambda action: action.uuid not in later)
        stuck = sum(ledger.actions[action.uuid].state == ActionState.FAILED for action in undo)
        outcome = f"{stuck} of {len(undo)} could not be undone" if stuck else f"{len(undo)} undone"
        return await ledger.advance("fail", f"Rolled back because {why}: {outcome}")


def _being_aborted(action: Action) -> bool:
    """Whether an abort was asked for while it ran; what is rolled back had come to an end before."""
    return action.state == ActionState.CANCELLING and action.finished_at is None


def _final(action: Action) -> bool:
    return action.state in FINAL


def _failed_forward(action: Action) -> bool:
    return action.state == ActionState.FAILED and not (action.status_message or "").startswith(ROLLBACK_FAILED)
