"""One cloud's compute state in simulated time: who is where, what is on the way, and the timeline of all that happened.

The rehearsal and the simulated cloud both drive this one class; they differ in physics, load and commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.platform.model import ClusterModel, GroupPolicy, InstanceState, Placement
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import destinations
from trimtab.simulator.events import Event, Events
from trimtab.simulator.migration import GIB_MB, Flow, Mishap, Network, Physics
from trimtab.simulator.scheduler import DEFAULT, Weights, choose_host
from trimtab.simulator.timeline import BOOTING, DOWN, HOST, INSTANCE, UP, Change, Move, Timeline

BURNS_CPU = (InstanceState.ACTIVE, InstanceState.RESCUED, InstanceState.RESIZED)
LIVE_STATES = (InstanceState.ACTIVE, InstanceState.PAUSED)


@dataclass(eq=False, slots=True)
class Trip:
    """One migration as the world records it. `status`: running | completed | failed | aborted."""

    number: int
    flow: Flow
    ended: Callable[[Trip], None]
    status: str = "running"
    reason: str = ""


@dataclass(eq=False, slots=True)
class World:
    """Mutable state over a model; rows are the model's. A moving instance takes room on both hosts.

    An instance whose `host_of` is -1 is not there: not yet, or not any more. `boot_s`: from standby (empty and
    disabled) or from death until a host works. `rebuild_s`: until an evacuated or crashed instance runs again.
    `weights`: of the scheduler. `rejected`: arrivals without a valid host; `departed`: deleted instances; `crashed`:
    instances that lost their memory when a post-copy failed; one entry each time.
    """

    model: ClusterModel
    events: Events
    physics: Physics
    boot_s: float = 0.0
    rebuild_s: float = 120.0
    weights: Weights = DEFAULT
    rejected: list[int] = field(default_factory=list)
    departed: list[int] = field(default_factory=list)
    crashed: list[int] = field(default_factory=list)
    place: Placement = field(init=False)
    up: Bools = field(init=False)
    booting: Bools = field(init=False)
    enabled: Bools = field(init=False)
    running: Bools = field(init=False)  # instances that burn CPU
    moving: dict[int, Trip] = field(default_factory=dict)
    trips: list[Trip] = field(default_factory=list)
    _mishaps: dict[int, Mishap] = field(default_factory=dict)
    _starts: dict[int, Event] = field(default_factory=dict)  # instances that will run again
    _boots: dict[int, Event] = field(default_factory=dict)
    _began: float = field(init=False)
    _network: Network = field(init=False)
    _changes: list[Change] = field(default_factory=list)
    _moves: list[Move] = field(default_factory=list)
    _first: tuple[Ints, Bools, Bools, Bools] = field(init=False)

    def __post_init__(self) -> None:
        model = self.model
        self.place = model.placement()
        self.up, self.enabled = model.up.copy(), model.enabled.copy()
        self.booting = np.zeros(model.hosts, bool)
        self.running = burns_cpu(model)
        self._began = self.events.now
        self._network = Network(self.events, self.physics)
        self._first = (model.host_of, self.running.copy(), self.up.copy(), self.enabled.copy())

    # -- migrations ------------------------------------------------------------------------------------------------

    def refusal(self, instance: int, destination: int, *, live: bool) -> str | None:
        """Why a migration cannot start now; None when it can. `destination` -1: some host must be found."""
        name, source = self._name(instance), int(self.place.host_of[instance])
        if source < 0:
            return f"instance {name} is on no host"
        if instance in self.moving:
            return f"instance {name} is busy: it is migrating already"
        if instance in self._starts:
            return f"instance {name} is busy: it is being rebuilt"
        if not self.up[source]:
            return f"instance {name} is on {self.model.host_name(source)}, which is down"
        state = InstanceState(int(self.model.state[instance]))
        if live and state not in LIVE_STATES:
            return f"instance {name} is {state.wire}: live migration needs active or paused; ask for a cold one"
        if destination < 0:
            return None if self.choose(instance) >= 0 else f"no host has room for instance {name}"
        if destination == source:
            return f"instance {name} is on {self.model.host_name(destination)} already"
        return self.closed(instance, destination) or self.taken(instance, destination)

    def closed(self, instance: int, destination: int) -> str | None:
        """Why a host does not take an instance in, whoever else is on it; None when it may."""
        name, host = self._name(instance), self.model.host_name(destination)
        if self.booting[destination]:
            return f"host {host} is booting and cannot receive {name} yet"
        if not self.up[destination]:
            return f"host {host} is down and cannot receive {name}"
        if not self.enabled[destination]:
            return f"host {host} is disabled and cannot receive {name}"
        zone = int(self.model.pinned_zone[instance])
        if zone >= 0 and self.model.zone.codes[destination] != zone:
            return f"instance {name} is bound to zone {self.model.zone.names[zone]}; host {host} is not in it"
        return None

    def taken(self, instance: int, destination: int) -> str | None:
        """Why a host does not take an instance in with those who are on it now; None when it may."""
        name, host = self._name(instance), self.model.host_name(destination)
        if (peer := self._group_peer(instance, destination)) is not None:
            return f"instance {name} must not be on {host} with {self._name(peer)}: they are an anti-affinity group"
        if (self.place.capacity[:, destination] < self.place.used[:, destination] + self._need(instance)).any():
            need, free = self.model.need[instance], self.place.capacity - self.place.used
            return (
                f"host {host} has no room for {name}: it needs {need[0]:g} vCPUs, {need[1]:g} MB, {need[2]:g} GB; "
                f"free are {free[0, destination]:g}, {free[1, destination]:g}, {free[2, destination]:g}"
            )
        return None

    def _group_peer(self, instance: int, destination: int) -> int | None:
        """A member of the instance's anti-affinity group that is on a host or on its way there."""
        group = int(self.model.group[instance])
        if group < 0 or self.model.group_policy[group] != GroupPolicy.ANTI_AFFINITY:
            return None
        start, rows = self.model.group_members
        for peer in rows[start[group] : start[group + 1]]:
            trip = self.moving.get(int(peer))
            there = self.place.host_of[peer] == destination or (
                trip is not None and trip.flow.destination == destination
            )
            if peer != instance and there:
                return int(peer)
        return None

    def choose(self, instance: int) -> int:
        """Where the scheduler would put an instance; -1 when no host is valid."""
        candidates = self.up & self.enabled
        group = int(self.model.group[instance])
        if group >= 0 and self.model.group_policy[group] == GroupPolicy.ANTI_AFFINITY:
            for trip in self.moving.values():
                if self.model.group[trip.flow.instance] == group:
                    candidates[[trip.flow.source, trip.flow.destination]] = False
        return choose_host(self.place, instance, candidates, self.weights)

    def roomiest(self, instance: int) -> int:
        """The possible host with most free memory, -1 when there is none; how journals without a choice go on."""
        ok = destinations(self.place, instance, self.up & self.enabled)
        if not ok.any():
            return -1
        free = self.place.capacity[1] - self.place.used[1]
        return int(np.argmax(np.where(ok, free, -np.inf)))

    def migrate(
        self,
        instance: int,
        destination: int,
        *,
        live: bool,
        ended: Callable[[Trip], None] = lambda _: None,
    ) -> Trip:
        """Start a migration that `refusal` has nothing against; `ended` is called at its end, whatever that is."""
        if destination < 0:
            destination = self.choose(instance)
        flow = self._network.begin(
            instance,
            int(self.place.host_of[instance]),
            destination,
            live=live,
            running=bool(self.running[instance]),
            done=self._through,
            mishap=self._mishaps.pop(instance, None),
            resumed=self._resumed,
        )
        trip = Trip(len(self.trips), flow, ended)
        self.place.used[:, destination] += self.model.need[instance]
        self.moving[instance] = trip
        self.trips.append(trip)
        return trip

    def stop(self, instance: int, status: str, reason: str) -> None:
        """End a running migration early; the instance stays where it is, but crashes when it is there only in part."""
        trip = self.moving[instance]
        self._network.drop(trip.flow)
        self._finish(trip, status, reason)

    def upset(self, instance: int, mishap: Mishap) -> None:
        """Something goes wrong with the running migration of an instance, or else with its next one."""
        if instance in self.moving:
            self._network.disturb(self.moving[instance].flow, mishap)
        else:
            self._mishaps[instance] = mishap

    def _through(self, flow: Flow) -> None:
        trip = self.moving[flow.instance]
        if flow.fails:
            self._finish(trip, "failed", "the hypervisor reported an error at the end of the copy")
        else:
            self._finish(trip, "completed", "")

    def _resumed(self, flow: Flow) -> None:
        self.place.host_of[flow.instance] = flow.destination
        self._note_instance(flow.instance)

    def _finish(self, trip: Trip, status: str, reason: str) -> None:
        flow = trip.flow
        trip.status, trip.reason = status, reason
        there_already = flow.resumed_at is not None
        leaves = flow.source if status == "completed" or there_already else flow.destination
        self.place.used[:, leaves] -= self.model.need[flow.instance]
        if status == "completed" and not there_already:
            self.place.host_of[flow.instance] = flow.destination
            self._note_instance(flow.instance)
        del self.moving[flow.instance]
        self._moves.append(self._move(trip, self.events.now))
        if status != "completed" and there_already:
            self.crashed.append(flow.instance)
            self._start_again(flow.instance)
        trip.ended(trip)

    # -- services, hosts and instances -----------------------------------------------------------------------------

    def put(self, instance: int, host: int, *, running: bool, wanted: bool | None = None) -> None:
        """An instance is on a host now, and runs or does not: it was stopped, started or resized. Takes no room.

        `wanted`: whether it should run; None: its state tells.
        """
        self.place.host_of[instance], self.running[instance] = host, running
        self._note_instance(instance, wanted)

    def remodel(self, **changes: Any) -> None:
        """Other states, sizes or flavors of instances from now on; the room they take is the caller's business."""
        self.model = self.place.model = self.model.with_changes(**changes)

    def rescale(self, instance: int, memory: float, disk: float) -> None:
        """From now on the migrations of an instance copy so many times as much."""
        memory_mb, disk_mb = self.physics.memory_mb.copy(), self.physics.disk_mb.copy()
        memory_mb[instance] *= memory
        disk_mb[instance] *= disk
        self.physics = self._network.physics = replace(self.physics, memory_mb=memory_mb, disk_mb=disk_mb)

    def set_service(self, host: int, *, enabled: bool) -> None:
        """Enable or disable a host for new instances; one that was in standby boots first."""
        asleep = bool(self.up[host] and not self.enabled[host]) and not self._holds_any(host)
        self.enabled[host] = enabled
        if asleep and enabled and self.boot_s > 0:
            self._boot(host)
        else:
            self._note_host(host)

    def lose_host(self, host: int) -> None:
        """A host dies: what is on it stops working, what is on its way from or to it fails."""
        if not self.up[host] and not self.booting[host]:
            return
        self.events.cancel(self._boots.pop(host, None))
        self.up[host] = self.booting[host] = False
        self._note_host(host)
        reason = f"host {self.model.host_name(host)} died"
        for trip in [trip for trip in self.moving.values() if host in (trip.flow.source, trip.flow.destination)]:
            self.stop(trip.flow.instance, "failed", reason)
        for instance in self.place.residents(host):
            self.events.cancel(self._starts.pop(int(instance), None))
            self.running[instance] = False
            self._note_instance(int(instance))

    def restore_host(self, host: int) -> None:
        """A dead host comes back: it boots, then what is still on it starts again. It stays enabled or disabled."""
        if self.up[host] or self.booting[host]:
            return
        if self.boot_s > 0:
            self._boot(host)
        else:
            self._booted(host)

    def evacuate(self, host: int) -> list[int]:
        """Rebuild the instances of a dead host where the scheduler puts them; they run again after `rebuild_s`.

        Nothing happens to a host that is up or booting. Returns the instances without a valid host: they stay.
        """
        if self.up[host] or self.booting[host]:
            return []
        left = []
        for instance in self.place.residents(host).tolist():
            destination = self.choose(instance)
            if destination < 0:
                left.append(instance)
                continue
            self.place.used[:, host] -= self.model.need[instance]
            self.place.used[:, destination] += self.model.need[instance]
            self.place.host_of[instance] = destination
            self._start_again(instance)
        return left

    def arrive(self, instance: int) -> int:
        """An instance is created where the scheduler puts it: row of the host, or -1 (then it is in `rejected`).

        Nothing happens to one that is there already.
        """
        if self.place.host_of[instance] >= 0:
            return int(self.place.host_of[instance])
        host = self.choose(instance)
        if host < 0:
            self.rejected.append(instance)
            return -1
        self.place.used[:, host] += self.model.need[instance]
        self.place.host_of[instance] = host
        self.running[instance] = self._burns(instance)
        self._note_instance(instance)
        return host

    def _start_again(self, instance: int) -> None:
        """It does not run now, and will in `rebuild_s` if its host lives."""
        self.running[instance] = False
        self._note_instance(instance)
        if self.up[self.place.host_of[instance]] and self._burns(instance):
            self._starts[instance] = self.events.at(self.events.now + self.rebuild_s, lambda: self._started(instance))

    def _started(self, instance: int) -> None:
        del self._starts[instance]
        self.running[instance] = True
        self._note_instance(instance)

    def _boot(self, host: int) -> None:
        self.up[host], self.booting[host] = False, True
        self._note_host(host)
        self._boots[host] = self.events.at(self.events.now + self.boot_s, lambda: self._booted(host))

    def _booted(self, host: int) -> None:
        self._boots.pop(host, None)
        self.up[host], self.booting[host] = True, False
        self._note_host(host)
        for instance in self.place.residents(host).tolist():
            self.running[instance] = self._burns(instance)
            self._note_instance(instance)

    def _holds_any(self, host: int) -> bool:
        return bool((self.place.host_of == host).any()) or any(
            host in (trip.flow.source, trip.flow.destination) for trip in self.moving.values()
        )

    def _burns(self, instance: int) -> bool:
        return int(self.model.state[instance]) in BURNS_CPU

    def lose_instance(self, instance: int) -> None:
        """An instance is deleted by its owner."""
        if self.place.host_of[instance] < 0:
            return
        if instance in self.moving:
            self.stop(instance, "failed", f"instance {self._name(instance)} was deleted")
        self.events.cancel(self._starts.pop(instance, None))
        self.place.used[:, self.place.host_of[instance]] -= self.model.need[instance]
        self.place.host_of[instance] = -1
        self.departed.append(instance)
        self.running[instance] = False
        self._note_instance(instance)

    # -- the record ------------------------------------------------------------------------------------------------

    def timeline(self) -> Timeline:
        """Everything up to now."""
        under_way = [self._move(trip, np.inf) for trip in self.moving.values()]
        host_of, running, up, enabled = self._first
        return Timeline(self._began, host_of, running, up, enabled, tuple(self._changes), (*self._moves, *under_way))

    def _move(self, trip: Trip, end: float) -> Move:
        flow = trip.flow
        return Move(
            flow.instance,
            flow.source,
            flow.destination,
            flow.live,
            flow.started_at,
            end if flow.stopped_at is None else flow.stopped_at,
            end,
            flow.sent_by(self.events.now) / GIB_MB,
            trip.status == "completed",
            bool(self.running[flow.instance]),
            self.physics.slowdown if flow.post is None else self.physics.fault_slowdown,
            self._resumption(flow, end),
        )

    @staticmethod
    def _resumption(flow: Flow, end: float) -> float | None:
        """When a post-copy's guest went on; one that failed before that was down until the failure."""
        if flow.post is None:
            return None
        return end if flow.resumed_at is None else flow.resumed_at

    def _note_instance(self, instance: int, wanted: bool | None = None) -> None:
        host, running = int(self.place.host_of[instance]), bool(self.running[instance])
        wanted = self._burns(instance) if wanted is None else wanted
        self._changes.append(Change(self.events.now, INSTANCE, instance, host, running, wanted))

    def _note_host(self, host: int) -> None:
        to = BOOTING if self.booting[host] else UP if self.up[host] else DOWN
        self._changes.append(Change(self.events.now, HOST, host, to, bool(self.enabled[host])))

    def _name(self, instance: int) -> str:
        return self.model.instance_name(instance) or self.model.instance_id(instance)

    def _need(self, instance: int) -> Floats:
        return self.model.need[instance] - ROUNDING


def burns_cpu(model: ClusterModel) -> Bools:
    """Instances that are on a living host and run, [V]."""
    placed = model.host_of >= 0
    return placed & np.isin(model.state, BURNS_CPU) & np.where(placed, model.up[model.host_of], False)
