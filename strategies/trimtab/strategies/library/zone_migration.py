"""Zone migration: brings the instances of given hosts and the volumes of given pools to where an operator says.

Watcher's strategy of this name made sound. As there, `parallel_total`, `parallel_per_node` and `parallel_per_pool` cap
how many actions one plan holds; what does not fit into the plan is counted in its notes, and `complete` plans all of it
(the applier's own limits bound what runs at once). A destination is checked against room, state, zone and server
groups, move by move; without one the cloud chooses. What cannot be moved takes nobody's place under the caps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from trimtab.platform.contracts import Context
from trimtab.platform.errors import StrategyError
from trimtab.platform.model import DISK, MEMORY, VCPU, ClusterModel, StorageModel
from trimtab.platform.model.compute import Codes, Ints
from trimtab.platform.proposal import Act, Candidate, Migrate, Step
from trimtab.platform.rules import binding_rule, bound_by_rules
from trimtab.platform.schema import CLOSED, without
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.draining import best_fit, scarcity
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.given import DONE, REASONS, follow
from trimtab.strategies.loads import MIGRATES_COLD, MIGRATES_LIVE
from trimtab.strategies.volumes import allows, movable

Rows = npt.NDArray[np.intp]

ONE_WAY: list[Any] = [
    {"required": ["src_pool", "dst_pool"], "not": {"required": ["dst_type"]}},
    {"required": ["src_pool", "dst_type"], "not": {"required": ["dst_pool"]}},
]


ComputeOrder = Literal["vcpu_num", "mem_size", "disk_size", "created_at"]
StorageOrder = Literal["size", "created_at"]


def untyped(words: Any) -> WithJsonSchema:
    """Show the words alone: Watcher's schema does not say that they are strings."""
    return WithJsonSchema({"enum": list(get_args(words))})


def without_required(schema: dict[str, Any]) -> None:
    """What is required is said by `oneOf`, as Watcher does."""
    schema.pop("required", None)
    schema.update(CLOSED)
    schema["oneOf"] = ONE_WAY


class ComputeNode(BaseModel):
    """Instances of one host go to another one, or where the cloud wants them."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=CLOSED)

    src_node: str
    dst_node: str | None = None


class StoragePool(BaseModel):
    """Volumes of one pool, of one type or of all, go to another pool or get another type."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=without_required)

    src_pool: str
    dst_pool: str | None = None
    src_type: str | None = None
    dst_type: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> StoragePool:
        if (self.dst_pool is None) == (self.dst_type is None):
            raise ValueError("give either dst_pool or dst_type")
        return self


