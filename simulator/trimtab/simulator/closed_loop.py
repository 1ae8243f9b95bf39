"""The closed loop: a policy audits, plans and migrates again and again while the true load goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform import rules
from trimtab.platform.contracts import Context, Planner, Score, Strategy
from trimtab.platform.errors import InvalidInput, PlanError, TrimtabError
from trimtab.platform.model import MEMORY, VCPU, ClusterModel
from trimtab.platform.model.compute import Floats, Ints
from trimtab.platform.planner import plan_capacity
from trimtab.platform.planner.wire import understood
from trimtab.platform.proposal import Candidate, Limits
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.simulator.carbon import Intensity, carbon_kg
from trimtab.simulator.events import Events
from trimtab.simulator.happenings import Happening, schedule
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.migration import Physics
from trimtab.simulator.observed import Observed, Truth, bytes_of
from trimtab.simulator.plan_run import PlanRun
from trimtab.simulator.power import Power
from trimtab.simulator.rehearse import ASSUMPTIONS
from trimtab.simulator.score import Window, play_series, score
from trimtab.simulator.series import mean_hosts_in_use, migrating_s, series_of
from trimtab.simulator.service_level import service_level
from trimtab.simulator.timeline import Move
from trimtab.simulator.world import World

MOST_REASONS = 20
MOST_BYTES = 8 * 2**30  # of the load of one run
NOWHERE: Ints = np.empty(0, np.int32)

# Takes one of the candidates, or None; without one the first is taken.
Chooser = Callable[[Snapshot, Sequence[Candidate]], Candidate | None]


@dataclass(frozen=True, slots=True)
class Policy:
    """Who acts, and when.

    Args:
        name: what reports call it.
        strategy: None: nobody acts.
        parameters: an instance of `strategy.parameters`; None: its defaults.
        interval_s: between two audits.
        first_s: first audit, after the start.
        limits: migrations in flight.
        planner: orders what was proposed.
        choose: takes one of several candidates; None: the first one.
    """

    name: str
    strategy: Strategy | None = None
    parameters: Any = None
    interval_s: float = 3600.0
    first_s: float = 0.0
    limits: Limits = field(default_factory=Limits)
    planner: Planner = plan_capacity
    choose: Chooser | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything one run needs, as data.

    Args:
        model: the cloud at the start.
        load: true load in samples of 300 s of cloud time; a hole (NaN) was not recorded, see `typical_pct`.
        policy: who acts.
        start_s: cloud time of the start.
        horizon_s: how long it goes on.
        past_s: how much recorded load strategies may look back on.
        physics: of migrations; None: what rehearsals assume.
        power: of hosts; None: that of hosts of which only the size is known.
        happenings: what comes from outside: failures, repairs, evacuations, arrivals, departures.
        intensity: of the electricity, for `carbon_kg`; None: no carbon is counted.
        seed: of everything random.
        typical_pct: [V] true load in holes of the record; None: 0.
        used_memory_mb: [V] memory that running instances use; None: all they have.
    """

    model: ClusterModel
    load: Load
    policy: Policy
    start_s: float
    horizon_s: float = 86_400.0
    past_s: float = 86_400.0
    physics: Physics | None = None
    power: Power | None = None
    happenings: tuple[Happening, ...] = ()
    intensity: Intensity | None = None
    seed: int = 0
    typical_pct: npt.NDArray[np.float32] | None = None
    used_memory_mb: Floats | None = None


class Outcome(NamedTuple):
    """What a policy did and what came of it.

    `score` is over the whole time: while a plan runs is "during", all other time "after". `figures`: counts are audits,
    skipped_audits (a plan was still running), failed_audits, plans, migrations (begun), failed_migrations (refused ones
    too), rejected_arrivals, crashed_instances; the others have their units in their names, those of
    `service_level.ServiceLevel` its meaning; migrating_min is time with a migration under way, carbon_kg is there
    where an intensity was given. `series`: see `series.series_of`. `host_of` [V]: who is where at the end, -1 nowhere.
    """

    score: Score
    figures: dict[str, float]
    series: pa.Table | None
    moves: tuple[Move, ...] = ()
    failures: tuple[str, ...] = ()  # why audits failed, the first `MOST_REASONS`
    host_of: Ints = NOWHERE


