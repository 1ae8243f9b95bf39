"""Reading a whole cloud in few calls: every list once, side by side; of Placement only what changed since last time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa

from trimtab.platform.contracts import Inventory
from trimtab.platform.datasources.known import Known, Size
from trimtab.platform.errors import CloudError, CloudNotFound
from trimtab.platform.openstack import compute, metal, storage
from trimtab.platform.openstack.rest import Rest

log = logging.getLogger(__name__)

HYPERVISORS: Final = "2.87"  # later versions tell no totals, which stand in where Placement is silent
ODD: Final = (KeyError, TypeError, ValueError, AttributeError)  # what a row raises that is not as it should be
CANDIDATES: Final = ("VCPU", "MEMORY_MB", "DISK_GB")


class Host(NamedTuple):
    """A host's names: its uuid, what Nova calls its service, and what the hypervisor calls itself."""

    uuid: str
    service: str
    hypervisor: str


@dataclass(slots=True)
class Provider:
    """What is known of one resource provider; `generation` changes whenever Placement's record of it does."""

    generation: int
    inventory: Mapping[str, Mapping[str, Any]]
    traits: tuple[str, ...]


@dataclass(slots=True)
class Book:
    """A cloud as it was read last, in rows by id: what notifications change between two readings."""

    hosts: dict[str, compute.Row] = field(default_factory=dict)
    instances: dict[str, compute.Row] = field(default_factory=dict)
    groups: list[compute.Row] = field(default_factory=list)
    names: dict[str, Host] = field(default_factory=dict)  # by uuid of the host
    storage: tuple[pa.Table, pa.Table, pa.Table, pa.Table] | None = None
    metal: pa.Table | None = None
    faults: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def inventory(self, at: float) -> Inventory:
        """As the collector takes it; `at` is cloud time."""
        tables = compute.tables(list(self.hosts.values()), list(self.instances.values()), self.groups)
        return Inventory(*tables, at, self.storage, self.metal, self.faults, self.notes)

    def known(self) -> Known:
        """What datasources must know of it."""
        hosts = ((host.uuid, (host.hypervisor, host.service)) for host in self.names.values())
        sizes = {uuid: Size(row["vcpus"], row["memory_mb"], row["disk_gb"]) for uuid, row in self.instances.items()}
        return Known.of(hosts, sizes, {uuid: str(row["name"]) for uuid, row in self.instances.items()})

    def host_of(self, service: str, hypervisor: str = "") -> str | None:
        """The uuid of the host that runs a compute service; None when there is none (or it is a metal node)."""
        same = [host for host in self.names.values() if host.service == service]
        exact = [host for host in same if host.hypervisor == hypervisor]
        return (exact or same)[0].uuid if same else None


