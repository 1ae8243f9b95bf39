"""`change_nova_service_state`: enables or disables the compute service of a host."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel

from trimtab.platform.contracts import ServiceInfo, Tools
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudError
from trimtab.platform.watch import patiently


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; the host is named by `resource_name`."""

    resource_id: str
    state: Literal["up", "down", "enabled", "disabled"]
    resource_name: str | None = None
    disabled_reason: str | None = None


class ChangeNovaServiceState:
    """Handler of the action type `change_nova_service_state`. Asking for the state a service has changes nothing."""

    action_type: ClassVar[str] = "change_nova_service_state"
    description: ClassVar[str] = (
        "Disables or enables the nova-compute service.A disabled nova-compute service can not be selected by the nova "
        "for future deployment of new server."
    )
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip what has no target or is done."""
        if not wanted.resource_name:
            raise ActionSkipped("nova-compute service not found: resource_name does not name a host")
        service = await self._service(wanted.resource_name)
        if service is None:
            raise ActionSkipped(f"nova-compute service {wanted.resource_name} not found")
        if _status(service) == wanted.state:
            raise ActionSkipped(f"nova-compute service {wanted.resource_name} is already in state {wanted.state}")

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:  # noqa: ARG002 - asking twice is safe
        """Set the state, or see that it is set."""
        if wanted.state not in {"enabled", "disabled"}:
            raise ActionFailed("The target state is not defined")
        await self._set(wanted, wanted.state, wanted.disabled_reason or "")

    async def post_condition(self, wanted: Parameters) -> None:
        """Look whether it stayed so."""
        service = await self._service(wanted.resource_name or "")
        if service is None or _status(service) != wanted.state:
            now = "gone" if service is None else _status(service)
            raise ActionFailed(f"nova-compute service {wanted.resource_name} should be {wanted.state} and is {now}")

    async def revert(self, wanted: Parameters) -> None:
        """Set the opposite state."""
        opposite = "disabled" if wanted.state == "enabled" else "enabled"
        await self._set(wanted, opposite, "watcher_disabled" if opposite == "disabled" else "")

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002
        """One request to the cloud: it cannot be stopped half way."""
        return False

    async def _service(self, host: str) -> ServiceInfo | None:
        return await patiently(self.tools, lambda: self.tools.cloud.service(host))

    async def _set(self, wanted: Parameters, state: str, reason: str) -> None:
        host = wanted.resource_name
        if not host:
            raise ActionFailed("resource_name does not name a host")

        async def look_then_ask() -> ServiceInfo | None:
            service = await self.tools.cloud.service(host)
            if service is None or _status(service) == state:
                return service
            return await self.tools.cloud.set_service(host, enabled=state == "enabled", reason=reason)

        try:
            service = await patiently(self.tools, look_then_ask)
        except CloudError as error:
            raise ActionFailed(f"nova-compute service {host} could not be {state}: {error}") from error
        if service is None:
            raise ActionFailed(f"nova-compute service {host} not found")
        if _status(service) != state:
            raise ActionFailed(f"nova-compute service {host} should be {state} and is {_status(service)}")


def _status(service: ServiceInfo) -> str:
    return "enabled" if service.enabled else "disabled"
