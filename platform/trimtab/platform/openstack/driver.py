"""The `openstack` driver: the port to a cloud over Nova, Placement, Cinder and Ironic."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

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
from trimtab.platform.datasources.known import Known
from trimtab.platform.errors import CloudConflict, CloudError, CloudNotFound
from trimtab.platform.openstack import admission, metal, storage, updates
from trimtab.platform.openstack.inventory import Book, Reader
from trimtab.platform.openstack.moments import seconds_of
from trimtab.platform.openstack.rest import Rest

log = logging.getLogger(__name__)

# Nova's words for how a migration stands; every other word is a migration under way.
ENDED: Final = {
    "completed": "completed",
    "confirmed": "completed",
    "finished": "completed",  # of a cold migration or resize: the instance is there, and waits to be confirmed
    "done": "completed",
    "reverted": "failed",
    "error": "failed",
    "failed": "failed",
    "cancelled": "aborted",
}
SKEW_S: Final = 5.0  # how much the clocks of the cloud's hosts may differ from ours
ONE_BY_ONE: Final = 24  # more servers than this are cheaper read from the list of all


class OpenStackDriver:
    """See `contracts.Driver`. Safe to use from many tasks of one event loop."""

    def __init__(self, rest: Rest, now: Callable[[], float]) -> None:
        """`now` is the wall clock, which the cloud's is taken to agree with."""
        self.rest, self.now = rest, now
        self.reader = Reader(rest)
        self.book = Book()
        self.changed = asyncio.Event()  # set by `hear`, cleared by whoever takes the news
        self._read_at: float | None = None  # when the reading of what is in the book began
        self._reading_since: float | None = None
        self._heard: list[tuple[str, Mapping[str, Any]]] = []
        self._known: tuple[Book, Known] | None = None

    async def inventory(self) -> Inventory:
        """Hosts, instances and server groups, storage and metal, in few calls; see `Reader.read`."""
        at = self.now()
        self._reading_since, self._heard = at, []
        try:
            book = await self.reader.read()
        finally:
            self._reading_since = None
        for event_type, payload in self._heard:  # the lists may have been read before it happened
            updates.apply(book, event_type, payload)
        self.changed.clear()
        if book.storage is None and "storage" in dict(book.faults):
            book.storage = self.book.storage
        self.book, self._read_at = book, at
        return book.inventory(at)

    def hear(self, event_type: str, payload: Mapping[str, Any], told_at: float = math.inf) -> None:
        """Something happened in the cloud: see `updates.apply`. Told while the cloud is read it counts afterwards.

        What was told before the cloud was read is in what was read: a queue that nobody has emptied for an hour would
        put things back to where they were. `told_at` is in seconds since the epoch.
        """
        if self._reading_since is not None and told_at >= self._reading_since - SKEW_S:
            self._heard.append((event_type, payload))
        read = self._read_at is not None and told_at >= self._read_at - SKEW_S
        if read and updates.apply(self.book, event_type, payload):
            self.changed.set()

    def news(self) -> Inventory:
        """The cloud as read last, with all that was heard since; no call."""
        self.changed.clear()
        return self.book.inventory(self.now())

    def known(self) -> Known:
        """Who is who and how large, as read last."""
        if self._known is None or self._known[0] is not self.book:
            self._known = (self.book, self.book.known())
        return self._known[1]

    # -- servers -------------------------------------------------------------------------------------------

    async def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the named servers that exist: a few one by one, many from the list of all."""
        if len(ids) > ONE_BY_ONE:
            wanted = set(ids)
            listed = await self.rest.pages("compute", "/servers/detail", "servers", all_tenants="1")
            return {one["id"]: _server(one) for one in listed if one["id"] in wanted}
        found = await asyncio.gather(*(self._server(server_id) for server_id in ids))
        return {one["id"]: _server(one) for one in found if one is not None}

    async def residents(self, host: str) -> list[Server]:
        """All servers on a host, by its name, running or not."""
        listed = await self.rest.pages("compute", "/servers/detail", "servers", all_tenants="1", host=host)
        return [_server(one) for one in listed]

    async def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        """Ask for a migration; Nova checks the destination with its scheduler."""
        if live:
            await self._act(server_id, {"os-migrateLive": {"host": destination, "block_migration": "auto"}})
        else:
            await self._act(server_id, {"migrate": {"host": destination} if destination else None})

    async def migrations(self, server_id: str) -> list[Migration]:
        """All migrations and resizes Nova recorded for a server, oldest first; failures with Nova's own words."""
        answer = await self.rest.get("compute", "/os-migrations", instance_uuid=server_id)
        # A live migration of Nova may be listed under the name of the host or the hypervisor; the host's is ours.
        found = [_migration(one) for one in answer["migrations"] if one.get("migration_type") != "evacuation"]
        found.sort(key=lambda migration: (migration.started_at, int(migration.id) if migration.id.isdigit() else 0))
        if found and found[-1].status == "failed":
            found[-1] = found[-1]._replace(reason=await self._why(server_id) or "Nova gives no reason")
        return found

    async def moves(self, since_s: float) -> list[Migration]:
        """Everything Nova recorded of migrations, resizes and evacuations that changed since a moment (s)."""
        after = datetime.fromtimestamp(since_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        since = {"changes-since": after}
        listed = await self.rest.pages("compute", "/os-migrations", "migrations", by="uuid", **since)
        return [_migration(one) for one in listed]

    async def abort_migration(self, server_id: str) -> None:
        """Ask to abort the running live migration of a server.

        Raises:
            CloudConflict: none is under way, or it cannot be stopped any more.
        """
        path = f"/servers/{server_id}/migrations"
        running = (await self.rest.get("compute", path))["migrations"]
        if not running:
            raise CloudConflict(f"no live migration of instance {server_id} is under way")
        await self.rest.change("compute", "DELETE", f"{path}/{running[-1]['id']}")

    async def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        """Why each migration would be refused, alone and now: see `admission.refusals`."""
        return await admission.refusals(self.rest, self.book, wanted)

    async def stop(self, server_id: str) -> None:
        """Ask for a server to be shut down (ACTIVE -> SHUTOFF)."""
        await self._act(server_id, {"os-stop": None})

    async def start(self, server_id: str) -> None:
        """Ask for a stopped server to be started (SHUTOFF -> ACTIVE)."""
        await self._act(server_id, {"os-start": None})

    async def flavors(self, names: Sequence[str]) -> dict[str, Flavor]:
        """Those of the flavors that exist, by the id or else the name they were asked for by."""
        listed = await self.rest.pages("compute", "/flavors/detail", "flavors", is_public="None")
        by_name = {one["name"]: _flavor(one) for one in listed}
        by_id = {one["id"]: _flavor(one) for one in listed}
        return {name: found for name in names if (found := by_id.get(name) or by_name.get(name)) is not None}

    async def resize(self, server_id: str, flavor: str) -> None:
        """Ask for another flavor, by its id; the server ends in VERIFY_RESIZE, here or on another host."""
        await self._act(server_id, {"resize": {"flavorRef": flavor}})

    async def confirm_resize(self, server_id: str) -> None:
        """Ask for a server in VERIFY_RESIZE to stay as it is now; frees what it had before."""
        await self._act(server_id, {"confirmResize": None})

    # -- hosts ---------------------------------------------------------------------------------------------

    async def service(self, host: str) -> ServiceInfo | None:
        """The compute service on a host; None when there is none."""
        found = await self._service(host)
        return None if found is None else _info(found)

    async def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        """Enable or disable the compute service on a host."""
        found = await self._service(host)
        if found is None:
            raise CloudNotFound(f"there is no compute service on host {host}")
        body: dict[str, str] = {"status": "enabled" if enabled else "disabled"}
        if reason and not enabled:
            body["disabled_reason"] = reason
        answer = await self.rest.change("compute", "PUT", f"/os-services/{found['id']}", body)
        return _info(answer["service"])

    # -- storage -------------------------------------------------------------------------------------------

    async def volumes(self, ids: Sequence[str]) -> dict[str, Volume]:
        """Those of the named volumes that exist; from the list of all, which shows the copies of those that move."""
        listed = await self.rest.pages("block_storage", "/volumes/detail", "volumes", all_tenants="1")
        moving, wanted = storage.shadows(listed), set(ids)
        return {one["id"]: storage.volume(one, moving) for one in listed if one["id"] in wanted}

    async def pools(self) -> list[Pool]:
        """All storage pools."""
        answer = await self.rest.get("block_storage", "/scheduler-stats/get_pools", detail="true")
        return [storage.pool(one) for one in answer["pools"]]

    async def volume_types(self) -> list[VolumeType]:
        """All volume types, private ones too."""
        listed = await self.rest.pages("block_storage", "/types", "volume_types", is_public="None")
        return [storage.volume_type(one) for one in listed]

    async def migrate_volume(self, volume_id: str, pool: str) -> None:
        """Ask for a volume to be moved to a pool, by its name; locked meanwhile, as Watcher does."""
        wanted = {"host": pool, "force_host_copy": False, "lock_volume": True}
        await self.rest.change("block_storage", "POST", f"/volumes/{volume_id}/action", {"os-migrate_volume": wanted})

    async def retype_volume(self, volume_id: str, volume_type: str) -> None:
        """Ask for another type; the volume moves where the type needs another pool."""
        wanted = {"new_type": volume_type, "migration_policy": "on-demand"}
        await self.rest.change("block_storage", "POST", f"/volumes/{volume_id}/action", {"os-retype": wanted})

    # -- metal ---------------------------------------------------------------------------------------------

    async def metal_node(self, node_id: str) -> MetalNode | None:
        """One metal node; None when there is none."""
        try:
            one = await self.rest.get("baremetal", f"/nodes/{node_id}")
        except CloudNotFound:
            return None
        host_of = {name: host.service for host in self.book.names.values() for name in (host.uuid, host.hypervisor)}
        named = str((one.get("extra") or {}).get("compute_node_id") or "")
        if named and named not in host_of:  # a process that reads no inventories
            host_of[named] = await self._host_named(named)
        return metal.node(one, host_of)

    async def set_power(self, node_id: str, *, on: bool) -> None:
        """Ask for a metal node to be turned on or off; returns once Ironic accepted it."""
        target = {"target": "power on" if on else "power off"}
        await self.rest.change("baremetal", "PUT", f"/nodes/{node_id}/states/power", target)

    # -- inside --------------------------------------------------------------------------------------------

    async def _act(self, server_id: str, action: Mapping[str, Any]) -> None:
        await self.rest.change("compute", "POST", f"/servers/{server_id}/action", action)

    async def _server(self, server_id: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = (await self.rest.get("compute", f"/servers/{server_id}"))["server"]
        except CloudNotFound:
            return None
        return found

    async def _service(self, host: str) -> Mapping[str, Any] | None:
        answer = await self.rest.get("compute", "/os-services", binary="nova-compute", host=host)
        return next((one for one in answer["services"] if one["host"] == host), None)

    async def _host_named(self, hypervisor: str) -> str:
        try:
            answer = await self.rest.get("compute", f"/os-hypervisors/{hypervisor}")
        except CloudNotFound:
            return ""
        return str(answer["hypervisor"]["service"]["host"])

    async def _why(self, server_id: str) -> str:
        """What Nova says about the last thing that failed on a server; "" when it says nothing."""
        try:
            listed = (await self.rest.get("compute", f"/servers/{server_id}/os-instance-actions"))["instanceActions"]
            for action in listed[:3]:  # newest first
                path = f"/servers/{server_id}/os-instance-actions/{action['request_id']}"
                told = (await self.rest.get("compute", path))["instanceAction"]
                for event in reversed(told.get("events") or []):
                    if event.get("result") == "Error":
                        return str(event.get("details") or told.get("message") or event["event"])
                if told.get("message"):
                    return str(told["message"])
        except CloudError as error:
            log.info("why a migration of %s failed is not told: %s", server_id, error)
        return ""


def _server(one: Mapping[str, Any]) -> Server:
    return Server(
        id=str(one["id"]),
        host=one.get("OS-EXT-SRV-ATTR:host") or "",
        status=str(one.get("status") or ""),
        task_state=one.get("OS-EXT-STS:task_state") or "",
        flavor=(one.get("flavor") or {}).get("original_name") or "",
    )


def _migration(one: Mapping[str, Any]) -> Migration:
    status = ENDED.get(str(one.get("status")), "running")
    return Migration(
        id=str(one["id"]),
        server_id=str(one.get("instance_uuid") or ""),
        source=one.get("source_compute") or "",
        destination=one.get("dest_compute") or "",
        status=status,
        started_at=seconds_of(one.get("created_at")),
        ended_at=None if status == "running" else seconds_of(one.get("updated_at")),
        kind="resize" if one.get("migration_type") == "resize" else "migration",
        live=one.get("migration_type") == "live-migration",
    )


def _info(service: Mapping[str, Any]) -> ServiceInfo:
    return ServiceInfo(
        host=str(service["host"]),
        enabled=service.get("status") == "enabled",
        up=service.get("state") == "up" and not service.get("forced_down"),
        disabled_reason=service.get("disabled_reason") or "",
    )


def _flavor(one: Mapping[str, Any]) -> Flavor:
    disk = float(one.get("disk") or 0) + float(one.get("OS-FLV-EXT-DATA:ephemeral") or 0)
    return Flavor(
        id=str(one["id"]),
        name=str(one["name"]),
        vcpus=float(one["vcpus"]),
        memory_mb=float(one["ram"]),
        disk_gb=disk + float(one.get("swap") or 0) // 1024,
    )
