"""What-if scenarios: every fault at once with its path; cells in order with keys made of their content."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import write_model
from trimtab.platform.plugins import load
from trimtab.platform.snapshot import History, Snapshot
from trimtab.simulator.whatif.cells import Cell, _content, cells_of, code_of, stream
from trimtab.simulator.whatif.origin import Origin, origin_of
from trimtab.simulator.whatif.reading import path_of, read_scenario, read_sweep
from trimtab.simulator.whatif.scenario import InvalidScenario, Scenario, SimulatedBase

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "whatif.yaml"
BASE: dict[str, Any] = {"hosts": 6, "instances": 20}


def faults(raw: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(InvalidScenario) as caught:
        read_sweep(raw, **options)
    return caught.value.faults


def keys(raw: dict[str, Any]) -> list[str]:
    return [cell.key for cell in read_sweep(raw).cells]


def test_the_example_is_a_sound_scenario() -> None:
    sweep = read_sweep(EXAMPLE)
    assert len(sweep.cells) == sweep.scenario.size == 54


def test_yaml_json_and_dictionaries_say_the_same() -> None:
    raw = {"name": "x", "base": BASE, "axes": {"seeds": [1, 2], "policy": [{"name": "nobody"}]}}
    text = "name: x\nbase: {hosts: 6, instances: 20}\naxes:\n  seeds: [1, 2]\n  policy:\n  - name: nobody\n"
    assert read_scenario(raw) == read_scenario(json.dumps(raw)) == read_scenario(text)
    assert keys(raw) == [cell.key for cell in read_sweep(text).cells]


def test_every_fault_of_form_and_of_meaning_is_told_at_once_with_its_path() -> None:
    raw = {
        "nmae": "x",
        "horizon_h": 0,
        "base": {"kind": "simulated", "hosts": 6, "instances": 20, "colour": "red"},
        "axes": {
            "topology": [
                {"name": "a", "changes": [{"action": "explode"}, {"action": "add", "count": 0}]},
                {"name": "b", "changes": [{"action": "fail", "hosts": {}, "at_h": 1}]},
            ],
            "load": [{"name": "l", "source": "trace", "trace": "nowhere.parquet"}, {"name": "m", "scale": -1}],
            "policy": [
                {"name": "p", "strategy": "wishful_thinking"},
                {"name": "q", "strategy": "workload_stabilization", "interval_min": "soon", "parameters": {"x": 1}},
                {"name": "r", "parameters": {"x": 1}},
            ],
            "seeds": {"first": 1, "count": 0},
        },
        "carbon": {"g_per_kwh": []},
    }
    told = faults(raw)
    for path in (
        "nmae: unknown field",
        "horizon_h:",
        "base.colour: unknown field",
        "axes.topology[0].changes[0]:",
        "axes.topology[0].changes[1].count:",
        "axes.topology[1].changes[0].hosts:",
        "axes.load[0].trace:",
        "axes.load[1].scale:",
        "axes.policy[0].strategy: there is no strategy 'wishful_thinking': use one of actuator,",
        "axes.policy[1].interval_min:",
        "axes.policy[1].parameters.x: unknown parameter: use one of metrics,",
        "axes.policy[2].parameters: parameters need a strategy",
        "axes.seeds.count:",
        "carbon.g_per_kwh:",
    ):
        assert any(fault.startswith(path) for fault in told), f"{path} is not in {told}"
    assert len(told) == 14, told


def test_names_that_the_base_does_not_know_are_faults_too() -> None:
    changes = [
        {"action": "fail", "hosts": ["host-001", "rack-*"], "at_h": 30},
        {"action": "remove", "hosts": {"zone": "az-9"}},
        {"action": "remove", "hosts": {"aggregate": "gen-99"}},
        {"action": "remove", "hosts": {"zone": "az-1", "names": ["host-002"]}},
        {"action": "add", "count": 1, "like": "host-999"},
        {"action": "add", "count": 1, "zone": "az-7"},
        {"action": "remove", "hosts": "*"},
    ]
    load = [{"name": "recorded", "source": "history"}]
    told = faults({"base": BASE, "axes": {"topology": [{"name": "t", "changes": changes}], "load": load}})
    here = "axes.topology[0].changes"
    for path in (
        f"{here}[0].at_h: 30 h is not within the horizon of 24 h",
        f"{here}[0].hosts.names[1]: no host matches 'rack-*': there are host-001,",
        f"{here}[1].hosts.zone: there is no zone 'az-9': there are az-1, az-2",
        f"{here}[2].hosts.aggregate: there is no aggregate 'gen-99'",
        f"{here}[3].hosts: no host matches all of it",
        f"{here}[4].like: there is no host 'host-999'",
        f"{here}[5].zone: there is no zone 'az-7'",
        f"{here}[6].hosts: no host would be left",
        "axes.load[0].source: the base has no recorded load",
    ):
        assert any(fault.startswith(path) for fault in told), f"{path} is not in {told}"
    assert len(told) == 9, told


def test_later_changes_see_what_earlier_ones_did() -> None:
    add = {"action": "add", "count": 2}
    fail = {"action": "fail", "hosts": "new-1-*", "at_h": 1}
    read_sweep({"base": BASE, "axes": {"topology": [{"name": "t", "changes": [add, fail]}]}})
    told = faults({"base": BASE, "axes": {"topology": [{"name": "t", "changes": [fail, add]}]}})
    assert told[0].startswith("axes.topology[0].changes[0].hosts.names[0]: no host matches")


def test_seeds_are_whole_numbers_that_results_can_keep() -> None:
    largest = 2**63 - 1
    assert keys({"base": BASE, "axes": {"seeds": [0, largest]}})
    for seeds in ([True], [1.0], ["1"], [-1], [largest + 1]):
        (told,) = faults({"base": BASE, "axes": {"seeds": seeds}})
        assert told.startswith("axes.seeds[0]: must be "), told
    (told,) = faults({"base": BASE, "axes": {"seeds": {"first": largest - 1, "count": 3}}})
    assert told == f"axes.seeds: the last seed would be more than {largest}: begin lower"
    (told,) = faults({"base": BASE, "axes": {"seeds": {"count": True}}})
    assert told.startswith("axes.seeds.count: must be a whole number")
    told_all = faults({"base": {**BASE, "seed": largest + 1}, "axes": {"load": [{"name": "l", "seed": largest + 1}]}})
    assert [fault.split(":")[0] for fault in told_all] == ["base.seed", "axes.load[0].seed"]


@pytest.mark.parametrize("count", [10**10, 10**5000], ids=["billions", "thousands-of-digits"])
def test_a_row_of_seeds_without_end_is_refused_before_it_is_written_out(count: int) -> None:
    told = faults({"base": BASE, "colour": 1, "axes": {"seeds": {"count": count}}})
    assert [fault.split(":")[0] for fault in told] == ["colour", "axes"]
    assert "cells are too many, at most 100,000" in told[1]
    with pytest.raises(InvalidScenario, match=r"axes\.seeds\.count: must be less than or equal to"):
        read_scenario({"axes": {"seeds": {"count": count}}})


def test_wrong_kinds_are_told_in_the_words_of_the_file() -> None:
    changes = [{"action": "explode"}, {"count": 1}, 7]
    told = faults(
        {
            "base": BASE,
            "name": 3,
            "horizon_h": "24",
            "series": "maybe",
            "migration": "slow",
            "axes": {"topology": [{"name": "t", "changes": changes}], "policy": "eager", "load": [4]},
        }
    )
    assert told == [
        "name: must be text: put it in quotes (got 3)",
        "axes.topology[0].changes[0]: 'action' is 'explode': use one of 'add', 'remove', 'fail'",
        "axes.topology[0].changes[1]: 'action' is missing: say which is meant",
        "axes.topology[0].changes[2]: must be a mapping: write name: value (got 7)",
        "axes.load[0]: must be a mapping: write name: value (got 4)",
        "axes.policy: must be a list: write [..., ...] or a line with - for each (got 'eager')",
        "horizon_h: must be a number such as 1000.0 or 1.0e+3, without quotes (got '24')",
        "migration: must be a mapping: write name: value (got 'slow')",
        "series: must be true or false (got 'maybe')",
    ]


def test_a_change_of_wrong_form_hides_no_unknown_host_of_another() -> None:
    changes = [
        {"action": "explode"},
        {"action": "add", "count": 2},
        {"action": "fail", "hosts": ["new-2-*", "nowhere"], "at_h": 1},
    ]
    told = faults({"base": BASE, "axes": {"topology": [{"name": "t", "changes": changes}]}})
    assert [fault.split(":")[0] for fault in told] == [
        "axes.topology[0].changes[0]",
        "axes.topology[0].changes[2].hosts.names[1]",
    ]


def test_hosts_that_are_added_have_a_bound_together() -> None:
    add = {"action": "add", "count": 10_000}
    for changes in ([add, add, add], [add, add, {"action": "explode"}, add]):
        told = faults({"base": BASE, "axes": {"topology": [{"name": "t", "changes": changes}]}})
        assert [fault for fault in told if "explode" not in fault] == [
            "axes.topology[0].changes: too many hosts are added: at most 20,000 together"
        ]


@pytest.mark.parametrize("axis", ["topology", "load", "policy", "seeds"])
def test_an_empty_axis_is_a_fault(axis: str) -> None:
    (told,) = faults({"base": BASE, "axes": {axis: []}})
    assert told.startswith(f"axes.{axis}: an axis needs at least one point")


def test_too_many_cells_names_twice_and_unreadable_files_are_faults(tmp_path: Path) -> None:
    axes = {"seeds": {"count": 11}, "policy": [{"name": "p"}, {"name": "p"}]}
    told = faults({"base": BASE, "axes": axes}, most_cells=21)
    assert told[0] == "axes.policy[1].name: 'p' is there twice"
    assert told[1].startswith("axes: 22 cells are too many, at most 21")
    text = tmp_path / "text.parquet"
    text.write_text("no Parquet")
    (one,) = faults({"base": BASE, "axes": {"load": [{"name": "l", "trace": str(text)}]}})
    assert one.startswith("axes.load[0].trace:")
    (one,) = faults({"base": {"kind": "snapshot", "folder": str(tmp_path)}})
    assert "nodes.parquet is missing" in one
    (one,) = faults({"base": {"hosts": 2, "instances": 4000}})
    assert one.startswith("base: 2 hosts cannot hold 4000 instances")
    (one,) = faults({"base": {"kind": "cloud"}})
    assert one.startswith("base: the cloud's own model is known to a running Trimtab only")


@pytest.mark.parametrize("text", ["a: [", "a: 2026-99-99", "- 1", "", "7", '{"a": '])
def test_what_is_no_mapping_is_no_scenario(text: str) -> None:
    with pytest.raises(InvalidScenario, match="scenario: "):
        read_scenario(text)


def test_files_are_refused_where_they_must_not_be_read(tmp_path: Path) -> None:
    write_model(origin_of(SimulatedBase(hosts=4, instances=8)).model, tmp_path / "snapshot")
    raw = {"base": {"kind": "snapshot", "folder": str(tmp_path / "snapshot")}}
    assert len(read_sweep(raw).cells) == 1
    (told,) = faults(raw, files=False)
    assert told.startswith("base.folder: files are only read by the command line")


def test_paths_are_relative_to_the_scenario(tmp_path: Path) -> None:
    write_model(origin_of(SimulatedBase(hosts=4, instances=8)).model, tmp_path / "cloud")
    pq.write_table(
        pa.table({"resource": ["a", "a"], "at": [0.0, 300.0], "value": [10.0, 20.0]}), tmp_path / "load.parquet"
    )
    path = tmp_path / "scenario.yaml"
    path.write_text("base: {kind: snapshot, folder: cloud}\naxes: {load: [{name: l, trace: load.parquet}]}\n")
    sweep = read_sweep(path)
    assert sweep.origin.model.hosts == 4
    assert sweep.scenario.axes.load[0].source == "trace"


def test_cells_are_the_product_of_the_axes_in_a_fixed_order_with_keys_of_their_own() -> None:
    axes = {
        "topology": [{"name": "t1"}, {"name": "t2"}],
        "load": [{"name": "l1"}, {"name": "l2", "scale": 2}],
        "policy": [{"name": "p1"}, {"name": "p2", "strategy": "dummy"}],
        "seeds": [5, 3],
    }
    cells = read_sweep({"base": BASE, "axes": axes}).cells
    labels = [(c.topology.name, c.load.name, c.seed, c.policy.name) for c in cells]
    assert labels == [
        (t, load, seed, p) for t in ("t1", "t2") for load in ("l1", "l2") for seed in (5, 3) for p in ("p1", "p2")
    ]
    assert len({cell.key for cell in cells}) == len(cells) == 16
    assert [cell.key for cell in read_sweep({"base": BASE, "axes": axes}).cells] == [cell.key for cell in cells]


@settings(max_examples=40, deadline=None)
@given(
    change=st.sampled_from(
        [
            {"horizon_h": 25},
            {"past_h": 1},
            {"power": "cubic"},
            {"base": {**BASE, "seed": 2}},
            {"migration": {"nic_mb_s": 1}},
            {"carbon": {"g_per_kwh": [1]}},
            {"failures": {"mtbf_h": 9}},
            {"series": True},
            {"axes": {"seeds": [9]}},
            {"axes": {"load": [{"name": "generated", "scale": 2}]}},
            {"axes": {"policy": [{"name": "nobody", "strategy": "dummy"}]}},
            {"axes": {"topology": [{"name": "as it is", "changes": [{"action": "add", "count": 1}]}]}},
        ]
    ),
    note=st.sampled_from([{}, {"name": "another"}, {"description": "told differently"}]),
)
def test_a_key_changes_with_what_decides_the_result_and_with_nothing_else(
    change: dict[str, Any], note: dict[str, Any]
) -> None:
    plain = {"base": BASE}
    assert keys({**plain, **note}) == keys(plain)
    assert keys({**plain, **change, **note}) != keys(plain)


def test_a_longer_axis_keeps_the_keys_it_had() -> None:
    few = keys({"base": BASE, "axes": {"seeds": [1, 2]}})
    more = keys({"base": BASE, "axes": {"seeds": [1, 2, 3], "policy": [{"name": "nobody"}, {"name": "p2"}]}})
    assert set(few) < set(more)


def test_a_trace_is_known_by_what_it_says(tmp_path: Path) -> None:
    def key(name: str, value: float) -> str:
        path = tmp_path / name
        pq.write_table(pa.table({"resource": ["a"], "at": [0.0], "value": [value]}), path)
        return keys({"base": BASE, "axes": {"load": [{"name": "l", "trace": str(path)}]}})[0]

    assert key("a.parquet", 1.0) != key("b.parquet", 2.0)


def test_files_of_one_name_in_a_folder_do_not_hide_each_other(tmp_path: Path) -> None:
    rows = {"resource": ["a", "a"], "at": [0.0, 300.0]}
    for day, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / day).mkdir()
        pq.write_table(pa.table({**rows, "value": [value, value]}), tmp_path / day / "part.parquet")
    before = _content(tmp_path)
    pq.write_table(pa.table({**rows, "value": [3.0, 3.0]}), tmp_path / "one" / "part.parquet")
    assert _content(tmp_path) != before


def test_a_strategy_that_was_edited_has_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = [{"name": "nobody"}, {"name": "own", "strategy": "dummy"}]
    before = keys({"base": BASE, "axes": {"policy": policies}})
    made = code_of("dummy")
    assert made["package"] == f"trimtab {version('trimtab')}"
    module = type(load().strategy("dummy")).__module__
    assert module in made
    edited = tmp_path / "dummy.py"
    edited.write_bytes(Path(str(sys.modules[module].__file__)).read_bytes() + b"# edited\n")
    monkeypatch.setattr(sys.modules[module], "__file__", str(edited))
    code_of.cache_clear()
    try:
        after = keys({"base": BASE, "axes": {"policy": policies}})
    finally:
        code_of.cache_clear()
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_streams_are_the_same_for_the_same_seed_and_purpose_only() -> None:
    assert stream(1, 2, 3) == stream(1, 2, 3)
    assert len({stream(s, p, q) for s in range(5) for p in range(5) for q in range(5)}) == 125


def test_an_origin_survives_being_written_and_is_known_by_its_content() -> None:
    model = origin_of(SimulatedBase(hosts=6, instances=20)).model
    load = np.random.default_rng(1).uniform(0, 100, (12, 20)).astype(np.float32)
    load[3, 4] = np.nan
    origin = Origin.of_snapshot(Snapshot(model, 3_600_123.0, history=History(3_596_400.0, 300.0, load)))
    assert origin.start_s == 3_600_000.0
    back = Origin.from_tables(origin.tables())
    assert back.fingerprint == origin.fingerprint
    assert back.history is not None
    np.testing.assert_array_equal(back.history.cpu_pct, load)
    other = load.copy()
    other[0, 0] += 1
    assert Origin.of(model, 3_600_000.0, History(3_596_400.0, 300.0, other)).fingerprint != origin.fingerprint
    empty = Origin.of_snapshot(Snapshot(model, 0.0, history=History(0.0, 300.0, np.full((2, 20), np.nan, np.float32))))
    assert empty.history is None
    assert Origin.from_tables(empty.tables()).fingerprint == empty.fingerprint


def test_paths_read_like_the_file() -> None:
    assert path_of(("axes", "policy", 1, "interval_min")) == "axes.policy[1].interval_min"
    assert path_of(()) == "scenario"


def test_a_stored_scenario_has_the_same_cells() -> None:
    sweep = read_sweep(EXAMPLE)
    again = Scenario.model_validate(json.loads(json.dumps(sweep.scenario.to_json())))
    cells: list[Cell] = cells_of(again, sweep.origin.fingerprint)
    assert [cell.key for cell in cells] == [cell.key for cell in sweep.cells]
