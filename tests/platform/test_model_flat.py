"""The flat list of a compute model: Watcher's keys, types and order, and what the collector knows is available."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform.recorder import Recorder

from trimtab.platform.collector import Collector
from trimtab.platform.errors import CloudUnavailable, DatasourceError
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.flat import flat
from trimtab.platform.scope import narrow
from trimtab.platform.snapshot import Need
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver, local_call
from trimtab.simulator.truth import CloudSpec

NODE: dict[str, Any] = {
    "node_uuid": str, "node_hostname": str, "node_status": str, "node_disabled_reason": (str, type(None)),
    "node_state": str, "node_memory": int, "node_memory_mb_reserved": int, "node_disk": int,
    "node_disk_gb_reserved": int, "node_vcpus": int, "node_vcpu_reserved": int, "node_memory_ratio": float,
    "node_vcpu_ratio": float, "node_disk_ratio": float,
}  # fmt: skip
SERVER: dict[str, Any] = {
    "server_uuid": str, "server_watcher_exclude": bool, "server_name": str, "server_state": str, "server_memory": int,
    "server_disk": int, "server_vcpus": int, "server_metadata": dict, "server_project_id": str, "server_locked": bool,
    "server_pinned_az": str, "server_flavor_extra_specs": dict,
}  # fmt: skip


def model() -> ClusterModel:
    """Two hosts and an empty third, not in order; one instance is nowhere."""
    hosts = pa.table(
        {
            "uuid": ["h2", "h0", "h1"],
            "hostname": ["gamma", "alpha", "beta"],
            "vcpus": [4.0, 8.0, 8.0],
            "memory_mb": [16383.0, 8192.0, 8192.0],
            "disk_gb": [37.0, 100.0, 100.0],
            "memory_mb_reserved": [512.0, 0.0, 0.0],
            "vcpu_ratio": [16.0, 1.0, 1.0],
            "memory_ratio": [1.5, 1.0, 1.0],
            "status": ["enabled", "disabled", "enabled"],
            "disabled_reason": ["", "broken fan", ""],
            "state": ["up", "up", "down"],
            "zone": ["nova", "nova", "east"],
        }
    )
    instances = pa.table(
        {
            "uuid": ["v3", "v1", "v2", "v0"],
            "name": ["three", "one", "two", "zero"],
            "node": ["h0", "h2", "h2", None],
            "vcpus": [1.0, 2.0, 4.0, 1.0],
            "memory_mb": [512.0, 1024.0, 2048.0, 512.0],
            "disk_gb": [1.0, 2.0, 4.0, 1.0],
            "state": ["active", "stopped", "active", "error"],
            "project": ["p1", "p2", "p1", "p1"],
            "flavor_specs": ["{}", '{"hw:cpu_policy": "dedicated"}', "{}", "{}"],
            "metadata": ['{"a": "1"}', "{}", '{"a": "1"}', "{}"],
            "locked": [True, False, False, False],
            "pinned_zone": ["", "nova", "", ""],
        }
    )
    return ClusterModel.from_arrow(hosts, instances)


def test_rows_are_sorted_by_node_and_server_and_empty_nodes_have_one_of_their_own() -> None:
    rows = flat(model()).rows()
    assert [(row["node_uuid"], row.get("server_uuid")) for row in rows] == [
        ("h0", "v3"),
        ("h1", None),
        ("h2", "v1"),
        ("h2", "v2"),
    ]
    assert set(rows[1]) == set(NODE), "an empty node has no server's key"


def test_values_have_watchers_names_and_types() -> None:
    rows = flat(model()).rows()
    for row in rows:
        wanted = {**NODE, **(SERVER if "server_uuid" in row else {})}
        assert set(row) == set(wanted)
        for key, kind in wanted.items():
            assert isinstance(row[key], kind), key
            assert isinstance(row[key], bool) == (kind is bool), key
    assert rows[2] == {
        "server_uuid": "v1", "server_watcher_exclude": False, "server_name": "one", "server_state": "stopped",
        "server_memory": 1024, "server_disk": 2, "server_vcpus": 2, "server_metadata": {}, "server_project_id": "p2",
        "server_locked": False, "server_pinned_az": "nova",
        "server_flavor_extra_specs": {"hw:cpu_policy": "dedicated"},
        "node_uuid": "h2", "node_hostname": "gamma", "node_status": "enabled", "node_disabled_reason": None,
        "node_state": "up", "node_memory": 16383, "node_memory_mb_reserved": 512, "node_disk": 37,
        "node_disk_gb_reserved": 0, "node_vcpus": 4, "node_vcpu_reserved": 0, "node_memory_ratio": 1.5,
        "node_vcpu_ratio": 16.0, "node_disk_ratio": 1.0,
    }  # fmt: skip
    assert (rows[0]["node_status"], rows[0]["node_disabled_reason"], rows[0]["server_metadata"]) == (
        "disabled",
        "broken fan",
        {"a": "1"},
    )
    assert (rows[0]["server_locked"], rows[1]["node_state"]) == (True, "down")


def test_keys_can_be_left_out_and_the_rest_stays() -> None:
    whole, less = flat(model()).rows(), flat(model()).rows(frozenset({"server_pinned_az"}))
    assert less == [{key: row[key] for key in row if key != "server_pinned_az"} for row in whole]
    assert less != whole


def test_a_scope_removes_nodes_and_marks_what_it_excludes() -> None:
    scope = [{"compute": [{"availability_zones": [{"name": "nova"}]}, {"exclude": [{"projects": [{"uuid": "p1"}]}]}]}]
    rows = flat(narrow(model(), scope)[0]).rows()
    assert [(row["node_uuid"], row["server_uuid"], row["server_watcher_exclude"]) for row in rows] == [
        ("h0", "v3", True),
        ("h2", "v1", False),
        ("h2", "v2", True),
    ]
    nothing = [{"compute": [{"availability_zones": [{"name": "moon"}]}]}]
    assert flat(narrow(model(), nothing)[0]).rows() == []


@given(seed=st.integers(0, 2**16), hosts=st.integers(1, 9), instances=st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_the_list_is_what_plain_loops_would_write(seed: int, hosts: int, instances: int) -> None:
    random = np.random.default_rng(seed)
    ids, at = random.permutation(hosts), random.integers(-1, hosts, instances)
    one = ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": [f"h{i}" for i in ids],
                "hostname": [f"host-{i}" for i in ids],
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), random.integers(1, 99, hosts).astype(float)),
            }
        ),
        pa.table(
            {
                "uuid": pa.array([f"v{i}" for i in random.permutation(instances)], pa.string()),
                "node": pa.array([None if row < 0 else f"h{ids[row]}" for row in at], pa.string()),
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), random.integers(0, 99, instances).astype(float)),
            }
        ),
    )
    plain: list[Any] = []
    for host in sorted(range(hosts), key=one.host_id):
        node = (one.host_id(host), one.host_name(host), int(one.total[host, 0]))
        members = sorted((v for v in range(instances) if one.host_of[v] == host), key=one.instance_id)
        plain += [(*node, one.instance_id(v), int(one.demand[v, 1])) for v in members] or [(*node, None, None)]
    rows = flat(one).rows()
    keys = ("node_uuid", "node_hostname", "node_vcpus", "server_uuid", "server_memory")
    assert [tuple(row.get(key) for key in keys) for row in rows] == plain
    assert json.loads(json.dumps(rows)) == rows


# -- availability ----------------------------------------------------------------------------------------


def collector(folder: Path, fault: Exception | None = None, method: str = "") -> Collector:
    call = local_call(SimulatedCloud(CloudSpec(hosts=3, instances=6, seed=1), folder / "cloud.journal"))

    async def asked(name: str, arguments: tuple[object, ...], named: dict[str, object]) -> object:
        if fault is not None and name == method:
            raise fault
        return await call(name, arguments, named)

    return Collector(SimulatedDriver(asked), SimulatedDatasource(asked), Recorder(folder / "metrics"), 3600.0)


async def test_what_is_measured_and_which_models_there_are_is_known(tmp_path: Path) -> None:
    one = collector(tmp_path)
    before = await one.availability([])
    assert (before.datasource, before.fault, before.measured) == ("simulated", "", ())
    assert before.models == {"compute": False, "storage": False, "baremetal": False}
    await one.newest()
    found = await one.availability([Need("instance_cpu_usage", "instance"), Need("moon_phase", "host")])
    assert (found.fault, found.measured, found.models["compute"]) == ("", (True, False), True)


async def test_a_datasource_that_does_not_answer_says_so(tmp_path: Path) -> None:
    one = collector(tmp_path, DatasourceError("no route"), "aggregate")
    await one.newest()
    found = await one.availability([Need("instance_cpu_usage", "instance")])
    assert (found.fault, found.measured) == ("no route", (False,))


async def test_the_newest_model_is_collected_when_there_is_none_yet(tmp_path: Path) -> None:
    one = collector(tmp_path)
    assert (await one.newest()) is one.model
    with pytest.raises(CloudUnavailable, match="no model of the cloud yet"):
        await collector(tmp_path / "x", CloudUnavailable("gone"), "inventory").newest()
