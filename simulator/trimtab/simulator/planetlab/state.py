"""The arrays a run works on, in the form compiled code takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.simulator.planetlab.fleet import Fleet, Floats, Ints

Bools = npt.NDArray[np.bool_]

WINDOW = 30  # samples of history a policy may look at
ENERGY, SHORT_SUM, SHORT_COUNT, DOWN_COUNT, DOWN_SUM = range(5)  # rows of `sums`


class State(NamedTuple):
    """Everything a run knows. Sizes: H hosts, V VMs, K kinds of host, T samples.

    VMs hang on hosts in lists, in the order of arrival. A VM has three nodes: v where it lives, v + V and v + 2V where
    it is migrating to. `head`, `tail`, `after`, `before` hold nodes, -1 for none.
    """

    # what never changes
    kind: Ints  # [H]
    core: Floats  # [H] MIPS of a core
    total: Floats  # [H] MIPS
    host_memory: Floats  # [H] MB
    watts: Floats  # [K, 11]
    slope: Floats  # [K, 10] W per per cent
    mips: Floats  # [V]
    memory: Floats  # [V] MB
    share: Floats  # [T + 1, V]
    measured: Floats  # [V, T] share at tick k in column k - 1
    weight: Floats  # [K, V, T] the same as a share of a host of that kind
    next_busy: npt.NDArray[np.int32]  # [V, T] first column from here on that is not zero
    # VMs
    demand: Floats  # [V] MIPS now
    home: Ints  # [V] host, -1: gone
    leaving: Bools  # [V] is migrating
    coming: Ints  # [V] migrations under way
    vm_at: Floats  # [V] time of the latest entry, -1: none
    vm_given: Floats  # [V] MIPS of the latest entry
    vm_asked: Floats  # [V]
    vm_moving: Bools  # [V]
    given: Floats  # [V] MIPS times seconds until the latest entry
    asked: Floats  # [V]
    lost: Floats  # [V] of these, through migration
    # hosts
    head: Ints  # [H]
    tail: Ints  # [H]
    after: Ints  # [3V]
    before: Ints  # [3V]
    residents: Ints  # [H] nodes in the list
    used: Floats  # [H] MIPS at the last update
    power: Floats  # [H] W at that use
    host_at: Floats  # [H] time of the latest entry, -1: none
    host_active: Bools  # [H]
    host_short: Bools  # [H]
    was_active: Bools  # [H] by the entry before the latest
    on_since: Floats  # [H]
    active_s: Floats  # [H] seconds active until the latest entry
    short_s: Floats  # [H] of these, violated
    energy: Floats  # [H] J
    sums: Floats  # [5]
    random: npt.NDArray[np.uint64]  # [1] state of the generator of RS


def new_state(fleet: Fleet, seed: int) -> State:
    """An empty data centre before the day begins."""
    hosts, vms, samples = len(fleet.kind), len(fleet.mips), len(fleet.share) - 1
    kinds = len(fleet.watts)
    total_of = np.zeros(kinds)
    total_of[fleet.kind] = fleet.total
    measured = np.zeros((vms, samples))
    time = 0.1
    for k in range(1, fleet.ticks + 1):
        time += 300.0
        measured[:, k - 1] = share_at(fleet.share, time)
    weight = np.empty((kinds, vms, samples))
    for kind in range(kinds):
        np.multiply(measured, fleet.mips[:, None], out=weight[kind])
        weight[kind] /= max(total_of[kind], 1.0)
    where = np.where(measured != 0, np.arange(samples, dtype=np.int32), np.int32(samples))
    next_busy = np.minimum.accumulate(where[:, ::-1], axis=1)[:, ::-1]
    h, v = np.zeros(hosts), np.zeros(vms)
    return State(
        kind=fleet.kind,
        core=fleet.core,
        total=fleet.total,
        host_memory=fleet.host_memory,
        watts=fleet.watts,
        slope=(fleet.watts[:, 1:] - fleet.watts[:, :-1]) / 10,
        mips=fleet.mips,
        memory=fleet.memory,
        share=fleet.share,
        measured=measured,
        weight=weight,
        next_busy=np.ascontiguousarray(next_busy, np.int32),
        demand=v.copy(),
        home=np.full(vms, -1, np.int64),
        leaving=np.zeros(vms, np.bool_),
        coming=np.zeros(vms, np.int64),
        vm_at=np.full(vms, -1.0),
        vm_given=v.copy(),
        vm_asked=v.copy(),
        vm_moving=np.zeros(vms, np.bool_),
        given=v.copy(),
        asked=v.copy(),
        lost=v.copy(),
        head=np.full(hosts, -1, np.int64),
        tail=np.full(hosts, -1, np.int64),
        after=np.full(3 * vms, -1, np.int64),
        before=np.full(3 * vms, -1, np.int64),
        residents=np.zeros(hosts, np.int64),
        used=h.copy(),
        power=fleet.watts[fleet.kind, 0].copy(),
        host_at=np.full(hosts, -1.0),
        host_active=np.ones(hosts, np.bool_),
        host_short=np.zeros(hosts, np.bool_),
        was_active=np.ones(hosts, np.bool_),
        on_since=h.copy(),
        active_s=h.copy(),
        short_s=h.copy(),
        energy=h.copy(),
        sums=np.zeros(5),
        random=np.array([seed], np.uint64),
    )


def share_at(share: Floats, time: float) -> Floats:
    """CPU share of every VM at a time, straight between two samples, [V]."""
    first = int(np.floor(time / 300.0))
    last = int(np.ceil(time / 300.0))
    if first == last:
        return share[first].copy()
    step = (share[last] - share[first]) / ((last - first) * 300.0)
    return share[first] + step * (time - first * 300.0)
