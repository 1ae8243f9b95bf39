"""One cloud's compute state in simulated time: who is where, what is on the way, and the timeline of all that happened.

The rehearsal and the simulated cloud both drive this one class; they differ in physics, load and commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trimtab.platform.model import ClusterModel, GroupPolicy, InstanceState, Placement
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.platform.rules import destinations
from trimtab.simulator.events import Events
from trimtab.simulator.migration import GIB_MB, Flow, Mishap, Network, Physics
from trimtab.simulator.timeline import HOST, INSTANCE, Change, Move, Timeline

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
    """Mutable state over a model; rows are the model's. A moving instance takes room on both hosts."""

    model: ClusterModel
    events: Events
    physics: Physics
    place: Placement = field(init=False)
    up: Bools = field(init=False)
    enabled: Bools = field(init=False)
    running: Bools = field(init=False)  # instances that burn CPU
    moving: dict[int, Trip] = field(default_factory=dict)
    trips: list[Trip] = field(default_factory=list)
    _mishaps: dict[int, Mishap] = field(default_factory=dict)
    _began: float = field(init=False)
    _network: Network = field(init=False)
    _changes: list[Change] = field(default_factory=list)
    _moves: list[Move] = field(default_factory=list)
    _first: tuple[Ints, Bools, Bools, Bools] = field(init=False)

    def __post_init__(self) -> None:
        model = self.model
        self.place = model.placement()
        self.up, self.enabled = model.up.copy(), model.enabled.copy()
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
        if not self.up[source]:
            return f"instance {name} is on {self.model.host_name(source)}, which is down"
        state = InstanceState(int(self.model.state[instance]))
        if live and state not in LIVE_STATES:
            return f"instance {name} is {state.wire}: live migration needs active or paused; ask for a cold one"
        if destination < 0:
            return None if self.choose(instance) >= 0 else f"no host has room for instance {name}"
        host = self.model.host_name(destination)
        if destination == source:
            return f"instance {name} is on {host} already"
        if not self.up[destination]:
            return f"host {host} is down and cannot receive {name}"
        if not self.enabled[destination]:
            return f"host {host} is disabled and cannot receive {name}"
        zone = int(self.model.pinned_zone[instance])
        if zone >= 0 and self.model.zone.codes[destination] != zone:
            return f"instance {name} is bound to zone {self.model.zone.names[zone]}; host {host} is not in it"
        if (peer := self._group_peer(instance, destination)) is not None:
            return f"instance {name} must not be on {host} with {self._name(peer)}: they are an anti-affinity group"
        if (self.place.capacity[:, destination] < self.place.used[:, destination] + self._need(instance)).any():
            need, free = self.model.demand[instance], self.place.capacity - self.place.used
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
        """Where the scheduler would put an instance: the possible host with most free memory; -1 when there is none."""
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
        )
        trip = Trip(len(self.trips), flow, ended)
        self.place.used[:, destination] += self.model.demand[instance]
        self.moving[instance] = trip
        self.trips.append(trip)
        return trip

    def stop(self, instance: int, status: str, reason: str) -> None:
        """End a running migration early; the instance stays where it is."""
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

    def _finish(self, trip: Trip, status: str, reason: str) -> None:
        flow = trip.flow
        trip.status, trip.reason = status, reason
        leaves = flow.source if status == "completed" else flow.destination
        self.place.used[:, leaves] -= self.model.demand[flow.instance]
        if status == "completed":
            self.place.host_of[flow.instance] = flow.destination
            self._note_instance(flow.instance)
        del self.moving[flow.instance]
        self._moves.append(self._move(trip, self.events.now))
        trip.ended(trip)

    # -- services, hosts and instances -----------------------------------------------------------------------------

    def set_service(self, host: int, *, enabled: bool) -> None:
        """Enable or disable a host for new instances."""
        self.enabled[host] = enabled
        self._note_host(host)

    def lose_host(self, host: int) -> None:
        """A host dies: what is on it stops working, what is on its way from or to it fails."""
        if not self.up[host]:
            return
        self.up[host] = False
        self._note_host(host)
        reason = f"host {self.model.host_name(host)} died"
        for trip in [trip for trip in self.moving.values() if host in (trip.flow.source, trip.flow.destination)]:
            self.stop(trip.flow.instance, "failed", reason)
        for instance in self.place.residents(host):
            self.running[instance] = False
            self._note_instance(int(instance))

    def lose_instance(self, instance: int) -> None:
        """An instance is deleted by its owner."""
        if self.place.host_of[instance] < 0:
            return
        if instance in self.moving:
            self.stop(instance, "failed", f"instance {self._name(instance)} was deleted")
        self.place.used[:, self.place.host_of[instance]] -= self.model.demand[instance]
        self.place.host_of[instance] = -1
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
        )

    def _note_instance(self, instance: int) -> None:
        host, running = int(self.place.host_of[instance]), bool(self.running[instance])
        self._changes.append(Change(self.events.now, INSTANCE, instance, host, running))

    def _note_host(self, host: int) -> None:
        up, enabled = bool(self.up[host]), bool(self.enabled[host])
        self._changes.append(Change(self.events.now, HOST, host, int(up), enabled))

    def _name(self, instance: int) -> str:
        return self.model.instance_name(instance) or self.model.instance_id(instance)

    def _need(self, instance: int) -> Floats:
        return self.model.demand[instance] - ROUNDING


def burns_cpu(model: ClusterModel) -> Bools:
    """Instances that are on a living host and run, [V]."""
    placed = model.host_of >= 0
    return placed & np.isin(model.state, BURNS_CPU) & np.where(placed, model.up[model.host_of], False)
