"""The same benchmark in plain Python: slow, literal, and what the compiled engine is compared with, bit for bit.

It keeps lists of objects, tries every host for every VM, shares nothing between two questions and skips nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from trimtab.simulator.events import Events
from trimtab.simulator.planetlab.engine import Books, Figures, figures_of
from trimtab.simulator.planetlab.fleet import (
    HOST_NETWORK,
    MEMORY_MB_PER_S,
    SAMPLE_S,
    START_S,
    VM_NETWORK,
    Fleet,
)
from trimtab.simulator.planetlab.rules import DETECTIONS, SELECTIONS, Policy, Rules
from trimtab.simulator.specpower import watts_of

Line = tuple[float, float]


@dataclass(eq=False, slots=True)
class Vm:
    """One VM; `history` is newest first."""

    row: int
    mips: float
    memory: float
    demand: float = 0.0
    home: Host | None = None
    leaving: bool = False
    history: list[float] = field(default_factory=list)
    entry: tuple[float, float, float, bool] | None = None  # time, given, asked, moving
    given: float = 0.0
    asked: float = 0.0
    lost: float = 0.0


@dataclass(eq=False, slots=True)
class Host:
    """One host; `vms` are those that live here or are on their way here, in the order of arrival."""

    row: int
    core: float
    total: float
    memory: float
    points: list[float]
    vms: list[Vm] = field(default_factory=list)
    used: float = 0.0
    entry: tuple[float, bool, bool] | None = None  # time, active, short
    was_active: bool = True
    on_since: float = 0.0
    active_s: float = 0.0
    short_s: float = 0.0
    downs: int = 0
    up_s: float = 0.0
    energy: float = 0.0

    def watts(self, mips: float) -> float:
        """Power at some use, W."""
        return float(watts_of(np.array(self.points), np.array(min(mips / self.total, 1.0))))


class PlainRun:
    """One run; `figures` after `play`."""

    def __init__(self, fleet: Fleet, policy: Policy, rules: Rules, seed: int) -> None:
        self.fleet, self.policy, self.rules, self.random = fleet, policy, rules, seed
        rows = range(len(fleet.kind))
        points = [fleet.watts[fleet.kind[row]].tolist() for row in rows]
        self.hosts = [
            Host(row, float(fleet.core[row]), float(fleet.total[row]), float(fleet.host_memory[row]), points[row])
            for row in rows
        ]
        self.vms = [Vm(row, float(fleet.mips[row]), float(fleet.memory[row])) for row in range(len(fleet.mips))]
        self.events = Events()
        self.number, self.updated_at, self.joules, self.full_power_j = 0, 0.0, 0.0, 0.0
        self.short_sum, self.short_count = 0.0, 0
        self.moves: list[list[tuple[int, int]]] = []  # (VM, host) of every tick
        self.frames: list[float] = []  # J of every update

    def play(self) -> Figures:
        """The whole day."""
        self.place()
        if not self.rules.start_is_free:
            self.events.at(START_S, lambda: self.update(tick=False))
        self.events.at(START_S + SAMPLE_S, self.tick)
        self.events.run_until((self.fleet.ticks + 1) * SAMPLE_S)
        for host in self.hosts:
            if host.entry:
                self.note_switch(host)
        return figures_of(
            Books(
                energy_j=self.full_power_j if self.policy.name == "NPA" else self.joules,
                migrations=sum(map(len, self.moves)),
                active_s=[host.active_s for host in self.hosts],
                short_s=[host.short_s for host in self.hosts],
                given=[vm.given for vm in self.vms],
                asked=[vm.asked for vm in self.vms],
                lost=[vm.lost for vm in self.vms],
                short_sum=self.short_sum,
                short_count=self.short_count,
                downs=[float(host.downs) for host in self.hosts],
                up_s=[host.up_s for host in self.hosts],
            )
        )

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Full update, decisions, migrations."""
        self.number += 1
        self.update(tick=True)
        moves = self.decide() if self.policy.moves else []
        self.moves.append([(vm.row, host.row) for vm, host in moves])
        now = self.events.now
        for vm, target in moves:
            vm.leaving = True
            target.vms.append(vm)
            self.settle(target, now)
            assert vm.home is not None  # noqa: S101 (who migrates lives somewhere)
            self.settle(vm.home, now)
            self.events.at(now + vm.memory / MEMORY_MB_PER_S, lambda vm=vm, to=target: self.arrive(vm, to))  # type: ignore[misc]
        if self.number < self.fleet.ticks:
            self.events.at(now + SAMPLE_S, self.tick)

    def arrive(self, vm: Vm, target: Host) -> None:
        """A migration ends; at the first of an instant everything is updated, after each only what it changed."""
        now = self.events.now
        if self.updated_at != now:
            self.update(tick=False)
        source = vm.home
        assert source is not None  # noqa: S101
        source.vms.remove(vm)
        if vm in target.vms:
            target.vms.remove(vm)
        target.vms.append(vm)
        vm.home, vm.leaving = target, False
        self.settle(source, now)
        self.settle(target, now)
        self.events.at(now, lambda: self.vanish([vm]))

    def update(self, tick: bool) -> None:
        """Demands, history, shares, energy; then idle VMs vanish."""
        now = self.events.now
        span = now - self.updated_at
        first = math.floor(now / SAMPLE_S)
        for vm in self.vms:
            left, right = float(self.fleet.share[first, vm.row]), float(self.fleet.share[first + 1, vm.row])
            share = left + (right - left) / SAMPLE_S * (now - first * SAMPLE_S)
            vm.demand = share * vm.mips
            if tick:
                vm.history = [share, *vm.history][:30]
        frame = 0.0
        for host in self.hosts:
            was_used, was_held = host.used, bool(host.vms)
            self.settle(host, now)
            if was_used > 0 or (was_held and not self.rules.unused_is_off):
                before, after = host.watts(was_used), host.watts(host.used)
                joules = (before + (after - before) / 2) * span
                host.energy += joules
                frame += joules
        self.joules += frame
        self.frames.append(frame)
        self.full_power_j += float(self.fleet.watts[self.fleet.kind, -1].sum()) * span
        self.updated_at = now
        self.vanish(self.vms)

    def vanish(self, vms: list[Vm]) -> None:
        """Idle VMs leave for good, where that is the rule."""
        if self.rules.idle_vms_vanish:
            for vm in vms:
                if vm.demand == 0 and vm.home is not None and not vm.leaving:
                    vm.home.vms.remove(vm)
                    vm.home = None

    # -- shares and records --------------------------------------------------------------------

    def settle(self, host: Host, now: float) -> None:
        """Share out the MIPS of one host and record it."""
        asks = [self.ask(host, vm) for vm in host.vms]
        free, fits = host.total, True
        for ask in asks:
            if fits and free >= ask:
                free -= ask
            elif ask > 0:
                fits = False
        wanted = _sum(asks)
        part = 1.0 if fits else host.total / wanted
        host.used, requested = 0.0, 0.0
        short = not fits and wanted > host.total * (1 + 1e-9)
        for vm, ask in zip(host.vms, asks, strict=True):
            give = ask if fits else ask * part
            if vm.home is host and vm.leaving:
                give *= 0.9
            if not fits and self.rules.whole_mips:
                give = float(math.floor(give))
            if vm.home is host:
                short = short or vm.demand > host.core
                self.note_vm(vm, now, give)
                if vm.leaving:
                    give /= 0.9
            host.used += give
            requested += vm.demand
        active = host.used > 0 if self.rules.unused_is_off else bool(host.vms)
        self.note_host(host, now, active, host.used < requested if self.rules.artefacts_count else short)

    def ask(self, host: Host, vm: Vm) -> float:
        """MIPS a VM asks of a host."""
        capped = min(vm.demand, host.core)
        return capped if vm.home is host else capped * 0.1

    def note_vm(self, vm: Vm, now: float, given: float) -> None:
        """A new entry closes the one before; one of the same time replaces it."""
        if vm.entry and vm.entry[0] != now:
            at, had, wanted, moving = vm.entry
            vm.given += had * (now - at)
            vm.asked += wanted * (now - at)
            if had < wanted:
                self.short_sum += (wanted - had) / wanted
                self.short_count += 1
                if moving:
                    vm.lost += (wanted - had) * (now - at)
        vm.entry = (now, given, vm.demand, vm.leaving)

    def note_host(self, host: Host, now: float, active: bool, short: bool) -> None:
        """As `note_vm`."""
        if host.entry and host.entry[0] != now:
            at, was_active, was_short = host.entry
            self.note_switch(host)
            if was_active:
                host.active_s += now - at
                if was_short:
                    host.short_s += now - at
        host.entry = (now, active, short)

    def note_switch(self, host: Host) -> None:
        """The latest entry is final: was that a switch on or off?"""
        assert host.entry is not None  # noqa: S101
        at, active, _ = host.entry
        if host.was_active and not active:
            host.downs += 1
            host.up_s += at - host.on_since
        elif active and not host.was_active:
            host.on_since = at
        host.was_active = active

    # -- decisions -----------------------------------------------------------------------------

    def place(self) -> None:
        """The first placement, by nominal sizes."""
        for vm in self.vms:
            best, least = None, math.inf
            for host in self.hosts:
                placed = _sum([other.mips for other in host.vms])
                free = host.total
                for other in host.vms:
                    free -= other.mips
                room = host.memory - _sum([other.memory for other in host.vms])
                network = HOST_NETWORK - VM_NETWORK * len(host.vms)
                if host.core < vm.mips or free < vm.mips or room < vm.memory or network < VM_NETWORK:
                    continue
                if not self.policy.moves:
                    best = host
                    break
                before = host.watts(0.0)
                if not self.rules.power_against_measured:
                    before = host.watts(placed) if host.vms else 0.0
                if host.watts(placed + vm.mips) - before < least:
                    best, least = host, host.watts(placed + vm.mips) - before
            if best is None:
                raise ValueError(f"VM {vm.row} fits nowhere")
            best.vms.append(vm)
            vm.home = best
        for host in self.hosts:
            host.was_active = self.rules.unused_is_off or bool(host.vms)

    def decide(self) -> list[tuple[Vm, Host]]:
        """One consolidation step."""
        lists = {host: list(host.vms) for host in self.hosts}
        over = [host for host in self.hosts if lists[host] and self.over(host, lists[host])]
        taken = []
        for host in over:
            while lists[host]:
                vm = self.pick(lists[host])
                taken.append(vm)
                lists[host].remove(vm)
                if not self.over(host, lists[host]):
                    break
        moves: list[tuple[Vm, Host]] = []
        for vm in sorted(taken, key=lambda vm: -vm.demand):
            found = self.find(vm, [host for host in self.hosts if host not in over], lists)
            if found:
                lists[found].append(vm)
                moves.append((vm, found))
        asleep = [host for host in self.hosts if (host.used == 0 if self.rules.unused_is_off else not host.vms)]
        no_source, no_target = {*over, *asleep}, {*over, *asleep}
        if not self.rules.targets_may_be_emptied:
            no_source |= {target for _, target in moves}
        while True:
            usage = {host: min(host.used / host.total, 1.0) for host in self.hosts if host not in no_source}
            usage = {host: share for host, share in usage.items() if share < 1 and lists[host]}
            if not usage:
                return moves
            source = min(usage, key=lambda host: usage[host])
            no_source.add(source)
            no_target.add(source)
            plan: list[tuple[Vm, Host]] = []
            for vm in sorted(lists[source], key=lambda vm: -vm.demand):
                found = self.find(vm, [host for host in self.hosts if host not in no_target], lists)
                if found is None:
                    for _, target in plan:
                        lists[target].pop()
                    plan = []
                    break
                lists[found].append(vm)
                plan.append((vm, found))
            no_source |= {target for _, target in plan}
            moves += plan

    def find(self, vm: Vm, hosts: list[Host], lists: dict[Host, list[Vm]]) -> Host | None:
        """Host whose power grows least."""
        best, least = None, math.inf
        for host in hosts:
            there = lists[host]
            free, used = self.room(host, there)
            if host.core < vm.demand or free < vm.demand:
                continue
            if self.rules.memory_binds and _minus(host.memory, there) < vm.memory:
                continue
            occupied = used != 0 if self.rules.unused_is_off else bool(there)
            if occupied and self.over(host, [*there, vm]):
                continue
            before = host.watts(host.used)
            if not self.rules.power_against_measured:
                before = host.watts(used) if there else 0.0
            if host.watts(used + vm.demand) - before < least:
                best, least = host, host.watts(used + vm.demand) - before
        return best

    def room(self, host: Host, there: list[Vm]) -> Line:
        """MIPS free and allocated on a what-if host."""
        asks = [min(vm.demand, host.core) for vm in there]
        free, fits = host.total, True
        for ask in asks:
            if fits and free >= ask:
                free -= ask
            elif ask > 0:
                fits = False
        if fits:
            return free, _sum(asks)
        part = host.total / _sum(asks)
        return 0.0, _sum([float(math.floor(ask * part)) if self.rules.whole_mips else ask * part for ask in asks])

    # -- detection -----------------------------------------------------------------------------

    def over(self, host: Host, there: list[Vm]) -> bool:
        """Is a host with these VMs overloaded?"""
        share = _sum([vm.demand for vm in there]) / host.total
        history = [
            _sum([vm.history[age] * vm.mips / host.total for vm in there]) for age in range(min(self.number, 30))
        ]
        while history and history[-1] == 0:
            history.pop()
        detection, parameter = DETECTIONS[self.policy.detection], self.policy.parameter
        if detection == "THR":
            return share > parameter
        if len(history) < (12 if detection in {"IQR", "MAD"} else 10):
            return share > 0.7
        if detection == "IQR":
            ordered = sorted(history)
            low, high = (math.floor(part * (len(ordered) + 1) + 0.5) - 1 for part in (0.25, 0.75))
            return share > 1 - parameter * (ordered[high] - ordered[low])
        if detection == "MAD":
            middle = _median(history)
            return share > 1 - parameter * _median([abs(middle - value) for value in history])
        newest = history[9::-1]
        start, slope = _plain_line(newest) if self.rules.unweighted_regression else _curve(newest, detection == "LRR")
        return (start + slope * 11) * parameter >= 1

    # -- selection -----------------------------------------------------------------------------

    def pick(self, there: list[Vm]) -> Vm:
        """The VM that leaves."""
        selection = SELECTIONS[self.policy.selection]
        if selection == "RS":
            return there[self.next_random() % len(there)]
        if selection == "MU":
            return min(there, key=lambda vm: vm.demand / vm.mips)
        if selection == "MC":
            found = [_explained(there, vm) for vm in there]
            if None not in found:
                best, most = there[0], 5e-324
                for vm, value in zip(there, found, strict=True):
                    if value is not None and value > most:
                        best, most = vm, value
                return best
        return min(there, key=lambda vm: vm.memory)

    def next_random(self) -> int:
        """SplitMix64."""
        mask = 2**64 - 1
        self.random = (self.random + 0x9E3779B97F4A7C15) & mask
        z = self.random
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)


