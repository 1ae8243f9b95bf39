"""The arrays a run works on, in the form compiled code takes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from trimtab.simulator.planetlab.fleet import SAMPLE_S, START_S, Fleet, Floats, Ints

Bools = npt.NDArray[np.bool_]

WINDOW = 30  # samples of history a policy may look at
ENERGY, SHORT_SUM, SHORT_COUNT = range(3)  # rows of `sums`


HOST = np.dtype(
    [
        ("kind", np.int64),
        ("core", np.float64),  # MIPS of a core
        ("total", np.float64),  # MIPS
        ("memory", np.float64),  # MB
        ("head", np.int64),  # first node of its list, -1: none
        ("tail", np.int64),
        ("residents", np.int64),  # nodes in the list
        ("used", np.float64),  # MIPS at the last update
        ("power", np.float64),  # W at that use
        ("at", np.float64),  # time of the latest entry, -1: none
        ("on_since", np.float64),
        ("active_s", np.float64),  # seconds active until the latest entry
        ("short_s", np.float64),  # of these, violated
        ("downs", np.float64),  # shutdowns
        ("up_s", np.float64),  # seconds from switching on to those
        ("energy", np.float64),  # J
        ("active", np.bool_),  # the latest entry
        ("short", np.bool_),
        ("was_active", np.bool_),  # the entry before
    ],
    align=True,
)
VM = np.dtype(
    [
        ("mips", np.float64),
        ("memory", np.float64),  # MB
        ("demand", np.float64),  # MIPS now
        ("home", np.int64),  # host, -1: gone
        ("coming", np.int64),  # migrations under way
        ("at", np.float64),  # time of the latest entry, -1: none
        ("had", np.float64),  # MIPS of the latest entry
        ("wanted", np.float64),
        ("given", np.float64),  # MIPS times seconds until the latest entry
        ("asked", np.float64),
        ("lost", np.float64),  # of these, through migration
        ("leaving", np.bool_),  # is migrating
        ("moving", np.bool_),  # the same in the latest entry
    ],
    align=True,
)
Records: TypeAlias = npt.NDArray[Any]


class State(NamedTuple):
    """Everything a run knows. Sizes: H hosts, V VMs, K kinds of host, T samples.

    VMs hang on hosts in lists, in the order of arrival. A VM has three nodes: v where it lives, v + V and v + 2V where
    it is migrating to. Lists hold nodes, -1 for none.
    """

    host: Records  # [H] of HOST
    vm: Records  # [V] of VM
    after: Ints  # [3V] next node of a list
    before: Ints  # [3V]
    watts: Floats  # [K, 11]
    slope: Floats  # [K, 10] W per per cent
    tenth: Floats  # [11] 0, 0.1, .. 1
    share: Floats  # [T + 1, V]
    step: Floats  # [T, V] change of the share, per second
    measured: Floats  # [V, T] share at tick k in column k - 1
    weight: Floats  # [K, V, T] the same as a share of a host of that kind
    next_busy: npt.NDArray[np.int32]  # [V, T] first column from here on that is not zero
    sums: Floats  # [3]
    random: npt.NDArray[np.uint64]  # [1] state of the generator of RS


def new_state(fleet: Fleet, seed: int) -> State:
    """An empty data centre before the day begins."""
    hosts, vms, samples = len(fleet.kind), len(fleet.mips), len(fleet.share) - 1
    step = (fleet.share[1:] - fleet.share[:-1]) / SAMPLE_S
    measured = np.zeros((vms, samples))
    time = START_S
    for k in range(1, fleet.ticks + 1):
        time += SAMPLE_S
        measured[:, k - 1] = fleet.share[k] + step[k] * (time - k * SAMPLE_S)
    total_of = np.ones(len(fleet.watts))
    total_of[fleet.kind] = fleet.total
    weight = np.empty((len(total_of), vms, samples))
    for kind, total in enumerate(total_of):
        np.multiply(measured, fleet.mips[:, None], out=weight[kind])
        weight[kind] /= total
    where = np.where(measured != 0, np.arange(samples, dtype=np.int32), np.int32(samples))
    next_busy = np.minimum.accumulate(where[:, ::-1], axis=1)[:, ::-1]
    host, vm = np.zeros(hosts, HOST), np.zeros(vms, VM)
    host["kind"], host["core"], host["total"], host["memory"] = fleet.kind, fleet.core, fleet.total, fleet.host_memory
    host["head"] = host["tail"] = host["at"] = -1
    host["active"] = host["was_active"] = True
    host["power"] = fleet.watts[fleet.kind, 0]
    vm["mips"], vm["memory"], vm["home"], vm["at"] = fleet.mips, fleet.memory, -1, -1
    return State(
        host=host,
        vm=vm,
        after=np.full(3 * vms, -1, np.int64),
        before=np.full(3 * vms, -1, np.int64),
        watts=fleet.watts,
        slope=(fleet.watts[:, 1:] - fleet.watts[:, :-1]) / 10,
        tenth=np.arange(11) / 10,
        share=fleet.share,
        step=step,
        measured=measured,
        weight=weight,
        next_busy=np.ascontiguousarray(next_busy, np.int32),
        sums=np.zeros(3),
        random=np.array([seed], np.uint64),
    )
