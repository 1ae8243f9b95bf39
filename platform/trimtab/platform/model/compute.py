"""The compute model: hosts and instances as frozen columns, built from Arrow tables and checked row by row.

Ids are strings at the edges (Arrow arrays here, so that a model travels between processes without one Python
object per instance) and row numbers inside. Memory is MB, disk is GB, everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.errors import ModelError

if TYPE_CHECKING:
    from trimtab.platform.model.placement import Placement

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

VCPU, MEMORY, DISK = 0, 1, 2
RESOURCES = ("vcpus", "memory_mb", "disk_gb")


class InstanceState(IntEnum):
    """Nova's vm_state values, as Watcher's model knows them."""

    ACTIVE = 0
    BUILDING = 1
    PAUSED = 2
    SUSPENDED = 3
    STOPPED = 4
    RESCUED = 5
    RESIZED = 6
    SHELVED = 7
    SOFT_DELETE = 8
    DELETED = 9
    ERROR = 10

    @property
    def wire(self) -> str:
        """The word on the wire (`soft-delete`, ...)."""
        return self.name.lower().replace("_", "-")


STATES = tuple(state.wire for state in InstanceState)


class GroupPolicy(IntEnum):
    """Server group policies of Nova."""

    AFFINITY = 0
    ANTI_AFFINITY = 1
    SOFT_AFFINITY = 2
    SOFT_ANTI_AFFINITY = 3

    @property
    def wire(self) -> str:
        """The word on the wire (`anti-affinity`, ...)."""
        return self.name.lower().replace("_", "-")


HOST_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    # name: (type, default; None = required)
    "uuid": (pa.string(), None),
    "hostname": (pa.string(), None),
    "vcpus": (pa.float64(), None),
    "memory_mb": (pa.float64(), None),
    "disk_gb": (pa.float64(), None),
    "vcpu_reserved": (pa.float64(), 0.0),
    "memory_mb_reserved": (pa.float64(), 0.0),
    "disk_gb_reserved": (pa.float64(), 0.0),
    "vcpu_ratio": (pa.float64(), 1.0),
    "memory_ratio": (pa.float64(), 1.0),
    "disk_ratio": (pa.float64(), 1.0),
    "state": (pa.string(), "up"),
    "status": (pa.string(), "enabled"),
    "disabled_reason": (pa.string(), ""),
    "zone": (pa.string(), "nova"),
    "aggregates": (pa.list_(pa.string()), []),
    "traits": (pa.list_(pa.string()), []),
}
INSTANCE_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "node": (pa.string(), None),  # uuid of the host; null = not placed
    "vcpus": (pa.float64(), None),
    "memory_mb": (pa.float64(), None),
    "disk_gb": (pa.float64(), None),
    "state": (pa.string(), "active"),
    "project": (pa.string(), ""),
    "flavor": (pa.string(), ""),
    "metadata": (pa.string(), "{}"),  # JSON object
    "locked": (pa.bool_(), False),
    "pinned_zone": (pa.string(), ""),  # the zone asked for at boot; "" = any
    "group": (pa.string(), ""),  # uuid of the server group; "" = none
    "created": (pa.string(), ""),  # ISO 8601
}
GROUP_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "policy": (pa.string(), None),
}


@dataclass(frozen=True, slots=True)
class Codes:
    """A dictionary-encoded text column: `names[codes[row]]`; -1 stands for the empty text."""

    codes: Ints
    names: tuple[str, ...]

    def __getitem__(self, row: int) -> str:
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else ""

    def rows(self, name: str) -> Bools:
        """Rows that carry this text, as a mask."""
        return self.codes == (self.names.index(name) if name in self.names else -2)

    def take(self, rows: npt.NDArray[np.intp]) -> Codes:
        """The column of some rows."""
        return Codes(self.codes[rows], self.names)

    def texts(self) -> pa.Array:
        """The column as plain Arrow text."""
        return pa.array(np.array([*self.names, ""], dtype=object)[self.codes], pa.string())


@dataclass(frozen=True)
class ClusterModel:
    """Hosts H and instances V of one cloud at one moment; frozen: all arrays are read-only.

    Shapes: `total`, `reserved`, `ratio` [H, 3] (vcpus, memory MB, disk GB); `demand` [V, 3]; `host_of` [V] int32,
    -1 where an instance is on no host. `aggregates` [H, A] and `traits` [H, T] are membership matrices.
    """

    host_ids: pa.Array
    host_names: pa.Array
    total: Floats
    reserved: Floats
    ratio: Floats
    up: Bools
    enabled: Bools
    disabled_reason: Codes
    zone: Codes
    aggregates: Bools
    aggregate_names: tuple[str, ...]
    traits: Bools
    trait_names: tuple[str, ...]

    instance_ids: pa.Array
    instance_names: pa.Array
    host_of: Ints
    demand: Floats
    state: npt.NDArray[np.int8]
    project: Codes
    flavor: Codes
    metadata: Codes
    locked: Bools
    excluded: Bools
    pinned_zone: Ints
    group: Ints
    created: Codes

    group_ids: pa.Array
    group_names: pa.Array
    group_policy: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value.flags.writeable = False

    # -- sizes and derived columns -------------------------------------------------------------------------

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return len(self.host_ids)

    @property
    def instances(self) -> int:
        """Number of instances."""
        return len(self.instance_ids)

    @cached_property
    def capacity(self) -> Floats:
        """What may be allocated, [H, 3]: (total - reserved) x ratio, never below zero."""
        return _frozen(np.maximum((self.total - self.reserved) * self.ratio, 0.0))

    @cached_property
    def usable(self) -> Bools:
        """Hosts that may receive instances: up and enabled."""
        return _frozen(self.up & self.enabled)

    @cached_property
    def movable(self) -> Bools:
        """Instances that a plan may touch: placed, neither locked nor excluded by scope."""
        return _frozen((self.host_of >= 0) & ~self.locked & ~self.excluded)

    @cached_property
    def group_members(self) -> tuple[Ints, Ints]:
        """Members of every server group as CSR: members of g are `rows[start[g]:start[g + 1]]`."""
        rows = np.flatnonzero(self.group >= 0).astype(np.int32)
        rows = rows[np.argsort(self.group[rows], kind="stable")]
        start = np.zeros(len(self.group_ids) + 1, np.int32)
        np.cumsum(np.bincount(self.group[rows], minlength=len(self.group_ids)), out=start[1:])
        return _frozen(start), _frozen(rows)

    def placement(self) -> Placement:
        """A fresh mutable overlay of who is where."""
        from trimtab.platform.model.placement import Placement

        return Placement.of(self)

    def used(self, host_of: Ints | None = None) -> Floats:
        """What the instances ask for on each host, [H, 3]; unplaced instances count nowhere."""
        where = self.host_of if host_of is None else host_of
        placed = where >= 0
        at = where[placed]
        columns = [np.bincount(at, self.demand[placed, r], self.hosts) for r in range(len(RESOURCES))]
        return np.stack(columns, axis=1).astype(np.float64, copy=False)  # bincount of nothing counts in integers

    def metadata_of(self, instance: int) -> dict[str, Any]:
        """Metadata of one instance as a dictionary."""
        return dict(json.loads(self.metadata[instance] or "{}"))

    def host_rows(self, ids: Sequence[str] | pa.Array) -> Ints:
        """Row numbers of host uuids; -1 for an unknown one."""
        return _rows(ids, self.host_ids)

    def host_rows_by_name(self, names: Sequence[str] | pa.Array) -> Ints:
        """Row numbers of host names; -1 for an unknown one."""
        return _rows(names, self.host_names)

    def instance_rows(self, ids: Sequence[str] | pa.Array) -> Ints:
        """Row numbers of instance uuids; -1 for an unknown one."""
        return _rows(ids, self.instance_ids)

    def host_name(self, host: int) -> str:
        """Name of one host."""
        return str(self.host_names[host].as_py())

    def host_id(self, host: int) -> str:
        """Uuid of one host."""
        return str(self.host_ids[host].as_py())

    def instance_id(self, instance: int) -> str:
        """Uuid of one instance."""
        return str(self.instance_ids[instance].as_py())

    def instance_name(self, instance: int) -> str:
        """Name of one instance."""
        return str(self.instance_names[instance].as_py())

    def with_changes(self, **changes: Any) -> ClusterModel:
        """A copy with some columns replaced; the other arrays are shared."""
        return replace(self, **changes)

    def subset(self, keep: Bools) -> ClusterModel:
        """The model of some hosts only, with the instances on them (and those on no host); [H] mask."""
        if keep.all():
            return self
        hosts, position = np.flatnonzero(keep), np.full(self.hosts + 1, -1, np.int32)
        position[hosts] = np.arange(len(hosts))
        stays = (self.host_of < 0) | keep[self.host_of]
        rows = np.flatnonzero(stays)
        of_host = ("total", "reserved", "ratio", "up", "enabled", "aggregates", "traits")
        of_instance = ("demand", "state", "locked", "excluded", "pinned_zone", "group")
        return self.with_changes(
            host_ids=self.host_ids.take(pa.array(hosts)),
            host_names=self.host_names.take(pa.array(hosts)),
            disabled_reason=self.disabled_reason.take(hosts),
            zone=self.zone.take(hosts),
            **{name: getattr(self, name)[hosts] for name in of_host},
            instance_ids=self.instance_ids.take(pa.array(rows)),
            instance_names=self.instance_names.take(pa.array(rows)),
            host_of=position[self.host_of[rows]],
            **{name: getattr(self, name)[rows] for name in of_instance},
            **{name: getattr(self, name).take(rows) for name in ("project", "flavor", "metadata", "created")},
        )

    # -- edges -------------------------------------------------------------------------------------------------

    @classmethod
    def from_arrow(cls, hosts: pa.Table, instances: pa.Table, groups: pa.Table | None = None) -> ClusterModel:
        """Build and check a model.

        Args:
            hosts: the columns of `HOST_COLUMNS`; those with a default may be absent.
            instances: the columns of `INSTANCE_COLUMNS`, likewise; `node` holds host uuids.
            groups: server groups (`GROUP_COLUMNS`).

        Raises:
            ModelError: names the table, the row and the remedy; the first fault found is reported.
        """
        h = _Table("hosts", hosts, HOST_COLUMNS)
        v = _Table("instances", instances, INSTANCE_COLUMNS)
        g = _Table("server_groups", groups if groups is not None else _empty(GROUP_COLUMNS), GROUP_COLUMNS)
        for table, unique in ((h, ("uuid", "hostname")), (v, ("uuid",)), (g, ("uuid",))):
            for column in unique:
                table.check_unique(column)
        state = v.one_of("state", STATES).astype(np.int8)
        host_of = v.references("node", h["uuid"], "the hosts table: remove the instance or add its host")
        group = v.references("group", g["uuid"], "the server_groups table: clear the column or add the group", empty="")
        zone = h.codes("zone")
        pinned = v.codes("pinned_zone")
        known = {name: code for code, name in enumerate(zone.names)}
        zone_names = [*zone.names, *(name for name in pinned.names if name not in known)]
        position = {name: code for code, name in enumerate(zone_names)}
        pinned_zone = np.array([*(position[name] for name in pinned.names), -1], np.int32)[pinned.codes]
        aggregates, aggregate_names = h.memberships("aggregates")
        traits, trait_names = h.memberships("traits")
        return cls(
            host_ids=h["uuid"],
            host_names=h["hostname"],
            total=h.amounts("vcpus", "memory_mb", "disk_gb"),
            reserved=h.amounts("vcpu_reserved", "memory_mb_reserved", "disk_gb_reserved"),
            ratio=h.amounts("vcpu_ratio", "memory_ratio", "disk_ratio"),
            up=h.one_of("state", ("up", "down")) == 0,
            enabled=h.one_of("status", ("enabled", "disabled")) == 0,
            disabled_reason=h.codes("disabled_reason"),
            zone=Codes(zone.codes, tuple(zone_names)),
            aggregates=aggregates,
            aggregate_names=aggregate_names,
            traits=traits,
            trait_names=trait_names,
            instance_ids=v["uuid"],
            instance_names=v["name"],
            host_of=host_of,
            demand=v.amounts("vcpus", "memory_mb", "disk_gb"),
            state=state,
            project=v.codes("project"),
            flavor=v.codes("flavor"),
            metadata=v.json_objects("metadata"),
            locked=v.flags("locked"),
            excluded=np.zeros(len(v), bool),
            pinned_zone=pinned_zone,
            group=group,
            created=v.codes("created"),
            group_ids=g["uuid"],
            group_names=g["name"],
            group_policy=g.one_of("policy", [policy.wire for policy in GroupPolicy]).astype(np.int8),
        )

    def to_arrow(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Hosts, instances and server groups as tables that `from_arrow` takes back (scope exclusions are not kept)."""
        hosts = {
            "uuid": self.host_ids,
            "hostname": self.host_names,
            **{name: self.total[:, r] for r, name in enumerate(RESOURCES)},
            **{
                name: self.reserved[:, r]
                for r, name in enumerate(("vcpu_reserved", "memory_mb_reserved", "disk_gb_reserved"))
            },
            **{name: self.ratio[:, r] for r, name in enumerate(("vcpu_ratio", "memory_ratio", "disk_ratio"))},
            "state": np.where(self.up, "up", "down"),
            "status": np.where(self.enabled, "enabled", "disabled"),
            "disabled_reason": self.disabled_reason.texts(),
            "zone": self.zone.texts(),
            "aggregates": _lists(self.aggregates, self.aggregate_names),
            "traits": _lists(self.traits, self.trait_names),
        }
        instances = {
            "uuid": self.instance_ids,
            "name": self.instance_names,
            "node": self.host_ids.take(pa.array(self.host_of, mask=self.host_of < 0)),
            **{name: self.demand[:, r] for r, name in enumerate(RESOURCES)},
            "state": pa.array(np.array(STATES, dtype=object)[self.state], pa.string()),
            "project": self.project.texts(),
            "flavor": self.flavor.texts(),
            "metadata": self.metadata.texts(),
            "locked": self.locked,
            "pinned_zone": Codes(self.pinned_zone, self.zone.names).texts(),
            "group": pc.fill_null(self.group_ids.take(pa.array(self.group, mask=self.group < 0)), ""),
            "created": self.created.texts(),
        }
        policies = np.array([policy.wire for policy in GroupPolicy], dtype=object)
        groups = {
            "uuid": self.group_ids,
            "name": self.group_names,
            "policy": pa.array(policies[self.group_policy], pa.string()),
        }
        return _table(hosts, HOST_COLUMNS), _table(instances, INSTANCE_COLUMNS), _table(groups, GROUP_COLUMNS)