def _sum(values: list[float]) -> float:
    """From left to right; the built-in compensates from Python 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


def _minus(memory: float, there: list[Vm]) -> float:
    for vm in there:
        memory -= vm.memory
    return memory


def _median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    if len(ordered) % 2:
        return ordered[half]
    return ordered[half - 1] + 0.5 * (ordered[half] - ordered[half - 1])


def _plain_line(y: list[float]) -> Line:
    """Least squares by running means: value at 0 and slope."""
    mean_x, mean_y, sum_x, sum_y, sum_xx, sum_xy = 1.0, y[0], 1.0, y[0], 0.0, 0.0
    for n in range(1, len(y)):
        off_x, off_y, part = (n + 1.0) - mean_x, y[n] - mean_y, n / (1.0 + n)
        sum_xx += off_x * off_x * part
        sum_xy += off_x * off_y * part
        mean_x += off_x / (1.0 + n)
        mean_y += off_y / (1.0 + n)
        sum_x += n + 1.0
        sum_y += y[n]
    slope = sum_xy / sum_xx
    return (sum_y - slope * sum_x) / len(y), slope


def _curve(y: list[float], robust: bool) -> Line:
    """Tricube weights, and bisquare weights on top."""
    weights = []
    for n in range(len(y)):
        far = (len(y) - 1 - n) / (len(y) - 1)
        near = 1 - far * far * far
        weights.append(near * near * near)
    start, slope = _weighted_line(y, weights)
    if not robust:
        return start, slope
    rest = [abs(value - (start + slope * (n + 1))) for n, value in enumerate(y)]
    scale = 6 * _median(rest)
    if not scale > 0:
        return start, slope
    for n, value in enumerate(rest):
        keep = 1 - (value / scale) * (value / scale)
        weights[n] *= keep * keep if value / scale < 1 else 0.0
    return _weighted_line(y, weights)


def _weighted_line(y: list[float], weights: list[float]) -> Line:
    total, mean_x, mean_y = 0.0, 0.0, 0.0
    for n, weight in enumerate(weights):
        total += weight
        mean_x += weight * (n + 1.0)
        mean_y += weight * y[n]
    mean_x, mean_y, spread, shared = mean_x / total, mean_y / total, 0.0, 0.0
    for n, weight in enumerate(weights):
        off = n + 1.0 - mean_x
        spread += weight * off * off
        shared += weight * off * (y[n] - mean_y)
    slope = shared / spread if spread > 1e-12 else 0.0
    return mean_y - slope * mean_x, slope


def _explained(there: list[Vm], vm: Vm) -> float | None:
    """R² of one VM's history on the others'; None where the regression is impossible, NaN where it never changed."""
    y = list(vm.history)
    columns = [[1.0] * len(y), *(list(other.history) for other in there if other is not vm)]
    if len(columns) < 2 or len(columns) > len(y):
        return None
    original = [list(column) for column in columns]
    turned, diagonal = list(y), []
    for minor, column in enumerate(columns):
        square = _sum([value * value for value in column[minor:]])
        size = -math.sqrt(square) if column[minor] > 0 else math.sqrt(square)
        diagonal.append(size)
        if size == 0.0:
            return None
        pivot = [0.0] * minor + column[minor:]
        pivot[minor] -= size
        for other in [*columns[minor + 1 :], turned]:
            along = _sum([other[row] * pivot[row] for row in range(minor, len(y))]) / (size * pivot[minor])
            for row in range(minor, len(y)):
                other[row] += along * pivot[row]
    weights = [0.0] * len(columns)
    for row in range(len(columns) - 1, -1, -1):
        weights[row] = turned[row] / diagonal[row]
        for above in range(row):
            turned[above] -= weights[row] * columns[row][above]
    rest, mean, moment = 0.0, 0.0, 0.0
    for row, value in enumerate(y):
        off = value - _sum([column[row] * weight for column, weight in zip(original, weights, strict=True)])
        rest += off * off
        off = value - mean
        mean += off / (row + 1.0)
        moment += row * off * (off / (row + 1.0))
    if moment == 0.0:
        return math.nan
    return 1 - rest / moment
