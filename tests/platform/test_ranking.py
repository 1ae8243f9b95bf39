"""Ranking: which differences count, in which order, and what it takes to beat doing nothing."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.platform.contracts import Goal, Score
from trimtab.platform.plugins import load
from trimtab.platform.ranking import RESOLUTION, beats, key, rank

GOAL = Goal("g", "G", ordering=("overload_min_after", "hosts_in_use", "moved_gib"))

scores = st.builds(
    Score,
    overload_min_after=st.floats(0, 500),
    hosts_in_use=st.integers(0, 5),
    moved_gib=st.floats(0, 2),
)


def test_every_field_of_a_score_has_a_resolution() -> None:
    assert set(RESOLUTION) == {field.name for field in fields(Score)}
    assert all(step > 0 for step in RESOLUTION.values())


def test_every_installed_goal_orders_by_fields_that_exist() -> None:
    for goal in load().goals.values():
        assert set(goal.ordering) <= set(RESOLUTION), goal.name


def test_the_first_field_that_really_differs_decides() -> None:
    quiet = Score(overload_min_after=10, hosts_in_use=9)
    packed = Score(overload_min_after=25, hosts_in_use=7)  # 15 minutes more are within the resolution of 60
    loud = Score(overload_min_after=500, hosts_in_use=1)
    assert rank(GOAL, [loud, quiet, packed]) == [2, 1, 0]


def test_within_the_resolution_the_exact_value_decides_last() -> None:
    same = [Score(overload_min_after=m, hosts_in_use=3) for m in (20.0, 10.0, 15.0)]
    assert rank(GOAL, same) == [1, 2, 0]


def test_ties_keep_their_order() -> None:
    assert rank(GOAL, [Score(duration_s=s) for s in (3, 1, 2)]) == [0, 1, 2], "duration is no field of this goal"


def test_a_goal_without_ordering_keeps_the_order() -> None:
    assert rank(Goal("d", "D"), [Score(moves=9), Score()]) == [0, 1]
    assert beats(Goal("d", "D"), Score(), Score(moves=9)) is None


@pytest.mark.parametrize(
    ("score", "field"),
    [
        (Score(overload_min_after=100, hosts_in_use=10), None),  # the same
        (Score(overload_min_after=100, hosts_in_use=9), "hosts_in_use"),
        (Score(overload_min_after=40, hosts_in_use=12), "overload_min_after"),
        (Score(overload_min_after=41, hosts_in_use=10), None),  # 59 minutes are not 60
        (Score(overload_min_after=89, hosts_in_use=10), None),  # other side of a step's edge, 11 minutes apart
        (Score(overload_min_after=170, hosts_in_use=1), None),  # worse where it matters more
        (Score(overload_min_after=159, hosts_in_use=9), "hosts_in_use"),
        (Score(overload_min_after=100, hosts_in_use=11), None),
    ],
)
def test_a_plan_beats_nothing_only_by_a_whole_resolution(score: Score, field: str | None) -> None:
    assert beats(GOAL, score, Score(overload_min_after=100, hosts_in_use=10)) == field


@given(st.lists(scores, max_size=8))
def test_rank_is_a_permutation_in_order_of_the_key(candidates: list[Score]) -> None:
    order = rank(GOAL, candidates)
    assert sorted(order) == list(range(len(candidates)))
    for a, b in pairwise(order):
        assert (key(GOAL, candidates[a]), a) < (key(GOAL, candidates[b]), b)


@given(scores, scores)
def test_two_scores_never_beat_each_other(one: Score, other: Score) -> None:
    assert not (beats(GOAL, one, other) and beats(GOAL, other, one))
    field = beats(GOAL, one, other)
    if field is not None:
        assert getattr(other, field) - getattr(one, field) >= RESOLUTION[field] * 0.999
