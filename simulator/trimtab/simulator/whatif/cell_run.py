"""Running one cell: its estate, its load and its luck, made once per topology, load and seed, then the closed loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.contracts import Ran
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.plugins import load as plugins
from trimtab.platform.schema import read_parameters
from trimtab.simulator.carbon import Intensity
from trimtab.simulator.closed_loop import Case, Policy, run
from trimtab.simulator.failures import overlaid, random_failures, within
from trimtab.simulator.happenings import Happening
from trimtab.simulator.load import Load
from trimtab.simulator.migration import Physics
from trimtab.simulator.power import Power
from trimtab.simulator.rehearse import Assumptions
from trimtab.simulator.whatif import rows
from trimtab.simulator.whatif.cells import FAILURES, POLICY, Cell, stream
from trimtab.simulator.whatif.loads import load_of
from trimtab.simulator.whatif.origin import Origin
from trimtab.simulator.whatif.scenario import PolicyPoint, Scenario
from trimtab.simulator.whatif.topology import changed, host_key

HOUR_S = 3600.0


class Ground(NamedTuple):
    """What cells share: the scenario and where it begins. Travels to every worker once a batch."""

    scenario: Scenario
    origin: Origin


class Stage(NamedTuple):
    """Estate, load and luck of one topology, load and seed: the same for all policies."""

    model: ClusterModel
    load: Load
    happenings: tuple[Happening, ...]
    physics: Physics
    power: Power
    unplaced: int  # instances that had no place from the start on
    removed: npt.NDArray[np.intp]  # hosts that are taken away before the horizon


class Ended(NamedTuple):
    """What a cell gave: its row, and its series when they were asked for."""

    row: dict[str, Any]
    series: pa.Table | None


class Stages:
    """The last stages of this process, so that neighbouring cells do not build theirs again."""

    def __init__(self, at_most: int = 2) -> None:
        self.at_most = at_most
        self._kept: dict[tuple[str, ...], Stage] = {}

    def of(self, ground: Ground, cell: Cell) -> Stage:
        """The stage of a cell."""
        key = (ground.origin.fingerprint, ground.scenario.model_dump_json(exclude={"axes"}), *_texts(cell))
        if key not in self._kept:
            while len(self._kept) >= self.at_most:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = stage_of(ground, cell)
        return self._kept[key]


def _texts(cell: Cell) -> tuple[str, str, str]:
    return cell.topology.model_dump_json(), cell.load.model_dump_json(), str(cell.seed)


_STAGES = Stages()


def stage_of(ground: Ground, cell: Cell) -> Stage:
    """Build estate, load and happenings of a cell; nothing here depends on its policy.

    Raises:
        InvalidInput: a topology that cannot be, or a trace that cannot be read.
    """
    scenario, origin = ground
    estate = changed(cell.topology, origin.model, origin.start_s)
    model = estate.model
    luck = within(_failures(scenario, model, origin.start_s, cell.seed), estate.begins, estate.ends)
    happenings = sorted((*estate.happenings, *luck), key=lambda happening: happening.at)
    assumed = scenario.migration
    physics = Assumptions(nic_mb_s=assumed.nic_mb_s, dirty_mb_s=assumed.dirty_mb_s).physics(model)
    return Stage(
        model,
        load_of(cell.load, origin, cell.seed),
        tuple(overlaid(model.up, happenings)),
        replace(physics, variant=assumed.variant),
        Power.named(scenario.power, model.total[:, VCPU]),
        estate.unplaced,
        np.flatnonzero(estate.ends <= origin.start_s + scenario.horizon_h * HOUR_S),
    )


def _failures(scenario: Scenario, model: ClusterModel, start_s: float, seed: int) -> list[Happening]:
    """Random failures; every host has a stream of its own, so it breaks at the same times in every topology."""
    wanted = scenario.failures
    if wanted is None:
        return []
    found: list[Happening] = []
    for host in range(model.hosts):
        own = random_failures(
            1,
            scenario.horizon_h * HOUR_S,
            wanted.mtbf_h,
            wanted.mttr_h,
            np.random.default_rng(stream(seed, FAILURES, host_key(model.host_id(host)))),
            start_s,
            wanted.shape,
            wanted.evacuate_after_min * 60.0 if wanted.evacuate else None,
        )
        found += [happening._replace(row=host) for happening in own]
    return found


def run_cell(
    ground: Ground, cell: Cell, stages: Stages = _STAGES, clock: Callable[[], float] = time.thread_time
) -> Ended:
    """One cell of a sweep, from its beginning to its row.

    Args:
        ground: scenario and origin.
        cell: which one.
        stages: where estates and loads of this process are kept.
        clock: CPU time of this thread, s.

    Raises:
        TrimtabError: whatever keeps the cell from being computed.
    """
    begin = clock()
    scenario, origin = ground
    stage = stages.of(ground, cell)
    case = Case(
        model=stage.model,
        load=stage.load,
        policy=policy_of(cell.policy),
        start_s=origin.start_s,
        horizon_s=scenario.horizon_h * HOUR_S,
        past_s=scenario.past_h * HOUR_S,
        physics=stage.physics,
        power=stage.power,
        happenings=stage.happenings,
        intensity=_intensity(scenario, origin.start_s),
        seed=stream(cell.seed, POLICY) % 2**31,
    )
    outcome = run(case, series=scenario.series)
    left = np.count_nonzero(np.isin(outcome.host_of, stage.removed))  # where nothing can run any more
    own = {"hosts": float(stage.model.hosts), "unplaced_instances": float(stage.unplaced + left)}
    row = rows.row(cell, outcome.score, outcome.figures, own, outcome.failures, clock() - begin)
    return Ended(row, labelled(cell, outcome.series) if outcome.series is not None else None)


def policy_of(point: PolicyPoint) -> Policy:
    """A policy as the closed loop takes it."""
    strategy = plugins().strategy(point.strategy) if point.strategy is not None else None
    return Policy(
        point.name,
        strategy,
        read_parameters(strategy, point.parameters) if strategy is not None else None,
        interval_s=point.interval_min * 60.0,
        first_s=point.first_min * 60.0,
        limits=point.limits.of(),
    )


def _intensity(scenario: Scenario, start_s: float) -> Intensity | None:
    carbon = scenario.carbon
    if carbon is None:
        return None
    return Intensity(start_s, carbon.step_min * 60.0, np.array(carbon.g_per_kwh, np.float64))


def labelled(cell: Cell, series: pa.Table) -> pa.Table:
    """A cell's series with its labels in front, so that the files of many cells read as one table."""
    for position, (name, value) in enumerate(cell.labels().items()):
        kind = pa.int64() if isinstance(value, int) else pa.string()
        series = series.add_column(position, name, pa.array([value] * len(series), kind))
    return series


def finished(cells: Sequence[Cell], ended: Sequence[tuple[int, Ran]]) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The rows of a batch, those that failed included, and the series of those that have any, by key."""
    found: list[dict[str, Any]] = []
    series: dict[str, pa.Table] = {}
    for position, ran in ended:
        cell = cells[position]
        if ran.error is not None:
            found.append(rows.failed(cell, ran.error, ran.seconds))
            continue
        result: Ended = ran.value
        found.append(result.row)
        if result.series is not None:
            series[cell.key] = result.series
    return rows.table_of(found), series
