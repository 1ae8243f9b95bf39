"""storage_capacity_balance, zone_migration and saving_energy: Watcher's scenarios, and what was wrong there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.contracts import Context
from trimtab.platform.errors import InvalidInput, StrategyError
from trimtab.platform.model import BaremetalModel, ClusterModel, StorageModel
from trimtab.platform.proposal import Act, Candidate, Migrate
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Snapshot
from trimtab.strategies.library.saving_energy import SavingEnergy
from trimtab.strategies.library.storage_capacity_balance import StorageCapacityBalance
from trimtab.strategies.library.zone_migration import ZoneMigration


def propose(strategy: Any, snapshot: Snapshot, **given: Any) -> Sequence[Candidate]:
    return strategy.propose(snapshot, read_parameters(strategy, given), Context())


def shown(candidate: Candidate, model: ClusterModel) -> list[str]:
    """Steps as short words."""
    words = []
    for step in candidate.steps:
        if isinstance(step, Migrate):
            to = model.host_name(step.destination)[-1] if step.destination >= 0 else "?"
            words.append(f"{'live' if step.live else 'cold'} {model.instance_id(step.instance)[9:]}>{to}")
        else:
            where = step.parameters.get("destination_node") or step.parameters.get("destination_type")
            words.append(f"{step.parameters['migration_type']} {step.resource_id}>{where}")
    return words


# -- storage_capacity_balance ----------------------------------------------------------------------------------------


def d9(**changes: Sequence[Any]) -> StorageModel:
    """Watcher's scenario: a pool that is 80 % full, one that is 40 % full, and a local one."""
    nodes = pa.table({"host": ["host1@IPSAN-1", "host1@local"]})
    pools = {
        "name": ["host1@IPSAN-1#pool1", "host1@IPSAN-1#pool2", "host1@local#local_vstorage"],
        "node": ["host1@IPSAN-1", "host1@IPSAN-1", "host1@local"],
        "backend": ["pool1", "pool2", "local"],
        "total_gb": [100.0, 100.0, 100.0],
        "free_gb": [60.0, 20.0, 20.0],
        "allocated_gb": [90.0, 80.0, 80.0],
    }
    types = pa.table({"name": ["type1", "type2"], "backend": ["pool1", "pool2"]})
    volumes = {
        "uuid": ["v1", "v2", "v3", "v4", "v5"],
        "size_gb": [4.0, 10.0, 4.0, 10.0, 15.0],
        "pool": ["host1@IPSAN-1#pool2"] * 5,
        "status": ["available", "in-use", "in-use", "error", "in-use"],
        "migration_status": ["success", "", "", "", ""],
        "type": ["type2", "", "type2", "", ""],
        "bootable": [True, False, True, False, True],
        "snapshots": [0.0, 0, 0, 0, 1],
    }
    for table in (pools, volumes):
        table.update({name: list(values) for name, values in changes.items() if name in table})
    return StorageModel.from_arrow(nodes, pa.table(pools), types, pa.table(volumes))


@pytest.fixture
def compute(scenarios: ModuleType) -> ClusterModel:
    model: ClusterModel = scenarios.scenario_1()
    return model


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (45.0, ["retype v1>type1"]),
        (50.0, ["retype v1>type1", "retype v3>type1"]),
        # Watcher moves v2 (10 GB) too, forgetting that 8 of the last 10 GB have just been allocated.
        (60.0, ["retype v1>type1", "retype v3>type1"]),
        (85.0, None),
        (30.0, None),
    ],
)
def test_volumes_leave_the_full_pool_as_in_watchers_scenario(
    compute: ClusterModel, threshold: float, expected: list[str] | None
) -> None:
    found = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=d9()), volume_threshold=threshold)
    assert [shown(candidate, compute) for candidate in found] == ([expected] if expected else [])


