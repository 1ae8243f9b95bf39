"""Plans are carried out in about the least time that links allow."""

import numpy as np
import pyarrow as pa
import pytest

from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity, plan_weight
from trimtab.platform.planner.durations import migration_s
from trimtab.platform.proposal import Candidate, Limits, Migrate, Plan
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.rehearse import rehearse


def drain(seed: int, hosts: int = 60) -> tuple[ClusterModel, Candidate]:
    """Every third host is emptied onto the others, which have room for it."""
    rng = np.random.default_rng(seed)
    count = hosts * 6
    home = np.repeat(np.arange(hosts), 6)
    size = rng.choice([2.0, 4.0, 8.0, 16.0, 32.0], count, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    ids = pa.array([f"h{n}" for n in range(hosts)])
    model = ClusterModel.from_arrow(
        pa.table(
            {"uuid": ids, "hostname": ids, "vcpus": [1e4] * hosts, "memory_mb": [1e8] * hosts, "disk_gb": [1e6] * hosts}
        ),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(count)],
                "node": ids.take(pa.array(home)),
                "vcpus": size,
                "memory_mb": size * 1024,
                "disk_gb": size * 10,
            }
        ),
    )
    stay = np.flatnonzero(np.arange(hosts) % 3)
    steps = tuple(Migrate(int(v), int(rng.choice(stay))) for v in np.flatnonzero(home % 3 == 0))
    return model, Candidate(steps)


def bound_s(model: ClusterModel, plan: Plan, limits: Limits) -> float:
    """No schedule is shorter: busiest link, longest migration, all work over the places there are."""
    moves = [plan.actions[n] for n in plan.migrations()]
    instances = np.array([move.instance for move in moves], np.int32)
    seconds = migration_s(model, instances, np.array([move.live for move in moves]))
    ends = [np.array([getattr(move, end) for move in moves]) for end in ("source", "destination")]
    link = sum(np.bincount(end, seconds, model.hosts) for end in ends)
    return float(max(np.max(link) / limits.migrations_per_host, seconds.max(), seconds.sum() / limits.migrations_total))


def takes_s(model: ClusterModel, plan: Plan, limits: Limits) -> float:
    rehearsal = rehearse(Snapshot(model, 0.0), plan, limits, 0)
    assert rehearsal.violations == ()
    return rehearsal.score.duration_s


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_takes_at_most_five_per_cent_more_than_any_must(seed: int) -> None:
    model, candidate = drain(seed)
    limits = Limits()
    plan = plan_capacity(model, candidate, limits)
    assert takes_s(model, plan, limits) <= 1.05 * bound_s(model, plan, limits)


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_takes_much_less_than_two_at_a_time(seed: int) -> None:
    model, candidate = drain(seed)
    watchers = takes_s(model, plan_weight(model, candidate, Limits()), Limits())
    two = takes_s(model, plan_capacity(model, candidate, Limits(2, 2)), Limits(2, 2))
    ours = takes_s(model, plan_capacity(model, candidate, Limits()), Limits())
    assert ours <= 0.72 * two < watchers


def test_two_on_one_link_gain_nothing_where_places_are_few() -> None:
    model, candidate = drain(1)
    one, two = Limits(1, 8), Limits(2, 8)
    plan = plan_capacity(model, candidate, one)
    assert takes_s(model, plan, one) < takes_s(model, plan, two)
