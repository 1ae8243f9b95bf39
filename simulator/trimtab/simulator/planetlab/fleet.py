"""The data centre of the benchmark and one day of traces, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.load import read_planetlab
from trimtab.simulator.specpower import SPEC_WATTS

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SAMPLE_S = 300.0
START_S = 0.1  # jobs start that long after the VMs, and every tick keeps the distance
MEMORY_MB_PER_S = 62.5  # half of 1 Gbit/s moves memory

# Two kinds of host, taken in turns: HP ProLiant ML110 G4 and G5.
CORE_MIPS = np.array([1860.0, 2660.0])
CORES = 2
HOST_MEMORY_MB = 4096.0
HOST_NETWORK, VM_NETWORK = 1_000_000.0, 100_000.0
WATTS = np.array([SPEC_WATTS["spec-ml110-g4"], SPEC_WATTS["spec-ml110-g5"]])

# Four kinds of VM, each a quarter of all.
VM_MIPS = np.array([2500.0, 2000.0, 1000.0, 500.0])
VM_MEMORY_MB = np.array([870.0, 1740.0, 1740.0, 613.0])


@dataclass(frozen=True, slots=True)
class Fleet:
    """Hosts [H], VMs [V] and their traces.

    Attributes:
        kind: of every host, row of `watts`.
        core: MIPS of one core, [H].
        total: MIPS of a host, [H].
        host_memory: MB, [H].
        watts: power at 0, 10, .. 100 %, [kinds, 11].
        mips: nominal MIPS of every VM, [V].
        memory: MB, [V].
        share: 0..1 of the nominal MIPS at 0, 300, .. seconds, [samples + 1, V]; the last is a copy of the one before.
    """

    kind: Ints
    core: Floats
    total: Floats
    host_memory: Floats
    watts: Floats
    mips: Floats
    memory: Floats
    share: Floats

    @property
    def ticks(self) -> int:
        """How many consolidation steps a run has: none at the start, none at the end."""
        return len(self.share) - 2


def build_fleet(traces: npt.NDArray[np.generic], hosts: int = 800) -> Fleet:
    """The data centre of the benchmark with one VM a trace.

    Args:
        traces: CPU per cent, [V, samples], in the order of the VMs.
        hosts: how many hosts.

    Raises:
        InvalidInput: no trace, less than two samples, or no host.
    """
    if traces.ndim != 2 or not len(traces) or traces.shape[1] < 2 or hosts < 1:
        raise InvalidInput(f"traces {traces.shape} on {hosts} hosts: give at least one trace of two samples, one host")
    kind = np.arange(hosts, dtype=np.int64) % 2
    quarter = np.arange(len(traces)) // -(-len(traces) // 4)
    share = np.empty((traces.shape[1] + 1, len(traces)))
    share[:-1] = np.asarray(traces, np.float64).T / 100.0
    share[-1] = share[-2]
    return Fleet(
        kind,
        CORE_MIPS[kind],
        CORE_MIPS[kind] * CORES,
        np.full(hosts, HOST_MEMORY_MB),
        WATTS,
        VM_MIPS[quarter],
        VM_MEMORY_MB[quarter],
        share,
    )


def read_day(folder: Path, day: str, order: str = "bytewise") -> npt.NDArray[np.float32]:
    """Traces of one day, [V, 288] per cent, in the order asked for.

    Args:
        folder: holds `<day>.parquet` with columns vm_index, name, cpu_pct.
        day: for example 20110303.
        order: bytewise (by `vm_index`), upper-case (by the name in capitals) or shuffled:SEED.

    Raises:
        InvalidInput: no such folder, day or order, or the file is not as described.
    """
    path = folder / f"{day}.parquet"
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; give the one that holds the days, for example {day}.parquet")
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.parquet"))) or "none"
        raise InvalidInput(f"there is no day {day} in {folder}; days there: {known}")
    traces = read_planetlab(path)
    table = pq.read_table(path, columns=["vm_index", "name"])
    names = [str(name) for name in table.column("name").to_pylist()]
    first = np.argsort(np.asarray(table.column("vm_index")), kind="stable")
    return traces[first[_order(order, [names[row] for row in first])]]


def _order(order: str, names: list[str]) -> Ints:
    """Rows in the order asked for, of rows in byte-wise order."""
    if order == "bytewise":
        return np.arange(len(names))
    if order == "upper-case":
        return np.array(sorted(range(len(names)), key=lambda row: names[row].upper()), np.int64)
    word, _, seed = order.partition(":")
    if word == "shuffled" and seed.isdigit():
        return np.random.default_rng(int(seed)).permutation(len(names))
    raise InvalidInput(f"there is no order {order!r}; give bytewise, upper-case or shuffled:SEED with a whole number")
