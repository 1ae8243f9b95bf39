"""The compute model as Watcher lists it: one flat row for each instance with its host, and one for each empty host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimtab.platform.model.compute import DISK, MEMORY, STATES, VCPU, ClusterModel
from trimtab.platform.model.tables import Codes

Column = list[Any]


class Flat(NamedTuple):
    """Columns under Watcher's names, ready for JSON: hosts by uuid, and instances by (host's uuid, own uuid).

    `node_of[v]` is the position of instance v's host; instances on no host are not listed, as in Watcher.
    """

    nodes: Mapping[str, Column]
    servers: Mapping[str, Column]
    node_of: list[int]

    def rows(self, without: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
        """The rows, host by host, lacking the keys in `without`; equal values are shared, so change none of them."""
        nodes = _dicts(self.nodes, without)
        rows = [{**server, **nodes[at]} for server, at in zip(_dicts(self.servers, without), self.node_of, strict=True)]
        peopled = np.bincount(np.array(self.node_of, np.intp), minlength=len(nodes))
        if not (peopled == 0).any():
            return rows
        end = np.cumsum(peopled).tolist()
        whole: list[dict[str, Any]] = []
        for node, last, count in zip(nodes, end, peopled.tolist(), strict=True):
            whole += rows[last - count : last] if count else [node]
        return whole


def flat(model: ClusterModel) -> Flat:
    """A model as such columns: amounts are whole numbers (vCPUs, MB, GB), ratios are floats."""
    hosts = pc.sort_indices(model.host_ids).to_numpy()
    rank = np.empty(model.hosts + 1, np.int64)
    rank[hosts], rank[-1] = np.arange(model.hosts), model.hosts  # -1, on no host, comes last
    at = rank[model.host_of]
    order = pc.sort_indices(
        pa.table({"node": at, "uuid": model.instance_ids}), sort_keys=[("node", "ascending"), ("uuid", "ascending")]
    ).to_numpy()
    order = order[: np.count_nonzero(model.host_of >= 0)]
    nodes: dict[str, Column] = {
        "node_uuid": _texts(model.host_ids, hosts),
        "node_hostname": _texts(model.host_names, hosts),
        "node_status": _words(model.enabled[hosts], ("disabled", "enabled")),
        "node_disabled_reason": [text or None for text in _of_codes(model.disabled_reason, hosts, "")],
        "node_state": _words(model.up[hosts], ("down", "up")),
        "node_memory": _whole(model.total[hosts, MEMORY]),
        "node_memory_mb_reserved": _whole(model.reserved[hosts, MEMORY]),
        "node_disk": _whole(model.total[hosts, DISK]),
        "node_disk_gb_reserved": _whole(model.reserved[hosts, DISK]),
        "node_vcpus": _whole(model.total[hosts, VCPU]),
        "node_vcpu_reserved": _whole(model.reserved[hosts, VCPU]),
        "node_memory_ratio": model.ratio[hosts, MEMORY].tolist(),
        "node_vcpu_ratio": model.ratio[hosts, VCPU].tolist(),
        "node_disk_ratio": model.ratio[hosts, DISK].tolist(),
    }
    servers: dict[str, Column] = {
        "server_uuid": _texts(model.instance_ids, order),
        "server_watcher_exclude": model.excluded[order].tolist(),
        "server_name": _texts(model.instance_names, order),
        "server_state": _words(model.state[order], STATES),
        "server_memory": _whole(model.demand[order, MEMORY]),
        "server_disk": _whole(model.demand[order, DISK]),
        "server_vcpus": _whole(model.demand[order, VCPU]),
        "server_metadata": _objects(model.metadata, order),
        "server_project_id": _of_codes(model.project, order, ""),
        "server_locked": model.locked[order].tolist(),
        "server_pinned_az": _of_codes(Codes(model.pinned_zone, model.zone.names), order, ""),
        "server_flavor_extra_specs": _objects(model.flavor_specs, order),
    }
    return Flat(nodes, servers, at[order].tolist())


def _dicts(columns: Mapping[str, Column], without: frozenset[str]) -> list[dict[str, Any]]:
    names = [name for name in columns if name not in without]
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]


def _texts(ids: pa.Array, rows: npt.NDArray[np.integer[Any]]) -> Column:
    return list(ids.take(pa.array(rows)).to_numpy(zero_copy_only=False).tolist())


def _whole(values: npt.NDArray[np.float64]) -> Column:
    return list(np.rint(values).astype(np.int64).tolist())


def _words(codes: npt.NDArray[Any], words: tuple[str, ...]) -> Column:
    return [words[code] for code in codes.tolist()]


def _of_codes(codes: Codes, rows: npt.NDArray[np.integer[Any]], empty: Any) -> Column:
    names = [*codes.names, empty]  # -1 is the last
    return [names[code] for code in codes.codes[rows].tolist()]


def _objects(codes: Codes, rows: npt.NDArray[np.integer[Any]]) -> Column:
    parsed = [*map(json.loads, codes.names), {}]
    return [parsed[code] for code in codes.codes[rows].tolist()]
