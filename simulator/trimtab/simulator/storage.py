"""The simulated cloud's block storage: pools, types and volumes that move at the pools' speed and take room on both."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from trimtab.platform.contracts import Pool, Volume, VolumeType
from trimtab.platform.model import StorageModel
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.model.tables import Codes
from trimtab.simulator.events import Events
from trimtab.simulator.migration import GIB_MB, Flow, Mishap, Network, Physics

SETUP_S = 5.0
RETYPE_S = 3.0  # a change of type that moves nothing
SLACK_GB = 1e-6


@dataclass(eq=False, slots=True)
class Storage:
    """Mutable state over a storage model; rows are the model's. A moving volume takes room in both pools.

    `mb_s` [P]: what a pool reads and writes for moves, shared by all of them (GB are taken as GiB). A volume's move is
    refused while another one of it is under way; it has no end when it hangs, and stays where it was when it fails.
    """

    model: StorageModel
    events: Events
    mb_s: Floats
    told: dict[int, Callable[[], None]] = field(default_factory=dict)  # called once, when the move of a row has ended
    pool_of: Ints = field(init=False)
    type_of: Ints = field(init=False)
    free_gb: Floats = field(init=False)
    allocated_gb: Floats = field(init=False)
    provisioned_gb: Floats = field(init=False)
    status: dict[int, str] = field(default_factory=dict)  # where it differs from the model's
    migration_status: dict[int, str] = field(default_factory=dict)
    updated_at: dict[int, float] = field(default_factory=dict)
    moving: dict[int, Flow | None] = field(default_factory=dict)  # None: a change of type alone
    _wanted_type: dict[int, int] = field(default_factory=dict)
    _mishaps: dict[int, Mishap] = field(default_factory=dict)
    _rows: dict[str, int] = field(init=False)
    _pools: dict[str, int] = field(init=False)
    _types: dict[str, int] = field(init=False)
    _network: Network = field(init=False)
    _tables: tuple[pa.Table, pa.Table, pa.Table, pa.Table] | None = None

    def __post_init__(self) -> None:
        model = self.model
        self.pool_of, self.type_of = model.pool_of.copy(), model.type_of.copy()
        self.free_gb, self.allocated_gb = model.free_gb.copy(), model.allocated_gb.copy()
        self.provisioned_gb = model.provisioned_gb.copy()
        self._rows = {str(uuid): row for row, uuid in enumerate(model.volume_ids.to_pylist())}
        self._pools = {str(name): row for row, name in enumerate(model.pool_names.to_pylist())}
        self._types = {str(name): row for row, name in enumerate(model.type_names.to_pylist())}
        copied_mb = model.size_gb * GIB_MB
        nothing = np.zeros(model.volumes)
        self._network = Network(self.events, Physics(self.mb_s, nothing, copied_mb, copied_mb, SETUP_S, 0.0))

    # -- what Cinder answers -----------------------------------------------------------------------------------------

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
        """Nodes, pools, types and volumes as they are now."""
        if self._tables is None:
            model = self.model.with_changes(
                pool_of=self.pool_of.copy(),
                type_of=self.type_of.copy(),
                free_gb=self.free_gb.copy(),
                allocated_gb=self.allocated_gb.copy(),
                provisioned_gb=self.provisioned_gb.copy(),
                status=_changed(self.model.status, self.status),
                migration_status=_changed(self.model.migration_status, self.migration_status),
            )
            self._tables = model.to_arrow()
        return self._tables

    def row(self, volume_id: str) -> int | None:
        """Row of a volume; None when there is no such volume."""
        return self._rows.get(volume_id)

    def pool(self, name: str) -> int | None:
        """Row of a pool; None when there is no such pool."""
        return self._pools.get(name)

    def type(self, name: str) -> int | None:
        """Row of a volume type; None when there is no such type."""
        return self._types.get(name)

    def volume(self, row: int) -> Volume:
        """One volume."""
        model, pool = self.model, int(self.pool_of[row])
        return Volume(
            model.volume_id(row),
            model.volume_name(row),
            model.pool_name(pool) if pool >= 0 else "",
            self.status_of(row),
            self.migration_status.get(row, model.migration_status[row]),
            model.type_name(int(self.type_of[row])),
            float(model.size_gb[row]),
            tuple(model.attached_to[row].as_py()),
            self.updated_at.get(row, 0.0),
        )

    def status_of(self, row: int) -> str:
        """Cinder's status of a volume."""
        return self.status.get(row, self.model.status[row])

    def pools(self) -> list[Pool]:
        """All pools; a pool reports its backend's name and what the types of that backend ask for."""
        model = self.model
        reports: dict[str, dict[str, str]] = {}
        for row in range(len(model.type_names)):
            if model.type_backend[row]:
                reports.setdefault(model.type_backend[row], {}).update(self._specs(row))
        return [
            Pool(
                model.pool_name(row),
                float(self.free_gb[row]),
                {**reports.get(model.pool_backend[row], {}), "volume_backend_name": model.pool_backend[row]},
            )
            for row in range(model.pools)
        ]

    def types(self) -> list[VolumeType]:
        """All volume types."""
        backend = self.model.type_backend
        return [
            VolumeType(name, {**self._specs(row), **({"volume_backend_name": backend[row]} if backend[row] else {})})
            for name, row in self._types.items()
        ]

    def _specs(self, row: int) -> dict[str, str]:
        return {str(k): str(v) for k, v in json.loads(self.model.type_extra_specs[row] or "{}").items()}

    # -- moves and types ---------------------------------------------------------------------------------------------

    def busy(self, row: int) -> str | None:
        """Why a volume can be neither moved nor retyped now."""
        name = self.model.volume_name(row) or self.model.volume_id(row)
        if row in self.moving:
            return f"volume {name} is busy: it is {'retyping' if row in self._wanted_type else 'migrating'} already"
        if self.status_of(row) not in {"available", "in-use"}:
            return f"volume {name} is {self.status_of(row)}: it must be available or in-use"
        if self.pool_of[row] < 0:
            return f"volume {name} is on no pool"
        return None

    def refusal(self, row: int, pool: int, volume_type: int | None = None) -> str | None:
        """Why a volume cannot move to a pool now; `volume_type` is the one it will have there, its own if None."""
        model, name = self.model, self.model.volume_name(row) or self.model.volume_id(row)
        if (busy := self.busy(row)) is not None:
            return busy
        to, kind = model.pool_name(pool), int(self.type_of[row]) if volume_type is None else volume_type
        if pool == self.pool_of[row]:
            return f"volume {name} is on {to} already"
        if model.snapshots[row] > 0:
            return f"volume {name} has {model.snapshots[row]:g} snapshots and cannot be moved"
        if not model.usable[pool]:
            return f"pool {to} is on a storage node that is down or disabled and cannot receive {name}"
        if kind >= 0 and model.type_backend[kind] not in {"", model.pool_backend[pool]}:
            return (
                f"volume {name} is of type {model.type_name(kind)}; pool {to} is of backend {model.pool_backend[pool]}"
            )
        size = model.size_gb[row]
        if self.free_gb[pool] < size - SLACK_GB:
            return f"pool {to} has no room for {name}: it needs {size:g} GB, free are {self.free_gb[pool]:g}"
        if self.provisioned_gb[pool] + size > model.total_gb[pool] * model.over_subscription[pool] + SLACK_GB:
            return f"pool {to} has promised {self.provisioned_gb[pool]:g} GB already and cannot promise {size:g} more"
        return None

    def migrate(self, row: int, pool: int) -> None:
        """Start a move that `refusal` has nothing against."""
        self._note(row, migration_status="migrating")
        if not self.model.attached[row]:
            self._note(row, status="maintenance")
        self._move(row, pool)

    def retype_refusal(self, row: int, volume_type: int) -> str | None:
        """Why a volume cannot get another type now."""
        if (busy := self.busy(row)) is not None:
            return busy
        if volume_type == self.type_of[row]:
            return f"volume {self.model.volume_name(row)} is of type {self.model.type_name(volume_type)} already"
        if self.pool_after(row, volume_type) >= 0:
            return None
        return f"no pool of backend {self.model.type_backend[volume_type]} has room for {self.model.volume_name(row)}"

    def retype(self, row: int, volume_type: int, pool: int) -> None:
        """Start a change of type that `retype_refusal` has nothing against; `pool`: where the volume will be."""
        self._wanted_type[row] = volume_type
        self._note(row, status="retyping")
        if pool != self.pool_of[row]:
            self._note(row, migration_status="migrating")
            self._move(row, pool)
            return
        mishap = self._mishaps.pop(row, Mishap())
        self.moving[row] = None
        if not mishap.hangs:
            at = self.events.now + RETYPE_S * mishap.slower
            self.events.at(at, lambda: self._ended(row, failed=mishap.fails))

    def pool_after(self, row: int, volume_type: int) -> int:
        """Where a volume of another type will be: where it is if that serves the type, else the roomiest possible pool.

        -1 when there is none.
        """
        here = int(self.pool_of[row])
        if self._serves(volume_type, here):
            return here
        pools = range(self.model.pools)
        possible = [p for p in pools if self._serves(volume_type, p) and self.refusal(row, p, volume_type) is None]
        return max(possible, key=lambda p: (float(self.free_gb[p]), -p), default=-1)

    def upset(self, row: int, mishap: Mishap) -> None:
        """Something goes wrong with the running or else with the next move or retype of a volume."""
        flow = self.moving.get(row)
        if flow is not None:
            self._network.disturb(flow, mishap)
        else:
            self._mishaps[row] = mishap

    def _serves(self, volume_type: int, pool: int) -> bool:
        return self.model.type_backend[volume_type] in {"", self.model.pool_backend[pool]}

    def _move(self, row: int, pool: int) -> None:
        self._take(pool, self.model.size_gb[row])
        self.moving[row] = self._network.begin(
            row,
            int(self.pool_of[row]),
            pool,
            live=False,
            running=False,
            done=lambda flow: self._ended(row, failed=flow.fails, flow=flow),
            mishap=self._mishaps.pop(row, None),
        )

    def _ended(self, row: int, *, failed: bool, flow: Flow | None = None) -> None:
        wanted = self._wanted_type.pop(row, None)
        if flow is not None:
            leaves = flow.destination if failed else flow.source
            self._take(leaves, -self.model.size_gb[row])
            if not failed:
                self.pool_of[row] = flow.destination
            self._note(row, migration_status="error" if failed else "success")
        if wanted is not None and not failed:
            self.type_of[row] = wanted
        del self.moving[row]
        self._note(row, status=self.model.status[row])
        self.told.pop(row, lambda: None)()

    def _take(self, pool: int, size_gb: float) -> None:
        self.free_gb[pool] -= size_gb
        self.allocated_gb[pool] += size_gb
        self.provisioned_gb[pool] += size_gb

    def _note(self, row: int, *, status: str | None = None, migration_status: str | None = None) -> None:
        if status is not None:
            self.status[row] = status
        if migration_status is not None:
            self.migration_status[row] = migration_status
        self.updated_at[row] = self.events.now
        self._tables = None


def _changed(column: Codes, changes: dict[int, str]) -> Codes:
    """A text column with some rows replaced."""
    if not changes:
        return column
    names = tuple(sorted({*column.names, *changes.values()} - {""}))
    position = {name: code for code, name in enumerate(names)}
    lookup = np.array([*(position[name] for name in column.names), -1], np.int32)
    codes = lookup[column.codes]
    codes[list(changes)] = [position.get(text, -1) for text in changes.values()]
    return replace(column, codes=codes, names=names)