class Reader:
    """Reads clouds; remembers Placement's providers by their generation."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.providers: dict[str, Provider] = {}

    async def read(self) -> Book:
        """All of it.

        Nova is needed. Without Placement the hypervisors' own totals count, without Cinder or Ironic the model of
        storage or metal is missing; each is told in `faults` or `notes`.

        Raises:
            CloudError: Nova cannot be read.
        """
        rest = self.rest
        (hypervisors, services, aggregates, servers, groups, providers, stored, nodes) = await _side_by_side(
            rest.pages("compute", "/os-hypervisors/detail", "hypervisors", version=HYPERVISORS),
            rest.get("compute", "/os-services", binary="nova-compute"),
            rest.get("compute", "/os-aggregates"),
            rest.pages("compute", "/servers/detail", "servers", all_tenants="1"),
            self._groups(),
            _kept(self._refresh()),
            _kept(self._storage()),
            _kept(self._nodes()),
        )
        book = Book()
        faults: list[tuple[str, str]] = []
        notes: list[str] = []
        if isinstance(providers, CloudError):
            notes.append(f"hosts count with what their hypervisors say, Placement cannot be read: {providers}")
        self._hosts(book, hypervisors, services["services"], aggregates["aggregates"], notes)
        book.groups, group_of = compute.groups_of(groups)
        _instances(book, servers, group_of, notes)
        _take(book, "storage", stored, faults)
        if isinstance(nodes, list):
            host_of = {name: host.service for host in book.names.values() for name in (host.uuid, host.hypervisor)}
            nodes = metal.table(nodes, host_of)
        _take(book, "metal", nodes, faults)
        book.faults, book.notes = tuple(faults), tuple(notes)
        return book

    def _hosts(
        self,
        book: Book,
        hypervisors: Iterable[Mapping[str, Any]],
        services: Iterable[Mapping[str, Any]],
        aggregates: Iterable[Mapping[str, Any]],
        notes: list[str],
    ) -> None:
        service_of = {service["host"]: service for service in services}
        aggregates_of = compute.aggregates_of(aggregates)
        for one in hypervisors:
            if compute.is_metal(one):
                continue
            try:
                name = one["service"]["host"]
                known = self.providers.get(str(one["id"]))
                row = compute.host_row(
                    one,
                    service_of.get(name),
                    aggregates_of.get(name, ()),
                    known.inventory if known else None,
                    known.traits if known else (),
                )
            except ODD as error:
                notes.append(f"host {one.get('hypervisor_hostname')} is left out, it cannot be understood: {error!r}")
                continue
            book.hosts[row["uuid"]] = row
            book.names[row["uuid"]] = Host(row["uuid"], name, str(one.get("hypervisor_hostname") or name))

    async def _refresh(self) -> None:
        """Bring the providers up to date.

        Inventories are asked for where the generation changed. Traits come with three questions for all of those; only
        providers without any room, which no candidate shows, are asked for theirs.
        """
        listed = (await self.rest.get("placement", "/resource_providers"))["resource_providers"]
        roots = [one for one in listed if one.get("parent_provider_uuid") is None]
        known = self.providers
        changed = [
            one for one in roots if (old := known.get(one["uuid"])) is None or old.generation != one["generation"]
        ]
        if changed:
            traits = await self._traits_of_candidates()
            fresh = await _side_by_side(*(self._provider(one, traits) for one in changed))
            known = known | {one["uuid"]: provider for one, provider in zip(changed, fresh, strict=True) if provider}
        there = {one["uuid"] for one in roots}
        self.providers = {uuid: provider for uuid, provider in known.items() if uuid in there}

    async def _provider(self, one: Mapping[str, Any], traits: Mapping[str, tuple[str, ...]]) -> Provider | None:
        path = f"/resource_providers/{one['uuid']}"
        try:
            told = await self.rest.get("placement", f"{path}/inventories")
            mine = traits.get(one["uuid"])
            if mine is None:
                mine = tuple((await self.rest.get("placement", f"{path}/traits"))["traits"])
        except CloudNotFound:  # gone since it was listed
            return None
        return Provider(told["resource_provider_generation"], told["inventories"], mine)

    async def _traits_of_candidates(self) -> dict[str, tuple[str, ...]]:
        """Traits of all providers that have room for one unit of anything, in three calls whatever their number."""
        answers = await _side_by_side(
            *(self.rest.get("placement", "/allocation_candidates", resources=f"{name}:1") for name in CANDIDATES)
        )
        return {
            uuid: tuple(summary["traits"])
            for answer in answers
            for uuid, summary in answer["provider_summaries"].items()
        }

    async def _groups(self) -> list[dict[str, Any]]:
        """All server groups; their list has pages but no links."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.rest.get(
                "compute", "/os-server-groups", all_projects="true", limit=1000, offset=len(found)
            )
            page = answer["server_groups"]
            found += page
            if not page:
                return found

    async def _storage(self) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table] | None:
        rest = self.rest
        if not await rest.offers("block_storage"):
            return None
        services, pools, types, volumes, snapshots = await _side_by_side(
            rest.get("block_storage", "/os-services", binary="cinder-volume"),
            rest.get("block_storage", "/scheduler-stats/get_pools", detail="true"),
            rest.pages("block_storage", "/types", "volume_types", is_public="None"),
            rest.pages("block_storage", "/volumes/detail", "volumes", all_tenants="1"),
            rest.pages("block_storage", "/snapshots", "snapshots", all_tenants="1"),
        )
        return storage.tables(services["services"], pools["pools"], types, volumes, snapshots)

    async def _nodes(self) -> list[dict[str, Any]] | None:
        if not await self.rest.offers("baremetal"):
            return None
        found: list[dict[str, Any]] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.rest.get("baremetal", "/nodes", fields=metal.FIELDS, **marker)
            found += answer["nodes"]
            if not answer.get("next") or not answer["nodes"]:
                return found
            marker = {"marker": answer["nodes"][-1]["uuid"]}


def _instances(book: Book, servers: Iterable[Mapping[str, Any]], group_of: Mapping[str, str], notes: list[str]) -> None:
    hosts = {(host.service, host.hypervisor): host.uuid for host in book.names.values()}
    by_service = {host.service: host.uuid for host in book.names.values()}
    for one in servers:
        if one.get("OS-EXT-STS:vm_state") == "deleted":
            continue
        service = one.get("OS-EXT-SRV-ATTR:host") or ""
        at = hosts.get((service, one.get("OS-EXT-SRV-ATTR:hypervisor_hostname") or "")) or by_service.get(service)
        try:
            row = compute.instance_row(one, at, group_of.get(str(one["id"]), ""))
        except ODD as error:
            notes.append(f"instance {one.get('id')} is left out, it cannot be understood: {error!r}")
            continue
        book.instances[row["uuid"]] = row


def _take(book: Book, name: str, found: Any, faults: list[tuple[str, str]]) -> None:
    if isinstance(found, CloudError):
        faults.append(({"metal": "baremetal"}.get(name, name), str(found)))
    else:
        setattr(book, name, found)


async def _kept(work: Any) -> Any:
    """A result, or the refusal as a value: what fails must not take the others along."""
    try:
        return await work
    except CloudError as error:
        return error
    except ODD as error:
        return CloudError(f"its answer cannot be understood: {error!r}")


async def _side_by_side(*work: Any) -> list[Any]:
    """All at once; the first failure is told, the answers to the others are not waited for."""
    return list(await asyncio.gather(*work))
