"""What undoes a plan: as much of it as can be done by now, the rest is named."""

from __future__ import annotations

import pyarrow as pa

from trimtab.platform.engine.afterwards import doable, way_back
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Act, Candidate, Migrate
from trimtab.platform.records import Action
from trimtab.platform.rules import judge
from trimtab.platform.snapshot import Snapshot


def cloud(where: dict[str, str], *, down: str = "", locked: str = "") -> ClusterModel:
    """Three hosts with room for two instances each."""
    hosts = ["h0", "h1", "h2"]
    return ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": hosts,
                "hostname": hosts,
                "state": ["down" if host == down else "up" for host in hosts],
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), [2.0] * 3),
            }
        ),
        pa.table(
            {
                "uuid": list(where),
                "name": list(where),
                "node": list(where.values()),
                "locked": [name == locked for name in where],
                **dict.fromkeys(("vcpus", "memory_mb", "disk_gb"), [1.0] * len(where)),
            }
        ),
    )


def moved(name: str, source: str, to: str) -> Action:
    wanted = {"resource_id": name, "migration_type": "live", "source_node": source, "destination_node": to}
    return Action(
        uuid=f"{name}-{to}", action_plan_id=1, action_type="migrate", input_parameters=wanted, state="SUCCEEDED"
    )


def undone(model: ClusterModel, *actions: Action) -> tuple[list[tuple[int, int]], list[str]]:
    steps, notes = way_back(Snapshot(model, 0.0), actions)
    kept = doable(model, steps, notes)
    assert judge(model, Candidate(tuple(kept))) == []
    return [(step.instance, step.destination) for step in kept if isinstance(step, Migrate)], notes


def test_whose_place_is_taken_stays_and_the_others_go_home() -> None:
    model = cloud({"a": "h1", "b": "h1", "new": "h0", "c": "h2"})
    back, notes = undone(model, moved("a", "h0", "h1"), moved("b", "h0", "h1"), moved("c", "h1", "h2"))
    assert back == [(3, 1), (1, 0)]
    assert notes == ["instance a stays: h0 has no room for it"]


def test_two_that_stand_in_each_others_place_both_go_home() -> None:
    model = cloud({"a": "h1", "b": "h0", "x": "h0", "y": "h1"})
    back, notes = undone(model, moved("a", "h0", "h1"), moved("b", "h1", "h0"))
    assert back == [(1, 1), (0, 0)]
    assert notes == []


def test_who_cannot_go_holds_nobody_else_up() -> None:
    model = cloud({"a": "h1", "b": "h1", "c": "h2"}, down="h0", locked="c")
    back, notes = undone(model, moved("a", "h0", "h1"), moved("b", "h2", "h1"), moved("c", "h1", "h2"))
    assert back == [(1, 2)]
    assert notes == ["instance c stays: instance c is locked", "instance a stays: host h0 is down and cannot receive a"]


def test_a_host_with_one_that_cannot_leave_it_is_not_disabled() -> None:
    model = cloud({"a": "h1", "b": "h2"}, locked="a")
    closing = Act("change_nova_service_state", "h1", {"state": "disabled", "resource_name": "h1"}, 1)
    other = Act("change_nova_service_state", "h2", {"state": "disabled", "resource_name": "h2"}, 2)
    notes: list[str] = []
    assert doable(model, [Migrate(0, 0), Migrate(1, 0), closing, other], notes) == [Migrate(1, 0), other]
    assert notes == ["instance a stays: instance a is locked", "h1 stays enabled: not all who should leave it can"]
