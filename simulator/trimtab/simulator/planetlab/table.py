"""Rows of the benchmark: every policy in every mode, RS over several seeds, beside what was published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trimtab.simulator.planetlab.engine import Figures, simulate
from trimtab.simulator.planetlab.fleet import Fleet
from trimtab.simulator.planetlab.published import Published, agrees, published
from trimtab.simulator.planetlab.rules import MODES, RS, Policy


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one mode.

    Attributes:
        mode: reference or sound.
        policy: with its parameter.
        seeds: how many runs; above 1 only for RS.
        figures: means over the runs.
        low: smallest of each figure.
        high: largest of each figure.
        cpu_s: of one run, mean.
        known: what was published for the reference, None: nothing.
        verdict: "=" agrees, "≠" does not, "in range" or "outside" for RS, "" where nothing is to be compared.
    """

    mode: str
    policy: str
    seeds: int
    figures: Figures
    low: Figures
    high: Figures
    cpu_s: float
    known: Published | None
    verdict: str

    def record(self) -> dict[str, object]:
        """Flat, for JSON and Parquet."""
        flat: dict[str, object] = {"mode": self.mode, "policy": self.policy, "seeds": self.seeds}
        flat |= self.figures._asdict()
        for name in Figures._fields:
            flat[f"{name}_low"], flat[f"{name}_high"] = getattr(self.low, name), getattr(self.high, name)
        flat["cpu_s"] = self.cpu_s
        for name in Published._fields:
            flat[f"published_{name}"] = None if self.known is None else getattr(self.known, name)
        return flat | {"verdict": self.verdict}


def rows(fleet: Fleet, day: str, order: str, policies: list[Policy], modes: list[str], seeds: int) -> Iterator[Row]:
    """One row at a time, as they are finished.

    Args:
        fleet: hosts and traces, in that order.
        day: to find what was published.
        order: likewise.
        policies: which.
        modes: names of `rules.MODES`.
        seeds: how many runs of each RS policy.
    """
    for mode in modes:
        for policy in policies:
            count = seeds if policy.moves and policy.selection == RS else 1
            runs = [simulate(fleet, policy, MODES[mode], seed) for seed in range(1, count + 1)]
            figures = np.array([run.figures for run in runs])
            mean, low, high = (_figures(of) for of in (figures.mean(0), figures.min(0), figures.max(0)))
            if count == 1:
                mean = runs[0].figures
            known = published(policy.name, day, order, len(fleet.kind)) if mode == "reference" else None
            cpu_s = float(np.mean([run.cpu_s for run in runs]))
            yield Row(mode, policy.name, count, mean, low, high, cpu_s, known, _verdict(policy, mean, low, high, known))


def arrow(found: list[Row]) -> pa.Table:
    """Rows as a table for Parquet."""
    return pa.Table.from_pylist([row.record() for row in found])


def _figures(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Figures:
    return Figures._make(float(value) for value in values)


def _verdict(policy: Policy, mean: Figures, low: Figures, high: Figures, known: Published | None) -> str:
    if known is None:
        return ""
    if policy.moves and policy.selection == RS:
        inside = low.energy_kwh <= known.energy_kwh <= high.energy_kwh
        inside = inside and low.migrations <= known.migrations <= high.migrations
        return "in range" if inside else "outside"
    return "=" if agrees(mean, known) else "≠"
