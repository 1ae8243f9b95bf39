"""What holds for every run, on made-up traces; what is asked wrongly is said clearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.planetlab.engine import Tick, simulate
from trimtab.simulator.planetlab.fleet import Fleet, build_fleet, read_day
from trimtab.simulator.planetlab.rules import REFERENCE, SOUND, Policy, Rules
from trimtab.simulator.planetlab.state import State
from trimtab.simulator.planetlab.table import arrow, rows

POLICIES = ["DVFS", "THR-MMT", "IQR-MU", "MAD-RS", "LR-MC", "LRR-MMT"]


def cloud(seed: int, hosts: int = 24, vms: int = 40, samples: int = 30) -> Fleet:
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 12, (vms, samples)), axis=1) + rng.uniform(0, 70, (vms, 1))
    return build_fleet(np.rint(np.clip(walk, 0, 100)), hosts)


def lists(state: State) -> list[list[int]]:
    """Nodes on every host."""
    found = []
    for host in state.host:
        nodes, node = [], int(host["head"])
        while node >= 0:
            nodes.append(node)
            node = int(state.after[node])
        assert len(nodes) == host["residents"]
        found.append(nodes)
    return found


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(POLICIES), st.sampled_from([REFERENCE, SOUND]), st.integers(0, 1000))
def test_nothing_is_lost_on_the_way(name: str, rules: Rules, seed: int) -> None:
    fleet, times, energies = cloud(seed), [0.0], [0.0]

    def watch(tick: Tick, state: State) -> None:
        times.append(tick.time)
        energies.append(tick.energy_kwh)
        nodes = sorted(node for host in lists(state) for node in host)
        assert nodes == np.flatnonzero(state.vm["home"] >= 0).tolist()  # every VM on exactly one host, where it says
        for row, host in enumerate(lists(state)):
            assert all(state.vm["home"][node] == row for node in host)
        if rules is SOUND:
            assert len(nodes) == len(fleet.mips)
            assert len(set(tick.movers.tolist())) == len(tick.movers)
            memory = np.bincount(state.vm["home"], fleet.memory, len(fleet.kind))
            assert (memory <= fleet.host_memory).all()

    run = simulate(fleet, Policy.named(name), rules, seed, watch)
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    assert energies == sorted(energies)
    assert run.energy_j.sum() / 3.6e6 == pytest.approx(run.figures.energy_kwh, rel=1e-12)
    assert 0 <= run.figures.pdm <= run.figures.overall + 1e-12


def test_hosts_that_never_overload_violate_nothing_in_sound_mode() -> None:
    fleet = build_fleet(np.full((12, 20), 10.0), 10)
    figures = simulate(fleet, Policy.named("THR-MMT"), SOUND).figures
    assert figures.slatah == 0
    assert figures.migrations > 0  # the first placement is not by the real demand


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    fleet = cloud(3, hosts=30, vms=60, samples=60)
    first, again, other = (simulate(fleet, Policy.named("THR-RS-0.5"), REFERENCE, seed).figures for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_vm_that_fits_nowhere_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"VM 0 .* fits on no host .* more than 1 hosts"):
        simulate(build_fleet(np.full((8, 5), 50.0), 1), Policy.named("DVFS"))


@pytest.mark.parametrize("name", ["LR", "LR-XX", "ABC-MMT", "LR-MMT-x", "LR-MMT-0", "NPA-MMT"])
def test_a_policy_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="policy"):
        Policy.named(name)


def day(folder: Path, **columns: object) -> Path:
    names = ["b", "A", "_c"]
    table = {
        "vm_index": pa.array([1, 0, 2], pa.uint16()),
        "name": names,
        "cpu_pct": pa.array([[n] * 288 for n in (1, 0, 2)], pa.list_(pa.uint8(), 288)),
        **columns,
    }
    pq.write_table(
        pa.table({name: column for name, column in table.items() if column is not None}), folder / "d.parquet"
    )
    return folder


def test_orders_of_the_vms_follow_the_names(tmp_path: Path) -> None:
    day(tmp_path)
    assert read_day(tmp_path, "d")[:, 0].tolist() == [0, 1, 2]
    assert read_day(tmp_path, "d", "upper-case")[:, 0].tolist() == [0, 1, 2]
    assert sorted(read_day(tmp_path, "d", "shuffled:4")[:, 0].tolist()) == [0, 1, 2]


def test_questions_that_cannot_be_answered_say_why(tmp_path: Path) -> None:
    day(tmp_path)
    with pytest.raises(InvalidInput, match=r"no day 20110303 in .*; days there: d"):
        read_day(tmp_path, "20110303")
    with pytest.raises(InvalidInput, match="is no folder"):
        read_day(tmp_path / "missing", "d")
    with pytest.raises(InvalidInput, match="no order 'sideways'"):
        read_day(tmp_path, "d", "sideways")
    day(tmp_path, cpu_pct=None)
    with pytest.raises(InvalidInput, match="column 'cpu_pct' is missing"):
        read_day(tmp_path, "d")


def test_rows_become_a_table_that_parquet_can_hold(tmp_path: Path) -> None:
    found = list(
        rows(cloud(1), "d", "bytewise", [Policy.named("NPA"), Policy.named("LR-RS")], ["reference", "sound"], 3)
    )
    assert [(row.mode, row.policy, row.seeds) for row in found] == [
        ("reference", "NPA", 1),
        ("reference", "LR-RS-1.2", 3),
        ("sound", "NPA", 1),
        ("sound", "LR-RS-1.2", 3),
    ]
    pq.write_table(arrow(found), tmp_path / "rows.parquet")
    back = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["energy_kwh"] for row in back] == [row.figures.energy_kwh for row in found]
    assert {row["verdict"] for row in back} == {""}  # nothing is published for made-up traces
