"""The cluster model at its edges: tables in, clear complaints, and the same tables out again."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import ModelError
from trimtab.platform.model import STATES, ClusterModel, GroupPolicy, read_model, write_model
from trimtab.platform.model.compute import Codes


def tables() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Columns of a cloud of two hosts and three instances, the required columns only."""
    hosts = {
        "uuid": ["h0", "h1"],
        "hostname": ["alpha", "beta"],
        "vcpus": [8.0, 8.0],
        "memory_mb": [8192.0, 8192.0],
        "disk_gb": [100.0, 100.0],
    }
    instances = {
        "uuid": ["v0", "v1", "v2"],
        "node": ["h0", "h1", None],
        "vcpus": [1.0, 2.0, 4.0],
        "memory_mb": [512.0, 1024.0, 2048.0],
        "disk_gb": [1.0, 2.0, 4.0],
    }
    return hosts, instances, {"uuid": ["g0"], "policy": ["anti-affinity"]}


def build(hosts: dict[str, Any], instances: dict[str, Any], groups: dict[str, Any]) -> ClusterModel:
    return ClusterModel.from_arrow(pa.table(hosts), pa.table(instances), pa.table(groups))


def assert_same(one: ClusterModel, other: ClusterModel) -> None:
    for field in fields(ClusterModel):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Codes):
            assert a.names == b.names, field.name
            a, b = a.codes, b.codes
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
        elif isinstance(a, pa.Array):
            assert a.equals(b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize(
    ("table", "column", "row", "value", "message"),
    [
        (1, "node", 1, "h9", r"instances row 1 \(v1\): node 'h9' is not in the hosts table; remove .* or add its host"),
        (1, "vcpus", 2, -1.0, r"instances row 2 \(v2\): vcpus is -1; it must be a finite number, zero or more"),
        (1, "memory_mb", 0, float("nan"), r"instances row 0 \(v0\): memory_mb is nan; it must be a finite"),
        (0, "disk_gb", 1, float("inf"), r"hosts row 1 \(h1\): disk_gb is inf; it must be a finite"),
        (0, "vcpus", 1, None, r"hosts row 1 \(h1\): vcpus is null; give it a value"),
        (1, "uuid", 2, "v0", r"instances row 2 \(v0\): uuid 'v0' stands in row 0 too; keep one of them"),
        (0, "uuid", 1, "h0", r"hosts row 1 \(h0\): uuid 'h0' stands in row 0 too"),
        (0, "hostname", 1, "alpha", r"hosts row 1 \(h1\): hostname 'alpha' stands in row 0 too"),
        (0, "uuid", 0, None, r"hosts row 0 \(\?\): uuid is null; give it a value"),
        (2, "policy", 0, "love", r"server_groups row 0 \(g0\): policy is 'love'; use one of affinity, anti-affinity"),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_remedy(
    table: int, column: str, row: int, value: Any, message: str
) -> None:
    columns = tables()
    columns[table][column][row] = value
    with pytest.raises(ModelError, match=message):
        build(*columns)


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        (1, "state", ["active", "asleep", "active"], r"instances row 1 \(v1\): state is 'asleep'; use one of active,"),
        (0, "state", ["up", "sideways"], r"hosts row 1 \(h1\): state is 'sideways'; use one of up, down"),
        (0, "status", ["enabled", "on"], r"hosts row 1 \(h1\): status is 'on'; use one of enabled, disabled"),
        (1, "group", ["g0", "", "g7"], r"instances row 2 \(v2\): group 'g7' is not in the server_groups table; clear"),
        (1, "metadata", ["{}", "{", "{}"], r"instances row 1 \(v1\): metadata is '\{'; it must be a JSON object"),
        (1, "metadata", ["{}", "{}", "[1]"], r"instances row 2 \(v2\): metadata is '\[1\]'; it must be a JSON object"),
        (0, "vcpu_ratio", [1.0, -2.0], r"hosts row 1 \(h1\): vcpu_ratio is -2"),
        (0, "vcpus", ["8", "many"], r"hosts: column 'vcpus' is string, not double"),
        (0, "aggregates", ["a", "b"], r"hosts: column 'aggregates' is string, not list"),
    ],
)
def test_a_bad_column_is_named_with_its_row_and_remedy(
    table: int, column: str, values: list[Any], message: str
) -> None:
    columns = tables()
    columns[table][column] = values
    with pytest.raises(ModelError, match=message):
        build(*columns)


@pytest.mark.parametrize(("table", "column"), [(0, "hostname"), (1, "node"), (1, "disk_gb"), (2, "policy")])
def test_a_missing_column_is_named_with_what_the_table_needs(table: int, column: str) -> None:
    columns = tables()
    del columns[table][column]
    with pytest.raises(ModelError, match=rf"column '{column}' is missing; it needs uuid, .*{column}"):
        build(*columns)


def test_defaults_stand_in_for_absent_columns_and_for_nulls() -> None:
    hosts, instances, groups = tables()
    hosts |= {"state": ["up", None], "aggregates": [["x"], None], "traits": [[None, "fast"], [None]]}
    instances |= {"metadata": [None, "", '{"optimize": true}'], "locked": [None, True, False]}
    model = build(hosts, instances, groups)
    assert model.usable.all()
    assert model.aggregates.tolist() == model.traits.tolist() == [[True], [False]]
    assert model.trait_names == ("fast",)
    assert model.zone[1] == "nova"
    assert [model.metadata_of(n) for n in range(3)] == [{}, {}, {"optimize": True}]
    assert model.movable.tolist() == [True, False, False]
    assert model.host_of.tolist() == [0, 1, -1]
    assert model.capacity.tolist() == [[8, 8192, 100]] * 2
    assert model.pinned_zone.tolist() == [-1, -1, -1]


def test_other_arrow_types_of_the_same_facts_are_taken() -> None:
    hosts, instances, groups = tables()
    plain = build(hosts, instances, groups)
    hosts |= {"vcpus": pa.array([8, 8], pa.int32()), "hostname": pa.array(["alpha", "beta"]).dictionary_encode()}
    instances |= {"uuid": pa.array(["v0", "v1", "v2"], pa.large_string())}
    instances |= {"metadata": pa.array([[("a", "b")], None, []], pa.map_(pa.string(), pa.string()))}
    model = build(hosts, instances, groups)
    assert model.metadata_of(0) == {"a": "b"}
    assert model.metadata_of(1) == {}
    assert_same(model.with_changes(metadata=plain.metadata), plain)


def test_sliced_and_chunked_tables_mean_the_same() -> None:
    hosts, instances, groups = tables()
    hosts |= {"aggregates": [["x", "y"], ["y"]], "traits": [[], ["fast"]]}
    one = build(hosts, instances, groups)
    h, v = pa.table(hosts), pa.table(instances)
    twice = pa.concat_tables([h, h]).slice(1, 2)  # beta, alpha
    other = ClusterModel.from_arrow(twice, pa.concat_tables([v.slice(2), v.slice(0, 2)]), pa.table(groups))
    assert other.host_ids.to_pylist() == ["h1", "h0"]
    assert other.aggregates.tolist() == one.aggregates[::-1].tolist()
    assert other.traits.tolist() == one.traits[::-1].tolist()
    assert other.host_of.tolist() == [-1, 1, 0]


def test_a_zone_that_is_only_asked_for_has_a_code_and_no_hosts() -> None:
    hosts, instances, groups = tables()
    hosts |= {"zone": ["west", "east"]}
    instances |= {"pinned_zone": ["", "mars", "east"]}
    model = build(hosts, instances, groups)
    assert model.zone.names == ("east", "west", "mars")
    assert model.pinned_zone.tolist() == [-1, 2, 0]
    assert not model.zone.rows("mars").any()
    assert_same(ClusterModel.from_arrow(*model.to_arrow()), model)


TEXT = st.text("abz é", max_size=3)
AMOUNT = st.sampled_from([0.0, 1.0, 2.5, 1024.0])


@st.composite
def clouds(draw: st.DrawFn) -> ClusterModel:
    """Any small model, empty ones included."""
    count = draw(st.integers(0, 4))
    guests = draw(st.integers(0, 6))
    sets = draw(st.integers(0, 2))

    def column(values: st.SearchStrategy[Any], kind: pa.DataType, size: int) -> pa.Array:
        return pa.array([draw(values) for _ in range(size)], kind)

    def amounts(size: int, *names: str) -> dict[str, pa.Array]:
        return {name: column(AMOUNT, pa.float64(), size) for name in names}

    names = st.lists(st.sampled_from(["x", "y", "zz"]), max_size=3, unique=True)
    hosts = {
        "uuid": pa.array([f"h{n}" for n in range(count)], pa.string()),
        "hostname": pa.array([f"host{n}" for n in range(count)], pa.string()),
        **amounts(count, "vcpus", "memory_mb", "disk_gb", "vcpu_reserved", "memory_mb_reserved", "disk_gb_reserved"),
        **amounts(count, "vcpu_ratio", "memory_ratio", "disk_ratio"),
        "state": column(st.sampled_from(["up", "down"]), pa.string(), count),
        "status": column(st.sampled_from(["enabled", "disabled"]), pa.string(), count),
        "disabled_reason": column(TEXT, pa.string(), count),
        "zone": column(st.sampled_from(["b", "a", ""]), pa.string(), count),
        "aggregates": column(names, pa.list_(pa.string()), count),
        "traits": column(names, pa.list_(pa.string()), count),
    }
    nodes = st.sampled_from([None, *(f"h{n}" for n in range(count))])
    groups = st.sampled_from(["", *(f"g{n}" for n in range(sets))])
    instances = {
        "uuid": pa.array([f"v{n}" for n in range(guests)], pa.string()),
        "name": column(TEXT, pa.string(), guests),
        "node": column(nodes, pa.string(), guests),
        **amounts(guests, "vcpus", "memory_mb", "disk_gb"),
        "state": column(st.sampled_from(STATES), pa.string(), guests),
        "project": column(TEXT, pa.string(), guests),
        "flavor": column(TEXT, pa.string(), guests),
        "metadata": column(st.sampled_from(["{}", '{"a": 1}', ""]), pa.string(), guests),
        "locked": column(st.booleans(), pa.bool_(), guests),
        "pinned_zone": column(st.sampled_from(["", "a", "mars"]), pa.string(), guests),
        "group": column(groups, pa.string(), guests),
        "created": column(st.sampled_from(["", "2026-01-02T03:04:05Z"]), pa.string(), guests),
    }
    policies = st.sampled_from([policy.wire for policy in GroupPolicy])
    table = {
        "uuid": pa.array([f"g{n}" for n in range(sets)], pa.string()),
        "name": column(TEXT, pa.string(), sets),
        "policy": column(policies, pa.string(), sets),
    }
    return ClusterModel.from_arrow(pa.table(hosts), pa.table(instances), pa.table(table))


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_a_model_survives_its_tables(model: ClusterModel) -> None:
    assert_same(ClusterModel.from_arrow(*model.to_arrow()), model)


@settings(max_examples=15, deadline=None)
@given(model=clouds())
def test_a_model_survives_a_folder_of_parquet(model: ClusterModel, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("model") / "cloud"
    write_model(model, folder)
    assert_same(read_model(folder), model)
    assert [path.name for path in folder.parent.iterdir()] == ["cloud"]


@settings(max_examples=30, deadline=None)
@given(clouds())
def test_a_model_survives_pickling_and_stays_read_only(model: ClusterModel) -> None:
    buffers: list[pickle.PickleBuffer] = []
    assert model.capacity.shape == (model.hosts, 3)
    whole = pickle.loads(pickle.dumps(model, protocol=5))
    shared = pickle.loads(pickle.dumps(model, protocol=5, buffer_callback=buffers.append), buffers=buffers)
    for copy in (whole, shared):
        assert_same(copy, model)
        assert np.array_equal(copy.capacity, model.capacity)
        arrays = [getattr(copy, field.name) for field in fields(ClusterModel)]
        assert not any(a.flags.writeable for a in arrays if isinstance(a, np.ndarray))


@settings(max_examples=40, deadline=None)
@given(clouds(), st.integers(0, 15))
def test_a_subset_keeps_some_hosts_and_whoever_is_on_them(model: ClusterModel, chosen: int) -> None:
    keep = np.array([bool(chosen >> n & 1) for n in range(model.hosts)], bool)
    some = model.subset(keep)
    stays = [n for n in range(model.instances) if model.host_of[n] < 0 or keep[model.host_of[n]]]
    assert some.host_ids.to_pylist() == [model.host_id(int(n)) for n in np.flatnonzero(keep)]
    assert some.instance_ids.to_pylist() == [model.instance_id(n) for n in stays]
    for row, old in enumerate(stays):
        same_host = model.host_of[old] < 0 or some.host_id(int(some.host_of[row])) == model.host_id(
            int(model.host_of[old])
        )
        assert same_host
        assert (some.flavor[row], some.metadata[row]) == (model.flavor[old], model.metadata[old])
    assert np.array_equal(some.used(), model.used()[keep])


def test_arrays_of_a_model_cannot_be_written() -> None:
    model = build(*tables())
    for array in (model.host_of, model.demand, model.capacity, model.usable, model.movable, *model.group_members):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_rows_are_found_by_id_and_by_name() -> None:
    model = build(*tables())
    assert model.host_rows(["h1", "nobody", "h0"]).tolist() == [1, -1, 0]
    assert model.host_rows_by_name(pa.array(["beta"])).tolist() == [1]
    assert model.instance_rows([]).tolist() == []
    assert (model.host_name(1), model.host_id(1), model.instance_id(2)) == ("beta", "h1", "v2")


def test_a_folder_with_one_aggregate_a_host_is_read_as_lists_of_one(tmp_path: Path) -> None:
    hosts, instances, _ = tables()
    pq.write_table(pa.table(hosts | {"aggregate": ["rack1", None]}), tmp_path / "nodes.parquet")
    pq.write_table(pa.table(instances), tmp_path / "instances.parquet")
    model = read_model(tmp_path)
    assert model.aggregate_names == ("rack1",)
    assert model.aggregates.tolist() == [[True], [False]]
    assert len(model.group_ids) == 0


def test_a_folder_that_exists_is_not_overwritten_and_one_that_lacks_a_file_says_so(tmp_path: Path) -> None:
    model = build(*tables())
    with pytest.raises(ModelError, match="exists already: choose another folder or remove it"):
        write_model(model, tmp_path)
    with pytest.raises(ModelError, match=r"nodes.parquet is missing: a model folder needs nodes.parquet and"):
        read_model(tmp_path)
