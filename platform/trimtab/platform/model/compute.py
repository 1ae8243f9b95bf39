"""The compute model: hosts and instances of a cloud as frozen columns, to and from Arrow tables.

Ids are strings at the edges (Arrow arrays here, so that a model travels between processes without one Python
object per instance) and row numbers inside. Memory is MB, disk is GB, everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.model.tables import (
    GROUP_COLUMNS,
    HOST_COLUMNS,
    INSTANCE_COLUMNS,
    Bools,
    Codes,
    Floats,
    InputTable,
    Ints,
    empty_table,
    lists_of,
    table_of,
)

if TYPE_CHECKING:
    from trimtab.platform.model.placement import Placement

__all__ = [
    "DISK", "MEMORY", "RESOURCES", "STATES", "VCPU", "Bools", "BoundRule", "ClusterModel", "Codes", "Floats",
    "GroupPolicy", "InstanceState", "Ints",
]  # fmt: skip

T = TypeVar("T")
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


TEXTS = ("project", "flavor", "flavor_specs", "metadata", "created")  # columns of the instances
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


class BoundRule(Protocol):
    """A rule that travels with a model, bound to its rows; `trimtab.platform.rules` knows what it means."""

    def stays(self) -> Ints:
        """Instances that must not be moved."""
        ...

    def raises(self, need: Floats) -> None:
        """Raise what instances need, [V, 3], in place."""
        ...

    def within(self, model: ClusterModel, hosts: Ints, instances: Ints) -> BoundRule | None:
        """The rule in a part of the model; new rows of its hosts and instances, -1 for those that are gone."""
        ...


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
    flavor_specs: Codes
    metadata: Codes
    locked: Bools
    excluded: Bools
    pinned_zone: Ints
    group: Ints
    created: Codes

    group_ids: pa.Array
    group_names: pa.Array
    group_policy: npt.NDArray[np.int8]

    rules: tuple[BoundRule, ...] = ()

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
        """Instances that a plan may touch: placed, not locked, not excluded by scope, not bound to stay by a rule."""
        may = (self.host_of >= 0) & ~self.locked & ~self.excluded
        for rule in self.rules:
            may[rule.stays()] = False
        return _frozen(may)

    @cached_property
    def need(self) -> Floats:
        """What an instance takes on its host, [V, 3]: its demand, or more where a rule wants more kept for it."""
        need = self.demand.copy() if self.rules else self.demand
        for rule in self.rules:
            rule.raises(need)
        return _frozen(need) if (need > self.demand).any() else self.demand

    def derived(self, name: str, make: Callable[[ClusterModel], T]) -> T:
        """Something computed from this model alone, made once and kept with it."""
        kept = self.__dict__.setdefault("_derived", {})
        if name not in kept:
            kept[name] = make(self)
        found: T = kept[name]
        return found

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
        columns = [np.bincount(at, self.need[placed, r], self.hosts) for r in range(len(RESOURCES))]
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
        new_row = np.full(self.instances, -1, np.int32)
        new_row[rows] = np.arange(len(rows))
        rules = [rule.within(self, position[:-1], new_row) for rule in self.rules]
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
            **{name: getattr(self, name).take(rows) for name in TEXTS},
            rules=tuple(rule for rule in rules if rule is not None),
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
        h = InputTable("hosts", hosts, HOST_COLUMNS)
        v = InputTable("instances", instances, INSTANCE_COLUMNS)
        g = InputTable("server_groups", groups if groups is not None else empty_table(GROUP_COLUMNS), GROUP_COLUMNS)
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
            flavor_specs=v.json_objects("flavor_specs"),
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
            "aggregates": lists_of(self.aggregates, self.aggregate_names),
            "traits": lists_of(self.traits, self.trait_names),
        }
        instances = {
            "uuid": self.instance_ids,
            "name": self.instance_names,
            "node": self.host_ids.take(pa.array(self.host_of, mask=self.host_of < 0)),
            **{name: self.demand[:, r] for r, name in enumerate(RESOURCES)},
            "state": pa.array(np.array(STATES, dtype=object)[self.state], pa.string()),
            "project": self.project.texts(),
            "flavor": self.flavor.texts(),
            "flavor_specs": self.flavor_specs.texts(),
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
        return table_of(hosts, HOST_COLUMNS), table_of(instances, INSTANCE_COLUMNS), table_of(groups, GROUP_COLUMNS)


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _rows(ids: Sequence[str] | pa.Array, known: pa.Array) -> Ints:
    wanted = ids if isinstance(ids, pa.Array) else pa.array(list(ids), pa.string())
    if len(wanted) == 0:  # or all known ids would be hashed to look for nothing
        return np.empty(0, np.int32)
    return np.asarray(pc.fill_null(pc.index_in(wanted, value_set=known), -1).to_numpy(zero_copy_only=False), np.int32)
