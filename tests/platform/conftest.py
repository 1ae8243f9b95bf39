"""A small cloud in memory that keeps a driver's promises and has exactly the troubles a test asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from trimtab.platform.contracts import Clock, Inventory, Migration, Server, ServiceInfo, Wanted
from trimtab.platform.errors import CloudConflict, CloudNotFound, CloudUnavailable


@dataclass
class MemoryCloud:
    """Hosts of so many vCPUs, servers of one or more; a migration lasts `lasts_s` and takes room on both hosts.

    `fate` of a server's next migration: "fails", "hangs" (until aborted), "vanishes" (the server is deleted half way).
    `trouble(method, nth)` may say "lost request" or "lost answer"; `asked` counts calls, `accepted` what was done.
    """

    clock: Clock
    hosts: dict[str, int]
    where: dict[str, str]
    size: dict[str, int] = field(default_factory=dict)
    lasts_s: float = 60.0
    fate: dict[str, str] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    trouble: Callable[[str, int], str | None] = lambda _, __: None
    dead: set[str] = field(default_factory=set)
    trips: list[Migration] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    bulk: list[list[str]] = field(default_factory=list)
    accepted: list[tuple[str, ...]] = field(default_factory=list)

    async def _call(self, method: str, do: Callable[[], Any]) -> Any:
        nth = self.asked[method] = self.asked.get(method, 0) + 1
        trouble = self.trouble(method, nth)
        if trouble == "lost request":
            raise CloudUnavailable(f"{method}: connection refused")
        self._settle()
        answer = do()
        if trouble == "lost answer":
            raise CloudUnavailable(f"{method}: connection reset")
        return answer

    def _settle(self) -> None:
        now = self.clock.now()
        for number, trip in enumerate(self.trips):
            if trip.status != "running":
                continue
            fate, end = self.fate.get(trip.server_id), trip.started_at + self.lasts_s
            if self.dead & {trip.source, trip.destination}:
                self._end(number, "failed", now, "a host is down")
            elif fate == "vanishes" and now >= end / 2 + trip.started_at / 2:
                self.where.pop(trip.server_id, None)
                self._end(number, "failed", now, "the instance was deleted")
            elif now >= end and fate == "fails":
                self._end(number, "failed", end, "the hypervisor said no")
            elif now >= end and fate not in {"hangs", "vanishes"}:
                self.where[trip.server_id] = trip.destination
                self._end(number, "completed", end, "")

    def _end(self, number: int, status: str, at: float, reason: str) -> None:
        self.trips[number] = self.trips[number]._replace(status=status, ended_at=at, reason=reason)

    def _running(self, server_id: str) -> int | None:
        found = [n for n, t in enumerate(self.trips) if t.server_id == server_id and t.status == "running"]
        return found[0] if found else None

    def used(self, host: str) -> int:
        """VCPUs taken on a host by those who are there or on their way there."""
        there = {server for server, at in self.where.items() if at == host}
        coming = {trip.server_id for trip in self.trips if trip.status == "running" and trip.destination == host}
        return sum(self.size.get(server, 1) for server in there | coming)

    async def inventory(self) -> Inventory:
        return await self._call("inventory", self._inventory)

    def _inventory(self) -> Inventory:
        names, servers = list(self.hosts), list(self.where)
        hosts = {
            "uuid": [f"uuid-{name}" for name in names],
            "hostname": names,
            "vcpus": [float(self.hosts[name]) for name in names],
            "memory_mb": [1e6] * len(names),
            "disk_gb": [1e6] * len(names),
            "state": ["down" if name in self.dead else "up" for name in names],
            "status": ["disabled" if name in self.disabled else "enabled" for name in names],
        }
        instances = {
            "uuid": servers,
            "node": [f"uuid-{self.where[server]}" for server in servers],
            "vcpus": [float(self.size.get(server, 1)) for server in servers],
            "memory_mb": [1.0] * len(servers),
            "disk_gb": [1.0] * len(servers),
        }
        groups = pa.table({"uuid": pa.array([], pa.string()), "policy": pa.array([], pa.string())})
        return Inventory(pa.table(hosts), pa.table(instances), groups, self.clock.now())

    async def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        self.bulk.append(list(ids))
        return await self._call("servers", lambda: {one: self._server(one) for one in ids if one in self.where})

    def _server(self, server_id: str) -> Server:
        busy = "migrating" if self._running(server_id) is not None else ""
        return Server(server_id, self.where[server_id], self.status.get(server_id, "ACTIVE"), busy)

    async def service(self, host: str) -> ServiceInfo | None:
        return await self._call("service", lambda: self._service(host) if host in self.hosts else None)

    def _service(self, host: str) -> ServiceInfo:
        return ServiceInfo(host, host not in self.disabled, host not in self.dead, self.disabled.get(host, ""))

    async def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        await self._call("migrate", lambda: self._migrate(server_id, destination, live=live))

    def _migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        if server_id not in self.where:
            raise CloudNotFound(f"server {server_id} not found")
        if self._running(server_id) is not None:
            raise CloudConflict(f"server {server_id} is busy: migrating")
        need, source = self.size.get(server_id, 1), self.where[server_id]
        fits = [
            h for h in self.hosts if h != source and self.used(h) + need <= self.hosts[h] and h not in self.disabled
        ]
        if destination is None and fits:
            destination = fits[0]
        if destination not in self.hosts:
            raise CloudNotFound(f"host {destination} not found")
        if destination not in fits:
            raise CloudConflict(f"host {destination} has no room for {server_id} or takes none")
        number = str(len(self.trips) + 1)
        self.trips.append(Migration(number, server_id, source, destination, "running", self.clock.now()))
        self.accepted.append(("migrate", server_id, destination, "live" if live else "cold"))

    async def migrations(self, server_id: str) -> list[Migration]:
        return await self._call("migrations", lambda: [t for t in self.trips if t.server_id == server_id])

    async def abort_migration(self, server_id: str) -> None:
        await self._call("abort", lambda: self._abort(server_id))

    def _abort(self, server_id: str) -> None:
        number = self._running(server_id)
        if number is None:
            raise CloudConflict(f"no migration of {server_id} is running")
        self._end(number, "aborted", self.clock.now(), "aborted on request")
        self.accepted.append(("abort", server_id))

    async def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        return [""] * len(wanted)

    async def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        return await self._call("set_service", lambda: self._set_service(host, enabled=enabled, reason=reason))

    def _set_service(self, host: str, *, enabled: bool, reason: str) -> ServiceInfo:
        if host not in self.hosts:
            raise CloudNotFound(f"no compute service on {host}")
        if enabled:
            self.disabled.pop(host, None)
        else:
            self.disabled[host] = reason
        self.accepted.append(("enable" if enabled else "disable", host))
        return self._service(host)

    # -- what a test looks at ------------------------------------------------------------------------------------

    def most_at_once(self) -> tuple[int, Mapping[str, int]]:
        """The most migrations that ever ran side by side: in total, and on each host."""
        starts = [trip.started_at for trip in self.trips]
        running = [[t for t in self.trips if t.started_at <= at < (t.ended_at or float("inf"))] for at in starts]
        per_host = {
            host: max((sum(host in {t.source, t.destination} for t in now) for now in running), default=0)
            for host in self.hosts
        }
        return max((len(now) for now in running), default=0), per_host


@pytest.fixture
def memory_cloud() -> type[MemoryCloud]:
    return MemoryCloud