def test_a_typed_volume_moves_as_it_is_to_a_pool_of_its_own_backend(compute: ClusterModel) -> None:
    storage = d9(backend=["pool2", "pool2", "local"])
    (candidate,) = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=storage), volume_threshold=50.0)
    assert "migrate v1>host1@IPSAN-1#pool1" in shown(candidate, compute)
    before, after = (candidate.indicators[f"standard_deviation_{when}_audit"] for when in ("before", "after"))
    assert after < before


def test_one_volume_that_suffices_is_better_than_three_small_ones(compute: ClusterModel) -> None:
    storage = d9(
        size_gb=[1.0, 2.0, 3.0, 4.0, 12.0],
        status=["available"] * 5,
        snapshots=[0.0] * 5,
        type=[""] * 5,
        free_gb=[60.0, 10.0, 20.0],
        allocated_gb=[40.0, 90.0, 80.0],
    )
    (candidate,) = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=storage), volume_threshold=80.0)
    assert shown(candidate, compute) == ["migrate v5>host1@IPSAN-1#pool1"]


def test_pools_of_unknown_or_unlimited_size_are_no_error(compute: ClusterModel) -> None:
    unknown = d9(total_gb=[None, 100.0, 0.0], free_gb=[None, 20.0, 0.0])
    assert propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=unknown), volume_threshold=50.0) == ()
    endless = d9(total_gb=[float("inf"), 100.0, 0.0], free_gb=[float("inf"), 20.0, 0.0])
    (candidate,) = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=endless), volume_threshold=50.0)
    assert len(candidate.steps) == 3


def test_a_pool_that_cannot_be_relieved_is_named(compute: ClusterModel) -> None:
    (candidate,) = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=d9()), volume_threshold=45.0)
    assert any("host1@IPSAN-1#pool2 stays 76% full" in note for note in candidate.notes)


def test_without_a_storage_model_the_remedy_is_named(compute: ClusterModel) -> None:
    with pytest.raises(StrategyError, match="configure Cinder"):
        propose(StorageCapacityBalance(), Snapshot(compute, 0.0))
    with pytest.raises(StrategyError, match="leave them out or configure Cinder"):
        propose(ZoneMigration(), Snapshot(compute, 0.0), storage_pools=[{"src_pool": "a", "dst_pool": "b"}])
    with pytest.raises(StrategyError, match="metal nodes"):
        propose(SavingEnergy(), Snapshot(compute, 0.0))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.floats(20, 95))
def test_no_receiver_ends_at_the_threshold_and_no_volume_moves_twice(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    pools, volumes = int(rng.integers(2, 7)), int(rng.integers(1, 40))
    total = rng.choice([50.0, 100.0, 200.0], pools)
    pool_of = rng.integers(0, pools, volumes)
    size = rng.integers(1, 15, volumes).astype(float)
    used = np.minimum(np.bincount(pool_of, size, pools), total)
    kinds = [f"t{n}" for n in range(3)]
    storage = StorageModel.from_arrow(
        pa.table({"host": ["h@b"]}),
        pa.table(
            {
                "name": [f"h@b#{n}" for n in range(pools)],
                "node": ["h@b"] * pools,
                "backend": rng.choice(["b0", "b1"], pools).tolist(),
                "total_gb": total,
                "free_gb": total - used,
                "allocated_gb": used,
                "over_subscription": rng.choice([1.0, 2.0], pools),
            }
        ),
        pa.table({"name": kinds, "backend": ["b0", "b1", ""]}),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(volumes)],
                "size_gb": size,
                "pool": [f"h@b#{n}" for n in pool_of],
                "type": rng.choice([*kinds, ""], volumes).tolist(),
                "status": rng.choice(["available", "in-use", "error"], volumes).tolist(),
                "bootable": rng.random(volumes) < 0.5,
            }
        ),
    )
    model = ClusterModel.from_arrow(
        pa.table({"uuid": ["h"], "hostname": ["h"], "vcpus": [1.0], "memory_mb": [1.0], "disk_gb": [1.0]}),
        pa.table({"uuid": ["i"], "node": ["h"], "vcpus": [1.0], "memory_mb": [1.0], "disk_gb": [1.0]}),
    )
    free = total - used
    over = used >= threshold / 100 * total
    for candidate in propose(
        StorageCapacityBalance(), Snapshot(model, 0.0, storage=storage), volume_threshold=threshold
    ):
        moved = [step.resource_id for step in candidate.steps if isinstance(step, Act)]
        assert len(set(moved)) == len(moved)
        for step in candidate.steps:
            assert isinstance(step, Act)
            volume = int(str(step.resource_id)[1:])
            assert over[pool_of[volume]]
            assert storage.status[volume] != "error"
            if step.parameters["migration_type"] == "migrate":
                to = int(str(step.parameters["destination_node"]).rpartition("#")[2])
                free[to] -= size[volume]
                assert free[to] > (1 - threshold / 100) * total[to]


