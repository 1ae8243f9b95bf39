"""`change_node_power_state`: turns a metal node on or off, never off while its host holds a server."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from trimtab.platform.contracts import MetalNode, Tools
from trimtab.platform.errors import ActionFailed, CloudConflict, CloudNotFound
from trimtab.platform.watch import REFUSALS, SKEW_S, patiently, until_done


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; `resource_name` is the hypervisor's host name."""

    resource_id: str = Field(min_length=1)
    state: Literal["on", "off"]
    resource_name: str | None = None


class ChangeNodePowerState:
    """Handler of the action type `change_node_power_state`. It looks first, and asks only when nothing is under way.

    A server that is stopped counts as well when a node is to be turned off: its owner could not start it. A node that
    is turned on counts as on when the compute service of its host is up again, so that who comes next can use it.
    """

    action_type: ClassVar[str] = "change_node_power_state"
    description: ClassVar[str] = "Compute node power on/off through Ironic or MaaS."
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """There is none: a node that is so already is a success."""

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:
        """Ask for the power, unless the node has it or is turning, and wait."""
        since = None if asked_at is None else asked_at - SKEW_S
        await self._turn(wanted, wanted.state, since)

    async def post_condition(self, wanted: Parameters) -> None:
        """Look whether it stayed so."""
        node = await patiently(self.tools, lambda: self.tools.cloud.metal_node(wanted.resource_id))
        if node is None or node.power != wanted.state:
            now = "gone" if node is None else node.power
            raise ActionFailed(f"Node {wanted.resource_id} should be {wanted.state} and is {now}")

    async def revert(self, wanted: Parameters) -> None:
        """Give it the opposite power."""
        await self._turn(wanted, "off" if wanted.state == "on" else "on", None)

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002 - the seam's shape
        """A node that turns cannot be stopped half way."""
        return False

    async def _turn(self, wanted: Parameters, state: str, since: float | None) -> None:
        node_id, refused, accepted = wanted.resource_id, 0, False

        async def advance() -> bool:
            nonlocal refused, accepted
            node = await self.tools.cloud.metal_node(node_id)
            if node is None:
                raise ActionFailed(f"Node {node_id} not found")
            if node.target:
                refused = 0
                return False
            if node.power == state:
                return state == "off" or await self._usable(wanted, node)
            if node.error and (accepted or (since is not None and node.changed_at >= since)):
                raise ActionFailed(f"Node {node_id} could not be turned {state}: {node.error}")
            if accepted:
                raise ActionFailed(f"Node {node_id} is {node.power} and not {state} after the cloud's try")
            if state == "off":
                await self._must_be_empty(wanted, node)
            try:
                await self.tools.cloud.set_power(node_id, on=state == "on")
                accepted = True
            except CloudConflict:
                refused += 1
                if refused >= REFUSALS:
                    raise
            return False

        await until_done(self.tools, advance, f"Node {node_id} is not usable and {state}")

    async def _must_be_empty(self, wanted: Parameters, node: MetalNode) -> None:
        host = node.hostname or wanted.resource_name
        if not host:
            return
        try:
            there = await self.tools.cloud.residents(host)
        except CloudNotFound:
            return  # no compute host runs on it
        if there:
            raise ActionFailed(f"Node {wanted.resource_id} is not turned off: host {host} holds {len(there)} servers")

    async def _usable(self, wanted: Parameters, node: MetalNode) -> bool:
        host = node.hostname or wanted.resource_name
        service = await self.tools.cloud.service(host) if host else None
        return service is None or service.up
