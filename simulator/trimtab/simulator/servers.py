"""Power and size of the simulated cloud's servers: stop, start and resize, in Nova's states and with Nova's room."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from trimtab.platform.contracts import Flavor, Migration
from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel, InstanceState, Placement
from trimtab.platform.model.compute import Floats
from trimtab.platform.model.placement import ROUNDING
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.migration import Mishap
from trimtab.simulator.scheduler import choose_host
from trimtab.simulator.world import BURNS_CPU, World

STOP_S, START_S = 8.0, 12.0  # a guest's orderly shutdown; until it runs
RESIZE_S = 15.0  # besides the copy of the disk where the server changes its host
CONFIRM_S = 2.0
CAN_STOP = (InstanceState.ACTIVE, InstanceState.RESCUED, InstanceState.ERROR)
CAN_RESIZE = (InstanceState.ACTIVE, InstanceState.STOPPED)


@dataclass(eq=False, slots=True)
class Task:
    """What the cloud is doing with one server. `claimed`: room taken on a host besides where it is."""

    name: str  # Nova's task_state; "" shows none
    claimed: tuple[int, Floats] | None = None
    record: Migration | None = None


@dataclass(eq=False, slots=True)
class Servers:
    """Stops, starts and resizes servers of a world; rows are the world's.

    A server that is being resized takes room for its new size on its next host (which may be its own) and for the old
    one where it was, until the resize is confirmed. The load is the work that a server is given: with more vCPUs the
    same work is a smaller share of them, with fewer it is cut off at all of them.
    """

    world: World
    load: Load | None  # None: nobody reads the load of those who are resized
    known: dict[str, Flavor]  # by id
    told: dict[int, Callable[[], None]] = field(default_factory=dict)  # called once, when the task of a row has ended
    tasks: dict[int, Task] = field(default_factory=dict)
    resizes: dict[int, list[Migration]] = field(default_factory=dict)
    states: list[tuple[float, int, int]] = field(default_factory=list)  # (since, row, state) of every change
    _kept: dict[int, tuple[int, Floats, int]] = field(default_factory=dict)  # unconfirmed: host, size, state before
    _mishaps: dict[int, Mishap] = field(default_factory=dict)
    _count: int = 0
    _first: npt.NDArray[np.int8] = field(init=False)

    def __post_init__(self) -> None:
        self._first = self.world.model.state

    def flavor(self, name: str) -> Flavor | None:
        """A flavor by its id or else its name."""
        return self.known.get(name) or next((f for f in self.known.values() if f.name == name), None)

    def task(self, row: int) -> str:
        """Nova's task_state; "" for none."""
        return self.tasks[row].name if row in self.tasks else ""

    def busy(self, row: int) -> str | None:
        """Why nothing else can be asked of a server now."""
        if row in self.tasks:
            return f"instance {self._name(row)} is busy: {self.tasks[row].name or 'its resize is being confirmed'}"
        if row in self.world.moving:
            return f"instance {self._name(row)} is busy: it is migrating"
        if self.world.place.host_of[row] < 0:
            return f"instance {self._name(row)} is on no host"
        return None

    def cannot_migrate(self, row: int) -> str | None:
        """Why a server cannot be migrated, besides what `World.refusal` says."""
        if row in self._kept:
            return f"instance {self._name(row)} is in VERIFY_RESIZE: confirm its resize first"
        return self.busy(row) if row in self.tasks else None

    # -- power -------------------------------------------------------------------------------------------------------

    def stop_refusal(self, row: int) -> str | None:
        """Why a server cannot be stopped now."""
        return self.busy(row) or self._wrong_state(row, "stop", CAN_STOP)

    def stop(self, row: int) -> None:
        """Shut a server down that `stop_refusal` has nothing against; it keeps its room."""
        self._begin(row, Task("powering-off"), STOP_S, lambda: self._powered(row, InstanceState.STOPPED))

    def start_refusal(self, row: int) -> str | None:
        """Why a server cannot be started now."""
        refusal = self.busy(row) or self._wrong_state(row, "start", (InstanceState.STOPPED,))
        host = int(self.world.place.host_of[row])
        if refusal is None and not self.world.up[host]:
            return f"instance {self._name(row)} is on {self.world.model.host_name(host)}, which is down"
        return refusal

    def start(self, row: int) -> None:
        """Start a server that `start_refusal` has nothing against."""
        self._begin(row, Task("powering-on"), START_S, lambda: self._powered(row, InstanceState.ACTIVE))

    def _powered(self, row: int, state: InstanceState) -> None:
        if self._survives(row):
            self._become(row, state)

    # -- size --------------------------------------------------------------------------------------------------------

    def resize_refusal(self, row: int, flavor: Flavor) -> str | None:
        """Why a server cannot get another flavor now."""
        refusal = self.busy(row) or self._wrong_state(row, "resize", CAN_RESIZE)
        if refusal is not None:
            return refusal
        model, host = self.world.model, int(self.world.place.host_of[row])
        if model.flavor[row] == flavor.name:
            return f"instance {self._name(row)} is of flavor {flavor.name} already: a resize must change it"
        if flavor.disk_gb < model.demand[row, DISK]:
            return f"instance {self._name(row)} has {model.demand[row, DISK]:g} GB of disk: a resize cannot shrink it"
        if not self.world.up[host]:
            return f"instance {self._name(row)} is on {model.host_name(host)}, which is down"
        if self.destination(row, flavor) < 0:
            return f"no host has room for instance {self._name(row)} as {flavor.name}"
        return None

    def destination(self, row: int, flavor: Flavor) -> int:
        """Where a server goes for its new size: nowhere if it fits beside itself; -1 when no host has room."""
        world, need = self.world, _size(flavor)
        host = int(world.place.host_of[row])
        free = world.place.capacity[:, host] - world.place.used[:, host]
        if world.enabled[host] and (need <= free + ROUNDING).all():
            return host
        resized = Placement(
            _with_demand(world.model, row, need), world.place.host_of, world.place.used, world.place.capacity
        )
        return choose_host(resized, row, world.up & world.enabled, world.weights)

    def resize(self, row: int, flavor: Flavor, destination: int) -> None:
        """Start a resize that `resize_refusal` has nothing against; ends in VERIFY_RESIZE on the host `destination`."""
        world, events = self.world, self.world.events
        source = int(world.place.host_of[row])
        takes = RESIZE_S
        if source != destination:
            takes += float(world.physics.disk_mb[row] / world.physics.nic_mb_s[[source, destination]].min())
        self._count += 1
        names = world.model.host_name(source), world.model.host_name(destination)
        record = Migration(
            f"resize-{self._count}",
            world.model.instance_id(row),
            *names,
            "running",
            events.now,
            kind="resize",
            live=False,
        )
        self.resizes.setdefault(row, []).append(record)
        world.place.used[:, destination] += _size(flavor)
        fails = self._mishaps.get(row, Mishap()).fails
        task = Task("resize_migrating", (destination, _size(flavor)), record)
        self._begin(row, task, takes, lambda: self._resized(row, flavor, fails=fails))
        world.put(row, source, running=False)

    def _resized(self, row: int, flavor: Flavor, *, fails: bool) -> None:
        world = self.world
        task = self.tasks[row]
        assert task.claimed is not None  # noqa: S101 (of every resize)
        destination, size = task.claimed
        source, before = int(world.place.host_of[row]), int(world.model.state[row])
        old = world.model.demand[row].copy()
        dead = source >= 0 and not (world.up[source] and world.up[destination])
        if not self._survives(row) or fails or dead:
            world.place.used[:, destination] -= size
            why = "instance is gone" if source < 0 else "a host died" if dead else "the hypervisor reported an error"
            self._record(row, task, "failed", why)
            if source >= 0:
                self._become(row, InstanceState(before))
            return
        self._kept[row] = (source, old, before)
        world.remodel(demand=_with_demand(world.model, row, size).demand, flavor=_renamed(world.model, row, flavor))
        if self.load is not None:
            self.load.resize(int(world.events.now // SAMPLE_S) + 1, row, float(old[VCPU]), float(size[VCPU]))
        grown = np.divide(size, old, out=np.ones(3), where=old > 0)
        world.rescale(row, float(grown[MEMORY]), float(grown[DISK]))
        self._record(row, task, "completed", "")
        world.put(row, destination, running=False)
        self._become(row, InstanceState.RESIZED)

    def confirm_refusal(self, row: int) -> str | None:
        """Why there is nothing to confirm."""
        return self.busy(row) or self._wrong_state(row, "confirm the resize of", (InstanceState.RESIZED,))

    def confirm(self, row: int) -> None:
        """Confirm a resize that `confirm_refusal` has nothing against; gives back what the server had before."""
        self._begin(row, Task(""), CONFIRM_S, lambda: self._confirmed(row))

    def _confirmed(self, row: int) -> None:
        host, old, before = self._kept.pop(row, (-1, np.zeros(3), int(InstanceState.ACTIVE)))
        if host >= 0:
            self.world.place.used[:, host] -= old
        if self._survives(row):
            self._become(row, InstanceState(before))

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def upset(self, row: int, mishap: Mishap) -> None:
        """Something goes wrong with the next stop, start or resize of a server."""
        self._mishaps[row] = mishap

    def settle(self) -> None:
        """Give back the room of unconfirmed resizes of servers that are gone."""
        for row in [row for row in self._kept if self.world.place.host_of[row] < 0 and row not in self.tasks]:
            host, old, _ = self._kept.pop(row)
            self.world.place.used[:, host] -= old

    def states_at(self, times: Floats) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """For every server whose state ever changed: its row, and its state at each of some times."""
        changes: dict[int, list[tuple[float, int]]] = {}
        for since, row, state in self.states:
            changes.setdefault(row, [(-np.inf, self._first[row])]).append((since, state))
        for row, changed in changes.items():
            since, states = np.array(changed).T
            yield row, states[np.searchsorted(since, times, side="right") - 1].astype(np.intp)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, row: int, task: Task, takes: float, end: Callable[[], None]) -> None:
        mishap = self._mishaps.pop(row, Mishap())
        self.tasks[row] = task
        if mishap.hangs:
            return

        def ended() -> None:
            if task.record is not None or not mishap.fails:  # else it stays as it was
                end()
            del self.tasks[row]
            self.told.pop(row, lambda: None)()

        self.world.events.at(self.world.events.now + takes * mishap.slower, ended)

    def _survives(self, row: int) -> bool:
        return bool(self.world.place.host_of[row] >= 0)

    def _become(self, row: int, state: InstanceState) -> None:
        world, host = self.world, int(self.world.place.host_of[row])
        if int(world.model.state[row]) != state:
            states = world.model.state.copy()
            states[row] = state
            world.remodel(state=states)
            self.states.append((world.events.now, row, int(state)))
        burns = state in BURNS_CPU
        if state == InstanceState.RESIZED:
            burns = self._kept[row][2] in BURNS_CPU
        world.put(row, host, running=burns and bool(world.up[host]), wanted=burns)

    def _record(self, row: int, task: Task, status: str, reason: str) -> None:
        known = self.resizes[row]
        known[-1] = known[-1]._replace(status=status, ended_at=self.world.events.now, reason=reason)
        task.record = known[-1]

    def _wrong_state(self, row: int, verb: str, allowed: Iterable[InstanceState]) -> str | None:
        state = InstanceState(int(self.world.model.state[row]))
        if state in tuple(allowed):
            return None
        return f"cannot {verb} instance {self._name(row)} while it is in vm_state {state.wire}"

    def _name(self, row: int) -> str:
        return self.world.model.instance_name(row) or self.world.model.instance_id(row)


def flavors_of(model: ClusterModel, offered: Iterable[Flavor]) -> dict[str, Flavor]:
    """Flavors by id: those that are offered, and those that instances of a model have."""
    known = {flavor.name: flavor for flavor in offered}
    codes, first = np.unique(model.flavor.codes, return_index=True)
    for code, row in zip(codes.tolist(), first.tolist(), strict=True):
        name = model.flavor.names[code] if code >= 0 else ""
        if name and name not in known:
            known[name] = Flavor(name, name, *model.demand[row].tolist())
    return {flavor.id: flavor for flavor in known.values()}


def _size(flavor: Flavor) -> Floats:
    return np.array([flavor.vcpus, flavor.memory_mb, flavor.disk_gb], np.float64)


def _with_demand(model: ClusterModel, row: int, size: Floats) -> ClusterModel:
    demand = model.demand.copy()
    demand[row] = size
    return model.with_changes(demand=demand)


def _renamed(model: ClusterModel, row: int, flavor: Flavor) -> object:
    column = model.flavor
    names = column.names if flavor.name in column.names else (*column.names, flavor.name)
    codes = column.codes.copy()
    codes[row] = names.index(flavor.name)
    return replace(column, codes=codes, names=names)
