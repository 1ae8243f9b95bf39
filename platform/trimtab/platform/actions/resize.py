"""`resize`: gives a server another flavor, waits for VERIFY_RESIZE and confirms."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from pydantic import BaseModel, Field

from trimtab.platform.contracts import Flavor, Migration, Server, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudConflict, CloudError
from trimtab.platform.schema import UUID
from trimtab.platform.watch import REFUSALS, SKEW_S, patiently, until_done


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; the flavor by its id or name."""

    resource_id: str = Field(pattern=UUID)
    flavor: str = Field(min_length=1)


class Resize:
    """Handler of the action type `resize`.

    It looks first: a server that has the flavor is done, one in VERIFY_RESIZE with it is confirmed, a resize under way
    is waited for, one that failed since `asked_at` is a failure. Only then does it ask the cloud.
    """

    action_type: ClassVar[str] = "resize"
    description: ClassVar[str] = "Resize a server with specified flavor."
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip what is gone or has the flavor; fail what there is no flavor for."""
        instance = wanted.resource_id
        server = await self._server(instance)
        if server is None:
            raise ActionSkipped(f"Instance {instance} not found")
        flavor = await self._flavor(wanted.flavor)
        if server.flavor == flavor.name and server.status != "VERIFY_RESIZE":
            raise ActionSkipped(f"Instance {instance} is already of flavor {wanted.flavor}")

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:
        """Ask for the resize, unless it is under way or done, wait for it and confirm it."""
        instance, flavor = wanted.resource_id, await self._flavor(wanted.flavor)
        since = None if asked_at is None else asked_at - SKEW_S
        known: frozenset[str] | None = None
        refused = 0

        async def ask() -> None:
            nonlocal refused
            try:
                await self.tools.cloud.resize(instance, flavor.id)
            except CloudConflict:
                # Busy with something we have not seen yet, or a refusal for good? The next look tells.
                refused += 1
                if refused >= REFUSALS:
                    raise

        async def advance() -> bool:
            nonlocal known
            history = [m for m in await self.tools.cloud.migrations(instance) if m.kind == "resize"]
            if known is None:
                known = frozenset(m.id for m in history if m.status != "running" and not _since(m, since))
            server = (await self.tools.cloud.servers([instance])).get(instance)
            if server is None:
                raise ActionFailed(f"Instance {instance} vanished during its resize")
            if server.task_state:
                return False
            if server.flavor == flavor.name:
                if server.status != "VERIFY_RESIZE":
                    return True
                with suppress(CloudConflict):  # it is being confirmed: nothing shows that
                    await self.tools.cloud.confirm_resize(instance)
                return False
            if server.status == "VERIFY_RESIZE":
                raise ActionFailed(f"Instance {instance} waits for the end of a resize to flavor {server.flavor}")
            ours = [m for m in history if m.id not in known]
            if ours and ours[-1].status in {"failed", "aborted"}:
                raise ActionFailed(f"Resize of instance {instance} {ours[-1].status}: {ours[-1].reason}")
            if not ours:
                await ask()
            return False

        late = f"Instance {instance} is not of flavor {wanted.flavor}"
        await until_done(self.tools, advance, late)

    async def post_condition(self, wanted: Parameters) -> None:
        """The server has its flavor, confirmed, and is not broken."""
        instance, flavor = wanted.resource_id, await self._flavor(wanted.flavor)
        server = await self._server(instance)
        if server is None:
            raise ActionFailed(f"Instance {instance} is gone after its resize")
        if server.flavor != flavor.name or server.status in {"VERIFY_RESIZE", "ERROR"}:
            raise ActionFailed(f"Instance {instance} is of flavor {server.flavor} in {server.status} status")

    async def revert(self, wanted: Parameters) -> None:
        """The flavor it had is not known any more once the resize is confirmed."""
        raise ActionFailed(f"The resize of instance {wanted.resource_id} cannot be taken back")

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002 - the seam's shape
        """A resize cannot be stopped half way."""
        return False

    async def _server(self, instance: str) -> Server | None:
        return (await patiently(self.tools, lambda: self.tools.cloud.servers([instance]))).get(instance)

    async def _flavor(self, name: str) -> Flavor:
        try:
            flavor = (await patiently(self.tools, lambda: self.tools.cloud.flavors([name]))).get(name)
        except CloudError as error:
            raise ActionFailed(f"Flavor {name} could not be looked up: {error}") from error
        if flavor is None:
            raise ActionFailed(f"Flavor {name} not found")
        return flavor


def _since(migration: Migration, since: float | None) -> bool:
    return since is not None and migration.started_at >= since