class _Table:
    """One input table while it is being checked; every complaint names table, row, value and remedy."""

    def __init__(self, name: str, table: pa.Table, columns: Mapping[str, tuple[pa.DataType, Any]]) -> None:
        self.name = name
        self.rows = table.num_rows
        self.columns: dict[str, pa.Array] = {}
        missing = [c for c, (_, default) in columns.items() if default is None and c not in table.column_names]
        if missing:
            raise ModelError(f"{name}: column {missing[0]!r} is missing; it needs {', '.join(columns)}")
        for column, (kind, default) in columns.items():
            if column in table.column_names:
                self.columns[column] = self._cast(column, table.column(column), kind, default)
            elif pa.types.is_list(kind):
                self.columns[column] = pa.array([[]] * self.rows, kind)
            else:
                self.columns[column] = pa.repeat(pa.scalar(default, kind), self.rows)

    def __len__(self) -> int:
        return int(self.rows)

    def __getitem__(self, column: str) -> pa.Array:
        return self.columns[column]

    def fault(self, row: int, column: str, problem: str, remedy: str) -> ModelError:
        label = self.columns["uuid"][row].as_py() if "uuid" in self.columns else "?"
        return ModelError(f"{self.name} row {row} ({label}): {column} {problem}; {remedy}")

    def _cast(self, column: str, values: pa.ChunkedArray, kind: pa.DataType, default: Any) -> pa.Array:
        flat = values.combine_chunks()
        if isinstance(flat, pa.ChunkedArray):  # zero chunks
            flat = pa.array([], kind)
        if pa.types.is_dictionary(flat.type):
            flat = flat.dictionary_decode()
        if pa.types.is_map(flat.type) or pa.types.is_struct(flat.type):
            flat = pa.array([json.dumps(dict(item or {}), sort_keys=True) for item in flat.to_pylist()], pa.string())
        if flat.type != kind:
            try:
                flat = flat.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ModelError(f"{self.name}: column {column!r} is {flat.type}, not {kind}: {error}") from error
        if flat.null_count and column != "node":
            if default is None:
                row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
                raise self.fault(row, column, "is null", "give it a value")
            if pa.types.is_list(kind):
                flat = pa.array([item or [] for item in flat.to_pylist()], kind)
            else:
                flat = pc.fill_null(flat, pa.scalar(default, kind))
        return flat

    def check_unique(self, column: str) -> None:
        values = self.columns[column]
        if pc.count_distinct(values, mode="all").as_py() == len(values):
            return
        encoded = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        _, first = np.unique(encoded, return_index=True)
        row = int(np.setdiff1d(np.arange(len(encoded)), first)[0])
        earlier = int(np.flatnonzero(encoded == encoded[row])[0])
        raise self.fault(row, column, f"{values[row].as_py()!r} stands in row {earlier} too", "keep one of them")

    def amounts(self, *columns: str) -> Floats:
        out = np.empty((self.rows, len(columns)), np.float64)
        for position, column in enumerate(columns):
            values = self.columns[column].to_numpy(zero_copy_only=False)
            bad = ~(np.isfinite(values) & (values >= 0))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise self.fault(row, column, f"is {values[row]:g}", "it must be a finite number, zero or more")
            out[:, position] = values
        return out

    def flags(self, column: str) -> Bools:
        return np.array(self.columns[column].to_numpy(zero_copy_only=False), bool)

    def codes(self, column: str) -> Codes:
        encoded = self.columns[column].dictionary_encode()
        names = [str(name) for name in encoded.dictionary.to_pylist()]
        order = sorted(name for name in names if name)
        position = {name: code for code, name in enumerate(order)}
        lookup = np.array([*(position.get(name, -1) for name in names), -1], np.int32)
        return Codes(lookup[encoded.indices.to_numpy(zero_copy_only=False)], tuple(order))

    def one_of(self, column: str, words: Sequence[str]) -> Ints:
        found = pc.index_in(self.columns[column], value_set=pa.array(words, pa.string()))
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
            value = self.columns[column][row].as_py()
            raise self.fault(row, column, f"is {value!r}", f"use one of {', '.join(words)}")
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int32)

    def references(self, column: str, ids: pa.Array, where: str, *, empty: str | None = None) -> Ints:
        values = self.columns[column]
        found = pc.index_in(values, value_set=ids)
        unset = values.is_null() if empty is None else pc.equal(values, empty)
        unknown = pc.and_(found.is_null(), pc.invert(unset))
        if pc.any(unknown).as_py():
            row = int(np.flatnonzero(unknown.to_numpy(zero_copy_only=False))[0])
            raise self.fault(
                row, column, f"{values[row].as_py()!r} is not in {where.partition(':')[0]}", where.partition(": ")[2]
            )
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int32)

    def memberships(self, column: str) -> tuple[Bools, tuple[str, ...]]:
        lists = self.columns[column]
        flat = lists.flatten()
        names = sorted(str(name) for name in pc.unique(flat).drop_null().to_pylist())
        matrix = np.zeros((self.rows, len(names)), bool)
        if names:
            parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
            found = pc.fill_null(pc.index_in(flat, value_set=pa.array(names, pa.string())), -1)
            codes = found.to_numpy(zero_copy_only=False)
            matrix[parents[codes >= 0], codes[codes >= 0]] = True  # a null names nothing
        return matrix, tuple(names)

    def json_objects(self, column: str) -> Codes:
        codes = self.codes(column)
        for code, text in enumerate(codes.names):
            try:
                ok = isinstance(json.loads(text), dict)
            except ValueError:
                ok = False
            if not ok:
                row = int(np.flatnonzero(codes.codes == code)[0])
                raise self.fault(row, column, f"is {text[:60]!r}", "it must be a JSON object such as {}")
        return codes


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _rows(ids: Sequence[str] | pa.Array, known: pa.Array) -> Ints:
    wanted = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
    return np.asarray(pc.fill_null(pc.index_in(wanted, value_set=known), -1).to_numpy(zero_copy_only=False), np.int32)


def _lists(matrix: Bools, names: tuple[str, ...]) -> pa.Array:
    rows, columns = np.nonzero(matrix)
    offsets = np.zeros(matrix.shape[0] + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=matrix.shape[0]), out=offsets[1:])
    values = pa.array(np.array([*names, ""], dtype=object)[columns], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _table(columns: Mapping[str, Any], kinds: Mapping[str, tuple[pa.DataType, Any]]) -> pa.Table:
    return pa.table({name: pa.array(columns[name]).cast(kind) for name, (kind, _) in kinds.items()})


def _empty(kinds: Mapping[str, tuple[pa.DataType, Any]]) -> pa.Table:
    return pa.table({name: pa.array([], kind) for name, (kind, _) in kinds.items()})
