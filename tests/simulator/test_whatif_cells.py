"""One cell of a what-if: changed estates, loads, the same luck for all policies, rows with fixed columns."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trimtab.platform.model import ClusterModel
from trimtab.platform.snapshot import History
from trimtab.simulator.closed_loop import Case, Policy, run
from trimtab.simulator.events import Events
from trimtab.simulator.happenings import Happening, schedule
from trimtab.simulator.load import PER_DAY
from trimtab.simulator.whatif import rows
from trimtab.simulator.whatif.cell_run import Ended, Ground, Stages, run_cell, stage_of
from trimtab.simulator.whatif.loads import grown, load_of, recorded
from trimtab.simulator.whatif.origin import Origin, origin_of
from trimtab.simulator.whatif.reading import Sweep, read_sweep
from trimtab.simulator.whatif.scenario import LoadPoint, SimulatedBase, Topology
from trimtab.simulator.whatif.topology import changed
from trimtab.simulator.world import World, burns_cpu

BASE = {"hosts": 8, "instances": 40}


@pytest.fixture(scope="module")
def origin() -> Origin:
    return origin_of(SimulatedBase(hosts=8, instances=40))


def topology(*changes: dict[str, Any]) -> Topology:
    return Topology.model_validate({"name": "t", "changes": changes})


def sweep_of(**fields: Any) -> Sweep:
    return read_sweep({"base": BASE, "horizon_h": 4, "past_h": 2, **fields})


def ran(sweep: Sweep) -> list[Ended]:
    ground = Ground(sweep.scenario, sweep.origin)
    return [run_cell(ground, cell) for cell in sweep.cells]


# -- topology ----------------------------------------------------------------------------------


def test_added_hosts_are_like_the_one_named_and_empty(origin: Origin) -> None:
    model = changed(
        topology({"action": "add", "count": 3, "like": "host-002", "zone": "az-1"}), origin.model, 0.0
    ).model
    assert model.hosts == 11
    old = int(model.host_rows_by_name(["host-002"])[0])
    for name in ("total", "reserved", "ratio", "aggregates", "traits"):
        assert (getattr(model, name)[8:] == getattr(model, name)[old]).all()
    assert model.up[8:].all()
    assert model.enabled[8:].all()
    assert {model.zone.names[code] for code in model.zone.codes[8:]} == {"az-1"}
    assert not np.isin(np.arange(8, 11), model.host_of).any()
    tables = model.to_arrow()
    assert ClusterModel.from_arrow(*tables).hosts == 11, "it is a whole model that can be written and read"


def test_hosts_added_later_are_down_until_then(origin: Origin) -> None:
    estate = changed(topology({"action": "add", "count": 2, "at_h": 3}), origin.model, 1000.0)
    assert not estate.model.up[8:].any()
    assert [(h.at, h.kind, h.row) for h in estate.happenings] == [
        (11_800.0, "host_up", 8),
        (11_800.0, "host_up", 9),
    ]


def test_instances_of_removed_hosts_are_started_elsewhere_and_keep_their_rows(origin: Origin) -> None:
    estate = changed(topology({"action": "remove", "hosts": ["host-001", "host-004"]}), origin.model, 0.0)
    model = estate.model
    assert model.hosts == 6
    assert (model.host_rows_by_name(["host-001", "host-004"]) == -1).all()
    assert model.instance_ids.equals(origin.model.instance_ids)
    assert estate.unplaced == 0
    assert (model.host_of >= 0).all()
    assert (model.used() <= model.capacity + 1e-6).all()
    stayed = np.flatnonzero(~np.isin(origin.model.host_of, [0, 3]))
    names = [origin.model.host_name(int(h)) for h in origin.model.host_of[stayed]]
    assert names == [model.host_name(int(h)) for h in model.host_of[stayed]]


def test_what_fits_nowhere_is_counted_and_is_not_there(origin: Origin) -> None:
    estate = changed(topology({"action": "remove", "hosts": "host-00[2-8]"}), origin.model, 0.0)
    assert estate.unplaced == int((estate.model.host_of < 0).sum()) > 0
    assert (estate.model.used() <= estate.model.capacity + 1e-6).all()


def test_a_failure_goes_down_is_evacuated_and_comes_back(origin: Origin) -> None:
    fail = {"action": "fail", "hosts": {"names": ["host-00[1-4]"], "zone": "az-1"}, "at_h": 1, "recover_after_h": 2}
    estate = changed(topology(fail), origin.model, 0.0)
    assert [(h.at, h.kind) for h in estate.happenings if h.row == 0] == [
        (3600.0, "host_down"),
        (3900.0, "evacuate"),
        (10_800.0, "host_up"),
    ]
    assert {h.row for h in estate.happenings} == {0, 2}
    quick = changed(topology({**fail, "recover_after_h": 0.05}), origin.model, 0.0)
    assert "evacuate" not in {h.kind for h in quick.happenings}, "it is back before anybody noticed"


def test_hosts_removed_later_are_dead_before_they_are_evacuated(origin: Origin) -> None:
    estate = changed(topology({"action": "remove", "hosts": "host-00[12]", "at_h": 1}), origin.model, 1000.0)
    assert estate.model.hosts == 8
    assert estate.happenings == tuple(
        Happening(4600.0, kind, row) for kind in ("disable", "host_down", "evacuate") for row in (0, 1)
    )
    assert estate.ends.tolist() == [4600.0, 4600.0] + [np.inf] * 6


def test_a_host_that_was_removed_cannot_fail(origin: Origin) -> None:
    fail = {"action": "fail", "hosts": "host-001", "at_h": 1}
    estate = changed(topology(fail, {"action": "remove", "hosts": "host-001"}), origin.model, 0.0)
    assert estate.happenings == ()


# -- load --------------------------------------------------------------------------------------


def test_scale_and_growth_multiply_and_stop_at_all_there_is() -> None:
    def days(_: int) -> Any:
        return np.full((PER_DAY, 2), 40, np.float32)

    wider = grown(days, 2.0, 10.0, first_day=100)
    np.testing.assert_allclose(wider(99), 80)
    np.testing.assert_allclose(wider(100), 80)
    np.testing.assert_allclose(wider(102), 80 * 1.21, rtol=1e-6)
    np.testing.assert_allclose(wider(110), 100)


def test_the_record_stays_as_it_was_and_the_future_repeats_it() -> None:
    values = np.random.default_rng(1).uniform(10, 60, (2 * PER_DAY, 3)).astype(np.float32)
    values[5, 0] = np.nan
    days = recorded(History(50 * 86_400.0, 300.0, values), seed=1)
    block = days(50)
    np.testing.assert_array_equal(block[:, 1:], values[:PER_DAY, 1:])
    assert block[5, 0] == pytest.approx(np.nanmean(values[:, 0]), rel=1e-5), "a hole becomes the mean"
    np.testing.assert_array_equal(days(51), values[PER_DAY:])
    tomorrow = days(52) / values[PER_DAY:]
    assert np.ptp(tomorrow, axis=0).max() < 1e-4, "one factor an instance and day"
    assert not np.allclose(tomorrow[0], 1)
    np.testing.assert_array_equal(recorded(History(50 * 86_400.0, 300.0, values), 1, 0.0)(52), values[PER_DAY:])
    np.testing.assert_array_equal(days(52), days(52))


@pytest.mark.parametrize("step_s", [60.0, 100.0, 300.0, 600.0, 3600.0])
def test_a_record_of_any_step_keeps_its_time_and_its_work(step_s: float) -> None:
    values = np.random.default_rng(2).uniform(10, 60, (int(86_400 / step_s), 3)).astype(np.float32)
    block = recorded(History(50 * 86_400.0, step_s, values), seed=1)(50)
    seconds = np.repeat(values, int(step_s // 20), axis=0)  # 20 s divide all these steps
    np.testing.assert_allclose(block, seconds.reshape(PER_DAY, 15, 3).mean(axis=1), rtol=1e-5)


def test_a_short_record_is_filled_with_means() -> None:
    values = np.full((12, 2), 30, np.float32)
    values[:, 1] = np.nan
    block = recorded(History(10 * 86_400.0 + 3600.0, 300.0, values), seed=1, variation=0.0)(11)
    np.testing.assert_array_equal(block, np.tile(np.array([30, 0], np.float32), (PER_DAY, 1)))


def test_the_same_seed_is_the_same_load_for_every_policy_and_topology(origin: Origin) -> None:
    load = LoadPoint(name="l")
    first = load_of(load, origin, 3).cpu_pct(0, 10)
    np.testing.assert_array_equal(first, load_of(load, origin, 3).cpu_pct(0, 10))
    assert not np.array_equal(first, load_of(load, origin, 4).cpu_pct(0, 10))
    assert not np.array_equal(first, load_of(LoadPoint(name="l", seed=1), origin, 3).cpu_pct(0, 10))


# -- cells -------------------------------------------------------------------------------------


def test_a_cell_is_the_closed_loop_of_its_parts() -> None:
    sweep = sweep_of()
    (cell,) = sweep.cells
    (ended,) = ran(sweep)
    stage = stage_of(Ground(sweep.scenario, sweep.origin), cell)
    case = Case(stage.model, stage.load, Policy("nobody"), sweep.origin.start_s, 4 * 3600.0, 2 * 3600.0)
    assert ended.row["energy_kwh"] == run(case).score.energy_kwh
    assert ended.row["cpu_s"] > 0


def test_every_figure_of_a_run_has_its_column_and_all_rows_have_all_columns() -> None:
    sweep = sweep_of(carbon={"g_per_kwh": [400]})
    (cell,) = sweep.cells
    stage = stage_of(Ground(sweep.scenario, sweep.origin), cell)
    outcome = run(Case(stage.model, stage.load, Policy("nobody"), sweep.origin.start_s, 3600.0, 0.0))
    assert set(outcome.figures) <= set(rows.MEASURED)
    (ended,) = ran(sweep)
    table = rows.table_of([ended.row, rows.failed(cell, "broken")])
    assert table.schema == rows.SCHEMA
    assert set(ended.row) == set(rows.SCHEMA.names)
    assert table["carbon_kg"][0].as_py() == pytest.approx(table["energy_kwh"][0].as_py() * 0.4)
    assert table["error"].to_pylist() == ["", "broken"]
    assert table["energy_kwh"][1].as_py() is None


def test_failures_strike_the_same_hosts_at_the_same_times_in_every_topology_and_policy() -> None:
    axes = {
        "topology": [
            {"name": "all"},
            {"name": "more", "changes": [{"action": "add", "count": 2}]},
            {"name": "fewer", "changes": [{"action": "remove", "hosts": "host-001"}]},
        ],
        "seeds": [1, 2],
    }
    sweep = sweep_of(axes=axes, horizon_h=48, failures={"mtbf_h": 20})
    ground = Ground(sweep.scenario, sweep.origin)
    struck: dict[tuple[str, int], set[tuple[str, float, str]]] = {}
    for cell in sweep.cells:
        stage = stage_of(ground, cell)
        struck[cell.topology.name, cell.seed] = {(stage.model.host_name(h.row), h.at, h.kind) for h in stage.happenings}
    for seed in (1, 2):
        whole = struck["all", seed]
        assert {one for one in struck["more", seed] if not one[0].startswith("new")} == whole
        assert struck["fewer", seed] == {one for one in whole if one[0] != "host-001"}
    assert struck["all", 1] != struck["all", 2]
    assert {kind for _, _, kind in struck["all", 1]} == {"host_down", "host_up", "evacuate"}


def test_assumptions_change_what_they_are_about() -> None:
    policy = [{"name": "pack", "strategy": "vm_workload_consolidation", "interval_min": 60}]
    plain = ran(sweep_of(axes={"policy": policy}))[0].row
    assert plain["migrations"] > 0
    slow = ran(sweep_of(axes={"policy": policy}, migration={"nic_mb_s": 50}))[0].row
    assert slow["migrating_min"] > plain["migrating_min"]
    flat = ran(sweep_of(axes={"policy": policy}, power="constant"))[0].row
    assert flat["energy_kwh"] > plain["energy_kwh"]
    post = ran(sweep_of(axes={"policy": policy}, migration={"variant": "post-copy"}))[0].row
    assert post["pdm_mean"] != plain["pdm_mean"]


def test_a_host_that_fails_takes_its_instances_down_until_they_are_evacuated() -> None:
    fail = {"action": "fail", "hosts": "host-001", "at_h": 1}
    kept = {"name": "left", "changes": [{**fail, "evacuate": False}]}
    saved = {"name": "saved", "changes": [fail]}
    left, rescued, whole = (
        ended.row["down_min"] for ended in ran(sweep_of(axes={"topology": [kept, saved, {"name": "all"}]}))
    )
    assert left > rescued > whole == 0


def test_a_late_removal_starts_instances_elsewhere_and_counts_those_left() -> None:
    removals = {"all": [], "some": ["host-001"], "most": ["host-00[2-8]"]}
    points = [
        {"name": name, "changes": [{"action": "remove", "hosts": hosts, "at_h": 1}] if hosts else []}
        for name, hosts in removals.items()
    ]
    sweep = sweep_of(axes={"topology": points})
    whole, some, most = (ended.row for ended in ran(sweep))
    assert (whole["down_min"], whole["unplaced_instances"]) == (0, 0)
    model = sweep.origin.model
    burns = int(burns_cpu(model)[model.host_of == 0].sum())
    assert burns > 0
    assert some["down_min"] == pytest.approx(burns * 2), "each is down for the two minutes of its rebuilding"
    assert (some["unplaced_instances"], some["hosts_in_use"]) == (0, 7)
    stage = stage_of(Ground(sweep.scenario, sweep.origin), sweep.cells[2])
    world = World(stage.model, Events(sweep.origin.start_s), stage.physics)
    schedule(world, stage.happenings)
    world.events.run_until(sweep.origin.start_s + 4 * 3600)
    left = np.flatnonzero(world.place.host_of > 0)
    assert 0 < len(left) == most["unplaced_instances"]
    assert [world.choose(v) for v in left.tolist()] == [-1] * len(left)
    assert most["down_min"] > 0.5 * most["unplaced_instances"] * 180


def test_a_removal_after_the_horizon_is_none() -> None:
    removed = [{"action": "remove", "hosts": "host-001", "at_h": 3.5}]
    sweep = sweep_of(axes={"topology": [{"name": "late", "changes": removed}]}, horizon_h=4)
    stage = stage_of(Ground(sweep.scenario, sweep.origin), sweep.cells[0])
    assert stage.removed.tolist() == [0]
    shorter = stage_of(Ground(sweep.scenario.model_copy(update={"horizon_h": 3}), sweep.origin), sweep.cells[0])
    assert shorter.removed.tolist() == []


def test_bad_luck_brings_up_no_host_that_is_not_there() -> None:
    """Added at 20 h, removed at 10 h, broken for good at 5 h, broken from 15 to 40 h, and down from the start."""
    changes = [
        {"action": "add", "count": 1, "at_h": 20},
        {"action": "remove", "hosts": "host-001", "at_h": 10},
        {"action": "fail", "hosts": "host-002", "at_h": 5},
        {"action": "fail", "hosts": "host-003", "at_h": 15, "recover_after_h": 25},
    ]
    sweep = sweep_of(
        axes={"topology": [{"name": "t", "changes": changes}], "seeds": {"first": 1, "count": 12}},
        horizon_h=48,
        failures={"mtbf_h": 8, "mttr_h": 4},
    )
    up = sweep.origin.model.up.copy()
    up[3] = False
    origin = replace(sweep.origin, model=sweep.origin.model.with_changes(up=up))
    h0 = origin.start_s
    for cell in sweep.cells:
        stage = stage_of(Ground(sweep.scenario, origin), cell)
        forbidden = {8: (0, 20), 0: (10, 48), 1: (5, 48), 2: (15, 40), 3: (0, 48)}
        for h in stage.happenings:
            if h.kind == "host_up" and h.row in forbidden:
                first, last = (h0 + hour * 3600 for hour in forbidden[h.row])
                assert not first <= h.at < last
        world = World(stage.model, Events(h0), stage.physics)
        schedule(world, stage.happenings)
        for hour in range(48):
            world.events.run_until(h0 + hour * 3600 + 1800)
            assert not any(world.up[row] for row, (first, last) in forbidden.items() if first <= hour < last)
        struck = {h.row for h in stage.happenings if h.kind == "host_down"}
        assert struck >= {0, 1, 2}
    luck = [h for cell in sweep.cells for h in stage_of(Ground(sweep.scenario, origin), cell).happenings]
    assert any(h.row == 8 and h.kind == "host_down" for h in luck), "a new host fails too, once it is there"


def test_series_carry_the_labels_of_their_cell() -> None:
    (ended,) = ran(sweep_of(series=True))
    assert ended.series is not None
    assert len(ended.series) == 48
    assert ended.series.column_names[:6] == list(rows.LABELS)
    assert set(ended.series["key"].to_pylist()) == {ended.row["key"]}


def test_neighbouring_cells_share_estate_and_load_and_stay_what_they_are_alone() -> None:
    policies = [{"name": "nobody"}, {"name": "spread", "strategy": "workload_stabilization"}]
    sweep = sweep_of(axes={"policy": policies, "seeds": [1, 2]})
    ground = Ground(sweep.scenario, sweep.origin)
    stages = Stages()
    assert stages.of(ground, sweep.cells[0]) is stages.of(ground, sweep.cells[1])
    assert stages.of(ground, sweep.cells[0]) is not stages.of(ground, sweep.cells[2])

    def figures(ended: Ended) -> dict[str, Any]:
        return {name: value for name, value in ended.row.items() if name != "cpu_s"}

    together = [figures(run_cell(ground, cell, stages)) for cell in sweep.cells]
    assert together == [figures(run_cell(ground, cell, Stages())) for cell in reversed(sweep.cells)][::-1]
