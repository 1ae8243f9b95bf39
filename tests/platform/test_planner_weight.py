"""The weight planner gives the plans Watcher's own planner gives, parent by parent."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_weight
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan

MODEL = ClusterModel.from_arrow(
    pa.table(
        {
            "uuid": ["a", "b"],
            "hostname": ["alpha", "beta"],
            "vcpus": [8.0, 8.0],
            "memory_mb": [8e3, 8e3],
            "disk_gb": [80.0, 80.0],
        }
    ),
    pa.table(
        {
            "uuid": [f"id-{n}" for n in range(5)],
            "name": [f"vm{n}" for n in range(5)],
            "node": ["a"] * 5,
            "vcpus": [1.0] * 5,
            "memory_mb": [1e3] * 5,
            "disk_gb": [1.0] * 5,
        }
    ),
)
RESIZES = (Act("resize", "id-0", {"flavor": "m1"}), Act("resize", "id-1", {"flavor": "m1"}))
POWER = Act("change_node_power_state", "a", {"state": "off"})


def plan(*steps: Migrate | Act, migrates: int | None = None, weights: Mapping[str, int] | None = None) -> Plan:
    options: dict[str, Mapping[str, int]] = {}
    if migrates is not None:
        options["parallelization"] = {"migrate": migrates, "resize": 2, "change_node_power_state": 2}
    if weights is not None:
        options["weights"] = weights
    return plan_weight(MODEL, Candidate(steps), Limits(), **options)


def shape(made: Plan) -> list[tuple[str, tuple[int, ...]]]:
    return [(action.action_type, action.parents) for action in made.actions]


def test_heavier_types_go_first_whatever_the_order_of_the_candidate() -> None:
    made = plan(Migrate(0, 1), Act("nop", None, {"message": "x"}), weights={"migrate": 3, "nop": 5})
    assert shape(made) == [("nop", ()), ("migrate", (0,))]


def test_a_new_action_type_needs_only_a_weight() -> None:
    new = Act("defragment", "a", {})
    assert shape(plan(Migrate(0, 1), new, weights={"migrate": 3, "defragment": 4})) == [
        ("defragment", ()),
        ("migrate", (0,)),
    ]
    with pytest.raises(
        PlanError, match=r"action type 'defragment'; it knows change_node_power_state, .*volume_migrate"
    ):
        plan(Migrate(0, 1), new)


@pytest.mark.parametrize(
    ("lanes", "migrations"),
    [
        (1, [(), (0,), (1,)]),
        (2, [(), (), (0, 1)]),
        (3, [(), (), ()]),
    ],
)
def test_lanes_cut_a_type_into_chunks(lanes: int, migrations: list[tuple[int, ...]]) -> None:
    made = plan(Migrate(0, 1), Migrate(1, 1), Migrate(2, 1), RESIZES[0], POWER, migrates=lanes)
    last_chunk = {1: (2,), 2: (2,), 3: (0, 1, 2)}[lanes]
    assert [parents for _, parents in shape(made)] == [*migrations, last_chunk, (3,)]
    assert [kind for kind, _ in shape(made)] == ["migrate"] * 3 + ["resize", "change_node_power_state"]


def test_every_action_of_a_chunk_waits_for_all_of_the_chunk_before_it() -> None:
    made = plan(*(Migrate(n, 1) for n in range(5)), *RESIZES, POWER, migrates=2)
    assert [parents for _, parents in shape(made)] == [(), (), (0, 1), (0, 1), (2, 3), (4,), (4,), (5, 6)]


def test_defaults_are_watchers() -> None:
    light = ["change_node_power_state", "resize", "migrate", "stop"]
    kinds = [*light, "sleep", "change_nova_service_state", "volume_migrate", "nop"]
    steps = [Act(kind, f"r{n}", {}) for kind in kinds for n in range(2)]
    made = plan(*steps)
    assert [action.action_type for action in made.actions] == [kind for kind in reversed(kinds) for _ in range(2)]
    widths = [len([a for a in made.actions if a.parents == parents]) for parents in {a.parents for a in made.actions}]
    assert sorted(widths) == [1] * 6 + [2] * 5


def test_exactly_equal_actions_are_planned_once() -> None:
    nop = Act("nop", None, {"message": "x"})
    assert len(plan(nop, nop, Act("nop", None, {"message": "y"}), Migrate(0, 1), RESIZES[0], RESIZES[0]).actions) == 4


def test_moves_become_migrations_from_where_the_instance_then_is() -> None:
    made = plan(Migrate(0, 1), Migrate(0, 0, live=False), Migrate(1, -1))
    assert [(a.source, a.destination, a.live) for a in made.actions] == [(0, 1, True), (1, 0, False), (0, -1, True)]
    assert made.actions[1].parameters == {
        "migration_type": "cold",
        "resource_id": "id-0",
        "resource_name": "vm0",
        "source_node": "beta",
        "destination_node": "alpha",
    }
    assert "destination_node" not in made.actions[2].parameters
    with pytest.raises(PlanError, match="after the cloud chose its host"):
        plan(Migrate(1, -1), Migrate(1, 0))


def test_a_wire_migration_keeps_its_words_and_gets_its_rows() -> None:
    wire = {"migration_type": "live", "source_node": "alpha", "destination_node": "beta"}
    known, odd = plan(Act("migrate", "id-3", wire), Act("migrate", "id-4", wire | {"source_node": "gamma"})).actions
    assert (known.instance, known.source, known.destination) == (3, 0, 1)
    assert known.parameters == {"resource_id": "id-3", **wire}
    assert odd.instance == -1
    assert odd.parameters["source_node"] == "gamma"