def run(case: Case, *, series: bool = False) -> Outcome:
    """Let a policy act from the start to the horizon; the same case gives the same outcome.

    At every audit a snapshot holds what monitoring has recorded by then. A plan that still runs at the next audit makes
    that audit be skipped. An audit that goes wrong is counted and explained, and the run goes on.

    Args:
        case: model, load, policy and times.
        series: whether to make the table of samples too.

    Raises:
        InvalidInput: the case's times, load or parameters do not fit together, or its load would not fit into memory.
    """
    _check(case)
    model, end = case.model, case.start_s + case.horizon_s
    events = Events(case.start_s)
    power = case.power or Power.of(model.total[:, VCPU])
    world = World(model, events, case.physics or ASSUMPTIONS.physics(model), power.boot_s)
    truth = Truth(case.load, *_samples(case), case.typical_pct)
    schedule(world, case.happenings)
    audits = _Audits(case, world, truth)
    audits.schedule(end)
    events.run_until(end)
    return _outcome(case, audits, world, truth, power, series=series)


class _Audits:
    """The audits of one policy on one world, as they come."""

    def __init__(self, case: Case, world: World, truth: Truth) -> None:
        self.case, self.world = case, world
        self.count = self.skipped = self.failed = 0
        self.failures: list[str] = []
        self.runs: list[tuple[float, PlanRun]] = []
        strategy, given = case.policy.strategy, case.policy.parameters
        if strategy is not None:
            self.strategy = strategy
            self.parameters = read_parameters(strategy, {}) if given is None else given
            needs = strategy.needs(self.parameters)
            memory = case.model.demand[:, MEMORY] if case.used_memory_mb is None else case.used_memory_mb
            self.observed = Observed(world, truth, needs, case.past_s, memory)
        self._trips_seen = 0
        self._gone_wrong: dict[int, None] = {}  # instances whose migration failed or was refused, oldest first

    def schedule(self, end: float) -> None:
        """Ask for all audits before the end."""
        policy = self.case.policy
        if policy.strategy is None:
            return
        first = self.case.start_s + policy.first_s
        for number in range(max(int(-(-(end - first) // policy.interval_s)), 0)):
            self.world.events.at(first + number * policy.interval_s, self._audit)

    def _audit(self) -> None:
        self.count += 1
        if self.runs and self.runs[-1][1].open:
            self.skipped += 1
            return
        try:
            self._act()
        except Exception as problem:  # noqa: BLE001 (as in earnest: an audit that breaks fails and says why)
            self.failed += 1
            if len(self.failures) < MOST_REASONS:
                text = str(problem) if isinstance(problem, TrimtabError) else f"{type(problem).__name__}: {problem}"
                after = self.world.events.now - self.case.start_s
                self.failures.append(f"audit {self.count}, {after / 3600:.4g} h after the start: {text}")

    def _act(self) -> None:
        policy, world = self.case.policy, self.world
        model = world.model.with_changes(
            host_of=world.place.host_of.copy(), up=world.up.copy(), enabled=world.enabled.copy()
        )
        snapshot = self.observed.snapshot(model, self._failed_before())
        candidates = self.strategy.propose(snapshot, self.parameters, Context(seed=self.case.seed))
        if policy.choose is not None:
            candidate = policy.choose(snapshot, candidates) if candidates else None
        else:
            candidate = candidates[0] if candidates else None
        if candidate is None or not candidate.steps:
            return
        if reasons := rules.judge(model, replace(candidate, steps=tuple(understood(model, candidate.steps)))):
            raise PlanError(f"the candidate was rejected: {'; '.join(reasons[:3])}")
        plan = policy.planner(model, candidate, policy.limits)
        if plan.actions:
            run = PlanRun(world, plan, policy.limits, ASSUMPTIONS.notice_s, ASSUMPTIONS.service_s)
            self.runs.append((world.events.now, run))
            run.start()

    def _failed_before(self) -> tuple[int, ...]:
        """Instances whose migration failed in an earlier plan, as audits of a running Trimtab are told; none runs."""
        fresh = self.world.trips[self._trips_seen :]
        self._trips_seen += len(fresh)
        self._gone_wrong |= {trip.flow.instance: None for trip in fresh if trip.status == "failed"}
        if self.runs:
            self._gone_wrong |= dict.fromkeys(self.runs[-1][1].refused)
        return tuple(self._gone_wrong)


def _outcome(case: Case, audits: _Audits, world: World, truth: Truth, power: Power, *, series: bool) -> Outcome:
    end = case.start_s + case.horizon_s
    spans = [(begin, end if run.open else run.last_end) for begin, run in audits.runs]
    last_end = spans[-1][1] if spans else case.start_s
    edges = [case.start_s, *(time for span in spans for time in span)]
    pauses = tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < b)
    timeline = world.timeline()
    window = Window(case.start_s, end, case.start_s, last_end, pauses)
    result = score(case.model, timeline, truth.blocks, power, window)
    level = service_level(
        case.model, timeline, truth.blocks, power, window, case.used_memory_mb, energy_kwh=result.energy_kwh
    )
    figures = {
        "audits": float(audits.count),
        "skipped_audits": float(audits.skipped),
        "failed_audits": float(audits.failed),
        "plans": float(len(audits.runs)),
        "migrations": float(len(world.trips)),
        "failed_migrations": float(
            sum(trip.status == "failed" for trip in world.trips) + sum(len(run.refused) for _, run in audits.runs)
        ),
        "rejected_arrivals": float(len(world.rejected)),
        "crashed_instances": float(len(world.crashed)),
        "overload_min": level.overload_min,
        "otf": level.otf,
        "pdm_mean": level.pdm,
        "slav": level.slav,
        "esv_kwh": level.esv,
        "memory_pressure_min": level.memory_pressure_min,
        "down_min": level.down_min,
        "migration_stop_min": level.migration_stop_min,
        "undelivered_vcpu_h": level.undelivered_vcpu_h,
        "migrating_min": migrating_s(timeline.moves, end) / 60,
        "hosts_in_use_mean": mean_hosts_in_use(timeline, case.start_s, end),
    }
    table = None
    if series or case.intensity is not None:
        played = play_series(case.model, timeline, truth.blocks, power, case.start_s, end)
        if case.intensity is not None:
            figures["carbon_kg"] = carbon_kg(case.intensity, float(played.at_s[0]), SAMPLE_S, played.kwh)
        table = series_of(case.model, timeline, power, played, case.start_s) if series else None
    return Outcome(result, figures, table, timeline.moves, tuple(audits.failures), world.place.host_of.copy())


def _samples(case: Case) -> tuple[int, int]:
    """The first sample that a case looks at, and how many."""
    first = max(int((case.start_s - case.past_s) // SAMPLE_S), 0)
    return first, int(-(-(case.start_s + case.horizon_s) // SAMPLE_S)) - first


def _check_size(case: Case) -> None:
    strategy, given = case.policy.strategy, case.policy.parameters
    needs: Sequence[Need] = ()
    if strategy is not None:
        needs = strategy.needs(read_parameters(strategy, {}) if given is None else given)
    samples = _samples(case)[1]
    takes = bytes_of(samples, case.model.hosts, case.model.instances, needs)
    if takes > MOST_BYTES:
        raise InvalidInput(
            f"policy {case.policy.name}: {samples} samples of {case.model.instances} instances take about "
            f"{takes / 2**30:.1f} GiB, and {MOST_BYTES / 2**30:g} GiB is the most for one run: take a shorter "
            "horizon or past, or a part of the estate"
        )


def _check(case: Case) -> None:
    policy = case.policy
    if case.load.instances != case.model.instances:
        raise InvalidInput(
            f"the load is of {case.load.instances} instances and the model has {case.model.instances}: "
            "make the load for this model"
        )
    if not case.horizon_s > 0 or not case.past_s >= 0 or not case.start_s >= 0:
        raise InvalidInput(
            f"a closed loop from {case.start_s} s over {case.horizon_s} s with {case.past_s} s of past: "
            "the horizon must be positive, the others must not be negative"
        )
    if not policy.interval_s > 0 or not policy.first_s >= 0:
        raise InvalidInput(
            f"policy {policy.name}: audits every {policy.interval_s} s from {policy.first_s} s on: the interval must "
            "be positive, the first must not be before the start"
        )
    _check_size(case)
