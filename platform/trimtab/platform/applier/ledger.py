"""What is written about one plan and its actions, and its lease; every write bears the epoch of our claim."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trimtab.platform.contracts import Clock
from trimtab.platform.errors import Conflict, IllegalTransition
from trimtab.platform.records import Action, ActionPlan
from trimtab.platform.states import ActionState, PlanState
from trimtab.platform.store.port import StorePort

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 255
SKIPPED_SOME = "One or more actions were skipped."
FRESH_S = 0.1  # wall seconds for which a look at the plan is good: many actions start in the same moment
UNFINISHED = (PlanState.PENDING, PlanState.ONGOING, PlanState.CANCELLING)
FINAL = frozenset({ActionState.SUCCEEDED, ActionState.FAILED, ActionState.CANCELLED, ActionState.SKIPPED})
NOT_DONE = FINAL - {ActionState.SUCCEEDED}


@dataclass(slots=True)
class Ledger:
    """One claimed plan and its actions as last read or written.

    Raises (all that write or look):
        Conflict: the plan is somebody else's by now.
    """

    store: StorePort
    plan: ActionPlan
    owner: str
    wall: Clock
    actions: dict[str, Action] = field(default_factory=dict)
    looked_at: float = -math.inf

    async def read(self) -> list[Action]:
        """All actions, in the order in which they were planned."""
        rows = await self.store.list(Action, {"action_plan_id": self.plan.id})
        self.actions = {action.uuid: action for action in rows}
        return rows

    async def look(self) -> ActionPlan:
        """The plan as it is now (or was a moment ago): a person may have cancelled it."""
        if 0 <= self.wall.now() - self.looked_at < FRESH_S:
            return self.plan
        self.looked_at = self.wall.now()
        plan = await self.store.get(ActionPlan, self.plan.uuid)
        if plan.owner != self.owner or plan.epoch != self.plan.epoch:
            raise Conflict(f"action plan {plan.uuid} belongs to {plan.owner or 'nobody'} now")
        self.plan = plan
        return plan

    async def advance(self, event: str, message: str | None, **changes: Any) -> ActionPlan:
        """Let something happen to the plan."""
        self.plan = await self.store.transition(
            ActionPlan, self.plan.uuid, event, changes, message=_short(message), epoch=self.plan.epoch
        )
        return self.plan

    async def write(self, action: Action, event: str, message: str | None = None, **changes: Any) -> Action:
        """Let something happen to an action; if its record has moved on without us, take over what it says."""
        if event not in {"begin", "revert", "cancel"}:  # after these it is at work
            changes["finished_at"] = self.moment()
        try:
            row = await self.store.transition(
                Action, action.uuid, event, changes, message=_short(message), epoch=self.plan.epoch
            )
        except IllegalTransition as error:
            row = await self.store.get(Action, action.uuid)
            log.warning("action %s has moved on without its applier: %s", action.uuid, error)
        self.actions[action.uuid] = row
        return row

    async def remark(self, action: Action, message: str) -> None:
        """Change what an action's status message says."""
        changes = {"status_message": _short(message)}
        self.actions[action.uuid] = await self.store.update(Action, action.uuid, changes, epoch=self.plan.epoch)

    async def cancel_rest(self, why: str | None) -> None:
        """Cancel all actions that have not begun."""
        pending = {"action_plan_id": self.plan.id, "state": ActionState.PENDING}
        await self.store.transition_all(Action, pending, "cancel", message=_short(why), epoch=self.plan.epoch)
        await self.read()

    def ancestors(self, action: Action) -> list[Action]:
        """Everything an action comes after, near and far."""
        found: dict[str, Action] = {}
        todo = list(action.parents)
        while todo:
            uuid = todo.pop()
            if uuid not in found:
                found[uuid] = self.actions[uuid]
                todo += self.actions[uuid].parents
        return list(found.values())

    def undone_by(self, action: Action) -> Action | None:
        """What an action is there to undo: the last action before it in the plan that disables what it enables.

        What disabled a service for the plan's duration only is undone even when the plan is cancelled, and only when
        the plan itself has done it.
        """
        if not enables(action):
            return None
        found = None
        for earlier in self.actions.values():
            if earlier.uuid == action.uuid:
                break
            if disables(earlier) and _service(earlier) == _service(action):
                found = earlier
        return found

    def to_undo_now(self) -> list[Action]:
        """Actions not begun that undo what the plan has done, in the plan's order."""
        waiting = [a for a in self.actions.values() if a.state == ActionState.PENDING]
        return [a for a in waiting if (earlier := self.undone_by(a)) is not None and may_have_worked(earlier)]

    def outcome(self) -> str | None:
        """What to say of the plan at its end: the first action that failed and why, then Watcher's word on skips."""
        rows = list(self.actions.values())
        failed = [action for action in rows if action.state == ActionState.FAILED]
        more = [SKIPPED_SOME] if any(action.state == ActionState.SKIPPED for action in rows) else []
        if not failed:
            return more[0] if more else None
        first = min(failed, key=lambda action: action.finished_at or self.moment())
        if len(failed) > 1:
            more.insert(0, f"{len(failed) - 1} more failed")
        tail = "".join(f"; {text}" for text in more)
        head = f"{named(first)}: {first.status_message or 'failed'}"
        room = LONGEST_MESSAGE - len(tail)
        return (head if len(head) <= room else f"{head[: room - 1]}…") + tail

    def moment(self) -> datetime:
        """Now, by the wall's clock."""
        return datetime.fromtimestamp(self.wall.now(), UTC)


def named(action: Action) -> str:
    """An action in a message for people."""
    wanted = action.input_parameters
    target = wanted.get("resource_name") or wanted.get("resource_id")
    return f"action {action.uuid} ({action.action_type}{f' of {target}' if target else ''})"


def disables(action: Action) -> bool:
    """Whether an action disables a compute service."""
    return action.action_type == "change_nova_service_state" and action.input_parameters.get("state") == "disabled"


def enables(action: Action) -> bool:
    """Whether an action enables a compute service."""
    return action.action_type == "change_nova_service_state" and action.input_parameters.get("state") == "enabled"


def may_have_worked(action: Action) -> bool:
    """Whether an action succeeded, or failed after it had asked the cloud: the answer may be all that was lost."""
    return action.state == ActionState.SUCCEEDED or (action.state == ActionState.FAILED and bool(action.started_at))


def _service(action: Action) -> Any:
    return action.input_parameters.get("resource_name")


def _short(message: str | None) -> str | None:
    return message and message[:LONGEST_MESSAGE]
