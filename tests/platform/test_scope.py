"""Audit scopes: every rule, every complaint, and random scopes on random clouds against plain loops over rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.scope import narrow
from trimtab.platform.scope_schema import check_scope as check

P0, P1, P2 = "91FFFE30-78A0-4152-ACD2-8310FF274DC9", "26F03131-32CB-4697-9D61", "109F7909-0607-4712-B32C"
AMOUNTS = {"vcpus": 40.0, "memory_mb": 132.0, "disk_gb": 250.0}
GUEST = {"vcpus": 10.0, "memory_mb": 2.0, "disk_gb": 20.0}
STANDARD = json.dumps({"optimize": True, "top": "floor", "nested": {"x": "y"}})


def cloud(hosts: list[dict[str, Any]], instances: list[dict[str, Any]], groups: int = 0) -> ClusterModel:
    """Hosts n0, n1, ... called host_0, host_1, ... and instances v0, v1, ..."""
    defaults = {"zone": "nova", "aggregates": list[str]()}
    nodes = [{"uuid": f"n{n}", "hostname": f"host_{n}", **AMOUNTS, **defaults, **host} for n, host in enumerate(hosts)]
    guests = [{"uuid": f"v{n}", **GUEST, **instance} for n, instance in enumerate(instances)]
    names = pa.array([f"g{n}" for n in range(groups)], pa.string())
    policies = pa.array(["anti-affinity"] * groups, pa.string())
    return ClusterModel.from_arrow(
        pa.Table.from_pylist(nodes), pa.Table.from_pylist(guests), pa.table({"uuid": names, "policy": policies})
    )


@pytest.fixture
def model() -> ClusterModel:
    """Five hosts, the first four in a zone each; eight instances that are placed and two that are not."""
    homes: list[str | None] = ["n0", "n0", "n1", "n2", "n2", "n2", "n3", "n4", None, None]
    projects = [P0, P1, P2, *[P0] * 7]
    return cloud(
        [
            {"zone": "AZ0", "aggregates": ["prod", "1"]},
            {"zone": "AZ1", "aggregates": ["prod"]},
            {"zone": "AZ2", "aggregates": ["dev", "2"]},
            {"zone": "AZ3"},
            {"zone": "internal"},
        ],
        [{"node": home, "project": p, "metadata": STANDARD} for home, p in zip(homes, projects, strict=True)],
    )


def hosts_of(model: ClusterModel) -> list[str]:
    return model.host_names.to_pylist()


def compute(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    return check([{"compute": list(rules)}])


def excluded_of(model: ClusterModel) -> set[str]:
    return {model.instance_id(int(row)) for row in np.flatnonzero(model.excluded)}


# -- rule by rule ----------------------------------------------------------------------------------------


def test_an_empty_scope_leaves_the_model_as_it_is(model: ClusterModel) -> None:
    scopes: list[list[dict[str, Any]]] = [[], [{"compute": []}], [{"storage": []}], [{}]]
    for scope in scopes:
        narrowed, notes = narrow(model, check(scope))
        assert narrowed is model
        assert notes == []


def test_zones_are_united_and_others_leave_with_their_instances(model: ClusterModel) -> None:
    scope = compute(
        {"availability_zones": [{"name": "AZ1"}, {"name": "AZ3"}]}, {"exclude": [{"instances": [{"uuid": "v6"}]}]}
    )
    narrowed, notes = narrow(model, scope)
    assert hosts_of(narrowed) == ["host_1", "host_3"]
    placed = {narrowed.instance_id(v): narrowed.host_name(narrowed.host_of[v]) for v in range(2)}
    assert placed == {"v2": "host_1", "v6": "host_3"}
    assert excluded_of(narrowed) == {"v6"}, "an excluded instance stays, because it uses room"
    assert notes == []


def test_a_star_alone_means_all_zones_and_is_a_name_beside_others(model: ClusterModel) -> None:
    assert narrow(model, compute({"availability_zones": [{"name": "*"}]}))[0] is not None
    assert len(hosts_of(narrow(model, compute({"availability_zones": [{"name": "*"}]}))[0])) == 5
    narrowed, notes = narrow(model, compute({"availability_zones": [{"name": "*"}, {"name": "AZ1"}]}))
    assert hosts_of(narrowed) == ["host_1"]
    assert notes == ["scope: no host is in zone *"]


def test_a_zone_that_is_not_there_leaves_no_host_and_says_so(model: ClusterModel) -> None:
    narrowed, notes = narrow(model, compute({"availability_zones": [{"name": "AZ9"}]}))
    assert narrowed.hosts == 0
    assert notes == ["scope: no host is in zone AZ9"]


def test_aggregates_are_found_by_name_or_number_and_united_with_zones(model: ClusterModel) -> None:
    assert hosts_of(narrow(model, compute({"host_aggregates": [{"name": "prod"}]}))[0]) == ["host_0", "host_1"]
    assert hosts_of(narrow(model, compute({"host_aggregates": [{"id": 1}, {"id": 2}]}))[0]) == ["host_0", "host_2"]
    both = compute({"host_aggregates": [{"id": 1}]}, {"availability_zones": [{"name": "AZ3"}]})
    assert hosts_of(narrow(model, both)[0]) == ["host_0", "host_3"]


@pytest.mark.parametrize("star", [{"id": "*"}, {"name": "*"}])
def test_a_star_means_all_hosts_of_any_aggregate(model: ClusterModel, star: dict[str, str]) -> None:
    assert hosts_of(narrow(model, compute({"host_aggregates": [star]}))[0]) == ["host_0", "host_1", "host_2"]


@pytest.mark.parametrize("others", [[{"id": "*"}, {"id": 1}], [{"name": "prod"}, {"name": "*"}], [{"id": "*"}] * 2])
def test_a_star_beside_other_aggregates_is_refused(model: ClusterModel, others: list[dict[str, Any]]) -> None:
    rules: list[dict[str, Any]] = [{"host_aggregates": others}, {"exclude": [{"host_aggregates": others}]}]
    for rule in rules:
        with pytest.raises(InvalidInput, match=r"scope\[0\]\['compute'\]\[0\].*'\*' cannot stand beside others?"):
            compute(rule)
        with pytest.raises(InvalidInput, match=r"'\*' cannot stand beside other aggregates"):
            narrow(model, [{"compute": [rule]}])


def test_a_star_as_id_may_stand_beside_names(model: ClusterModel) -> None:
    both = compute({"host_aggregates": [{"id": "*"}, {"name": "nowhere"}]})
    assert hosts_of(narrow(model, both)[0]) == ["host_0", "host_1", "host_2"]


def test_an_unknown_aggregate_leaves_no_host_but_the_unplaced_instances(model: ClusterModel) -> None:
    narrowed, notes = narrow(model, compute({"host_aggregates": [{"id": 77}]}))
    assert (narrowed.hosts, narrowed.instances) == (0, 2)
    assert (narrowed.host_of == -1).all()
    assert notes == ["scope: no host is in aggregate 77"]


def test_excluded_hosts_leave_with_their_instances(model: ClusterModel) -> None:
    rule = {"exclude": [{"compute_nodes": [{"name": "host_1"}, {"name": "host_2"}]}]}
    narrowed, notes = narrow(model, compute(rule))
    assert hosts_of(narrowed) == ["host_0", "host_3", "host_4"]
    assert narrowed.instance_ids.to_pylist() == ["v0", "v1", "v6", "v7", "v8", "v9"]
    assert notes == []


def test_an_excluded_host_that_is_not_there_is_a_note_and_no_failure(model: ClusterModel) -> None:
    """Watcher fails the audit: a host that was removed from the cloud would break every template that names it."""
    rule = {"exclude": [{"compute_nodes": [{"name": "gone"}]}]}
    narrowed, notes = narrow(model, compute(rule))
    assert len(hosts_of(narrowed)) == 5
    assert notes == ["scope: there is no host gone to exclude"]


def test_excluded_aggregates_leave(model: ClusterModel) -> None:
    narrowed, _ = narrow(model, compute({"exclude": [{"host_aggregates": [{"name": "prod"}]}]}))
    assert hosts_of(narrowed) == ["host_2", "host_3", "host_4"]


def test_projects_and_single_instances_stay_but_are_marked(model: ClusterModel) -> None:
    rule = {
        "exclude": [{"projects": [{"uuid": P1}, {"uuid": P2}]}, {"instances": [{"uuid": "v9"}, {"uuid": "nobody"}]}]
    }
    narrowed, notes = narrow(model, compute(rule))
    assert excluded_of(narrowed) == {"v1", "v2", "v9"}
    assert (narrowed.hosts, narrowed.instances) == (5, 10)
    np.testing.assert_array_equal(narrowed.used(), model.used())
    assert not narrowed.movable[[1, 2, 9]].any()
    assert notes == ["scope: there is no instance nobody to exclude"]
    assert not model.excluded.any(), "the whole model belongs to everybody"


@pytest.mark.parametrize(
    ("pairs", "matches"),
    [
        ([{"optimize": True}], True),
        ([{"optimize": "TRUE"}], True),
        ([{"optimize": False}], False),
        ([{"optimize": False}, {"top": "FLOOR"}], True),  # all keys there and one value equal: Watcher's rule
        ([{"optimize": True, "absent": 1}], False),
        ([], False),
    ],
)
def test_metadata_matches_when_all_keys_are_there_and_one_value_is_equal(
    model: ClusterModel, pairs: list[dict[str, Any]], matches: bool
) -> None:
    narrowed, _ = narrow(model, compute({"exclude": [{"instance_metadata": pairs}]}))
    assert narrowed.excluded.all() == matches
    assert narrowed.excluded.any() == matches


def test_only_the_first_filled_compute_entry_counts(model: ClusterModel) -> None:
    scope = [
        {"storage": [{"volume_types": []}]},
        {"compute": []},
        {"compute": [{"availability_zones": [{"name": "AZ1"}]}]},
        {"compute": [{"availability_zones": [{"name": "AZ2"}]}]},
    ]
    assert hosts_of(narrow(model, check(scope))[0]) == ["host_1"]


def test_exclusions_count_even_beside_an_include_in_one_rule(model: ClusterModel) -> None:
    """Watcher looks at the first key of a rule only; an exclusion somebody wrote down is safer kept than dropped."""
    rule = {
        "host_aggregates": [{"name": "prod"}],
        "availability_zones": [{"name": "AZ3"}],
        "exclude": [{"compute_nodes": [{"name": "host_0"}]}],
    }
    assert hosts_of(narrow(model, compute(rule))[0]) == ["host_1"]


# -- what is accepted ------------------------------------------------------------------------------------


def test_the_old_flat_form_is_wrapped() -> None:
    rules = [{"availability_zones": [{"name": "AZ1"}]}, {"exclude": [{"projects": [{"uuid": P1}]}]}]
    assert check(rules) == [{"compute": rules}]
    assert check([{"compute": rules}]) == [{"compute": rules}]


@pytest.mark.parametrize(
    ("scope", "place"),
    [
        ("prod", "scope:"),
        ([1], r"scope\[0\]"),
        ([{"compute": [{"availability_zones": [{"nam": "AZ1"}]}]}], r"scope\[0\]\['compute'\]\[0\]"),
        ([{"compute": [{"zones": []}]}], "'zones'"),
        ([{"compute": [{"host_aggregates": [{"id": "one"}]}]}], "host_aggregates"),
        ([{"compute": [{"host_aggregates": [{}]}]}], "host_aggregates"),
        ([{"compute": [{"exclude": [{"nodes": []}]}]}], "'nodes'"),
        ([{"compute": [{"exclude": [{"instances": [{"uuid": 7}]}]}]}], "instances"),
        ([{"compute": [], "network": []}], "'network'"),
        ([{"storage": [{"volume_type": []}]}], "'volume_type'"),
        ([{"storage": [{"exclude": [{"volumes": [{"name": "v"}]}]}]}], "volumes"),
        ([{"baremetal": [{"exclude": [{"nodes": []}]}]}], "'nodes'"),
    ],
)
def test_what_is_no_scope_is_refused_with_the_place(scope: Any, place: str) -> None:
    with pytest.raises(InvalidInput, match=place):
        check(scope)


def test_aggregates_are_included_or_excluded_but_not_both() -> None:
    with pytest.raises(InvalidInput, match="not both"):
        compute({"host_aggregates": [{"id": 1}]}, {"exclude": [{"host_aggregates": [{"id": 2}]}]})


# -- random scopes against plain loops -------------------------------------------------------------------

ZONES, AGGREGATES, PROJECTS = ["a", "b", "c"], ["x", "y", "1"], ["p", "q"]
METADATA = [{}, {"k": "1"}, {"k": "2"}, {"k": "1", "m": "Yes"}, {"m": "no"}]


@st.composite
def clouds(draw: st.DrawFn) -> ClusterModel:
    count = draw(st.integers(1, 5))
    hosts = [
        {
            "zone": draw(st.sampled_from(ZONES)),
            "aggregates": draw(st.lists(st.sampled_from(AGGREGATES), unique=True, max_size=3)),
            "vcpus": float(draw(st.integers(0, 9))),
        }
        for _ in range(count)
    ]
    instances = [
        {
            "node": draw(st.sampled_from([None, *(f"n{n}" for n in range(count))])),
            "vcpus": float(draw(st.integers(0, 4))),
            "project": draw(st.sampled_from(PROJECTS)),
            "metadata": json.dumps(draw(st.sampled_from(METADATA))),
            "group": draw(st.sampled_from(["", "g0", "g1"])),
            "pinned_zone": draw(st.sampled_from(["", "a", "elsewhere"])),
        }
        for _ in range(draw(st.integers(1, 8)))
    ]
    return cloud(hosts, instances, groups=2)


def names(field: str, options: list[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(st.fixed_dictionaries({field: st.sampled_from(options)}), max_size=2)


aggregates = st.one_of(
    st.just([{"id": "*"}]),
    st.lists(st.sampled_from([{"name": "x"}, {"name": "y"}, {"id": 1}, {"id": 9}]), max_size=2),
)
exclusions = st.one_of(
    st.fixed_dictionaries({"instances": names("uuid", ["v0", "v1", "v5", "nobody"])}),
    st.fixed_dictionaries({"compute_nodes": names("name", ["host_0", "host_2", "gone"])}),
    st.fixed_dictionaries({"projects": names("uuid", ["p", "r"])}),
    st.fixed_dictionaries({"instance_metadata": st.lists(st.sampled_from(METADATA), max_size=2)}),
)
scopes = st.lists(
    st.one_of(
        st.fixed_dictionaries({"host_aggregates": aggregates}),
        st.fixed_dictionaries(
            {"availability_zones": st.one_of(st.just([{"name": "*"}]), names("name", ["a", "b", "z"]))}
        ),
        st.fixed_dictionaries({"exclude": st.lists(exclusions, max_size=3)}),
    ),
    max_size=4,
)


def host_included(host: dict[str, Any], rules: list[dict[str, Any]]) -> bool:
    including = [rule for rule in rules if "exclude" not in rule]
    for rule in including:
        for item in rule.get("host_aggregates", []):
            wanted = str(item.get("name", item.get("id")))
            if wanted in host["aggregates"] or (wanted == "*" and host["aggregates"]):
                return True
        zones = [item["name"] for item in rule.get("availability_zones", [])]
        if zones == ["*"] or host["zone"] in zones:
            return True
    return not including


def instance_excluded(instance: dict[str, Any], item: dict[str, Any]) -> bool:
    if {"uuid": instance["uuid"]} in item.get("instances", []):
        return True
    if {"uuid": instance["project"]} in item.get("projects", []):
        return True
    own = {k: str(v).lower() for k, v in json.loads(instance["metadata"]).items()}
    wanted: dict[str, str] = {}
    for pair in item.get("instance_metadata", []):
        wanted.update({k: str(v).lower() for k, v in pair.items()})
    return bool(wanted) and set(wanted) <= set(own) and any(own[k] == v for k, v in wanted.items())


@settings(max_examples=80, deadline=None)
@given(clouds(), scopes)
def test_random_scopes_keep_what_plain_loops_keep(model: ClusterModel, rules: list[dict[str, Any]]) -> None:
    hosts, instances, _ = (table.to_pylist() for table in model.to_arrow())
    items = [item for rule in rules for item in rule.get("exclude", [])]
    gone = {node["name"] for item in items for node in item.get("compute_nodes", [])}
    kept = [h for h in hosts if host_included(h, rules) and h["hostname"] not in gone]
    there = {h["uuid"] for h in kept} | {None}
    stays = [v for v in instances if v["node"] in there]
    narrowed, _ = narrow(model, compute(*rules))
    assert narrowed.host_ids.to_pylist() == [h["uuid"] for h in kept]
    assert narrowed.instance_ids.to_pylist() == [v["uuid"] for v in stays]
    assert excluded_of(narrowed) == {v["uuid"] for v in stays if any(instance_excluded(v, item) for item in items)}


@settings(max_examples=50, deadline=None)
@given(clouds(), st.data())
def test_a_subset_is_a_sound_model_of_its_own(model: ClusterModel, data: st.DataObject) -> None:
    """The tables of a subset are the rows of the whole; sums, groups, zones and rows follow."""
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=model.hosts, max_size=model.hosts)))
    part = model.subset(keep)
    rows = [row for row in range(model.instances) if model.host_of[row] < 0 or keep[model.host_of[row]]]
    whole_hosts, whole_instances, groups = model.to_arrow()
    hosts, instances, part_groups = part.to_arrow()
    assert hosts.to_pylist() == whole_hosts.filter(pa.array(keep)).to_pylist()
    assert instances.to_pylist() == whole_instances.take(pa.array(rows, pa.int64())).to_pylist()
    assert part_groups.equals(groups)
    np.testing.assert_array_equal(part.used(), model.used()[keep])
    np.testing.assert_array_equal(part.capacity, model.capacity[keep])
    np.testing.assert_array_equal(part.usable, model.usable[keep])
    np.testing.assert_array_equal(part.movable, model.movable[rows])
    start, members = part.group_members
    for group in range(len(part.group_ids)):
        found = {part.instance_id(v) for v in members[start[group] : start[group + 1]]}
        assert found == {model.instance_id(row) for row in rows if model.group[row] == group}
    assert part.zone.names == model.zone.names, "the numbers of pinned_zone must stay true"
    again = ClusterModel.from_arrow(hosts, instances, part_groups)
    np.testing.assert_array_equal(again.host_of, part.host_of)
    if keep.all():
        assert part is model