class Priority(BaseModel):
    """What goes first; the first key that an operator writes counts most."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=CLOSED)

    project: list[str] | None = None
    compute_node: list[str] | None = None
    storage_pool: list[str] | None = None
    compute: Annotated[ComputeOrder, untyped(ComputeOrder)] | None = None
    storage: Annotated[StorageOrder, untyped(StorageOrder)] | None = None
    _order: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, given: Any, handler: ModelWrapValidatorHandler[Priority]) -> Priority:
        return handler(given).ordered(tuple(given) if isinstance(given, Mapping) else given.keys())

    def ordered(self, keys: tuple[str, ...]) -> Priority:
        """Remember the order in which the keys were written."""
        self._order = keys
        return self

    def keys(self) -> tuple[str, ...]:
        """The keys that were given, in that order."""
        return self._order


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=CLOSED)

    compute_nodes: list[ComputeNode] | None = None
    storage_pools: list[StoragePool] | None = None
    parallel_total: int = Field(6, ge=0)
    parallel_per_node: int = Field(2, ge=0)
    parallel_per_pool: int = Field(2, ge=0)
    priority: Priority | None = None
    with_attached_volume: bool = Field(False, description="Instances follow right after their volumes.")
    complete: bool | None = Field(
        None, description="Plan everything: the three caps do not count.", json_schema_extra=without("default")
    )


class ZoneMigration:
    """Empties hosts and pools towards given ones."""

    name: ClassVar[str] = "zone_migration"
    display_name: ClassVar[str] = "Zone migration"
    goal: ClassVar[str] = "hardware_maintenance"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute", "storage")

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Nothing to try: an operator says what moves where."""
        return ()

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate, or none when nothing can be moved.

        Raises:
            StrategyError: pools are given and the snapshot has no storage model.
        """
        if parameters.storage_pools and snapshot.storage is None:
            raise StrategyError(
                "zone_migration: storage_pools are given but this cloud has no storage model: "
                "leave them out or configure Cinder"
            )
        work = _Work(snapshot.model, snapshot.storage, parameters, snapshot.failed_before)
        work.plan()
        if not work.steps:
            return ()
        return (
            Candidate(
                tuple(work.steps),
                because=f"{len(work.instances)} instances and {len(work.volumes)} volumes are to be moved",
                indicators=work.indicators(),
                reasons=work.reasons,
                notes=tuple(work.notes()),
            ),
        )


class _Work:
    """One plan while it is made."""

    def __init__(
        self,
        model: ClusterModel,
        storage: StorageModel | None,
        parameters: Parameters,
        failed_before: Sequence[int],
    ) -> None:
        self.model, self.storage, self.parameters = model, storage, parameters
        self.steps: list[Step] = []
        self.reasons: dict[int, str] = {}
        self.left: Counter[str] = Counter()  # why something stays -> how many
        self.unknown: list[str] = []
        self.instances = self._instances()
        self.volumes = self._volumes()
        self._failed = frozenset(failed_before)
        self._considered: set[int] = set()
        self._at_node: Counter[int] = Counter()
        self._at_pool: Counter[int] = Counter()
        self._planned: Counter[str] = Counter()
        self._field = field_of(model, model.capacity, model.demand)
        self._host_of = model.host_of.copy()
        self._used = used_of(self._field, self._host_of)
        self._destination_of = self._destinations()
        self._bound, self._weight = bound_by_rules(model), scarcity(self._field, model.usable)
        leaving = np.isin(np.arange(model.hosts), self.model.host_of[self.instances])
        self._receivers = np.flatnonzero(model.usable & ~leaving).astype(np.int32)
        self._free = storage.free_gb.copy() if storage is not None else np.empty(0)
        self._idle = movable(storage) if storage is not None else np.empty(0, bool)
        self._pool_rows = _rows_of(storage.pool_names if storage is not None else None)
        self._type_rows = _rows_of(storage.type_names if storage is not None else None)

    # -- what is to be moved -----------------------------------------------------------------------------------------

    def _instances(self) -> Rows:
        """Instances of the given hosts, in the order of the parameters, then by priority."""
        names = [entry.src_node for entry in self.parameters.compute_nodes or ()]
        rows = self.model.host_rows_by_name(names)
        self.unknown += [f"host {name}" for name, row in zip(names, rows, strict=True) if row < 0]
        chosen = list(dict.fromkeys(row for row in rows.tolist() if row >= 0))
        rank = np.full(self.model.hosts + 1, len(chosen), np.int64)
        rank[chosen] = np.arange(len(chosen))
        found = np.flatnonzero(np.isin(self.model.host_of, chosen) & ~self.model.excluded)
        found = found[np.argsort(rank[self.model.host_of[found]], kind="stable")]
        demand, priority = self.model.demand, self.parameters.priority
        by: Mapping[str, Callable[[Rows], npt.NDArray[Any]]] = {
            "vcpu_num": lambda r: -demand[r, VCPU],
            "mem_size": lambda r: -demand[r, MEMORY],
            "disk_size": lambda r: -demand[r, DISK],
            "created_at": lambda r: self.model.created.codes[r],
        }
        return _sorted(
            found,
            priority,
            {
                "project": lambda wanted, r: _rank(self.model.project, r, wanted),
                "compute_node": lambda wanted, r: _rank_of_rows(
                    self.model.host_of[r], self.model.host_rows_by_name(wanted)
                ),
                "compute": lambda wanted, r: by[wanted](r),
            },
        )

    def _volumes(self) -> Rows:
        """Volumes that an entry asks for, each once, in the model's order, then by priority."""
        storage, entries = self.storage, self.parameters.storage_pools
        if storage is None or not entries:
            return np.empty(0, np.intp)
        pools = {name: row for row, name in enumerate(storage.pool_names.to_pylist())}
        types = {name: row for row, name in enumerate(storage.type_names.to_pylist())}
        wanted = np.zeros(storage.volumes, bool)
        for entry in entries:
            if entry.src_pool not in pools:
                self.unknown.append(f"pool {entry.src_pool}")
                continue
            of_type = storage.type_of == types.get(entry.src_type, -2) if entry.src_type is not None else True
            wanted |= (storage.pool_of == pools[entry.src_pool]) & of_type
        by: Mapping[str, Callable[[Rows], npt.NDArray[Any]]] = {
            "size": lambda r: -storage.size_gb[r],
            "created_at": lambda r: storage.created.codes[r],
        }
        return _sorted(
            np.flatnonzero(wanted & ~storage.excluded),
            self.parameters.priority,
            {
                "project": lambda names, r: _rank(storage.project, r, names),
                "storage_pool": lambda names, r: _rank_of_rows(
                    storage.pool_of[r], np.array([pools.get(name, -2) for name in names], np.int32)
                ),
                "storage": lambda key, r: by[key](r),
            },
        )

    def _destinations(self) -> dict[int, int]:
        """Destination row of every source row that has one; -2 for a host nobody knows."""
        found: dict[int, int] = {}
        for entry in reversed(self.parameters.compute_nodes or []):
            source = int(self.model.host_rows_by_name([entry.src_node])[0])
            if source < 0:
                continue
            if entry.dst_node is None:
                found[source] = -1
                continue
            row = int(self.model.host_rows_by_name([entry.dst_node])[0])
            found[source] = row if row >= 0 else -2
        return found

    # -- the plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Volumes first, each followed by its instances where that is asked for; then the instances."""
        targets = set(self.instances.tolist())
        for volume in self.volumes.tolist():
            if self._full():
                break
            if self._volume(volume) and self.parameters.with_attached_volume and self.storage is not None:
                servers = self.storage.attached_to[volume].as_py() or []
                for instance in self.model.instance_rows(servers).tolist():
                    if instance in targets and not self._full():
                        self._instance(instance)
        for instance in self.instances.tolist():
            if self._full():
                break
            self._instance(instance)

    def _full(self) -> bool:
        return not self.parameters.complete and len(self.steps) >= self.parameters.parallel_total

    def _instance(self, row: int) -> None:
        """Move one instance, unless a cap or something else is in the way."""
        source = int(self.model.host_of[row])
        if row in self._considered:
            return
        if not self.parameters.complete and self._at_node[source] >= self.parameters.parallel_per_node:
            return  # counted as left over by the caps
        self._considered.add(row)
        state = self.model.state[row]
        live = bool(MIGRATES_LIVE[state])
        if not live and not MIGRATES_COLD[state]:
            self.left["instances are in a state in which nothing can be migrated"] += 1
            return
        if not self.model.movable[row]:
            self.left["instances are locked or bound to their host"] += 1
            return
        if not self.model.up[source]:
            self.left["instances are on hosts that are down: start them elsewhere by evacuation"] += 1
            return
        if row in self._failed:
            self.left["instances failed to move before"] += 1
            return
        destination = self._destination_of.get(source, -1)
        if destination == -2:
            self.left["instances were to go to a host that the model does not have"] += 1
            return
        if destination == -1 and self._bound[row]:  # the cloud's own choice does not know the rules
            hosts = self._receivers
            destination = best_fit(self._field, self._host_of, self._used, row, hosts, len(hosts), self._weight)
            if destination < 0:
                self.left["instances stay: their rules leave no host with room"] += 1
                return
        if destination >= 0:
            here, there = np.array([row], np.int32), np.array([destination], np.int32)
            outcome = int(follow(self._field, self._host_of, self._used, self.model.usable, here, there)[0])
            if outcome != DONE:
                self.left[f"instances stay: {REASONS[outcome]}"] += 1
                return
        self.steps.append(Migrate(row, destination, live))
        self.reasons[row] = self._why(row, source, destination)
        self._at_node[source] += 1
        self._planned["live" if live else "cold"] += 1

    def _why(self, row: int, source: int, destination: int) -> str:
        asked = f"compute_nodes asks for everything on {self.model.host_name(source)}"
        if self._destination_of.get(source, -1) >= 0:
            return f"{asked} to go to {self.model.host_name(destination)}, which has room and may take it"
        if destination < 0:
            return f"{asked} to go, and the cloud chooses where to"
        rule = binding_rule(self.model, row)
        return (
            f"{asked} to go; the cloud does not know its rule {rule.label if rule else ''}: of the hosts that may take "
            f"it {self.model.host_name(destination)} has the least room left over"
        )

    def _volume(self, row: int) -> bool:
        """Move or retype one volume, unless a cap or something else is in the way."""
        storage = self.storage
        assert storage is not None  # noqa: S101 (there are no volumes without it)
        source = int(storage.pool_of[row])
        if not self.parameters.complete and self._at_pool[source] >= self.parameters.parallel_per_pool:
            return False
        self._considered.add(~row)
        if not self._idle[row]:
            self.left["volumes are busy, broken or have snapshots"] += 1
            return False
        pool_name, type_name = storage.pool_name(source), storage.type_name(int(storage.type_of[row]))
        entries = [e for e in self.parameters.storage_pools or () if e.src_pool == pool_name]
        entry = next((e for e in entries if e.src_type == type_name), None) or next(
            (e for e in entries if e.src_type is None), None
        )
        if entry is None:
            return False
        name = {"resource_name": storage.volume_name(row)}
        if entry.dst_type is None or entry.dst_type == type_name:
            if entry.dst_pool is None:
                self.left["volumes have the type already and no pool is given"] += 1
                return False
            if not self._room(entry.dst_pool, row, source):
                return False
            what = {"migration_type": "migrate", "destination_node": entry.dst_pool}
        else:
            if not self._retyped(entry.dst_type, row, source):
                return False
            what = {"migration_type": "retype", "destination_type": entry.dst_type}
        servers = self.model.instance_rows(storage.attached_to[row].as_py() or [])
        attached = tuple(servers[servers >= 0].tolist())
        self.steps.append(Act("volume_migrate", storage.volume_id(row), {**what, **name}, instances=attached))
        self._at_pool[source] += 1
        self._planned["volume"] += 1
        return True

    def _room(self, name: str, row: int, source: int) -> bool:
        """Whether a pool can take a volume as it is; then it is counted there."""
        storage = self.storage
        assert storage is not None  # noqa: S101 (there are no volumes without it)
        pool = self._pool_rows.get(name, -1)
        if pool < 0:
            self.left[f"volumes stay: there is no pool {name}"] += 1
        elif pool == source:
            self.left["volumes are on the pool already"] += 1
        elif not storage.usable[pool]:
            self.left["volumes stay: the pool's node is down or disabled"] += 1
        elif not allows(storage, int(storage.type_of[row]), pool):
            self.left[f"volumes stay: their type does not allow pool {name}"] += 1
        elif self._free[pool] < storage.size_gb[row]:  # False where nobody knows
            self.left["volumes stay: the pool has no room"] += 1
        else:
            self._count(row, source, pool)
            return True
        return False

    def _retyped(self, name: str, row: int, source: int) -> bool:
        """Whether a volume can get a type; where that forbids its pool, it is counted on the roomiest one allowed."""
        storage = self.storage
        assert storage is not None  # noqa: S101 (there are no volumes without it)
        kind = self._type_rows.get(name, -1)
        if kind < 0:
            self.left[f"volumes stay: there is no type {name}"] += 1
            return False
        if allows(storage, kind, source):
            return True
        free = np.where(np.isnan(self._free), np.inf, self._free)
        able = [pool for pool in range(storage.pools) if storage.usable[pool] and allows(storage, kind, pool)]
        best = max(able, key=lambda pool: (free[pool], -pool), default=-1)
        if best < 0 or free[best] < storage.size_gb[row]:
            self.left[f"volumes stay: no pool of type {name} has room"] += 1
            return False
        self._count(row, source, best)
        return True

    def _count(self, row: int, source: int, pool: int) -> None:
        storage = self.storage
        assert storage is not None  # noqa: S101 (there are no volumes without it)
        self._free[pool] -= storage.size_gb[row]
        self._free[source] += storage.size_gb[row]

    # -- what is said of it ------------------------------------------------------------------------------------------

    def indicators(self) -> dict[str, float]:
        """Watcher's eight: what is asked for, and as "planned" what this plan does of it."""
        state = self.model.state[self.instances]
        volumes = float(len(self.volumes))
        return {
            "live_migrate_instance_count": float(MIGRATES_LIVE[state].sum()),
            "planned_live_migrate_instance_count": float(self._planned["live"]),
            "cold_migrate_instance_count": float(MIGRATES_COLD[state].sum()),
            "planned_cold_migrate_instance_count": float(self._planned["cold"]),
            "volume_migrate_count": volumes,
            "planned_volume_migrate_count": float(self._planned["volume"]),
            "volume_update_count": volumes,
            "planned_volume_update_count": float(self._planned["volume"]),
        }

    def notes(self) -> list[str]:
        """What stays and why."""
        seen = sum(1 for row in self._considered if row >= 0), sum(1 for row in self._considered if row < 0)
        beyond = len(self.instances) - seen[0], len(self.volumes) - seen[1]
        notes = [f"{what} is not in the model" for what in dict.fromkeys(self.unknown)]
        notes += [f"{count} {reason}" for reason, count in self.left.items()]
        if any(beyond):
            notes.append(
                f"{beyond[0]} instances and {beyond[1]} volumes are left for later plans by parallel_total, "
                "parallel_per_node and parallel_per_pool; complete=true plans them all"
            )
        return notes