# -- zone_migration --------------------------------------------------------------------------------------------------


def pools_and_volumes(*volumes: tuple[str, str, str], attached: Mapping[str, str] | None = None) -> StorageModel:
    """Volumes as (name, pool, type), each of 1 GB; `attached` maps a volume to an instance."""
    names = sorted({pool for _, pool, _ in volumes} | {"dst1", "dst2"})
    return StorageModel.from_arrow(
        pa.table({"host": ["h@b"]}),
        pa.table(
            {
                "name": names,
                "node": ["h@b"] * len(names),
                "total_gb": [500.0] * len(names),
                "free_gb": [420.0] * len(names),
            }
        ),
        pa.table({"name": ["type1", "type2", "type3"]}),
        pa.table(
            {
                "uuid": [name for name, _, _ in volumes],
                "size_gb": [float(n + 1) for n in range(len(volumes))],
                "pool": [pool for _, pool, _ in volumes],
                "type": [kind for _, _, kind in volumes],
                "created": [f"20{17 - n:02}-01-01" for n in range(len(volumes))],
                "attached_to": pa.array(
                    [[(attached or {})[name]] if name in (attached or {}) else [] for name, _, _ in volumes],
                    pa.list_(pa.string()),
                ),
            }
        ),
    )


HOSTS = {"h0": "hostname_0", "h1": "hostname_1", "h2": "hostname_2", "h3": "hostname_3", "h4": "hostname_4"}


def nodes(*pairs: tuple[str, str | None]) -> list[dict[str, str]]:
    return [{"src_node": HOSTS[a]} | ({"dst_node": HOSTS[b]} if b else {}) for a, b in pairs]


@pytest.mark.parametrize(
    ("given", "expected", "ratio"),
    [
        ({"compute_nodes": nodes(("h0", "h1"))}, ["live 0>1", "live 1>1"], ("live", 2, 2)),
        ({"compute_nodes": nodes(("h0", None))}, ["live 0>?", "live 1>?"], ("live", 2, 2)),
        ({"compute_nodes": nodes(("h0", "h1"), ("h3", "h4"))}, ["live 0>1", "live 1>1", "cold 6>4"], ("cold", 1, 1)),
        (
            {"compute_nodes": nodes(("h0", None), ("h2", None)), "parallel_per_node": 4},
            ["live 0>?", "live 1>?", "live 3>?", "live 4>?", "live 5>?"],
            ("live", 5, 5),
        ),
        (
            {"compute_nodes": nodes(("h0", None), ("h2", None)), "parallel_per_node": 1},
            ["live 0>?", "live 3>?"],
            ("live", 5, 2),
        ),
        (
            {"compute_nodes": nodes(("h0", None), ("h2", None)), "parallel_total": 3},
            ["live 0>?", "live 1>?", "live 3>?"],
            ("live", 5, 3),
        ),
        (
            {"compute_nodes": nodes(("h0", None), ("h2", None)), "parallel_total": 1, "complete": True},
            ["live 0>?", "live 1>?", "live 3>?", "live 4>?", "live 5>?"],
            ("live", 5, 5),
        ),
    ],
)
def test_instances_go_where_an_operator_says_within_the_caps(
    compute: ClusterModel, given: dict[str, Any], expected: list[str], ratio: tuple[str, int, int]
) -> None:
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0), **given)
    assert shown(candidate, compute) == expected
    kind, wanted, planned = ratio
    assert candidate.indicators[f"{kind}_migrate_instance_count"] == wanted
    assert candidate.indicators[f"planned_{kind}_migrate_instance_count"] == planned


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        ({"compute_node": ["hostname_0", "hostname_2"]}, "0 1 3 4 5"),
        ({"compute_node": ["hostname_2", "hostname_0"]}, "3 4 5 0 1"),
        ({"compute": "mem_size"}, "1 0 3 4 5"),
        ({"compute": "vcpu_num"}, "1 0 3 4 5"),
        ({"compute": "disk_size"}, "0 3 4 5 1"),
        ({"compute_node": ["hostname_2"], "compute": "vcpu_num"}, "3 4 5 1 0"),
        ({"compute": "vcpu_num", "compute_node": ["hostname_2"]}, "1 3 4 5 0"),
    ],
)
def test_the_priority_written_first_counts_most(compute: ClusterModel, priority: dict[str, Any], expected: str) -> None:
    given = {"compute_nodes": nodes(("h0", None), ("h2", None)), "priority": priority, "complete": True}
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0), **given)
    assert " ".join(word[5:-2] for word in shown(candidate, compute)) == expected


