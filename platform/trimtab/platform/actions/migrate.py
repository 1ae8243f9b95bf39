"""`migrate`: moves an instance to another host, live or cold, and asks for it once however often it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from trimtab.platform.contracts import Migration, Server, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudConflict, CloudError, CloudUnavailable
from trimtab.platform.schema import UUID
from trimtab.platform.watch import REFUSALS, SKEW_S, longer, patiently, until_next_look


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; without a destination the cloud chooses."""

    resource_id: str = Field(pattern=UUID)
    migration_type: Literal["live", "cold"]
    source_node: str = Field(min_length=1)
    destination_node: str | None = None
    resource_name: str | None = None


class Migrate:
    """Handler of the action type `migrate`.

    It looks first: an instance that has arrived is done, a migration under way is waited for, one that failed since
    `asked_at` is a failure. Only when there is none of these does it ask the cloud.
    """

    action_type: ClassVar[str] = "migrate"
    description: ClassVar[str] = "Moving a VM instance from source_node to destination_node"
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip what no longer applies; fail what cannot work."""
        instance, destination = wanted.resource_id, wanted.destination_node
        server = await self._server(instance)
        if server is None:
            raise ActionSkipped(f"Instance {instance} not found")
        if server.host != wanted.source_node:
            raise ActionSkipped(_not_on(instance, wanted.source_node, server.host))
        if destination:
            service = await patiently(self.tools, lambda: self.tools.cloud.service(destination))
            if service is None:
                raise ActionFailed(f"Destination node {destination} not found")
            if not service.enabled:
                raise ActionFailed(f"Destination node {destination} is not in enabled state")
        # Nova migrates paused servers live too, and strategies propose it; Watcher's check refused its own plans.
        if wanted.migration_type == "live" and server.status not in {"ACTIVE", "PAUSED"}:
            raise ActionFailed(
                f"Live migration requires instance {instance} to be in ACTIVE status (current status: {server.status})"
            )

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:
        """Ask for the migration, unless it is under way or done, and wait until the instance has arrived."""
        live = wanted.migration_type == "live"
        journey = _Journey(
            self.tools, wanted.resource_id, wanted.source_node, wanted.destination_node or None, live, asked_at
        )
        await self._travel(journey)

    async def post_condition(self, wanted: Parameters) -> None:
        """The instance is where it should be, and not broken."""
        instance, server = wanted.resource_id, await self._server(wanted.resource_id)
        if server is None:
            raise ActionFailed(f"Instance {instance} is gone after its migration")
        if wanted.destination_node and server.host != wanted.destination_node:
            raise ActionFailed(f"Instance {instance} is on {server.host}, not on {wanted.destination_node}")
        if server.host == wanted.source_node:
            raise ActionFailed(f"Instance {instance} is still on {wanted.source_node}")
        if server.status == "ERROR":
            raise ActionFailed(f"Instance {instance} is on {server.host} in ERROR status")

    async def revert(self, wanted: Parameters) -> None:
        """Bring the instance back where it came from; it may be under way already."""
        server = await self._server(wanted.resource_id)
        if server is None:
            raise ActionFailed(f"Instance {wanted.resource_id} not found")
        live = wanted.migration_type == "live"
        source = wanted.destination_node or server.host
        await self._travel(_Journey(self.tools, wanted.resource_id, source, wanted.source_node, live))

    async def abort(self, wanted: Parameters) -> bool:
        """Stop a live migration under way; a cold one cannot be stopped."""
        live = wanted.migration_type == "live"
        journey = _Journey(self.tools, wanted.resource_id, wanted.source_node, wanted.destination_node or None, live)
        return await journey.stop() is None

    async def _server(self, instance: str) -> Server | None:
        return (await patiently(self.tools, lambda: self.tools.cloud.servers([instance]))).get(instance)

    async def _travel(self, journey: _Journey) -> None:
        clock, patience = self.tools.clock, self.tools.deadline_s
        give_up = clock.now() + patience
        pause = self.tools.poll_s
        trouble = ""
        while True:
            try:
                if await journey.advance():
                    return
                pause, trouble = self.tools.poll_s, ""
            except CloudUnavailable as error:
                pause, trouble = longer(self.tools, pause), f": {error}"
            except CloudError as error:
                raise ActionFailed(str(error)) from error
            left = give_up - clock.now()
            if left <= 0:
                break
            await clock.sleep(min(until_next_look(self.tools, pause), left))
        late = f"Instance {journey.instance} has not arrived after {patience / 60:g} minutes{trouble}"
        still_running = await journey.stop()
        if await journey.arrived_after_all():
            return
        raise ActionFailed(late if still_running is None else f"{late}; {still_running}")


@dataclass(slots=True)
class _Journey:
    """One instance on its way; what was seen of it so far."""

    tools: Tools
    instance: str
    source: str
    destination: str | None  # None: the cloud chooses
    live: bool
    asked_at: float | None = None
    accepted: bool = False
    refused: int = 0
    foreign: frozenset[str] | None = None  # ids of migrations that were not started by this action

    async def advance(self) -> bool:
        """Look, and ask for the migration if that is due; True when the instance has arrived.

        Raises:
            ActionFailed: it will not arrive.
            CloudUnavailable: look again later.
            CloudNotFound, CloudConflict: the cloud refuses for good.
        """
        if self.foreign is None:
            self.foreign = self._not_ours(await self.tools.cloud.migrations(self.instance))
        server = await self._look()
        if server.status == "VERIFY_RESIZE" and not server.task_state:
            return await self._confirm(server)
        if _busy(server):
            self.refused = 0
            return False
        if self._at_the_end(server):
            return True
        history = await self.tools.cloud.migrations(self.instance)
        if any(migration.status == "running" for migration in history):
            self.refused = 0
            return False
        ours = [m for m in history if m.id not in self.foreign and self._leads_there(m)]
        if ours:
            return await self._ended(ours[-1])
        if server.status == "ERROR" and (self.accepted or server.host == self.destination):
            raise ActionFailed(f"Instance {self.instance} is on {server.host} in ERROR status")
        if server.host != self.source:
            raise ActionFailed(_not_on(self.instance, self.source, server.host))
        if not self.accepted:
            await self._ask()
        return False

    async def _confirm(self, server: Server) -> bool:
        """Confirm a cold migration of ours that has arrived; somebody else's resize or migration is left alone.

        Raises:
            ActionFailed: the instance waits for somebody else's word.
        """
        history = await self.tools.cloud.migrations(self.instance)
        ours = [m for m in history if m.id not in (self.foreign or ()) and self._leads_there(m)]
        if not ours or not self._at_the_end(server):
            raise ActionFailed(
                f"Instance {self.instance} waits on {server.host} for its resize to be confirmed or reverted: "
                "do that first"
            )
        with suppress(CloudConflict):  # it is being confirmed: nothing shows that
            await self.tools.cloud.confirm_resize(self.instance)
        return False

    async def stop(self) -> str | None:
        """Stop what is under way and wait for its end; None when nothing is under way, else why it still is."""
        brief = replace(self.tools, deadline_s=self.tools.poll_s * 12)
        clock, give_up = brief.clock, brief.clock.now() + brief.deadline_s
        trouble = (
            f"the migration is still under way: a {'live' if self.live else 'cold'} migration could not be stopped"
        )
        asked = False
        try:
            while any(m.status == "running" and self._leads_there(m) for m in await self._history(brief)):
                if not self.live or clock.now() >= give_up:
                    return trouble
                if not asked:
                    asked = await self._ask_to_stop(brief)
                await clock.sleep(brief.poll_s)
        except CloudError as error:
            return f"the migration could not be stopped: {error}"
        return None

    async def arrived_after_all(self) -> bool:
        """Whether the instance is where it should be, whatever happened; False when the cloud cannot say."""
        try:
            server = (await self.tools.cloud.servers([self.instance])).get(self.instance)
        except CloudError:
            return False
        return server is not None and not _busy(server) and self._at_the_end(server)

    async def _history(self, tools: Tools) -> list[Migration]:
        return await patiently(tools, lambda: tools.cloud.migrations(self.instance))

    async def _ask_to_stop(self, tools: Tools) -> bool:
        try:
            await patiently(tools, lambda: tools.cloud.abort_migration(self.instance))
        except CloudConflict:
            return False  # not yet or no longer possible: the next look tells
        return True

    async def _look(self) -> Server:
        server = (await self.tools.cloud.servers([self.instance])).get(self.instance)
        if server is None:
            raise ActionFailed(f"Instance {self.instance} vanished on the way")
        return server

    async def _ask(self) -> None:
        try:
            await self.tools.cloud.migrate(self.instance, self.destination, live=self.live)
        except CloudConflict:
            # Busy with something we have not seen yet, or a refusal for good? The next look tells.
            self.refused += 1
            if self.refused >= REFUSALS:
                raise
        else:
            self.accepted = True

    async def _ended(self, last: Migration) -> bool:
        if last.status == "completed":
            server = await self._look()  # what we saw of it may be older than the end of its migration
            if self._at_the_end(server):
                return True
            raise ActionFailed(f"Instance {self.instance} is on {server.host} after its migration ({server.status})")
        words = last.reason or f"migration {last.status}"
        to = last.destination or self.destination or "another host"
        raise ActionFailed(f"Migration of instance {self.instance} to {to} {last.status}: {words}")

    def _not_ours(self, history: Sequence[Migration]) -> frozenset[str]:
        since = None if self.asked_at is None else self.asked_at - SKEW_S
        return frozenset(m.id for m in history if m.status != "running" and (since is None or m.started_at < since))

    def _leads_there(self, migration: Migration) -> bool:
        if migration.kind != "migration":
            return False
        if migration.status == "failed" and not migration.destination:
            return True  # refused before the cloud wrote down where it was to go
        return self.destination is None or migration.destination == self.destination

    def _at_the_end(self, server: Server) -> bool:
        there = server.host != self.source if self.destination is None else server.host == self.destination
        return there and server.status != "ERROR"


def _busy(server: Server) -> bool:
    return bool(server.task_state) or server.status == "VERIFY_RESIZE"  # the driver confirms a resize


def _not_on(instance: str, source: str, host: str) -> str:
    return f"Instance {instance} is not running on source node {source} (currently on {host})"
