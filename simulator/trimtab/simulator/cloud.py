"""The simulated cloud: answers like Nova, keeps its own time and truth, and survives being killed at any moment.

Its state is a function of its spec and of the journalled commands with their times. A command is accepted when it is on
disk; starting again on the same journal replays it, and what was under way goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.contracts import (
    Flavor,
    Inventory,
    MetalNode,
    Migration,
    Pool,
    Score,
    Server,
    ServiceInfo,
    Volume,
    VolumeType,
    Wanted,
)
from trimtab.platform.errors import CloudConflict, CloudNotFound, InvalidInput
from trimtab.platform.model import VCPU, InstanceState
from trimtab.platform.snapshot import Need
from trimtab.simulator.events import Events
from trimtab.simulator.faults import Fault
from trimtab.simulator.journal import Entry, Journal
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.measurements import Measurements
from trimtab.simulator.metal import Metal
from trimtab.simulator.migration import Mishap
from trimtab.simulator.playback import OVERLOADED
from trimtab.simulator.power import Power
from trimtab.simulator.score import Window, score
from trimtab.simulator.servers import Servers, flavors_of
from trimtab.simulator.storage import Storage
from trimtab.simulator.truth import CloudSpec, true_blocks
from trimtab.simulator.world import Trip, World

NOVA_STATUS: Mapping[InstanceState, str] = {
    InstanceState.BUILDING: "BUILD",
    InstanceState.STOPPED: "SHUTOFF",
    InstanceState.RESCUED: "RESCUE",
    InstanceState.RESIZED: "VERIFY_RESIZE",
    InstanceState.SHELVED: "SHELVED_OFFLOADED",
    InstanceState.SOFT_DELETE: "SOFT_DELETED",
}


class SimulatedCloud:
    """A plain synchronous object; `SimulatedDriver` and `SimulatedDatasource` speak to it, here or in an actor.

    Args:
        spec: what the cloud is; when the journal exists it must be that of the journal.
        journal: file that keeps it alive over restarts; None keeps nothing.
        now: the wall clock, s.

    Raises:
        InvalidInput: the journal is damaged or belongs to another cloud.
    """

    def __init__(self, spec: CloudSpec, journal: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._wall, self._journal = now, Journal(journal)
        entries = self._journal.entries()
        if not entries:
            origin = now()
            start = origin if spec.start_s is None else spec.start_s
            entries = [{"spec": replace(spec, start_s=start).to_json(), "wall_origin": origin}]
            self._journal.append(entries[0])
        self.spec, self._wall_origin = _opened(entries[0], spec, journal)
        self._ahead = 0.0  # what was fast-forwarded
        self._start = float(self.spec.start_s or 0.0)
        model = self.spec.model()
        events = Events(self._start - self.spec.history_s)
        self._load = Load(self.spec.days(model.instances), model.instances)
        self._world = World(model, events, self.spec.physics(model))
        self._memory = self.spec.used_memory_mb(model)
        self._power = Power.of(model.total[:, VCPU])
        self._reasons = {row: reason for row in range(model.hosts) if (reason := model.disabled_reason[row])}
        self._host_rows = {str(name): row for row, name in enumerate(model.host_names.to_pylist())}
        self._instance_rows = {str(uuid): row for row, uuid in enumerate(model.instance_ids.to_pylist())}
        self._trips_of: dict[int, list[Trip]] = {}
        self._servers = Servers(self._world, self._load, flavors_of(model, self.spec.flavors()))
        storage, metal = self.spec.storage(model), self.spec.metal(model)
        self._storage = None if storage is None else Storage(storage[0], events, storage[1])
        self._metal = None
        if metal is not None:
            at = [self._host_rows.get(name, -1) for name in metal[0].hostnames.to_pylist()]
            self._metal = Metal(metal[0], self._world, np.array(at, np.int32), *metal[1:])
        self._sensors = self.spec.sensors(model)
        events.run_until(self._start)
        for entry in entries[1:]:
            events.run_until(float(entry["at"]))
            self._apply(entry)

    # -- time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Cloud time; never runs backward, whatever the wall clock does."""
        paced = self._start + self._ahead + (self._wall() - self._wall_origin) * self.spec.speed
        self._world.events.run_until(paced)
        self._servers.settle()
        return self._world.events.now

    def pace(self) -> tuple[float, float, float]:
        """Cloud time at the origin, wall time there, and cloud seconds per wall second: what a paced clock needs."""
        return self._start + self._ahead, self._wall_origin, self.spec.speed

    def fast_forward(self, seconds: float) -> float:
        """Let so much cloud time pass at once; returns the new time.

        Raises:
            InvalidInput: a negative time.
        """
        if not 0 <= seconds < float("inf"):
            raise InvalidInput(f"fast_forward({seconds}): give seconds, zero or more")
        self.now()
        self._accept("fast_forward", seconds=float(seconds))
        return self.now()

    # -- what Nova answers -------------------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        """Hosts, instances, server groups, storage and metal as they are now."""
        at, world = self.now(), self._world
        model = world.model.with_changes(
            host_of=world.place.host_of.copy(), up=world.up.copy(), enabled=world.enabled.copy()
        )
        hosts, instances, groups = model.to_arrow()
        reasons = pa.array([self._reasons.get(row, "") for row in range(model.hosts)], pa.string())
        hosts = hosts.set_column(hosts.column_names.index("disabled_reason"), "disabled_reason", reasons)
        there = ~((world.model.host_of >= 0) & (model.host_of < 0))
        storage = None if self._storage is None else self._storage.tables()
        metal = None if self._metal is None else self._metal.table()
        return Inventory(hosts, instances.filter(pa.array(there)), groups, at, storage, metal)

    def servers(self, ids: Sequence[str]) -> dict[str, Server]:
        """Those of the named servers that exist."""
        self.now()
        found = {server_id: self._instance_rows.get(server_id) for server_id in ids}
        return {uuid: self._server(uuid, row) for uuid, row in found.items() if row is not None and self._exists(row)}

    def service(self, host: str) -> ServiceInfo | None:
        """The compute service of a host, by the host's name."""
        self.now()
        row = self._host_rows.get(host)
        return None if row is None else self._service(row)

    def migrate(self, server_id: str, destination: str | None, *, live: bool) -> None:
        """Start a migration to a host, by name; None lets the scheduler choose.

        Raises:
            CloudNotFound: no such server or host.
            CloudConflict: not now: busy, wrong state, there already, destination disabled, down or full.
        """
        self.now()
        instance = self._instance(server_id)
        to = -1 if destination is None else self._host(destination)
        _or_conflict(self._servers.cannot_migrate(instance) or self._world.refusal(instance, to, live=live))
        if to < 0:  # on disk is where it goes, so that it goes there whatever the scheduler of a later version prefers
            destination = self._world.model.host_name(self._world.choose(instance))
        self._accept("migrate", server=server_id, destination=destination, live=live)

    def refusals(self, wanted: Sequence[Wanted]) -> list[str]:
        """Why each migration would be refused, alone and now; "" where nothing speaks against it."""
        self.now()
        return [self._refusal(one) for one in wanted]

    def _refusal(self, wanted: Wanted) -> str:
        try:
            instance, to = self._instance(wanted.server_id), self._host(wanted.destination)
        except CloudNotFound as error:
            return str(error)
        return self._world.closed(instance, to) or (wanted.now and self._world.taken(instance, to)) or ""

    def migrations(self, server_id: str) -> list[Migration]:
        """All migrations and resizes of a server, oldest first; also of one that is gone."""
        self.now()
        row = self._instance_rows.get(server_id, -1)
        moved = [self._migration(trip) for trip in self._trips_of.get(row, [])]
        return sorted([*moved, *self._servers.resizes.get(row, [])], key=lambda one: one.started_at)

    def all_migrations(self) -> list[Migration]:
        """All migrations there ever were, in the order in which they began."""
        self.now()
        return [self._migration(trip) for trip in self._world.trips]

    def abort_migration(self, server_id: str) -> None:
        """Abort the running live migration of a server; it stays where it was.

        Raises:
            CloudNotFound: no such server.
            CloudConflict: nothing runs that could be aborted.
        """
        self.now()
        trip = self._world.moving.get(self._instance(server_id))
        if trip is None:
            raise CloudConflict(f"server {server_id} is not migrating: there is nothing to abort")
        if not trip.flow.live:
            raise CloudConflict(f"the migration of server {server_id} is a cold one and cannot be aborted")
        self._accept("abort_migration", server=server_id)

    def set_service(self, host: str, *, enabled: bool, reason: str = "") -> ServiceInfo:
        """Enable or disable the compute service of a host, by the host's name.

        Raises:
            CloudNotFound: no such host.
        """
        self.now()
        row = self._host(host)
        wanted = "" if enabled else reason
        if bool(self._world.enabled[row]) != enabled or self._reasons.get(row, "") != wanted:
            self._accept("set_service", host=host, enabled=enabled, reason=wanted)
        return self._service(row)

    def residents(self, host: str) -> list[Server]:
        """All servers on a host, by the host's name, running or not.

        Raises:
            CloudNotFound: no such host.
        """
        self.now()
        rows = self._world.place.residents(self._host(host)).tolist()
        return [self._server(self._world.model.instance_id(row), row) for row in rows]

    def stop(self, server_id: str) -> None:
        """Shut a server down.

        Raises:
            CloudNotFound: no such server.
            CloudConflict: not now: busy or not running.
        """
        self.now()
        _or_conflict(self._servers.stop_refusal(self._instance(server_id)))
        self._accept("stop", server=server_id)

    def start(self, server_id: str) -> None:
        """Start a stopped server.

        Raises:
            CloudNotFound: no such server.
            CloudConflict: not now: busy, not stopped, its host is down.
        """
        self.now()
        _or_conflict(self._servers.start_refusal(self._instance(server_id)))
        self._accept("start", server=server_id)

    def flavors(self, names: Sequence[str]) -> dict[str, Flavor]:
        """Those of the flavors that exist, by the id or else the name they were asked for by."""
        found = {name: self._servers.flavor(name) for name in names}
        return {name: flavor for name, flavor in found.items() if flavor is not None}

    def resize(self, server_id: str, flavor: str) -> None:
        """Give a server another flavor, by its id; it stays where it is if there is room beside itself.

        Raises:
            CloudNotFound: no such server or flavor.
            CloudConflict: not now: busy, wrong state, the same flavor, a smaller disk, no room anywhere.
        """
        self.now()
        row, wanted = self._instance(server_id), self._flavor(flavor)
        _or_conflict(self._servers.resize_refusal(row, wanted))
        to = self._world.model.host_name(self._servers.destination(row, wanted))
        self._accept("resize", server=server_id, flavor=flavor, destination=to)

    def confirm_resize(self, server_id: str) -> None:
        """Let a server in VERIFY_RESIZE stay as it is; what it had before is given back.

        Raises:
            CloudNotFound: no such server.
            CloudConflict: there is nothing to confirm.
        """
        self.now()
        _or_conflict(self._servers.confirm_refusal(self._instance(server_id)))
        self._accept("confirm_resize", server=server_id)

    # -- what Cinder answers -----------------------------------------------------------------------------------------

    def volumes(self, ids: Sequence[str]) -> dict[str, Volume]:
        """Those of the named volumes that exist."""
        self.now()
        storage = self._storage
        if storage is None:
            return {}
        found = {volume_id: storage.row(volume_id) for volume_id in ids}
        return {volume_id: storage.volume(row) for volume_id, row in found.items() if row is not None}

    def pools(self) -> list[Pool]:
        """All storage pools as they are now."""
        self.now()
        return [] if self._storage is None else self._storage.pools()

    def volume_types(self) -> list[VolumeType]:
        """All volume types."""
        return [] if self._storage is None else self._storage.types()

    def migrate_volume(self, volume_id: str, pool: str) -> None:
        """Move a volume to a pool, by the pool's name.

        Raises:
            CloudNotFound: no such volume or pool.
            CloudConflict: not now: busy, wrong state, there already, snapshots, another backend, no room.
        """
        self.now()
        storage, row = self._volume(volume_id)
        to = storage.pool(pool)
        if to is None:
            raise CloudNotFound(f"there is no pool {pool}")
        _or_conflict(storage.refusal(row, to))
        self._accept("migrate_volume", volume=volume_id, pool=pool)

    def retype_volume(self, volume_id: str, volume_type: str) -> None:
        """Give a volume another type; it moves where its pool does not serve that type.

        Raises:
            CloudNotFound: no such volume or type.
            CloudConflict: not now: busy, wrong state, that type already, no pool of that type has room.
        """
        self.now()
        storage, row = self._volume(volume_id)
        to = storage.type(volume_type)
        if to is None:
            raise CloudNotFound(f"there is no volume type {volume_type}")
        _or_conflict(storage.retype_refusal(row, to))
        pool = storage.pool_after(row, to)
        self._accept("retype_volume", volume=volume_id, type=volume_type, pool=storage.model.pool_name(pool))

    # -- what Ironic answers -----------------------------------------------------------------------------------------

    def metal_node(self, node_id: str) -> MetalNode | None:
        """One metal node; None when there is none."""
        self.now()
        row = None if self._metal is None else self._metal.row(node_id)
        return None if self._metal is None or row is None else self._metal.node(row)

    def set_power(self, node_id: str, *, on: bool) -> None:
        """Turn a metal node on or off.

        Raises:
            CloudNotFound: no such node.
            CloudConflict: not now: turning, in maintenance, so already, or it holds servers and should go off.
        """
        self.now()
        metal, row = self._node(node_id)
        _or_conflict(metal.refusal(row, on=on))
        self._accept("set_power", node=node_id, on=on)

    # -- what monitoring answers -------------------------------------------------------------------------------------

    def samples(self, metric: str, kind: str, start_s: float, end_s: float) -> pa.Table:
        """Raw samples with start <= at < end that are over by now: columns resource, at, value."""
        return self._measurements().samples(metric, kind, start_s, end_s)

    def aggregate(self, needs: Sequence[Need], at: float) -> pa.Table:
        """One value a need and resource: columns need, resource, value."""
        return self._measurements().aggregate(needs, at)

    # -- what only the simulation can do -----------------------------------------------------------------------------

    def inject(self, fault: Fault | Mapping[str, Any]) -> Fault:
        """Let something go wrong; returns the fault with its time.

        Raises:
            InvalidInput: no such kind of fault, or a time that has passed.
            CloudNotFound: no such server, host, volume or metal node.
        """
        fault = fault if isinstance(fault, Fault) else Fault.from_json(fault)
        at = self.now()
        self._target(fault)
        if fault.at is None:
            fault = replace(fault, at=at)
        elif fault.at < at:
            raise InvalidInput(f"fault at {fault.at}: it is {at} already; leave the time out for now")
        self._accept("inject", fault=asdict(fault))
        return fault

    def rewrite_future(self, seed: int) -> None:
        """From the next sample on the load is another one; what was stays."""
        self.now()
        self._accept("rewrite_future", seed=int(seed))

    def measure(
        self, start_s: float, end_s: float, plan_start_s: float | None = None, plan_end_s: float | None = None
    ) -> Score:
        """What really happened in [start, end), by the formulas of the rehearsal.

        Args:
            start_s: begin of the horizon.
            end_s: its end, not after now.
            plan_start_s: begin of the plan; the horizon's if not given.
            plan_end_s: end of the plan; if not given the end of the last migration that began in the horizon.

        Raises:
            InvalidInput: a time that the cloud has not seen.
        """
        now, timeline = self.now(), self._world.timeline()
        if not timeline.began <= start_s < end_s <= now:
            raise InvalidInput(
                f"measure({start_s}, {end_s}): give {timeline.began} <= start < end <= {now}; the future is not known"
            )
        begun = [move for move in timeline.moves if start_s <= move.start < end_s]
        plan_start = start_s if plan_start_s is None else plan_start_s
        plan_end = (
            max((min(move.end, end_s) for move in begun), default=plan_start) if plan_end_s is None else plan_end_s
        )
        window = Window(start_s, end_s, plan_start, plan_end)
        return score(self._world.model, timeline, lambda a, b: true_blocks(self._load, a, b), self._power, window)

    def figures(self) -> dict[str, float]:
        """A few figures of this moment, for a page or a gauge."""
        at, world = self.now(), self._world
        model, host_of = world.model, world.place.host_of
        vcpus = model.total[:, VCPU]
        asks = self._load.cpu_pct(int(at // SAMPLE_S), 1)[0] / 100 * model.demand[:, VCPU]
        demand = np.bincount(host_of[world.running], asks[world.running], model.hosts).astype(np.float64)
        residents = np.bincount(host_of[host_of >= 0], minlength=model.hosts)
        counted = (world.up & world.enabled) | (residents > 0)
        busy_pct = 100 * demand / np.maximum(vcpus, 1e-9)
        return {
            "at": at,
            "hosts_in_use": int((residents > 0).sum()),
            "hosts_up": int(world.up.sum()),
            "instances": int((host_of >= 0).sum()),
            "cpu_mean_pct": float(busy_pct[counted].mean()) if counted.any() else 0.0,
            "cpu_sd_pp": float(busy_pct[counted].std()) if counted.any() else 0.0,
            "power_w": float(self._power.watts(demand, residents, world.up, world.enabled).sum()),
            "overloaded_hosts": int((demand > OVERLOADED * vcpus).sum()),
            "migrating": len(world.moving),
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _accept(self, command: str, **arguments: Any) -> None:
        """On disk first, then in effect; at the very time at which the command was checked."""
        entry: Entry = {"at": self._world.events.now, "command": command, **arguments}
        self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        world, command = self._world, entry["command"]
        self._servers.settle()
        if command == "migrate":
            instance = self._instance_rows[entry["server"]]
            named = entry["destination"]  # None: by a version that wrote down only that it was free to choose
            to = world.roomiest(instance) if named is None else self._host_rows[named]
            trip = world.migrate(instance, to, live=entry["live"])
            self._trips_of.setdefault(instance, []).append(trip)
        elif command == "abort_migration":
            world.stop(self._instance_rows[entry["server"]], "aborted", "somebody asked for it")
        elif command == "set_service":
            row = self._host_rows[entry["host"]]
            world.set_service(row, enabled=entry["enabled"])
            self._reasons[row] = entry["reason"]
        elif command == "inject":
            fault = Fault.from_json(entry["fault"])
            row, upset = self._target(fault, gone=True)
            world.events.at(float(entry["fault"]["at"]), lambda: fault.strike(world, row, upset))
            world.events.run_until(world.events.now)
        elif command == "rewrite_future":
            first = int(world.events.now // SAMPLE_S) + 1
            self._load.rewritten(first, self.spec.days(world.model.instances, entry["seed"]))
        elif command == "fast_forward":
            self._ahead += entry["seconds"]
            world.events.run_until(world.events.now + entry["seconds"])
        elif not self._apply_other(entry):
            raise InvalidInput(f"the journal has a command {command!r}, which this version does not know")

    def _apply_other(self, entry: Entry) -> bool:
        """Commands about power and size of servers, volumes and metal; whether it was one."""
        command, servers = entry["command"], self._servers
        if command in {"stop", "start", "confirm_resize"}:
            row = self._instance_rows[entry["server"]]
            {"stop": servers.stop, "start": servers.start, "confirm_resize": servers.confirm}[command](row)
        elif command == "resize":
            to = self._host_rows[entry["destination"]]
            servers.resize(self._instance_rows[entry["server"]], self._flavor(entry["flavor"]), to)
        elif command == "migrate_volume":
            storage, row = self._volume(entry["volume"])
            storage.migrate(row, _known(storage.pool(entry["pool"])))
        elif command == "retype_volume":
            storage, row = self._volume(entry["volume"])
            storage.retype(row, _known(storage.type(entry["type"])), _known(storage.pool(entry["pool"])))
        elif command == "set_power":
            metal, row = self._node(entry["node"])
            metal.set_power(row, on=entry["on"])
        else:
            return False
        return True

    def _measurements(self) -> Measurements:
        now = self.now()
        return Measurements(
            self._world.model,
            self._world.timeline(),
            self._load,
            self._memory,
            now,
            sensors=self._sensors,
            states_at=self._servers.states_at,
        )

    def _exists(self, row: int) -> bool:
        return bool(self._world.place.host_of[row] >= 0 or self._world.model.host_of[row] < 0)

    def _target(self, fault: Fault, *, gone: bool = False) -> tuple[int, Callable[[int, Mishap], None]]:
        """Row of a fault's target and who is told of mishaps there; `gone`: it need not be there any more."""
        if fault.of == "volume":
            storage, row = self._volume(fault.target)
            return row, storage.upset
        if fault.of == "metal":
            metal, row = self._node(fault.target)
            return row, metal.upset
        if fault.of == "host":
            return self._host(fault.target), self._world.upset
        row = self._instance_rows[fault.target] if gone else self._instance(fault.target)
        return row, self._servers.upset if fault.kind.startswith("resize_") else self._world.upset

    def _flavor(self, name: str) -> Flavor:
        flavor = self._servers.flavor(name)
        if flavor is None:
            raise CloudNotFound(f"there is no flavor {name}")
        return flavor

    def _volume(self, volume_id: str) -> tuple[Storage, int]:
        row = None if self._storage is None else self._storage.row(volume_id)
        if self._storage is None or row is None:
            raise CloudNotFound(f"there is no volume {volume_id}")
        return self._storage, row

    def _node(self, node_id: str) -> tuple[Metal, int]:
        row = None if self._metal is None else self._metal.row(node_id)
        if self._metal is None or row is None:
            raise CloudNotFound(f"there is no metal node {node_id}")
        return self._metal, row

    def _instance(self, server_id: str) -> int:
        row = self._instance_rows.get(server_id)
        if row is None or not self._exists(row):
            raise CloudNotFound(f"there is no server {server_id}")
        return row

    def _host(self, name: str) -> int:
        row = self._host_rows.get(name)
        if row is None:
            raise CloudNotFound(f"there is no compute host {name}")
        return row

    def _server(self, server_id: str, row: int) -> Server:
        host, trip = int(self._world.place.host_of[row]), self._world.moving.get(row)
        state = InstanceState(int(self._world.model.state[row]))
        task = self._servers.task(row) if trip is None else "migrating" if trip.flow.live else "resize_migrating"
        name = self._world.model.host_name(host) if host >= 0 else ""
        return Server(server_id, name, NOVA_STATUS.get(state, state.name), task, self._world.model.flavor[row])

    def _service(self, row: int) -> ServiceInfo:
        world = self._world
        name = world.model.host_name(row)
        return ServiceInfo(name, bool(world.enabled[row]), bool(world.up[row]), self._reasons.get(row, ""))

    def _migration(self, trip: Trip) -> Migration:
        flow, model = trip.flow, self._world.model
        return Migration(
            str(trip.number + 1),
            model.instance_id(flow.instance),
            model.host_name(flow.source),
            model.host_name(flow.destination),
            trip.status,
            flow.started_at,
            flow.ended_at,
            trip.reason,
            live=flow.live,
        )


def _or_conflict(refusal: str | None) -> None:
    if refusal:
        raise CloudConflict(refusal)


def _known(row: int | None) -> int:
    assert row is not None  # noqa: S101 (a journalled command was checked before)
    return row


def _opened(head: Entry, wanted: CloudSpec, path: Path | None) -> tuple[CloudSpec, float]:
    """Spec and clock origin that the journal begins with, if it is the journal of the cloud that is wanted."""
    if not isinstance(head.get("spec"), dict) or "wall_origin" not in head:
        raise InvalidInput(f"{path} line 1 holds no spec of a cloud: it is not a journal; give another path")
    kept = CloudSpec.from_json(head["spec"])
    start = kept.start_s if wanted.start_s is None else wanted.start_s
    if replace(wanted, start_s=start) != kept:
        ours, theirs = replace(wanted, start_s=start).to_json(), kept.to_json()
        differs = ", ".join(f"{name} {theirs[name]} -> {ours[name]}" for name in ours if ours[name] != theirs[name])
        raise InvalidInput(f"{path} is the journal of another cloud ({differs}): use its settings or remove the file")
    return kept, float(head["wall_origin"])
