"""Driver and datasource of the simulated cloud: the same classes for a cloud in this process or behind an actor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from trimtab.platform.contracts import (
    Flavor,
    Inventory,
    MetalNode,
    Migration,
    Pool,
    Server,
    ServiceInfo,
    Volume,
    VolumeType,
    Wanted,
)
from trimtab.platform.snapshot import Need
from trimtab.simulator.cloud import SimulatedCloud

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]


def local_call(cloud: SimulatedCloud) -> Call:
    """Ask a cloud that lives in this process."""

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return getattr(cloud, method)(*arguments, **named)

    return call


class SimulatedDriver:
    """`contracts.Driver` over whatever can call a method of a `SimulatedCloud` by its name."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def inventory(self) -> Inventory:
        """Hosts, instances and server groups, storage and metal, in bulk."""
        return Inventory(*await self._call("inventory", (), {}))

    async def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the named servers that exist."""
        return dict(await self._call("servers", (list(ids),), {}))

    async def service(self, host: str) -> ServiceInfo | None:
        """The compute service on a host; None when there is none."""
        found: ServiceInfo | None = await self._call("service", (host,), {})
        return found

    async def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        """Ask for a migration; returns once the cloud accepted it."""
        await self._call("migrate", (server_id, destination), {"live": live})

    async def migrations(self, server_id: str) -> list[Migration]:
        """All migrations the cloud recorded for a server, oldest first."""
        return list(await self._call("migrations", (server_id,), {}))

    async def abort_migration(self, server_id: str) -> None:
        """Ask to abort the running live migration of a server."""
        await self._call("abort_migration", (server_id,), {})

    async def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        """Why each migration would be refused, alone and now; "" where nothing speaks against it."""
        return list(await self._call("refusals", (list(wanted),), {}))

    async def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        """Enable or disable the compute service on a host."""
        return ServiceInfo(*await self._call("set_service", (host,), {"enabled": enabled, "reason": reason}))

    async def residents(self, host: str) -> list[Server]:
        """All servers on a host, by its name, running or not."""
        return list(await self._call("residents", (host,), {}))

    async def stop(self, server_id: str) -> None:
        """Ask for a server to be shut down."""
        await self._call("stop", (server_id,), {})

    async def start(self, server_id: str) -> None:
        """Ask for a stopped server to be started."""
        await self._call("start", (server_id,), {})

    async def flavors(self, names: Sequence[str]) -> dict[str, Flavor]:
        """Those of the flavors that exist, by what they were asked for by."""
        return dict(await self._call("flavors", (list(names),), {}))

    async def resize(self, server_id: str, flavor: str) -> None:
        """Ask for another flavor, by its id."""
        await self._call("resize", (server_id, flavor), {})

    async def confirm_resize(self, server_id: str) -> None:
        """Ask for a server in VERIFY_RESIZE to stay as it is now."""
        await self._call("confirm_resize", (server_id,), {})

    async def volumes(self, ids: Sequence[str]) -> dict[str, Volume]:
        """Those of the named volumes that exist."""
        return dict(await self._call("volumes", (list(ids),), {}))

    async def pools(self) -> list[Pool]:
        """All storage pools."""
        return list(await self._call("pools", (), {}))

    async def volume_types(self) -> list[VolumeType]:
        """All volume types."""
        return list(await self._call("volume_types", (), {}))

    async def migrate_volume(self, volume_id: str, pool: str) -> None:
        """Ask for a volume to be moved to a pool."""
        await self._call("migrate_volume", (volume_id, pool), {})

    async def retype_volume(self, volume_id: str, volume_type: str) -> None:
        """Ask for another type of a volume."""
        await self._call("retype_volume", (volume_id, volume_type), {})

    async def metal_node(self, node_id: str) -> MetalNode | None:
        """One metal node; None when there is none."""
        node: MetalNode | None = await self._call("metal_node", (node_id,), {})
        return node

    async def set_power(self, node_id: str, *, on: bool) -> None:
        """Ask for a metal node to be turned on or off."""
        await self._call("set_power", (node_id,), {"on": on})


class SimulatedDatasource:
    """`contracts.Datasource` likewise."""

    name: ClassVar[str] = "simulated"

    def __init__(self, call: Call) -> None:
        self._call = call

    async def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource that was measured."""
        return await self._call("aggregate", (list(needs), at), {})

    async def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """The raw samples of all resources with start <= at < end."""
        return await self._call("samples", (metric, kind, start_s, end_s), {})
