"""Switching the compute service of a host on and off, as a step of a plan."""

from __future__ import annotations

import pyarrow as pa

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Ints
from trimtab.platform.proposal import Act

REASON = "watcher_disabled"
CONSOLIDATED = "Watcher node resource consolidation strategy"
OURS = frozenset(
    {REASON, CONSOLIDATED}
)  # reasons of hosts that were emptied to save them; others mean somebody works there


def switch(model: ClusterModel, host: int, *, enabled: bool, reason: str = REASON) -> Act:
    """Enable or disable the compute service of a host."""
    wanted = {"state": "enabled"} if enabled else {"state": "disabled", "disabled_reason": reason}
    parameters = {**wanted, "resource_name": model.host_name(host)}
    return Act("change_nova_service_state", model.host_id(host), parameters, host)


def switches(model: ClusterModel, hosts: Ints, *, enabled: bool, reason: str = REASON) -> list[Act]:
    """Enable or disable the compute services of many hosts; names are looked up together."""
    names = model.host_names.take(pa.array(hosts)).to_pylist()
    ids = model.host_ids.take(pa.array(hosts)).to_pylist()
    wanted = {"state": "enabled"} if enabled else {"state": "disabled", "disabled_reason": reason}
    return [
        Act("change_nova_service_state", uuid, {**wanted, "resource_name": name}, host)
        for host, name, uuid in zip(hosts.tolist(), names, ids, strict=True)
    ]