A = {"src_pool": "src1", "dst_pool": "dst1"}
B = {"src_pool": "src2", "src_type": "type1", "dst_type": "type3"}


@pytest.mark.parametrize(
    ("volumes", "given", "expected"),
    [
        ([("v1", "src1", "type1")], {"storage_pools": [A]}, ["migrate v1>dst1"]),
        (
            [("v1", "src1", "type1"), ("v2", "src2", "type1")],
            {"storage_pools": [A, B]},
            ["migrate v1>dst1", "retype v2>type3"],
        ),
        (
            [("v1", "src1", "type1"), ("v2", "src1", "type1"), ("v3", "src1", "type1")],
            {"storage_pools": [A]},
            ["migrate v1>dst1", "migrate v2>dst1"],
        ),
        (
            [("v1", "src1", "type1"), ("v2", "src1", "type1")],
            {"storage_pools": [A], "parallel_per_pool": 1},
            ["migrate v1>dst1"],
        ),
        (
            [("v1", "src1", "type1"), ("v2", "src1", "type2")],
            {"storage_pools": [{**A, "src_type": "type2"}]},
            ["migrate v2>dst1"],
        ),
        ([("v1", "src1", "type1")], {"storage_pools": [A, A]}, ["migrate v1>dst1"]),
        (
            [("v1", "src1", "type1"), ("v2", "src1", "type1")],
            {"storage_pools": [A], "priority": {"storage": "size"}},
            ["migrate v2>dst1", "migrate v1>dst1"],
        ),
        (
            [("v1", "src1", "type1"), ("v2", "src1", "type1")],
            {"storage_pools": [A], "priority": {"storage": "created_at"}},
            ["migrate v2>dst1", "migrate v1>dst1"],
        ),
    ],
)
def test_volumes_go_where_an_operator_says(
    compute: ClusterModel, volumes: list[tuple[str, str, str]], given: dict[str, Any], expected: list[str]
) -> None:
    snapshot = Snapshot(compute, 0.0, storage=pools_and_volumes(*volumes))
    (candidate,) = propose(ZoneMigration(), snapshot, **given)
    assert shown(candidate, compute) == expected
    assert candidate.indicators["planned_volume_migrate_count"] == len(expected)


def test_a_volume_that_has_the_type_already_stays_and_is_named(compute: ClusterModel) -> None:
    storage = pools_and_volumes(("v1", "src2", "type3"), ("v2", "src2", "type1"))
    given = {"storage_pools": [{"src_pool": "src2", "dst_type": "type3"}]}
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), **given)
    assert shown(candidate, compute) == ["retype v2>type3"]
    assert "1 volumes have the type already and no pool is given" in candidate.notes


