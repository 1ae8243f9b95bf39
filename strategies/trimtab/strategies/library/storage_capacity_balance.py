"""Storage capacity balance: volumes leave pools that are fuller than a threshold, with as few moves as possible.

Watcher's strategy of this name made sound. A volume moves as it is to a pool of the same backend, and else is retyped
to the type of another pool's backend whose other extra specs are the same. In each of three waves (available,
attached, attached and bootable) the smallest volume that suffices alone goes first, else the largest: fewest moves, and
attached volumes only when they must. A receiver stays below the threshold and within its over-subscription. Pools
without a known capacity are left alone; pools without a limit receive.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from trimtab.platform.contracts import Context
from trimtab.platform.errors import StrategyError
from trimtab.platform.model import StorageModel
from trimtab.platform.model.compute import Bools, Floats
from trimtab.platform.proposal import Act, Candidate
from trimtab.platform.schema import without
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.loads import note
from trimtab.strategies.volumes import allows, is_one_of, movable, specs_of


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    volume_threshold: float = Field(
        80.0,
        gt=0,
        le=100,
        description="Use of a pool, %, from which it is too full",
        json_schema_extra=without("exclusiveMinimum", "maximum"),
    )
    excluded_pools: list[str] | None = Field(
        None, description="Pools to leave alone, by full name or the part after #; local_vstorage if not given"
    )


@dataclass
class _Pools:
    """What pools hold while volumes are assigned; NaN free space means that nobody knows."""

    model: StorageModel
    threshold: float
    open: Bools
    free: Floats
    allocated: Floats
    kinds: dict[tuple[int, int], int] = field(default_factory=dict)  # of (type, pool): see `kind_for`

    def __post_init__(self) -> None:
        total = self.model.total_gb
        self.unlimited = np.isinf(total)
        with np.errstate(invalid="ignore"):
            self.least_free = (1 - self.threshold) * total
            self.most_allocated = total * self.model.over_subscription
        self.unit = np.where(self.unlimited, 0.0, 1.0 / np.maximum(total, 1e-9))
        self.specs = [specs_of(self.model, kind) for kind in range(len(self.model.type_names))]

    def used(self, pool: int) -> float:
        return float(self.model.total_gb[pool] - self.free[pool])

    def receivers(self, size: float, source: int) -> list[int]:
        """Pools that may take so much, emptiest first."""
        room = (self.free - size > self.least_free) & (self.most_allocated >= self.allocated + size)
        ok = self.open & (room | self.unlimited)
        ok[source] = False
        share = {
            row: 1.0 if self.unlimited[row] else self.free[row] * self.unit[row] for row in ok.nonzero()[0].tolist()
        }
        return sorted(share, key=lambda row: (-share[row], row))

    def kind_for(self, own: int, pool: int) -> int:
        """The type with which a volume may be on a pool: -1 its own, -2 none, else one that differs by backend only."""
        known = self.kinds.get((own, pool))
        if known is None:
            known = self.kinds[own, pool] = self._kind_for(own, pool)
        return known

    def _kind_for(self, own: int, pool: int) -> int:
        storage = self.model
        if allows(storage, own, pool):
            return -1
        for kind, specs in enumerate(self.specs) if own >= 0 else ():
            if (
                kind != own
                and specs == self.specs[own]
                and storage.type_backend[kind] == storage.pool_backend[pool] != ""
            ):
                return kind
        return -2

    def take(self, size: float, source: int, destination: int) -> None:
        for pool, sign in ((source, 1.0), (destination, -1.0)):
            self.free[pool] += sign * size
            self.allocated[pool] -= sign * size


class StorageCapacityBalance:
    """Relieves full pools."""

    name: ClassVar[str] = "storage_capacity_balance"
    display_name: ClassVar[str] = "Storage Capacity Balance Strategy"
    goal: ClassVar[str] = "workload_balancing"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute", "storage")

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured: the storage model says how full pools are."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Nothing to try unasked: moving volumes does not balance the load of hosts, which its goal is ranked by."""
        return ()

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate, or none when no pool is too full or none can take anything.

        Raises:
            StrategyError: the snapshot has no storage model.
        """
        storage = snapshot.storage
        if storage is None:
            raise StrategyError(
                "storage_capacity_balance needs a storage model and this cloud has none: configure Cinder"
            )
        threshold = parameters.volume_threshold / 100
        left_out = ["local_vstorage"] if parameters.excluded_pools is None else parameters.excluded_pools
        excluded = _named(storage, left_out)
        total, free = storage.total_gb, storage.free_gb
        known = np.isfinite(total) & np.isfinite(free) & (total > 0)
        unlimited = np.isinf(total)
        full = np.zeros(storage.pools, bool)
        full[known] = total[known] - free[known] >= threshold * total[known]
        over = full & ~excluded & storage.usable
        pools = _Pools(
            storage,
            threshold,
            (known | unlimited) & ~full & ~excluded & storage.usable,
            free.copy(),
            storage.allocated_gb.copy(),
        )
        notes = note(~known & ~unlimited & ~excluded, storage.pool_names, "{count} pools have no known capacity")
        notes += note(
            full & ~excluded & ~storage.usable,
            storage.pool_names,
            "{count} full pools are on nodes that are down or off",
        )
        if not over.any() or not pools.open.any():
            return ()
        idle = movable(storage)
        before = _deviation(storage, known, free)
        steps: list[Act] = []
        for source in np.flatnonzero(over):
            steps += self._relieve(pools, int(source), np.flatnonzero(idle & (storage.pool_of == source)))
            if pools.used(int(source)) >= threshold * total[source]:
                share = pools.used(int(source)) / total[source]
                notes.append(
                    f"pool {storage.pool_name(int(source))} stays {share:.0%} full: nothing more can go elsewhere"
                )
        if not steps:
            return ()
        return (
            Candidate(
                tuple(steps),
                because=f"{int(over.sum())} of {storage.pools} pools are "
                f"{parameters.volume_threshold:g} % full or more",
                indicators={
                    "instance_migrations_count": 0.0,
                    "instances_count": 0.0,
                    "standard_deviation_before_audit": before,
                    "standard_deviation_after_audit": _deviation(storage, known, pools.free),
                },
                notes=tuple(notes),
            ),
        )

    def _relieve(self, pools: _Pools, source: int, volumes: npt.NDArray[np.intp]) -> list[Act]:
        """Retypes first, then migrations, until the pool is below the threshold."""
        storage = pools.model
        target = pools.threshold * float(storage.total_gb[source])
        retypes: list[Act] = []
        migrations: list[Act] = []
        attached = is_one_of(storage.status, ("in-use",))[volumes]
        bootable = storage.bootable[volumes]
        for wave in (~attached, attached & ~bootable, attached & bootable):
            rows = volumes[wave]
            waiting = rows[np.lexsort((rows, -storage.size_gb[rows]))].tolist()  # largest first
            below = (-storage.size_gb[waiting]).tolist()
            while waiting and (excess := pools.used(source) - target) >= 0:
                position = max(bisect_left(below, -excess) - 1, 0)  # the last that is larger, else the largest
                volume = waiting.pop(position)
                del below[position]
                chosen = self._destination(pools, source, volume)
                if chosen is None:
                    continue
                destination, kind = chosen
                pools.take(float(storage.size_gb[volume]), source, destination)
                name = {"resource_name": storage.volume_name(volume)}
                if kind < 0:
                    where = {"migration_type": "migrate", "destination_node": storage.pool_name(destination)}
                    migrations.append(Act("volume_migrate", storage.volume_id(volume), {**where, **name}))
                else:
                    what = {"migration_type": "retype", "destination_type": storage.type_name(kind)}
                    retypes.append(Act("volume_migrate", storage.volume_id(volume), {**what, **name}))
        return [*retypes, *migrations]

    def _destination(self, pools: _Pools, source: int, volume: int) -> tuple[int, int] | None:
        """A pool and the type to change to (-1: none, the volume moves as it is); None when there is no way."""
        own = int(pools.model.type_of[volume])
        receivers = pools.receivers(float(pools.model.size_gb[volume]), source)
        ways = [(pool, pools.kind_for(own, pool)) for pool in receivers]
        for pool, kind in ways:
            if kind == -1:
                return pool, -1
        return next(((pool, kind) for pool, kind in ways if kind >= 0), None)


def _named(storage: StorageModel, names: Sequence[str]) -> Bools:
    wanted = set(names)
    pools = storage.pool_names.to_pylist()
    return np.array([name in wanted or name.rpartition("#")[2] in wanted for name in pools], bool).reshape(-1)


def _deviation(storage: StorageModel, known: Bools, free: Floats) -> float:
    """Standard deviation over pools of the share in use."""
    if not known.any():
        return 0.0
    return float(np.std(1 - free[known] / storage.total_gb[known]))
