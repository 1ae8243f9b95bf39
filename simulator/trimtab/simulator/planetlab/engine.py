"""One run of the benchmark: ticks and ends of migrations on the event kernel, the work of each in compiled steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.events import Events
from trimtab.simulator.planetlab.decide import decide, place_first
from trimtab.simulator.planetlab.fleet import MEMORY_MB_PER_S, SAMPLE_S, START_S, Fleet, Floats, Ints
from trimtab.simulator.planetlab.flow import begin, close, end, update
from trimtab.simulator.planetlab.rules import REFERENCE, Policy, Rules
from trimtab.simulator.planetlab.state import ENERGY, SHORT_COUNT, SHORT_SUM, State, new_state

J_PER_KWH = 3.6e6


class Figures(NamedTuple):
    """What a run comes to; shares are 0..1.

    Attributes:
        energy_kwh: of all hosts.
        migrations: started.
        slatah: time of violation over time active, of all hosts.
        pdm: MIPS seconds lost through migration over those asked.
        slav: slatah times pdm.
        esv: energy_kwh times slav.
        overall: MIPS seconds not given over those asked.
        average: mean part not given, over all entries that were short.
        shutdowns: switches from active to inactive.
        mean_up_s: mean time from switching on, or the start, to a shutdown.
    """

    energy_kwh: float
    migrations: int
    slatah: float
    pdm: float
    slav: float
    esv: float
    overall: float
    average: float
    shutdowns: int
    mean_up_s: float


class Tick(NamedTuple):
    """A glance at a tick, after its full update and before its migrations."""

    number: int
    time: float
    active_hosts: int
    vms: int
    energy_kwh: float
    demand_mips: float
    overloaded: int
    movers: Ints
    targets: Ints


@dataclass(frozen=True, slots=True)
class Run:
    """What came out.

    Attributes:
        figures: the metrics.
        home: host of every VM at the end, -1: vanished, [V].
        energy_j: of every host, [H].
        cpu_s: CPU seconds of this process, without making the arrays of the traces.
    """

    figures: Figures
    home: Ints
    energy_j: Floats
    cpu_s: float


def simulate(
    fleet: Fleet,
    policy: Policy,
    rules: Rules = REFERENCE,
    seed: int = 1,
    watch: Callable[[Tick, State], None] | None = None,
) -> Run:
    """Run one policy over the day.

    Args:
        fleet: hosts, VMs and traces.
        policy: who moves what.
        rules: how the world behaves.
        seed: of the selection RS.
        watch: told of every tick.

    Raises:
        InvalidInput: a VM fits on no host at the start.
    """
    began = time.process_time()
    run = _Run(fleet, policy, rules, seed, watch)
    run.place()
    run.events.run_until((fleet.ticks + 1) * SAMPLE_S)
    close(run.state)
    figures = figures_of(run.books())
    energy = run.full_power_j * fleet.watts[fleet.kind, -1] / max(fleet.watts[fleet.kind, -1].sum(), 1e-9)
    return Run(
        figures,
        run.state.vm["home"].copy(),
        energy if policy.name == "NPA" else run.state.host["energy"].copy(),
        time.process_time() - began,
    )


class _Run:
    def __init__(
        self, fleet: Fleet, policy: Policy, rules: Rules, seed: int, watch: Callable[[Tick, State], None] | None
    ) -> None:
        self.fleet, self.policy, self.rules, self.watch = fleet, policy, rules, watch
        self.flags = rules.flags()
        self.state = new_state(fleet, seed)
        self.events = Events()
        self.number, self.updated_at = 0, 0.0
        self.migrations, self.full_power_j = 0, 0.0
        self.movers, self.targets = (np.empty(2 * len(fleet.mips), np.int64) for _ in range(2))
        self.duration = fleet.memory / MEMORY_MB_PER_S
        self.durations = [float(lasts) for lasts in np.unique(self.duration)]

    def place(self) -> None:
        wrong = place_first(self.state, self.flags, self.policy.moves)
        if wrong >= 0:
            raise InvalidInput(
                f"VM {wrong} ({self.fleet.mips[wrong]:g} MIPS, {self.fleet.memory[wrong]:g} MB) fits on no host at the "
                f"start; give more than {len(self.fleet.kind)} hosts or fewer traces"
            )
        if not self.rules.unused_is_off:
            self.state.host["was_active"] = self.state.host["residents"] > 0
        if not self.rules.start_is_free:
            self.events.at(START_S, lambda: self.full_update(self.events.now))
        if self.fleet.ticks:
            self.events.at(START_S + SAMPLE_S, self.tick)

    def full_update(self, now: float) -> None:
        span = now - self.updated_at
        update(self.state, self.flags, now, span)
        if self.policy.name == "NPA":
            self.full_power_j += float(self.fleet.watts[self.fleet.kind, -1].sum()) * span
        self.updated_at = now

    def tick(self) -> None:
        now = self.events.now
        self.number += 1
        self.full_update(now)
        count, over = 0, 0
        if self.policy.moves:
            count, over = decide(self.state, self.flags, self.policy, self.number, self.movers, self.targets)
        movers, targets = self.movers[:count].copy(), self.targets[:count].copy()
        if self.watch:
            self.watch(self.glance(now, over, movers, targets), self.state)
        if count:
            self.start(now, movers, targets)
        if self.number < self.fleet.ticks:
            self.events.at(now + SAMPLE_S, self.tick)

    def start(self, now: float, movers: Ints, targets: Ints) -> None:
        self.migrations += len(movers)
        nodes = begin(self.state, self.flags, now, movers, targets)
        duration = self.duration[movers]
        for lasts in self.durations:
            these = np.flatnonzero(duration == lasts)
            if len(these):
                work = movers[these], nodes[these], targets[these]
                self.events.at(now + lasts, partial(self.finish, *work))

    def finish(self, movers: Ints, nodes: Ints, targets: Ints) -> None:
        now = self.events.now
        end(self.state, self.flags, now, now - self.updated_at, movers, nodes, targets)
        self.updated_at = now

    def books(self) -> Books:
        host, vm, sums = self.state.host, self.state.vm, self.state.sums
        return Books(
            energy_j=self.full_power_j if self.policy.name == "NPA" else float(sums[ENERGY]),
            migrations=self.migrations,
            active_s=np.ascontiguousarray(host["active_s"]),
            short_s=np.ascontiguousarray(host["short_s"]),
            given=np.ascontiguousarray(vm["given"]),
            asked=np.ascontiguousarray(vm["asked"]),
            lost=np.ascontiguousarray(vm["lost"]),
            short_sum=float(sums[SHORT_SUM]),
            short_count=float(sums[SHORT_COUNT]),
            downs=np.ascontiguousarray(host["downs"]),
            up_s=np.ascontiguousarray(host["up_s"]),
        )

    def glance(self, now: float, over: int, movers: Ints, targets: Ints) -> Tick:
        s = self.state
        there = s.vm["home"] >= 0
        energy = (self.full_power_j or float(s.sums[ENERGY])) / J_PER_KWH
        active, demand = int((s.host["used"] > 0).sum()), float(s.vm["demand"][there].sum())
        return Tick(self.number, now, active, int(there.sum()), energy, demand, over, movers, targets)


class Books(NamedTuple):
    """What figures are made of: J, MIPS seconds of every VM, seconds of every host, counts."""

    energy_j: float
    migrations: int
    active_s: npt.ArrayLike
    short_s: npt.ArrayLike
    given: npt.ArrayLike
    asked: npt.ArrayLike
    lost: npt.ArrayLike
    short_sum: float
    short_count: float
    downs: npt.ArrayLike
    up_s: npt.ArrayLike


def figures_of(books: Books) -> Figures:
    """Metrics; Beloglazov and Buyya, CCPE 24(13), 2012, section 6.2."""
    energy, active, asked = books.energy_j / J_PER_KWH, float(np.sum(books.active_s)), float(np.sum(books.asked))
    downs = float(np.sum(books.downs))
    slatah = float(np.sum(books.short_s)) / active if active else 0.0
    pdm = float(np.sum(books.lost)) / asked if asked else 0.0
    return Figures(
        energy_kwh=energy,
        migrations=books.migrations,
        slatah=slatah,
        pdm=pdm,
        slav=slatah * pdm,
        esv=energy * slatah * pdm,
        overall=(asked - float(np.sum(books.given))) / asked if asked else 0.0,
        average=books.short_sum / books.short_count if books.short_count else 0.0,
        shutdowns=int(downs),
        mean_up_s=float(np.sum(books.up_s)) / downs if downs else 0.0,
    )