@pytest.mark.parametrize(
    ("attached_to", "expected"),
    [
        ("INSTANCE_1", ["migrate v1>dst1", "live 1>1", "migrate v2>dst1", "live 0>1"]),
        ("INSTANCE_3", ["migrate v1>dst1", "migrate v2>dst1", "live 0>1", "live 1>1"]),
        ("nobody", ["migrate v1>dst1", "migrate v2>dst1", "live 0>1", "live 1>1"]),
    ],
)
def test_an_instance_follows_right_after_its_volume(
    compute: ClusterModel, attached_to: str, expected: list[str]
) -> None:
    storage = pools_and_volumes(("v1", "src1", "type1"), ("v2", "src1", "type1"), attached={"v1": attached_to})
    given = {"storage_pools": [A], "compute_nodes": nodes(("h0", "h1")), "with_attached_volume": True}
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), **given)
    assert shown(candidate, compute) == expected


def test_a_full_destination_is_not_overfilled_and_takes_no_place_under_the_caps(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(40, 250, 132), (12, 250, 132)], [(0, 10, 20, 2), (0, 10, 20, 2), (0, 2, 20, 2)])
    given = {"compute_nodes": nodes(("h0", "h1")), "parallel_total": 2}
    (candidate,) = propose(ZoneMigration(), Snapshot(model, 0.0), **given)
    assert shown(candidate, model) == ["live 0>1", "live 2>1"]
    assert "1 instances stay: the destination has no room" in candidate.notes


def test_what_nobody_can_move_is_counted_and_excluded_instances_are_left_alone(scenarios: ModuleType) -> None:
    model = scenarios.cluster(
        [(40, 250, 132)] * 2,
        [(0, 1, 1, 1)] * 4,
        instance_columns={"state": ["error", "active", "active", "active"], "locked": [False, True, False, False]},
    ).with_changes(excluded=np.array([False, False, True, False]))
    (candidate,) = propose(ZoneMigration(), Snapshot(model, 0.0), compute_nodes=nodes(("h0", "h1")))
    assert shown(candidate, model) == ["live 3>1"]
    assert "1 instances are in a state in which nothing can be migrated" in candidate.notes
    assert "1 instances are locked or bound to their host" in candidate.notes


def test_unknown_names_are_said_and_empty_wishes_give_nothing(compute: ClusterModel) -> None:
    assert propose(ZoneMigration(), Snapshot(compute, 0.0)) == ()
    given = {"compute_nodes": [{"src_node": "atlantis"}, *nodes(("h0", "h1"))]}
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0), **given)
    assert "host atlantis is not in the model" in candidate.notes
    nowhere = {"compute_nodes": [{"src_node": "hostname_0", "dst_node": "atlantis"}]}
    assert propose(ZoneMigration(), Snapshot(compute, 0.0), **nowhere) == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"storage_pools": [{"src_pool": "a"}]}, "give either dst_pool or dst_type"),
        ({"storage_pools": [{"src_pool": "a", "dst_pool": "b", "dst_type": "c"}]}, "give either dst_pool or dst_type"),
        ({"compute_nodes": [{"dst_node": "b"}]}, "compute_nodes.0.src_node: Field required"),
        ({"priority": {"compute": "age"}}, "priority.compute"),
        ({"parallel_total": -1}, "parallel_total"),
    ],
)
def test_wrong_wishes_are_refused_with_their_path(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read_parameters(ZoneMigration(), given)


def test_volumes_that_cannot_move_are_named_and_take_no_place_under_the_caps(compute: ClusterModel) -> None:
    storage = pools_and_volumes(*((f"v{n}", "src1", "type1") for n in range(5)))
    odd = pa.array(["error", "available", "available", "available", "available"])
    tables = list(storage.to_arrow())
    at = tables[3].column_names.index("status")
    tables[3] = tables[3].set_column(at, "status", odd)
    at = tables[3].column_names.index("snapshots")
    tables[3] = tables[3].set_column(at, "snapshots", pa.array([0.0, 2.0, 0.0, 0.0, 0.0]))
    busy = StorageModel.from_arrow(*tables)
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0, storage=busy), storage_pools=[A])
    assert shown(candidate, compute) == ["migrate v2>dst1", "migrate v3>dst1"]
    assert "2 volumes are busy, broken or have snapshots" in candidate.notes
    nowhere = [{"src_pool": "src1", "dst_pool": "atlantis"}]
    assert propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), storage_pools=nowhere) == ()
    unknown = [{"src_pool": "src1", "dst_type": "tin"}]
    assert propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), storage_pools=unknown) == ()


