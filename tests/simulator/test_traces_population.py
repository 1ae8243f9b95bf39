"""The population of a trace in the closed loop: VMs come and go, hosts are never overfilled, refusals are counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.plugins import load as load_plugins
from trimtab.platform.proposal import Candidate
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.closed_loop import Case, Outcome, Policy, run
from trimtab.simulator.happenings import Happening
from trimtab.simulator.traces.opendc import write_opendc
from trimtab.simulator.traces.population import Population, population
from trimtab.simulator.traces.read import read_trace
from trimtab.simulator.traces.trace import Trace


def hosts(count: int, vcpus: float = 8.0, memory_mb: float = 32_768.0) -> pa.Table:
    return pa.table(
        {
            "uuid": [f"host-{n}" for n in range(count)],
            "hostname": [f"host-{n}" for n in range(count)],
            "vcpus": [vcpus] * count,
            "memory_mb": [memory_mb] * count,
            "disk_gb": [1000.0] * count,
        }
    )


def lives(begins: Sequence[float], ends: Sequence[float], vcpus: float = 4.0, days: int = 1) -> Trace:
    count = len(begins)
    cpu_pct = np.random.default_rng(count).uniform(5, 95, (288 * days, count)).astype(np.float32)
    ids = pa.array([f"vm-{n}" for n in range(count)])
    size = np.full(count, vcpus)
    return Trace(0.0, 300.0, cpu_pct, ids, size, size * 2048, np.array(begins), np.array(ends))


def played(people: Population, count: int, horizon_s: float = 86_400.0) -> tuple[Outcome, list[ClusterModel]]:
    """A run with audits every 15 minutes, and the model each audit that had something to choose from saw."""
    seen: list[ClusterModel] = []

    def choose(snapshot: Snapshot, candidates: Sequence[Candidate]) -> Candidate | None:
        seen.append(snapshot.model)
        return candidates[0] if candidates else None

    strategy = load_plugins().strategy("workload_stabilization")
    parameters = strategy.parameters.model_validate({"thresholds": {"instance_cpu_usage": 0.01}})
    model = ClusterModel.from_arrow(hosts(count), people.instances)
    policy = Policy("level", strategy, parameters, interval_s=900.0, first_s=600.0, choose=choose)
    return run(Case(model, people.load, policy, people.start_s, horizon_s, happenings=people.happenings)), seen


def rejected_plainly(people: Population, count: int, horizon_s: float = 86_400.0) -> int:
    """How many find no room, where all are of one size, two of which fill a host; migrations do not matter then."""
    there: set[int] = set()
    rejected = 0
    for happening in people.happenings:
        if happening.at > people.start_s + horizon_s:
            break
        if happening.kind == "depart":
            there.discard(happening.row)
        elif len(there) < 2 * count:
            there.add(happening.row)
        else:
            rejected += 1
    return rejected


def test_an_azure_trace_runs_with_vms_coming_and_going(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    begins = np.sort(random.integers(0, 200, 60)) * 300
    ends = begins + random.integers(1, 150, 60) * 300
    rows = [
        f"vm-{n},s,d,{begin},{end},90,{20 + n},80,x,4,8"
        for n, (begin, end) in enumerate(zip(begins, ends, strict=True))
    ]
    (tmp_path / "vms.csv").write_text("\n".join(rows) + "\n")
    trace = read_trace(tmp_path / "vms.csv")
    people = population(trace)
    outcome, seen = played(people, 7)
    assert outcome.failures == ()
    assert outcome.figures["migrations"] > 0
    assert len(seen) > 20
    for model in seen:
        assert (model.used() <= model.capacity + 1e-6).all()
    expected = rejected_plainly(people, 7)
    assert outcome.figures["rejected_arrivals"] == expected
    assert 0 < expected < 30
    assert outcome.score.energy_kwh > 0


def test_an_opendc_trace_runs_with_vms_coming_and_going(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    cpu_pct = random.uniform(10, 90, (288, 30)).astype(np.float32)
    sample = np.arange(288)[:, None]
    first = random.integers(0, 150, 30)
    cpu_pct[(sample < first) | (sample >= first + random.integers(20, 130, 30))] = np.nan
    made = Trace(
        86_400.0, 300.0, cpu_pct, pa.array([f"t{n}" for n in range(30)]), np.full(30, 4.0), np.full(30, 4096.0)
    )
    write_opendc(made, tmp_path / "tasks.parquet", tmp_path / "fragments.parquet")
    trace = read_trace(tmp_path)
    people = population(trace)
    outcome, seen = played(people, 5)
    assert outcome.failures == ()
    assert len(seen) > 20
    for model in seen:
        assert (model.used() <= model.capacity + 1e-6).all()
    assert outcome.figures["rejected_arrivals"] == rejected_plainly(people, 5)
    departed = sum(happening.kind == "depart" for happening in people.happenings)
    assert departed == 30


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 3))
def test_never_more_than_fit_and_every_refusal_is_counted(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    begins = random.integers(0, 200, 15) * 100.0
    ends = begins + random.integers(0, 200, 15) * 100.0
    people = population(lives(begins.tolist(), ends.tolist()))
    outcome, seen = played(people, count, 43_200.0)
    assert outcome.figures["rejected_arrivals"] == rejected_plainly(people, count, 43_200.0)
    for model in seen:
        assert (model.used() <= model.capacity + 1e-6).all()


def test_who_is_there_at_the_start_arrives_then_and_departures_go_first() -> None:
    trace = lives([-np.inf, 600, 900, 100, 5000], [900, np.inf, 2000, 200, 5000])
    people = population(trace, start_s=250.0, disk_gb=10)
    assert people.start_s == 300
    assert people.happenings == (
        Happening(300.0, "arrive", 0),
        Happening(600.0, "arrive", 1),
        Happening(900.0, "depart", 0),
        Happening(900.0, "arrive", 2),
        Happening(2000.0, "depart", 2),
    )
    assert people.instances["uuid"].to_pylist() == trace.ids.to_pylist()
    assert people.instances["node"].null_count == 5
    assert set(people.instances["disk_gb"].to_pylist()) == {10.0}
    np.testing.assert_array_equal(people.load.cpu_pct(3, 5), trace.cpu_pct[3:8])


def test_a_trace_without_lives_is_there_all_the_time_and_unknown_sizes_must_be_given() -> None:
    trace = Trace(0.0, 300.0, np.ones((2, 2), np.float32), pa.array(["a", "b"]), np.array([2.0, np.nan]))
    with pytest.raises(InvalidInput, match=r"vcpus of b is unknown \(1 of 2 instances\): give vcpus="):
        population(trace)
    with pytest.raises(InvalidInput, match=r"memory_mb of a is unknown"):
        population(trace, vcpus=4)
    people = population(trace, vcpus=4, memory_mb=1024)
    assert people.instances["vcpus"].to_pylist() == [2, 4]
    assert [happening.kind for happening in people.happenings] == ["arrive", "arrive"]
    with pytest.raises(InvalidInput, match="none of 2 instances lives after 900 s"):
        population(lives([0, 0], [300, 600]), start_s=900.0)
    with pytest.raises(InvalidInput, match="zero or more"):
        population(lives([0], [300]), start_s=-900.0)
