"""The placement overlay: room as a naive loop sees it, and moves that can be taken back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.model import ClusterModel

RESOURCES = ("vcpus", "memory_mb", "disk_gb")


def cloud(capacity: Sequence[Sequence[float]], demand: Sequence[Sequence[float]], hosts: Sequence[int]) -> ClusterModel:
    def columns(rows: Sequence[Sequence[float]]) -> dict[str, pa.Array]:
        return {name: pa.array([float(row[r]) for row in rows], pa.float64()) for r, name in enumerate(RESOURCES)}

    nodes = [f"h{n}" for n in range(len(capacity))]
    return ClusterModel.from_arrow(
        pa.table({"uuid": nodes, "hostname": nodes, **columns(capacity)}),
        pa.table(
            {
                "uuid": pa.array([f"v{n}" for n in range(len(demand))], pa.string()),
                "node": pa.array([f"h{h}" if h >= 0 else None for h in hosts], pa.string()),
                **columns(demand),
            }
        ),
    )


WHOLE = st.integers(0, 8).map(float)
ANY = st.one_of(WHOLE, st.sampled_from([0.1, 0.3, 2.7]))


@st.composite
def clouds(draw: st.DrawFn, amounts: st.SearchStrategy[float] = ANY) -> ClusterModel:
    hosts, guests = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    triple = st.tuples(amounts, amounts, amounts)
    return cloud(
        draw(st.lists(triple.map(lambda t: [4 * a for a in t]), min_size=hosts, max_size=hosts)),
        draw(st.lists(triple, min_size=guests, max_size=guests)),
        draw(st.lists(st.integers(-1, hosts - 1), min_size=guests, max_size=guests)),
    )


def naive_used(model: ClusterModel, where: Sequence[int]) -> list[list[float]]:
    used = [[0.0] * 3 for _ in range(model.hosts)]
    for instance, host in enumerate(where):
        for r in range(3):
            if host >= 0:
                used[host][r] += float(model.demand[instance, r])
    return used


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_fits_is_what_a_loop_over_hosts_and_resources_says(model: ClusterModel) -> None:
    place, used = model.placement(), naive_used(model, model.host_of.tolist())
    for instance in range(model.instances):
        naive = [
            all(model.capacity[h, r] - used[h][r] >= model.demand[instance, r] - 1e-6 for r in range(3))
            for h in range(model.hosts)
        ]
        assert place.fits(instance).tolist() == naive


@settings(max_examples=60, deadline=None)
@given(clouds(WHOLE), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), max_size=12), st.integers(0, 12))
def test_undo_restores_exactly(model: ClusterModel, moves: list[tuple[int, int]], back: int) -> None:
    place = model.placement()
    states = [(place.host_of.copy(), place.used.copy())]
    for instance, host in moves:
        place.move(instance % model.instances, min(host, model.hosts - 1))
        states.append((place.host_of.copy(), place.used.copy()))
    back = min(back, len(moves))
    place.undo(back)
    where, used = states[len(moves) - back]
    assert np.array_equal(place.host_of, where)
    assert np.array_equal(place.used, used)
    assert len(place.moves) == len(moves) - back


@settings(max_examples=60, deadline=None)
@given(clouds(), st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 4)), max_size=12))
def test_what_is_used_is_what_the_placed_instances_ask_for(model: ClusterModel, moves: list[tuple[int, int]]) -> None:
    place = model.placement()
    for instance, host in moves:
        place.move(instance % model.instances, min(host, model.hosts - 1))
    used = np.array(naive_used(model, place.host_of.tolist()))
    assert np.allclose(place.used.T, used, atol=1e-9)
    assert np.allclose(model.used(place.host_of), used, atol=1e-9)
    assert np.allclose(place.free(), place.capacity - place.used)
    assert np.allclose(place.used.sum(axis=1), model.demand[place.host_of >= 0].sum(axis=0), atol=1e-9)
    assert place.over_capacity().tolist() == [
        bool((used[h] > model.capacity[h] + 1e-6).any()) for h in range(len(used))
    ]
    for host in range(model.hosts):
        assert place.residents(host).tolist() == [n for n, h in enumerate(place.host_of) if h == host]


def test_a_copy_is_independent_and_the_model_never_changes() -> None:
    model = cloud([[4, 4, 4], [4, 4, 4]], [[1, 2, 3]], [0])
    first = model.placement()
    second = first.copy()
    second.move(0, 1)
    assert first.host_of.tolist() == model.host_of.tolist() == [0]
    assert first.used.T.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert second.used.T.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert (first.moves, second.moves) == ([], [(0, 0, 1)])


def test_rounding_is_not_room_and_does_not_cost_room() -> None:
    model = cloud([[0.3, 1, 1], [0.29, 1, 1]], [[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]], [0, 1, -1])
    place = model.placement()
    assert place.fits(1).tolist() == [True, False]
    place.move(1, 0)
    assert not place.over_capacity().any()