def _rows_of(names: pa.Array | None) -> dict[str, int]:
    return {str(name): row for row, name in enumerate(names.to_pylist())} if names is not None else {}


def _sorted(rows: Rows, priority: Priority | None, keys: Mapping[str, Callable[[Any, Rows], npt.NDArray[Any]]]) -> Rows:
    """Rows by all given priorities, the first one counting most; else as they are."""
    if priority is None or not len(rows):
        return rows
    for key in reversed(priority.keys()):
        wanted = getattr(priority, key)
        if key in keys and wanted:
            rows = rows[np.argsort(keys[key](wanted, rows), kind="stable")]
    return rows


def _rank(column: Codes, rows: Rows, wanted: Sequence[str]) -> Ints:
    """Position of a text in a list; behind the list where it is not in it."""
    position = {name: n for n, name in reversed(list(enumerate(wanted)))}
    of_code = np.array([*(position.get(name, len(wanted)) for name in column.names), len(wanted)], np.int32)
    return of_code[column.codes[rows]]


def _rank_of_rows(values: Ints, wanted: Ints) -> Ints:
    """Position of a row in a list of rows; behind the list where it is not in it."""
    rank = np.full(len(values), len(wanted), np.int32)
    for position in range(len(wanted) - 1, -1, -1):
        rank[values == wanted[position]] = position
    return rank
