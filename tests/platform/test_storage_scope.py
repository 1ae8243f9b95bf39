"""Scopes of the storage and baremetal models: what is kept, what is marked, and what was named in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.scope import narrow
from trimtab.platform.scope_schema import check_scope as check
from trimtab.platform.storage_scope import narrow_baremetal, narrow_storage

NODES = {"s1@ssd": "a", "s2@ssd": "b", "s3@hdd": "b"}
POOLS = {"s1@ssd#1": "s1@ssd", "s1@ssd#2": "s1@ssd", "s2@ssd#1": "s2@ssd", "s3@hdd#1": "s3@hdd", "lost@x#1": None}
BACKENDS = ["ssd", "ssd", "ssd", "hdd", "x"]


def made() -> StorageModel:
    """Two volumes a pool, the second one of project p2, and one volume on no pool."""
    pools = list(POOLS)
    where: list[str | None] = [pool for pool in pools for _ in range(2)]
    return StorageModel.from_arrow(
        pa.table({"host": list(NODES), "zone": list(NODES.values())}),
        pa.table(
            {
                "name": pools,
                "node": pa.array(list(POOLS.values()), pa.string()),
                "backend": BACKENDS,
                "total_gb": [100.0] * 5,
                "free_gb": [float(n) for n in range(5)],
            }
        ),
        pa.table({"name": ["fast", "slow", "any"], "backend": ["ssd", "hdd", ""]}),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(11)],
                "size_gb": [float(n) for n in range(11)],
                "pool": pa.array([*where, None], pa.string()),
                "type": ["fast"] * 6 + ["slow"] * 2 + [""] * 3,
                "project": ["p1", "p2"] * 5 + ["p1"],
                "attached_to": pa.array([["i"]] * 3 + [[]] * 8, pa.list_(pa.string())),
            }
        ),
    )


@pytest.fixture
def model() -> StorageModel:
    return made()


def storage(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    return check([{"storage": list(rules)}])


def pools_of(model: StorageModel) -> list[str]:
    return [str(name) for name in model.pool_names.to_pylist()]


def test_without_rules_everything_stays(model: StorageModel) -> None:
    for scope in ([], [{"compute": [{"availability_zones": [{"name": "a"}]}]}], storage()):
        assert narrow_storage(model, scope) == (model, [])
    metal = BaremetalModel.from_arrow(pa.table({"uuid": ["m1"], "power": ["on"]}))
    assert narrow_baremetal(metal, storage()) == (metal, [])


def test_included_types_and_zones_are_united(model: StorageModel) -> None:
    slow, notes = narrow_storage(model, storage({"volume_types": [{"name": "slow"}]}))
    assert (pools_of(slow), notes) == (["s3@hdd#1"], [])
    both, _ = narrow_storage(
        model, storage({"volume_types": [{"name": "slow"}]}, {"availability_zones": [{"name": "a"}]})
    )
    assert pools_of(both) == ["s1@ssd#1", "s1@ssd#2", "s3@hdd#1"]
    assert both.node_hosts.to_pylist() == ["s1@ssd", "s3@hdd"]
    assert [both.volume_id(v) for v in range(both.volumes)] == ["v0", "v1", "v2", "v3", "v6", "v7", "v10"]
    assert both.pool_of.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert both.pool_node.tolist() == [0, 0, 1]
    assert both.free_gb.tolist() == [0, 1, 3]
    assert both.attached.tolist() == [True] * 3 + [False] * 4
    for rule in ({"volume_types": [{"name": "any"}]}, {"availability_zones": [{"name": "*"}]}):
        whole, _ = narrow_storage(model, storage(rule))
        assert pools_of(whole) == list(POOLS)[:4]  # a pool without a node is in no zone and of no type


def test_rules_that_match_nothing_leave_nothing_and_say_so(model: StorageModel) -> None:
    scope = storage({"volume_types": [{"name": "gold"}]}, {"availability_zones": [{"name": "nowhere"}]})
    nothing, notes = narrow_storage(model, scope)
    assert (nothing.pools, len(nothing.node_hosts), nothing.volumes) == (0, 0, 1)
    assert notes == ["scope: there is no volume type gold", "scope: no storage node is in zone nowhere"]


def test_excluded_pools_go_and_excluded_volumes_stay_marked(model: StorageModel) -> None:
    exclude = [
        {"storage_pools": [{"name": "s1@ssd#2"}, {"name": "gone"}]},
        {"volumes": [{"uuid": "v0"}, {"uuid": "nobody"}]},
        {"projects": [{"uuid": "p2"}]},
    ]
    kept, notes = narrow_storage(model, storage({"exclude": exclude}))
    assert pools_of(kept) == [name for name in POOLS if name != "s1@ssd#2"]
    marked = {kept.volume_id(int(v)) for v in np.flatnonzero(kept.excluded)}
    assert marked == {"v0", "v1", "v5", "v7", "v9"}
    assert kept.volumes == 9
    assert notes == ["scope: there is no pool gone", "scope: there is no volume nobody"]
    assert not model.excluded.any()


def test_excluded_metal_nodes_are_marked() -> None:
    metal = BaremetalModel.from_arrow(pa.table({"uuid": ["m1", "m2"], "power": ["on", "off"]}))
    scope = check([{"baremetal": [{"exclude": [{"ironic_nodes": [{"uuid": "m2"}, {"uuid": "m9"}]}]}]}])
    marked, notes = narrow_baremetal(metal, scope)
    assert marked.excluded.tolist() == [False, True]
    assert notes == ["scope: there is no metal node m9"]
    assert not metal.excluded.any()


def test_the_sections_of_a_scope_do_not_disturb_each_other(model: StorageModel) -> None:
    scope = check(
        [
            {"compute": [{"availability_zones": [{"name": "a"}]}]},
            {"storage": [{"availability_zones": [{"name": "b"}]}]},
            {"baremetal": [{"exclude": [{"ironic_nodes": [{"uuid": "m1"}]}]}]},
        ]
    )
    hosts = {"uuid": ["h1", "h2"], "hostname": ["h1", "h2"], "zone": ["a", "b"]}
    sizes = {name: [1.0, 1.0] for name in ("vcpus", "memory_mb", "disk_gb")}
    compute = ClusterModel.from_arrow(
        pa.table(hosts | sizes),
        pa.table({n: pa.array([], pa.float64() if n in sizes else pa.string()) for n in ("uuid", "node", *sizes)}),
    )
    assert narrow(compute, scope)[0].host_ids.to_pylist() == ["h1"]
    assert pools_of(narrow_storage(model, scope)[0]) == ["s2@ssd#1", "s3@hdd#1"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=2),
    st.lists(st.sampled_from(["fast", "slow", "any", "gold"]), max_size=2),
    st.lists(st.sampled_from([*POOLS, "none"]), max_size=2, unique=True),
)
def test_narrowing_agrees_with_plain_loops(zones: list[str], types: list[str], gone: list[str]) -> None:
    model = made()
    rules: list[dict[str, Any]] = [{"exclude": [{"storage_pools": [{"name": name} for name in gone]}]}]
    rules += [{"availability_zones": [{"name": name} for name in zones]}] if zones else []
    rules += [{"volume_types": [{"name": name} for name in types]}] if types else []
    narrowed, _ = narrow_storage(model, storage(*rules))
    backend = {"fast": {"ssd"}, "slow": {"hdd"}, "any": {"ssd", "hdd", "x"}, "gold": set[str]()}
    expected = []
    for (pool, node), own in zip(POOLS.items(), BACKENDS, strict=True):
        nodes_backends = {b for (p, n), b in zip(POOLS.items(), BACKENDS, strict=True) if n == node}
        inside = (
            not (zones or types)
            or (node is not None and (NODES[node] in zones or "*" in zones))
            or (node is not None and any(backend[name] & nodes_backends for name in types))
        )
        if inside and pool not in gone:
            expected.append(pool)
        assert own in nodes_backends
    assert pools_of(narrowed) == expected
    original = dict(zip(model.volume_ids.to_pylist(), model.pool_of.tolist(), strict=True))
    for volume, pool in zip(narrowed.volume_ids.to_pylist(), narrowed.pool_of.tolist(), strict=True):
        name = narrowed.pool_name(pool) if pool >= 0 else None
        assert name == (model.pool_name(original[volume]) if original[volume] >= 0 else None)
    tables = narrowed.to_arrow()
    assert StorageModel.from_arrow(*tables).to_arrow() == tables
