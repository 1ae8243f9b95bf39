"""One action, from PENDING to a final state: checked, begun, executed, proven; or undone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.platform.applier.ledger import NOT_DONE, Ledger, disables, may_have_worked, named
from trimtab.platform.applier.room import InScope, Room
from trimtab.platform.applier.walk import Slots
from trimtab.platform.clocks import cloud_time
from trimtab.platform.contracts import ActionHandler, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudError, TrimtabError
from trimtab.platform.lease import cancelled
from trimtab.platform.records import Action
from trimtab.platform.states import ActionState
from trimtab.platform.watch import patiently

log = logging.getLogger(__name__)

ROLLBACK_FAILED = "Rollback failed"
GRACE_POLLS = 15  # looks at the cloud that a handler has beyond its time-out, to stop what it began
ENDLESS = frozenset({"nop", "sleep"})  # after these nothing tells whether they were done


@dataclass(slots=True)
class Steps:
    """Takes the actions of one plan through their lives."""

    ledger: Ledger
    handlers: Mapping[str, type[ActionHandler]]
    tools: Tools
    slots: Slots
    room: Room
    outside: InScope | None = None
    timeouts_s: Mapping[str, float] = field(default_factory=dict)  # by action type, on the cloud's clock
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)  # what handlers execute now
    aborting: dict[str, asyncio.Task[bool]] = field(default_factory=dict)  # asked to stop; whether they were
    aborted: set[str] = field(default_factory=set)  # those among them that were stopped because the plan was cancelled

    def begin(self, action: Action) -> Coroutine[Any, Any, None]:
        """What the walk calls when it gives an action its slot."""
        lost = [
            p for p in action.needs_room_of if p in self.ledger.actions and self.ledger.actions[p].state in NOT_DONE
        ]
        if lost and action.state == ActionState.PENDING:
            self.slots.unsure.add(action.uuid)
        return self._perform(action, lost)

    async def _perform(self, action: Action, lost: Sequence[str]) -> None:
        """Take one action from PENDING, or from ONGOING if it was interrupted, to a final state."""
        resumed = action.state == ActionState.ONGOING
        try:
            handler, wanted = self._handler(action)
            if not resumed:
                await handler.pre_condition(wanted)
                await self._recheck(action, lost)
        except ActionSkipped as reason:
            await self.ledger.write(action, "skip", f"Action was skipped automatically: {reason}")
            return
        except Exception as error:  # noqa: BLE001 - a handler may be anybody's: whatever it raises is the action's end
            phase, event = ("execute", "fail") if resumed else ("pre_condition", "refuse")
            await self.ledger.write(action, event, f"Action failed in {phase}: {_reason(action, error)}")
            return
        if not resumed:
            begun = await self.ledger.write(action, "begin", started_at=self.ledger.moment())
            if begun.state != ActionState.ONGOING:
                return  # a person was quicker
        asked_at = cloud_time(self.tools, action.started_at.timestamp()) if resumed and action.started_at else None
        try:
            await self._execute(action, handler, wanted, asked_at)
        except Exception as error:  # noqa: BLE001 - as above
            await self.ledger.write(action, "fail", f"Action failed in execute: {_reason(action, error)}")
            return
        if action.uuid in self.aborted:
            await self.end_aborted(action)
            return
        try:  # before success is written: whoever is killed here proves it again
            await handler.post_condition(wanted)
        except Exception as error:  # noqa: BLE001 - as above
            await self.ledger.write(action, "fail", f"Action failed in post_condition: {_reason(action, error)}")
        else:
            await self.ledger.write(action, "succeed")

    async def _execute(self, action: Action, handler: ActionHandler, wanted: Any, asked_at: float | None) -> None:
        """Let the handler work: until it is done, somebody aborts it, or its time is over."""
        work = asyncio.ensure_future(handler.execute(wanted, asked_at=asked_at))
        self.running[action.uuid] = work
        limit = self.timeouts_s.get(action.action_type)
        alarm = None
        if limit is not None:  # handlers have the same patience; who hangs all the same is stopped a little later
            alarm = asyncio.ensure_future(self.tools.clock.sleep(limit + GRACE_POLLS * self.tools.poll_s))
        try:
            await asyncio.wait({work, alarm} if alarm else {work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await _give_up(handler, wanted, limit)
            if not (work.cancelled() and action.uuid in self.aborted):
                work.result()
        except Exception:
            # It may have seen that it was stopped before the one who stopped it.
            if action.uuid not in self.aborting or not await self.aborting[action.uuid]:
                raise
            self.aborted.add(action.uuid)
        finally:
            self.running.pop(action.uuid, None)
            await cancelled({task for task in (work, alarm) if task is not None})

    async def abort_running(self) -> None:
        """Stop what runs and can be stopped; the rest ends by itself."""
        fresh = [uuid for uuid in self.running if uuid not in self.aborting]
        self.aborting |= {uuid: asyncio.ensure_future(self._abort(uuid)) for uuid in fresh}
        await asyncio.gather(*(self.aborting[uuid] for uuid in fresh))

    async def _abort(self, uuid: str) -> bool:
        """Ask for one action to be stopped; whether it was."""
        action = self.ledger.actions[uuid]
        if action.state == ActionState.ONGOING:
            action = await self.ledger.write(action, "cancel")
        if action.state != ActionState.CANCELLING:
            return False
        try:
            handler, wanted = self._handler(action)
            stopped = await handler.abort(wanted)
        except Exception as error:  # noqa: BLE001 - as in _perform
            log.warning("%s could not be aborted: %s", named(action), _reason(action, error))
            return False
        work = self.running.get(uuid)
        if stopped and work is not None and not work.done():
            self.aborted.add(uuid)
            work.cancel()
        return stopped

    async def end_aborted(self, action: Action) -> None:
        """End an action that was aborted: CANCELLED, or SUCCEEDED where it was too late."""
        reached = action.action_type not in ENDLESS
        try:
            handler, wanted = self._handler(action)
            if reached:
                await handler.post_condition(wanted)
        except Exception:  # noqa: BLE001 - as in _perform
            reached = False
        if reached:
            await self.ledger.write(action, "succeed")
        else:
            await self.ledger.write(action, "stopped", "Aborted because its plan was cancelled")

    async def finish_abort(self, action: Action) -> None:
        """Bring an abort to its end that an applier before us began."""
        try:
            handler, wanted = self._handler(action)
            await handler.abort(wanted)
        except Exception as error:  # noqa: BLE001 - as in _perform
            log.warning("%s could not be aborted: %s", named(action), _reason(action, error))
        await self.end_aborted(action)

    def _handler(self, action: Action) -> tuple[ActionHandler, Any]:
        kind = self.handlers.get(action.action_type)
        if kind is None:
            raise ActionFailed(f"Error loading plugin '{action.action_type}'")
        limit = self.timeouts_s.get(action.action_type)
        tools = self.tools if limit is None else replace(self.tools, deadline_s=limit)
        return kind(tools), kind.schema.model_validate(action.input_parameters)

    async def _recheck(self, action: Action, lost: Sequence[str]) -> None:
        """Skip what its audit's scope does not cover any more, or what is not safe because something was not done.

        Raises:
            ActionSkipped: says what is out of scope, or what was not done.
        """
        if self.outside is not None and (reason := await self.outside(action)) is not None:
            raise ActionSkipped(reason)
        if lost:
            async with self.slots.checking:  # one after the other: the first may take the room the second counts on
                reason = await self.room(action, self._has_begun)
                if reason is not None:
                    parent = self.ledger.actions[lost[0]]
                    raise ActionSkipped(f"{reason}: {named(parent)} is {parent.state}")
                self.slots.unsure.discard(action.uuid)
        earlier = self.ledger.undone_by(action)
        if earlier is not None and not may_have_worked(earlier):
            raise ActionSkipped(f"there is nothing to undo: {named(earlier)} is {earlier.state}")
        if disables(action):
            await self._host_is_left(action, str(action.input_parameters.get("resource_name")))

    def _has_begun(self) -> list[Action]:
        done = [
            a for a in self.ledger.actions.values() if a.action_type == "migrate" and a.state == ActionState.SUCCEEDED
        ]
        return [*done, *self.slots.begun]

    async def _host_is_left(self, action: Action, host: str) -> None:
        """Skip disabling a host that still holds an instance which should have left before."""
        stayed = {
            a.input_parameters["resource_id"]: a
            for a in self.ledger.ancestors(action)
            if a.action_type == "migrate" and a.state in NOT_DONE and a.input_parameters.get("source_node") == host
        }
        if not stayed:
            return
        servers = await patiently(self.tools, lambda: self.tools.cloud.servers(list(stayed)))
        for server in servers.values():
            if server.host == host:
                raise ActionSkipped(
                    f"host {host} still holds instance {server.id}: "
                    f"{named(stayed[server.id])} is {stayed[server.id].state}"
                )

    async def revert(self, action: Action, why: str) -> None:
        """Undo one action that SUCCEEDED, or whose undoing was interrupted."""
        action = self.ledger.actions[action.uuid]
        if action.state == ActionState.SUCCEEDED:
            action = await self.ledger.write(action, "revert")
        try:
            handler, wanted = self._handler(action)
            await handler.revert(wanted)
        except Exception as error:  # noqa: BLE001 - as in _perform
            await self.ledger.write(action, "fail", f"{ROLLBACK_FAILED}: {_reason(action, error)}")
        else:
            await self.ledger.write(action, "stopped", f"Rolled back: {why}")

    async def enable_again(self, action: Action) -> None:
        """Undo a FAILED request to disable a service: it may have worked although its answer was lost."""
        handler, wanted = self._handler(action)
        try:
            await handler.revert(wanted)
            note = "enabled again"
        except (ActionFailed, CloudError) as error:
            note = f"not enabled again: {error}"
        if note not in (action.status_message or ""):
            await self.ledger.remark(action, f"{action.status_message}; {note}")


async def _give_up(handler: ActionHandler, wanted: Any, limit: float | None) -> None:
    """Stop what has had its time.

    Raises:
        ActionFailed: always.
    """
    stopped = await handler.abort(wanted)
    still = "" if stopped else "; it may still be under way in the cloud"
    raise ActionFailed(f"it was given up after {limit:g} s{still}")


def _reason(action: Action, error: Exception) -> str:
    """What went wrong, as Watcher says it: our own errors speak for themselves, of others only the name is told."""
    if isinstance(error, TrimtabError):
        return str(error) or f"The action {action.uuid} execution failed."
    log.error("%s raised", named(action), exc_info=error)
    return type(error).__name__
