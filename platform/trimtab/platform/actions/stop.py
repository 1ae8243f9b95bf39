"""`stop`: shuts a server down; it keeps its place and its room."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from trimtab.platform.contracts import Server, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudConflict, CloudNotFound
from trimtab.platform.schema import UUID
from trimtab.platform.watch import REFUSALS, patiently, until_done


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire."""

    resource_id: str = Field(pattern=UUID)


class Stop:
    """Handler of the action type `stop`. A server that is down, or gone, is stopped; asking twice changes nothing."""

    action_type: ClassVar[str] = "stop"
    description: ClassVar[str] = "Stop a VM instance"
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip what is gone or stopped."""
        server = await self._server(wanted.resource_id)
        if server is None:
            raise ActionSkipped(f"Instance {wanted.resource_id} not found")
        if server.status == "SHUTOFF":
            raise ActionSkipped(f"Instance {wanted.resource_id} is already stopped")

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:  # noqa: ARG002 - asking twice is safe
        """Ask the server to shut down, unless it does or has, and wait; one that goes meanwhile is stopped too."""
        await self._turn(wanted.resource_id, on=False)

    async def post_condition(self, wanted: Parameters) -> None:
        """Look whether it stayed so."""
        server = await self._server(wanted.resource_id)
        if server is not None and server.status != "SHUTOFF":
            raise ActionFailed(f"Instance {wanted.resource_id} should be stopped and is {server.status}")

    async def revert(self, wanted: Parameters) -> None:
        """Start it again."""
        await self._turn(wanted.resource_id, on=True)

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002 - the seam's shape
        """A shutdown cannot be stopped half way."""
        return False

    async def _server(self, instance: str) -> Server | None:
        return (await patiently(self.tools, lambda: self.tools.cloud.servers([instance]))).get(instance)

    async def _turn(self, instance: str, *, on: bool) -> None:
        target, refused, accepted = "ACTIVE" if on else "SHUTOFF", 0, False

        async def advance() -> bool:
            nonlocal refused, accepted
            server = (await self.tools.cloud.servers([instance])).get(instance)
            if server is None:
                if on:
                    raise ActionFailed(f"Instance {instance} not found")
                return True
            if server.task_state:
                return False
            if server.status == target:
                return True
            if accepted:  # the cloud took it on and is through with it
                raise ActionFailed(f"Instance {instance} is {server.status} and not {target} after the cloud's try")
            try:
                await (self.tools.cloud.start(instance) if on else self.tools.cloud.stop(instance))
                accepted = True
            except CloudNotFound:
                return not on
            except CloudConflict:
                refused += 1
                if refused >= REFUSALS:
                    raise
            return False

        await until_done(self.tools, advance, f"Instance {instance} is not {'started' if on else 'stopped'}")