def test_a_volume_goes_only_to_pools_that_its_type_allows(compute: ClusterModel) -> None:
    storage = d9()
    given = {"storage_pools": [{"src_pool": "host1@IPSAN-1#pool2", "dst_pool": "host1@IPSAN-1#pool1"}]}
    (candidate,) = propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), **given)
    assert shown(candidate, compute) == ["migrate v2>host1@IPSAN-1#pool1"]
    assert "2 volumes stay: their type does not allow pool host1@IPSAN-1#pool1" in candidate.notes
    retype = {"storage_pools": [{"src_pool": "host1@IPSAN-1#pool2", "src_type": "type2", "dst_type": "type1"}]}
    (other,) = propose(ZoneMigration(), Snapshot(compute, 0.0, storage=storage), **retype)
    assert shown(other, compute) == ["retype v1>type1", "retype v3>type1"]


def test_nobody_migrates_off_a_host_that_is_down_or_again_after_a_failure(scenarios: ModuleType) -> None:
    model = scenarios.cluster(
        [(40, 250, 132)] * 3, [(0, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)], host_columns={"state": ["down", "up", "up"]}
    )
    given = {"compute_nodes": nodes(("h0", "h2"), ("h1", "h2"))}
    (candidate,) = propose(ZoneMigration(), Snapshot(model, 0.0, failed_before=(1,)), **given)
    assert shown(candidate, model) == ["live 2>2"]
    assert any("hosts that are down" in note for note in candidate.notes)
    assert any("failed to move before" in note for note in candidate.notes)


def test_no_pool_is_excluded_where_nobody_wants_that(compute: ClusterModel) -> None:
    storage = d9(free_gb=[60.0, 60.0, 20.0], pool=["host1@local#local_vstorage"] * 5, type=[""] * 5)
    assert propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=storage)) == ()
    (candidate,) = propose(StorageCapacityBalance(), Snapshot(compute, 0.0, storage=storage), excluded_pools=[])
    assert candidate.steps


# -- saving_energy ---------------------------------------------------------------------------------------------------


def metal(*nodes_: tuple[str, str], **columns: Sequence[Any]) -> BaremetalModel:
    """Metal nodes as (host name, power)."""
    table = {
        "uuid": [f"m{n}" for n in range(len(nodes_))],
        "hostname": [n[0] for n in nodes_],
        "power": [n[1] for n in nodes_],
    }
    return BaremetalModel.from_arrow(pa.table({**table, **columns}))


def acts(candidate: Candidate) -> list[Act]:
    return [step for step in candidate.steps if isinstance(step, Act)]


def powers(candidates: Sequence[Candidate]) -> list[tuple[str | None, str]]:
    return [
        (step.resource_id, step.parameters["state"])
        for candidate in candidates
        for step in candidate.steps
        if isinstance(step, Act) and step.action_type == "change_node_power_state"
    ]


@pytest.fixture
def idle(scenarios: ModuleType) -> ClusterModel:
    """Four hosts; only the first one holds something."""
    model: ClusterModel = scenarios.cluster([(40, 250, 132)] * 3 + [(64, 250, 132)], [(0, 1, 1, 1)])
    return model


