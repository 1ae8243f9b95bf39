"""The audit scope of the storage and baremetal models: which pools, volumes and metal nodes an audit may touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.model import BaremetalModel, StorageModel
from trimtab.platform.model.compute import Bools
from trimtab.platform.model.tables import Codes
from trimtab.platform.scope_schema import section

_OF_NODE = ("node_hosts", "node_zone", "node_up", "node_enabled")
_OF_POOL = (
    "pool_names", "pool_node", "pool_backend", "total_gb", "free_gb", "provisioned_gb", "allocated_gb",
    "over_subscription",
)  # fmt: skip
_OF_VOLUME = (
    "volume_ids", "volume_names", "size_gb", "pool_of", "status", "migration_status", "type_of", "bootable",
    "multiattach", "snapshots", "attached", "attached_to", "project", "metadata", "created", "excluded",
)  # fmt: skip


def narrow_storage(model: StorageModel, scope: Sequence[Mapping[str, Any]]) -> tuple[StorageModel, list[str]]:
    """The part of a storage model an audit may look at, and notes on what the scope named in vain.

    Included volume types (nodes whose backend serves one) and zones are united; nodes outside and excluded pools leave
    the model together with their volumes. Volumes that are excluded, alone or by project, stay but are marked
    `excluded`. A scope that includes rules which match nothing leaves no node.
    """
    rules = section(scope, "storage")
    notes: list[str] = []
    if not rules:
        return model, notes
    keep, includes = np.zeros(len(model.node_hosts), bool), False
    gone, excluded = np.zeros(model.pools, bool), model.excluded.copy()
    for rule in rules:
        for word, rows_of in (("volume_types", _nodes_of_type), ("availability_zones", _nodes_of_zone)):
            if word in rule:
                includes = True
                keep |= rows_of(model, [item["name"] for item in rule[word]], notes)
        for item in rule.get("exclude", []):
            names = [pool["name"] for pool in item.get("storage_pools", [])]
            gone[_found(model.pool_names, names, "pool", notes)] = True
            ids = [volume["uuid"] for volume in item.get("volumes", [])]
            excluded[_found(model.volume_ids, ids, "volume", notes)] = True
            for project in item.get("projects", []):
                excluded |= model.project.rows(project["uuid"])
    nodes = keep if includes else np.ones(len(keep), bool)
    # A pool without a node is in no zone and of no type.
    pools = np.append(nodes, not includes)[model.pool_node] & ~gone
    return _subset(model.with_changes(excluded=excluded), nodes, pools), notes


def narrow_baremetal(model: BaremetalModel, scope: Sequence[Mapping[str, Any]]) -> tuple[BaremetalModel, list[str]]:
    """A baremetal model with the excluded nodes marked `excluded`, and notes on what the scope named in vain."""
    notes: list[str] = []
    ids = [
        node["uuid"]
        for rule in section(scope, "baremetal")
        for item in rule.get("exclude", [])
        for node in item.get("ironic_nodes", [])
    ]
    if not ids:
        return model, notes
    excluded = model.excluded.copy()
    excluded[_found(model.ids, ids, "metal node", notes)] = True
    return model.with_changes(excluded=excluded), notes


def _nodes_of_zone(model: StorageModel, names: Sequence[str], notes: list[str]) -> Bools:
    if "*" in names:
        return np.ones(len(model.node_hosts), bool)
    found = [model.node_zone.rows(name) for name in names]
    notes += [f"scope: no storage node is in zone {n}" for n, rows in zip(names, found, strict=True) if not rows.any()]
    return np.logical_or.reduce([np.zeros(len(model.node_hosts), bool), *found])


def _nodes_of_type(model: StorageModel, names: Sequence[str], notes: list[str]) -> Bools:
    """Nodes with a pool of the backend that a type asks for; a type that asks for none is served by all."""
    nodes = np.zeros(len(model.node_hosts) + 1, bool)  # the last one: pools without a node
    for name in names:
        rows = (
            np.arange(len(model.type_names)) if name == "*" else _found(model.type_names, [name], "volume type", notes)
        )
        for row in rows:
            backend = model.type_backend[int(row)]
            nodes[model.pool_node[model.pool_backend.rows(backend)] if backend else slice(None)] = True
    return nodes[:-1]


def _found(ids: pa.Array, names: Sequence[str], what: str, notes: list[str]) -> npt.NDArray[np.intp]:
    rows = pc.fill_null(pc.index_in(pa.array(names, pa.string()), value_set=ids), -1).to_numpy(zero_copy_only=False)
    notes += [f"scope: there is no {what} {name}" for name, row in zip(names, rows, strict=True) if row < 0]
    return np.asarray(rows[rows >= 0], np.intp)


def _subset(model: StorageModel, nodes: Bools, pools: Bools) -> StorageModel:
    if nodes.all() and pools.all():
        return model
    new_node = np.append(np.where(nodes, np.cumsum(nodes) - 1, -1), -1).astype(np.int32)
    new_pool = np.append(np.where(pools, np.cumsum(pools) - 1, -1), -1).astype(np.int32)
    volumes = np.append(pools, True)[model.pool_of]
    changed = model.with_changes(pool_node=new_node[model.pool_node], pool_of=new_pool[model.pool_of])
    columns: dict[str, Any] = {}
    for names, kept in ((_OF_NODE, nodes), (_OF_POOL, pools), (_OF_VOLUME, volumes)):
        rows = np.flatnonzero(kept)
        columns |= {name: _taken(getattr(changed, name), rows) for name in names}
    return changed.with_changes(**columns)


def _taken(column: Any, rows: npt.NDArray[np.intp]) -> Any:
    if isinstance(column, Codes):
        return column.take(rows)
    return column.take(pa.array(rows)) if isinstance(column, pa.Array) else column[rows]
