"""What actions take agrees with what a rehearsal of each alone takes, volumes included."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.contracts import Goal
from trimtab.platform.effort import POOL_MB_S, UNKNOWN_VOLUME_S, effort
from trimtab.platform.explain import explain, reason_to_json
from trimtab.platform.model import ClusterModel, StorageModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.planner.durations import NOTICE_S
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan
from trimtab.platform.snapshot import Snapshot
from trimtab.simulator.annex import build_storage
from trimtab.simulator.estate import build_estate
from trimtab.simulator.rehearse import rehearse


@cache
def estate() -> tuple[Snapshot, StorageModel]:
    model = ClusterModel.from_arrow(*build_estate(4, 30, seed=2))
    storage = build_storage(model, 5)
    return Snapshot(model, 20_000 * 86_400.0, storage=storage), storage


def moved(storage: StorageModel, row: int, **more: Any) -> Act:
    return Act("volume_migrate", storage.volume_id(row), {"resource_name": storage.volume_name(row), **more})


def to_pool(storage: StorageModel, row: int, pool: int) -> Act:
    return moved(storage, row, migration_type="migrate", destination_node=storage.pool_name(pool))


def to_type(storage: StorageModel, row: int, kind: int) -> Act:
    return moved(storage, row, migration_type="retype", destination_type=storage.type_name(kind))


def planned(snapshot: Snapshot, *steps: Act | Migrate) -> Plan:
    return plan_capacity(snapshot.model, Candidate(steps), Limits())


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 17), to=st.integers(0, 11), retype=st.booleans())
def test_a_volume_takes_what_its_rehearsal_takes(row: int, to: int, retype: bool) -> None:
    snapshot, storage = estate()
    row, to = row % storage.volumes, to % (len(storage.type_names) if retype else storage.pools)
    plan = planned(snapshot, to_type(storage, row, to) if retype else to_pool(storage, row, to))
    takes = effort(snapshot, plan)
    rehearsed = rehearse(snapshot, plan, Limits(), 1)
    copies = not retype or storage.type_backend[to] != storage.pool_backend[int(storage.pool_of[row])]
    assert takes.gib.tolist() == [storage.size_gb[row] if copies else 0.0]
    if not rehearsed.violations:
        assert takes.seconds[0] == pytest.approx(rehearsed.score.duration_s)


def test_a_volume_that_was_copied_before_is_copied_again() -> None:
    snapshot, storage = estate()
    row = int(np.flatnonzero(storage.snapshots == 0)[0])
    here = storage.pool_backend[int(storage.pool_of[row])]
    away = next(k for k in range(len(storage.type_names)) if storage.type_backend[k] != here)
    back = next(k for k in range(len(storage.type_names)) if storage.type_backend[k] == here)
    takes = effort(snapshot, planned(snapshot, to_type(storage, row, away), to_type(storage, row, back)))
    assert takes.gib.tolist() == [storage.size_gb[row]] * 2


def test_a_volume_that_nobody_knows_takes_what_rehearsals_assume_and_other_acts_nothing() -> None:
    snapshot, storage = estate()
    bare = Snapshot(snapshot.model, snapshot.taken_at)
    steps = (Act("volume_migrate", "gone", {"migration_type": "migrate"}), Act("nop", None, {"message": "hello"}))
    for seen in (bare, snapshot):
        plan = planned(seen, *steps)
        takes = effort(seen, plan)
        assert takes.seconds.tolist() == [UNKNOWN_VOLUME_S + NOTICE_S, 0.0]
        assert takes.gib.tolist() == [0.0, 0.0]
    plan = planned(bare, to_pool(storage, 0, 1))
    assert effort(bare, plan).seconds[0] == pytest.approx(rehearse(bare, plan, Limits(), 1).score.duration_s)


def test_the_move_of_a_volume_is_explained_with_its_size_and_time() -> None:
    snapshot, storage = estate()
    candidate = Candidate((to_pool(storage, 3, 0), Act("nop", None, {"message": "hello"})))
    plan = plan_capacity(snapshot.model, candidate, Limits())
    told = [
        reason_to_json(snapshot.model, one, ["a", "b"])
        for one in explain(snapshot, candidate, plan, Goal("any", "Any"))
    ]
    (volume,) = (row for row in told if row["action_type"] == "volume_migrate")
    assert volume["gib"] == storage.size_gb[3] > 0
    assert volume["duration_s"] == pytest.approx(5 + volume["gib"] * 1024 / POOL_MB_S + NOTICE_S, abs=0.01)
    (nop,) = (row for row in told if row["action_type"] == "nop")
    assert (nop["gib"], nop["duration_s"]) == (0.0, 0.0)
