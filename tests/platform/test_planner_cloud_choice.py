"""Plans in which the cloud chooses hosts (moves without a destination, resizes): no promised room is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.planner import plan_capacity
from trimtab.platform.proposal import Act, Candidate, Limits, Migrate, Plan, PlannedAction, Step

FLAVORS = {"small": 1.0, "medium": 2.0, "large": 4.0}


def cluster(capacity: Sequence[float], guests: Sequence[tuple[int, str]]) -> ClusterModel:
    """Hosts of so many vCPUs (memory and disk in step); instances of a flavor on a host. Rows behind: one a flavor."""
    offered = [(-1, name) for name in FLAVORS]  # on no host: so that the model knows every flavor's size
    everybody = [*guests, *offered]
    sizes = [FLAVORS[flavor] for _, flavor in everybody]
    return ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": [f"h{n}" for n in range(len(capacity))],
                "hostname": [f"host{n}" for n in range(len(capacity))],
                "vcpus": [float(c) for c in capacity],
                "memory_mb": [c * 1024.0 for c in capacity],
                "disk_gb": [c * 10.0 for c in capacity],
            }
        ),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(len(everybody))],
                "name": [f"vm{n}" for n in range(len(everybody))],
                "node": pa.array([f"h{host}" if host >= 0 else None for host, _ in everybody], pa.string()),
                "flavor": [flavor for _, flavor in everybody],
                "vcpus": sizes,
                "memory_mb": [s * 1024.0 for s in sizes],
                "disk_gb": [s * 10.0 for s in sizes],
            }
        ),
    )


def resize(instance: int, flavor: str) -> Act:
    return Act("resize", f"v{instance}", {"flavor": flavor})


def plan(model: ClusterModel, *steps: Step) -> Plan:
    return plan_capacity(model, Candidate(steps), Limits())


def who(model: ClusterModel, made: Plan) -> list[int]:
    """Row of the instance of every action."""
    ids = [str(action.parameters["resource_id"]) for action in made.actions]
    return model.instance_rows(ids).tolist()


@dataclass
class Cloud:
    """vCPUs taken while a plan is carried out; a migration or resize under way counts on both its hosts.

    `in_place`: a resize on its own host takes only what it grows by, not the new size beside the old one.
    """

    model: ClusterModel
    rng: random.Random
    in_place: bool
    where: list[int] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.where = self.model.host_of.tolist()
        self.size = self.model.demand[:, 0].tolist()
        self.used = self.model.used()[:, 0].tolist()

    def fits(self, host: int, much: float) -> bool:
        return self.used[host] + much <= self.model.capacity[host, 0] + 1e-6

    def begin(self, action: PlannedAction, row: int) -> tuple[float, int, float, float] | None:
        """(new size, host, taken there, given back where it was at the end); None when the cloud has no room."""
        here, old = self.where[row], self.size[row]
        if action.action_type == "migrate":
            new = old
            choices = [action.destination] if action.destination >= 0 else self._others(here, new)
        else:
            new = FLAVORS[action.parameters["flavor"]]
            more = max(new - old, 0.0) if self.in_place else new
            if self.fits(here, more) and (self.rng.random() < 0.7 or not self._others(here, new)):
                self.used[here] += more
                return new, here, more, old + more - new
            choices = self._others(here, new)
        choices = [host for host in choices if self.fits(host, new)]
        if not choices:
            return None
        host = self.rng.choice(choices)
        self.used[host] += new
        return new, host, new, old

    def _others(self, here: int, much: float) -> list[int]:
        return [host for host in range(self.model.hosts) if host != here and self.fits(host, much)]


def carry_out(model: ClusterModel, made: Plan, rng: random.Random, *, in_place: bool) -> set[int]:
    """Carry a plan out as overlapping as its graph allows; returns directed moves that found no room at their start.

    What needs room of an action that was not done is asked again, as the applier does, and is not counted.
    """
    cloud, rows = Cloud(model, rng, in_place), who(model, made)
    todo, done, lost = set(range(len(made.actions))), set[int](), set[int]()
    running: dict[int, tuple[float, int, float, float]] = {}
    short = set[int]()
    while todo or running:
        ready = sorted(n for n in todo if done.issuperset(made.actions[n].parents))
        if ready and (not running or rng.random() < 0.6):
            n = rng.choice(ready)
            todo.remove(n)
            action, row = made.actions[n], rows[n]
            begun = None
            if action.action_type == "resize" or cloud.where[row] == action.source:
                begun = cloud.begin(action, row)
                if begun is None and action.destination >= 0 and not lost & set(action.needs_room_of):
                    short.add(n)
            if begun is None:
                done.add(n)
                lost.add(n)
            else:
                running[n] = begun
        else:
            n = rng.choice(sorted(running))
            cloud.size[rows[n]], host, _, back = running.pop(n)
            cloud.used[cloud.where[rows[n]]] -= back
            cloud.where[rows[n]] = host
            done.add(n)
        assert (np.array(cloud.used) <= np.maximum(model.capacity[:, 0], model.used()[:, 0]) + 1e-6).all()
    return short


def after_the_cloud(made: Plan) -> set[int]:
    """Directed moves that wait for one that goes where the cloud chooses: their room may be given away before."""
    later = {n for n, action in enumerate(made.actions) if action.destination < 0}
    free = set(later)
    for n, action in enumerate(made.actions):
        if later & set(action.parents):
            later.add(n)
    return later - free


@st.composite
def wishes(draw: st.DrawFn, kinds: str) -> tuple[ClusterModel, tuple[Step, ...]]:
    """Two to five hosts with little room, moves, some of them without a destination, and resizes."""
    count = draw(st.integers(2, 5))
    guests = draw(
        st.lists(
            st.tuples(st.integers(0, count - 1), st.sampled_from(["small", "small", "medium"])), min_size=2, max_size=8
        )
    )
    load = [sum(FLAVORS[flavor] for host, flavor in guests if host == n) for n in range(count)]
    spare = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3, 5]), min_size=count, max_size=count))
    model = cluster([a + b for a, b in zip(load, spare, strict=True)], guests)
    steps: list[Step] = []
    for v in draw(st.permutations(range(len(guests)))):
        kind = draw(st.sampled_from([*kinds, "-"]))
        if kind == "d":
            steps.append(Migrate(v, draw(st.integers(0, count - 1))))
        elif kind == "c":
            steps.append(Migrate(v, -1))
        elif kind == "r":
            steps.insert(draw(st.integers(0, len(steps))), resize(v, draw(st.sampled_from(list(FLAVORS)))))
        elif kind == "b":
            both: list[Step] = [
                Migrate(v, draw(st.integers(0, count - 1))),
                resize(v, draw(st.sampled_from(list(FLAVORS)))),
            ]
            steps += draw(st.permutations(both))
    return model, tuple(steps)


@settings(max_examples=250, deadline=None)
@given(st.one_of(wishes("ddc"), wishes("ddr"), wishes("ddrcb")), st.integers(0, 2**20), st.booleans())
def test_no_move_loses_its_room_to_what_the_cloud_places(
    wish: tuple[ClusterModel, tuple[Step, ...]], seed: int, in_place: bool
) -> None:
    model, steps = wish
    try:
        made = plan(model, *steps)
    except PlanError:
        return
    rng = random.Random(seed)
    for _ in range(4):
        assert carry_out(model, made, rng, in_place=in_place) <= after_the_cloud(made), made


def test_a_move_the_cloud_places_waits_only_where_it_might_take_promised_room() -> None:
    tight = cluster([2, 2, 1], [(0, "small"), (0, "small")])
    made = plan(tight, Migrate(1, -1), Migrate(0, 2))
    assert [(action.instance, action.parents) for action in made.actions] == [(0, ()), (1, (0,))]
    roomy = cluster([2, 2, 2], [(0, "small"), (0, "small")])
    made = plan(roomy, Migrate(1, -1), Migrate(0, 2))
    assert sorted((action.instance, action.parents) for action in made.actions) == [(0, ()), (1, ())]


def test_a_move_the_cloud_places_goes_first_where_its_leaving_makes_the_room() -> None:
    model = cluster([2, 2, 1], [(0, "medium"), (1, "medium")])
    made = plan(model, Migrate(1, 0), Migrate(0, -1))
    assert [(action.instance, action.parents, action.needs_room_of) for action in made.actions] == [
        (0, (), ()),
        (1, (0,), (0,)),
    ]


def test_many_moves_the_cloud_places_wait_for_many_by_way_of_one() -> None:
    half = 200
    model = cluster([1.0] * half + [float(half)] * 2, [(half, "small")] * half + [(half + 1, "small")] * half)
    made = plan(model, *(Migrate(v, v) for v in range(half)), *(Migrate(half + v, -1) for v in range(half)))
    edges = sum(len(action.parents) for action in made.actions)
    assert edges == half + half - 1
    before: dict[int, set[int]] = {}
    for n, action in enumerate(made.actions):
        before[n] = set(action.parents).union(*(before[parent] for parent in action.parents))
    directed = {n for n, action in enumerate(made.actions) if action.destination >= 0}
    assert all(directed <= before[n] for n in before if n not in directed)


def shape(model: ClusterModel, made: Plan) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    """Type, instance, parents and whose room is needed, of every action."""
    names = [model.instance_name(row) for row in who(model, made)]
    return [
        (action.action_type, name, action.parents, action.needs_room_of)
        for action, name in zip(made.actions, names, strict=True)
    ]


def test_a_resize_waits_for_the_moves_whose_room_it_might_take() -> None:
    model = cluster([3, 1, 0], [(0, "small"), (1, "small")])
    made = plan(model, resize(0, "medium"), Migrate(1, 0))
    assert shape(model, made) == [("migrate", "vm1", (), ()), ("resize", "vm0", (0,), ())]
    roomy = cluster([4, 1, 0], [(0, "small"), (1, "small")])  # 1, 2 more until the resize is confirmed, and 1 for vm1
    assert {parents for _, _, parents, _ in shape(roomy, plan(roomy, resize(0, "medium"), Migrate(1, 0)))} == {()}


def test_whoever_comes_to_the_room_of_a_resize_that_shrinks_waits_for_it() -> None:
    model = cluster([2, 1], [(0, "medium"), (1, "small")])
    made = plan(model, Migrate(1, 0), resize(0, "small"))
    assert shape(model, made) == [("resize", "vm0", (), ()), ("migrate", "vm1", (0,), (0,))]


def test_a_move_after_a_resize_needs_room_for_the_new_size() -> None:
    model = cluster([5, 2, 9], [(0, "small"), (1, "small")])
    made = plan(model, Migrate(1, 2), resize(0, "medium"), Migrate(0, 1))
    assert [one[:2] for one in shape(model, made)[-1:]] == [("migrate", "vm0")]
    other = [one[:2] for one in shape(model, made)].index(("migrate", "vm1"))
    assert shape(model, made)[-1][2:] == ((0, 1), (other,))
    full = cluster([5, 2, 9], [(0, "small"), (1, "small")])
    kept = plan(full, resize(0, "large"), Migrate(0, 1))
    assert [one[0] for one in shape(full, kept)] == ["resize"]
    assert kept.notes[0].startswith("instance vm0 stays on host host0: there is no safe way to host host1")


def test_a_resize_after_a_move_has_its_room_reserved_at_the_destination() -> None:
    model = cluster([1, 3, 1], [(0, "small"), (2, "small")])
    made = plan(model, Migrate(0, 1), resize(0, "medium"), Migrate(1, 1))
    assert shape(model, made)[-1] == ("resize", "vm0", (0, 1), ())


def test_a_flavor_nobody_knows_the_size_of_reserves_nothing() -> None:
    model = cluster([1, 1], [(0, "small"), (1, "small")])
    made = plan(model, resize(0, "unheard of"))
    assert shape(model, made) == [("resize", "vm0", (), ())]
