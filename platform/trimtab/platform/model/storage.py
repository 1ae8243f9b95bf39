"""The storage model: nodes, pools, volume types and volumes of one cloud as frozen columns; GB everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from trimtab.platform.model.tables import Bools, Codes, Floats, InputTable, Ints, empty_table, table_of

STORAGE_NODE_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "host": (pa.string(), None),  # host@backend
    "zone": (pa.string(), "nova"),
    "status": (pa.string(), "enabled"),
    "state": (pa.string(), "up"),
}
POOL_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "name": (pa.string(), None),  # host@backend#pool
    "node": (pa.string(), None),  # host of the storage node; null = none known
    "backend": (pa.string(), ""),  # its volume_backend_name
    "total_gb": (pa.float64(), float("nan")),  # NaN = unknown, inf = without limit
    "free_gb": (pa.float64(), float("nan")),
    "provisioned_gb": (pa.float64(), 0.0),
    "allocated_gb": (pa.float64(), 0.0),
    "over_subscription": (pa.float64(), 1.0),  # max_over_subscription_ratio
}
VOLUME_TYPE_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "name": (pa.string(), None),
    "backend": (pa.string(), ""),  # the volume_backend_name it asks for; "" = any
    "extra_specs": (pa.string(), "{}"),  # JSON object, without volume_backend_name
}
VOLUME_COLUMNS: Mapping[str, tuple[pa.DataType, Any]] = {
    "uuid": (pa.string(), None),
    "name": (pa.string(), ""),
    "size_gb": (pa.float64(), None),
    "pool": (pa.string(), None),  # null = on no pool
    "status": (pa.string(), "available"),
    "migration_status": (pa.string(), ""),
    "type": (pa.string(), ""),
    "bootable": (pa.bool_(), False),
    "multiattach": (pa.bool_(), False),
    "snapshots": (pa.float64(), 0.0),  # how many there are of it
    "attached_to": (pa.list_(pa.string()), []),  # uuids of servers
    "project": (pa.string(), ""),
    "metadata": (pa.string(), "{}"),
    "created": (pa.string(), ""),
}
WORDS_OF_STATE, WORDS_OF_STATUS = ("up", "down"), ("enabled", "disabled")


@dataclass(frozen=True)
class StorageModel:
    """Nodes N, pools P, types T and volumes V of one cloud at one moment; frozen: all arrays are read-only.

    `pool_node` [P] and `pool_of` [V] are rows, -1 where there is none. `total_gb`, `free_gb` [P] are NaN where the
    cloud does not know and inf where there is no limit. `type_of` [V] is a row of the types, -1 = untyped.
    """

    node_hosts: pa.Array
    node_zone: Codes
    node_up: Bools
    node_enabled: Bools

    pool_names: pa.Array
    pool_node: Ints
    pool_backend: Codes
    total_gb: Floats
    free_gb: Floats
    provisioned_gb: Floats
    allocated_gb: Floats
    over_subscription: Floats

    type_names: pa.Array
    type_backend: Codes
    type_extra_specs: Codes

    volume_ids: pa.Array
    volume_names: pa.Array
    size_gb: Floats
    pool_of: Ints
    status: Codes
    migration_status: Codes
    type_of: Ints
    bootable: Bools
    multiattach: Bools
    snapshots: Floats
    attached: Bools
    attached_to: pa.Array
    project: Codes
    metadata: Codes
    created: Codes
    excluded: Bools

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value.flags.writeable = False

    @property
    def pools(self) -> int:
        """Number of pools."""
        return len(self.pool_names)

    @property
    def volumes(self) -> int:
        """Number of volumes."""
        return len(self.volume_ids)

    @cached_property
    def usable(self) -> Bools:
        """Pools that may receive volumes, [P]: their node is up and enabled, or not known."""
        node = self.pool_node
        return (node < 0) | (np.append(self.node_up, True) & np.append(self.node_enabled, True))[node]

    def pool_name(self, pool: int) -> str:
        """Name of one pool."""
        return str(self.pool_names[pool].as_py())

    def type_name(self, row: int) -> str:
        """Name of one volume type; "" for -1."""
        return str(self.type_names[row].as_py()) if row >= 0 else ""

    def volume_id(self, volume: int) -> str:
        """Uuid of one volume."""
        return str(self.volume_ids[volume].as_py())

    def volume_name(self, volume: int) -> str:
        """Name of one volume."""
        return str(self.volume_names[volume].as_py())

    def with_changes(self, **changes: Any) -> StorageModel:
        """A copy with some columns replaced; the other arrays are shared."""
        return replace(self, **changes)

    @classmethod
    def from_arrow(
        cls,
        nodes: pa.Table,
        pools: pa.Table,
        types: pa.Table | None = None,
        volumes: pa.Table | None = None,
    ) -> StorageModel:
        """Build and check a model.

        Args:
            nodes: the columns of `STORAGE_NODE_COLUMNS`; those with a default may be absent.
            pools: the columns of `POOL_COLUMNS`; `node` holds hosts of storage nodes.
            types: the columns of `VOLUME_TYPE_COLUMNS`.
            volumes: the columns of `VOLUME_COLUMNS`; `pool` holds names of pools.

        Raises:
            ModelError: names the table, the row and the remedy; the first fault found is reported.
        """
        n = InputTable("storage_nodes", nodes, STORAGE_NODE_COLUMNS, label="host")
        p = InputTable("pools", pools, POOL_COLUMNS, label="name", nullable=("node",))
        t = InputTable(
            "volume_types",
            types if types is not None else empty_table(VOLUME_TYPE_COLUMNS),
            VOLUME_TYPE_COLUMNS,
            label="name",
        )
        v = InputTable(
            "volumes",
            volumes if volumes is not None else empty_table(VOLUME_COLUMNS),
            VOLUME_COLUMNS,
            nullable=("pool",),
        )
        for table, unique in ((n, "host"), (p, "name"), (t, "name"), (v, "uuid")):
            table.check_unique(unique)
        servers = v["attached_to"]
        return cls(
            node_hosts=n["host"],
            node_zone=n.codes("zone"),
            node_up=n.one_of("state", WORDS_OF_STATE) == 0,
            node_enabled=n.one_of("status", WORDS_OF_STATUS) == 0,
            pool_names=p["name"],
            pool_node=p.references("node", n["host"], "the storage_nodes table: clear the column or add the node"),
            pool_backend=p.codes("backend"),
            total_gb=p.amounts_or_unknown("total_gb"),
            free_gb=p.amounts_or_unknown("free_gb"),
            provisioned_gb=p.amounts("provisioned_gb")[:, 0].copy(),
            allocated_gb=p.amounts("allocated_gb")[:, 0].copy(),
            over_subscription=p.amounts("over_subscription")[:, 0].copy(),
            type_names=t["name"],
            type_backend=t.codes("backend"),
            type_extra_specs=t.json_objects("extra_specs"),
            volume_ids=v["uuid"],
            volume_names=v["name"],
            size_gb=v.amounts("size_gb")[:, 0].copy(),
            pool_of=v.references("pool", p["name"], "the pools table: clear the column or add the pool"),
            status=v.codes("status"),
            migration_status=v.codes("migration_status"),
            type_of=v.references("type", t["name"], "the volume_types table: clear it or add the type", empty=""),
            bootable=v.flags("bootable"),
            multiattach=v.flags("multiattach"),
            snapshots=v.amounts("snapshots")[:, 0].copy(),
            attached=np.array(servers.value_lengths().to_numpy(zero_copy_only=False)) > 0,
            attached_to=servers,
            project=v.codes("project"),
            metadata=v.json_objects("metadata"),
            created=v.codes("created"),
            excluded=np.zeros(len(v), bool),
        )

    def to_arrow(self) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
        """Nodes, pools, types and volumes as `from_arrow` takes them (what a scope excluded is not kept)."""
        hosts = np.array([*self.node_hosts.to_pylist(), None], dtype=object)
        names = np.array([*self.pool_names.to_pylist(), None], dtype=object)
        types = np.array([*self.type_names.to_pylist(), ""], dtype=object)
        nodes = {
            "host": self.node_hosts,
            "zone": self.node_zone.texts(),
            "status": np.where(self.node_enabled, "enabled", "disabled"),
            "state": np.where(self.node_up, "up", "down"),
        }
        pools = {
            "name": self.pool_names,
            "node": pa.array(hosts[self.pool_node], pa.string()),
            "backend": self.pool_backend.texts(),
            **{c: getattr(self, c) for c in ("total_gb", "free_gb", "provisioned_gb", "allocated_gb")},
            "over_subscription": self.over_subscription,
        }
        kinds = {
            "name": self.type_names,
            "backend": self.type_backend.texts(),
            "extra_specs": self.type_extra_specs.texts(),
        }
        volumes = {
            "uuid": self.volume_ids,
            "name": self.volume_names,
            "pool": pa.array(names[self.pool_of], pa.string()),
            "type": pa.array(types[self.type_of], pa.string()),
            "attached_to": self.attached_to,
            **{c: getattr(self, c) for c in ("size_gb", "bootable", "multiattach", "snapshots")},
            **{c: getattr(self, c).texts() for c in ("status", "migration_status", "project", "metadata", "created")},
        }
        return (
            table_of(nodes, STORAGE_NODE_COLUMNS),
            table_of(pools, POOL_COLUMNS),
            table_of(kinds, VOLUME_TYPE_COLUMNS),
            table_of(volumes, VOLUME_COLUMNS),
        )


__all__ = ["POOL_COLUMNS", "STORAGE_NODE_COLUMNS", "VOLUME_COLUMNS", "VOLUME_TYPE_COLUMNS", "StorageModel"]
