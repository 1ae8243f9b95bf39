"""Ranking: scores in the order a goal asks for, and which candidate is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trimtab.platform.contracts import Goal, Score

# Differences below these are not differences: without this, the first field of a goal would decide alone.
RESOLUTION: Mapping[str, float] = {
    "duration_s": 1.0,
    "moves": 1.0,
    "moved_gib": 0.1,
    "overload_min_during": 5.0,
    "overload_min_after": 60.0,
    "energy_kwh": 0.5,
    "slatah": 0.005,
    "pdm": 1e-4,
    "cpu_sd_pp": 0.05,
    "hosts_in_use": 1.0,
    "rules_broken": 1.0,
}


class Key(NamedTuple):
    """What candidates are compared by: the goal's fields in steps of their resolution, then exactly."""

    steps: tuple[int, ...]
    exact: tuple[float, ...]


def key(goal: Goal, score: Score) -> Key:
    """The sort key of a score; smaller is better."""
    values = tuple(float(getattr(score, name)) for name in goal.ordering)
    return Key(tuple(round(v / RESOLUTION[n]) for v, n in zip(values, goal.ordering, strict=True)), values)


def rank(goal: Goal, scores: Sequence[Score]) -> list[int]:
    """Positions of the scores, best first; ties keep their order."""
    return sorted(range(len(scores)), key=lambda position: key(goal, scores[position]))


def beats(goal: Goal, score: Score, nothing: Score) -> str | None:
    """The first field in which a score is better than doing nothing by at least its resolution; None if it is not."""
    # Not the steps of `key`: two values a hair apart may lie on either side of an edge, which is nothing to move for.
    mine, other = key(goal, score).exact, key(goal, nothing).exact
    for name, a, b in zip(goal.ordering, mine, other, strict=True):
        if abs(a - b) >= RESOLUTION[name] * (1 - 1e-9):
            return name if a < b else None
    return None