def test_surplus_free_hosts_go_off_the_largest_first_and_are_disabled_before(idle: ClusterModel) -> None:
    nodes_ = metal(("hostname_0", "on"), ("hostname_1", "on"), ("hostname_2", "on"), ("hostname_3", "on"))
    (candidate,) = propose(SavingEnergy(), Snapshot(idle, 0.0, baremetal=nodes_))
    words = [(step.action_type, step.parameters["state"], step.host) for step in acts(candidate)]
    assert words == [
        ("change_nova_service_state", "disabled", 3),
        ("change_node_power_state", "off", 3),
        ("change_nova_service_state", "disabled", 1),
        ("change_node_power_state", "off", 1),
    ]
    assert candidate.indicators == {"hosts_powered_off_count": 2, "hosts_powered_on_count": 0}
    assert acts(candidate)[1].parameters["resource_name"] == "hostname_3"


def test_two_free_hosts_that_are_on_give_one_off_as_in_watchers_scenario(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(40, 250, 132)] * 2, [])
    on = metal(("hostname_0", "on"), ("hostname_1", "on"))
    assert powers(propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=on))) == [("m0", "off")]
    off = metal(("hostname_0", "off"), ("hostname_1", "off"), ("hostname_10", "off"))
    assert powers(propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=off))) == [("m0", "on")]


@pytest.mark.parametrize("reason", ["watcher_disabled", "Watcher node resource consolidation strategy"])
def test_what_a_consolidation_disabled_is_enabled_when_it_is_on_again(scenarios: ModuleType, reason: str) -> None:
    columns = {"status": ["disabled", "disabled"], "disabled_reason": [reason, "broken fan"]}
    model = scenarios.cluster([(40, 250, 132)] * 2, [], host_columns={**columns, "state": ["down", "down"]})
    off = metal(("hostname_0", "off"), ("hostname_1", "off"))
    (candidate,) = propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=off), min_free_hosts_num=2)
    words = [(step.action_type, step.parameters["state"], step.host) for step in acts(candidate)]
    assert words == [("change_node_power_state", "on", 0), ("change_nova_service_state", "enabled", 0)]
    assert "2 free hosts are wanted and only 1 can be on" in candidate.notes


def test_a_host_in_maintenance_is_not_switched_off_and_a_closed_one_is_no_reserve(scenarios: ModuleType) -> None:
    columns = {
        "status": ["disabled", "disabled", "enabled", "disabled"],
        "disabled_reason": ["watcher_maintaining", "broken fan", "", "watcher_disabled"],
    }
    model = scenarios.cluster([(40, 250, 132)] * 4, [], host_columns=columns)
    nodes_ = metal(*((f"hostname_{n}", "on") for n in range(4)))
    (candidate,) = propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=nodes_), min_free_hosts_num=0)
    assert {step.host for step in acts(candidate)} == {2, 3}
    assert any(note.startswith("2 hosts are disabled for a reason of somebody else") for note in candidate.notes)
    (opened,) = propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=nodes_), min_free_hosts_num=2)
    words = [(step.action_type, step.parameters["state"], step.host) for step in acts(opened)]
    assert words == [("change_nova_service_state", "enabled", 3)]


def test_maintenance_odd_power_and_ill_hosts_are_left_alone_and_named(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(40, 250, 132)] * 4, [], host_columns={"state": ["up", "up", "down", "up"]})
    nodes_ = metal(
        ("hostname_0", "on"), ("hostname_1", "unknown"), ("hostname_2", "on"), ("hostname_3", "on"),
        maintenance=[True, False, False, False],
    )  # fmt: skip
    assert propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=nodes_)) == ()
    (candidate,) = propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=nodes_), min_free_hosts_num=0)
    assert powers([candidate]) == [("m3", "off")]
    assert len(candidate.notes) == 3


def test_the_reserve_grows_with_the_hosts_in_use(scenarios: ModuleType) -> None:
    model = scenarios.cluster([(4, 50, 13)] * 30, [(host, 1, 1, 1) for host in range(20)])
    nodes_ = metal(*((f"hostname_{n}", "on") for n in range(30)))
    found = propose(SavingEnergy(), Snapshot(model, 0.0, baremetal=nodes_), free_used_percent=25.0)
    assert len(powers(found)) == 10 - 5
