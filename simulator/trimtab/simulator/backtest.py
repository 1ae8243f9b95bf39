"""The backtest: what policies would have done with recorded load, side by side, with what their migrations cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.simulator.closed_loop import Case, Outcome, Policy, run
from trimtab.simulator.forecast import column_means
from trimtab.simulator.load import PER_DAY, SAMPLE_S, Load
from trimtab.simulator.score import as_shared
from trimtab.simulator.timeline import Move
from trimtab.simulator.world import burns_cpu

NAMED = 3  # how many names or times a note gives
NOBODY = Policy("nobody")

Samples = npt.NDArray[np.float32]


class Gap(NamedTuple):
    """A stretch of time, [start, end), cloud time in seconds, in which nothing at all was recorded."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """Recorded CPU of a model's instances, made whole.

    `cpu_pct` [T, V] float32: per cent of the instance's vCPUs, NaN where nothing was recorded; sample t covers 300 s
    from `start_s + 300 t` on, and `start_s` is a multiple of 300. `typical_pct` [V] stands where the record has holes:
    the mean of the instance's own samples, else that of all instances. `unmeasured` [V]: instances that should run and
    have no sample at all. `gaps`: when nobody was recorded. `holes`: share of the samples missing, of instances that
    should run and have some.
    """

    start_s: float
    cpu_pct: Samples
    typical_pct: Samples
    unmeasured: npt.NDArray[np.bool_]
    gaps: tuple[Gap, ...]
    holes: float

    @classmethod
    def of(cls, model: ClusterModel, start_s: float, cpu_pct: Samples) -> Record:
        """A record of samples by row of the model.

        Args:
            model: whose instances these are.
            start_s: when the first sample begins; a multiple of 300.
            cpu_pct: [T, V], NaN where nothing was recorded.

        Raises:
            InvalidInput: another number of instances, an odd start, or no sample at all.
        """
        if cpu_pct.ndim != 2 or cpu_pct.shape[1] != model.instances:
            raise InvalidInput(f"a record of shape {cpu_pct.shape}: give one column for each of {model.instances} rows")
        if start_s % SAMPLE_S or start_s < 0:
            raise InvalidInput(f"a record that begins at {start_s} s: samples begin at whole multiples of 300 s")
        shared = as_shared(cpu_pct)
        own = column_means(shared)
        measured = np.isfinite(own)
        if not measured.any():
            raise InvalidInput(
                "the record holds no sample of any instance of the model: give another time, or metrics of this model"
            )
        should = burns_cpu(model)
        typical = np.where(measured, own, own[measured].mean(dtype=np.float64)).astype(np.float32)
        known = np.isfinite(shared)
        counted = should & measured
        return cls(
            start_s,
            shared,
            typical,
            should & ~measured,
            tuple(_gaps(start_s, np.asarray(known.any(axis=1)))),
            float(1 - known[:, counted].mean()) if counted.any() else 0.0,
        )

    @property
    def end_s(self) -> float:
        """When the last sample ends."""
        return self.start_s + SAMPLE_S * len(self.cpu_pct)

    def load(self) -> Load:
        """The same as the load of a closed loop: NaN outside the record."""
        first = round(self.start_s / SAMPLE_S)

        def day(number: int) -> Samples:
            block = np.full((PER_DAY, self.cpu_pct.shape[1]), np.nan, np.float32)
            begin = number * PER_DAY - first
            rows = self.cpu_pct[max(begin, 0) : max(begin + PER_DAY, 0)]
            skip = max(-begin, 0)
            block[skip : skip + len(rows)] = rows
            return block

        return Load(day, self.cpu_pct.shape[1])

    def notes(self, model: ClusterModel) -> Iterator[str]:
        """What is missing and what stands in its place, one line each."""
        if self.gaps:
            hours = sum(gap.end_s - gap.start_s for gap in self.gaps) / 3600
            first = ", ".join(
                f"{when(gap.start_s)} for {(gap.end_s - gap.start_s) / 60:g} min" for gap in self.gaps[:NAMED]
            )
            more = ", ..." if len(self.gaps) > NAMED else ""
            yield f"nothing was recorded for {hours:.3g} h in {len(self.gaps)} gaps (from {first}{more})"
        if self.holes > 0:
            yield f"{100 * self.holes:.2g} % of the samples are missing: there every instance runs at its own mean"
        if self.unmeasured.any():
            rows = np.flatnonzero(self.unmeasured)
            names = ", ".join(model.instance_name(int(v)) or model.instance_id(int(v)) for v in rows[:NAMED])
            more = ", ..." if len(rows) > NAMED else ""
            yield f"{len(rows)} instances have no sample: they run at the mean of all ({names}{more})"


def when(at_s: float) -> str:
    """A time as people read it, UTC, to the minute."""
    return str(np.datetime64(int(at_s), "s"))[:16].replace("T", " ")


def _gaps(start_s: float, recorded: npt.NDArray[np.bool_]) -> Iterator[Gap]:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], recorded, [True]]).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2).tolist():
        yield Gap(start_s + SAMPLE_S * begin, start_s + SAMPLE_S * end)


class Tried(NamedTuple):
    """One policy and what came of it."""

    policy: Policy
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Backtest:
    """All policies over the same time; `tried[0]` is nobody. `notes`: what to know before believing the figures."""

    model: ClusterModel
    start_s: float
    end_s: float
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a policy: who, how often, and every figure, units in names."""
        found = []
        for policy, outcome in self.tried:
            score = outcome.score
            acts = policy.strategy is not None
            found.append(
                {
                    "policy": policy.name,
                    "strategy": policy.strategy.name if policy.strategy is not None else None,
                    "interval_min": policy.interval_s / 60 if acts else None,
                    "energy_kwh": score.energy_kwh,
                    "slatah": score.slatah,
                    "pdm": score.pdm,
                    "moved_gib": score.moved_gib,
                    "cpu_sd_mean_pp": _mean(outcome.series, "cpu_sd_pp"),
                    "power_mean_w": _mean(outcome.series, "power_w"),
                    "rules_broken": float(score.rules_broken),
                    **outcome.figures,
                    "failures": list(outcome.failures),
                }
            )
        return found

    def table(self) -> pa.Table:
        """`rows` as a table."""
        return pa.Table.from_pylist(self.rows())

    def series(self) -> pa.Table:
        """The samples of all policies: column `policy`, then those of `series.series_of`."""
        parts = []
        for policy, outcome in self.tried:
            if outcome.series is not None:
                name = pa.array([policy.name] * outcome.series.num_rows, pa.string())
                parts.append(outcome.series.add_column(0, "policy", name))
        return pa.concat_tables(parts)

    def moves(self, tried: Tried) -> pa.Table:
        """The migrations of one policy, in the order of their start: names, times (cloud, s), size, whether it arrived.

        `ended_s` is null where the migration was still under way at the end.
        """
        moves = sorted(tried.outcome.moves, key=lambda move: move.start)

        def column(what: Callable[[Move], Any], kind: pa.DataType) -> pa.Array:
            return pa.array([what(move) for move in moves], kind)

        model = self.model
        return pa.table(
            {
                "instance_uuid": column(lambda m: model.instance_id(m.instance), pa.string()),
                "instance_name": column(lambda m: model.instance_name(m.instance), pa.string()),
                "source": column(lambda m: model.host_name(m.source), pa.string()),
                "destination": column(lambda m: model.host_name(m.destination), pa.string()),
                "live": column(lambda m: m.live, pa.bool_()),
                "started_s": column(lambda m: m.start, pa.float64()),
                "ended_s": column(lambda m: m.end if np.isfinite(m.end) else None, pa.float64()),
                "moved_gib": column(lambda m: m.gib, pa.float64()),
                "arrived": column(lambda m: m.arrived, pa.bool_()),
            }
        )


def _mean(series: pa.Table | None, name: str) -> float | None:
    return None if series is None else float(np.mean(series[name].to_numpy()))


def backtest(
    model: ClusterModel,
    record: Record,
    policies: Sequence[Policy],
    start_s: float,
    end_s: float,
    *,
    settings: Callable[[Case], Case] = lambda case: case,
    notes: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Backtest:
    """Run nobody and every policy over the same recorded time, each from the model's placement.

    Args:
        model: the cloud; its placement is where everything begins.
        record: the load; what was recorded before `start_s` is the past that strategies may look back on.
        policies: who acts; names must differ.
        start_s: begin, cloud time.
        end_s: end, cloud time.
        settings: changes a case before it runs: physics, power, carbon, seed.
        notes: said first of all notes.
        progress: is told the name of each policy before it runs.

    Raises:
        InvalidInput: a time outside the record, or two policies of one name.
    """
    if not record.start_s <= start_s < end_s <= record.end_s:
        raise InvalidInput(
            f"{when(start_s)} to {when(end_s)} is not within the record, which goes from {when(record.start_s)} to "
            f"{when(record.end_s)} (UTC): choose another time"
        )
    every = [NOBODY, *(policy for policy in policies if policy.strategy is not None)]
    if len({policy.name for policy in every}) < len(every):
        raise InvalidInput(
            f"two policies have one name ({', '.join(policy.name for policy in every)}): give every policy its own"
        )
    case = settings(
        Case(
            model,
            record.load(),
            NOBODY,
            start_s,
            end_s - start_s,
            past_s=min(86_400.0, start_s - record.start_s),
            typical_pct=record.typical_pct,
        )
    )
    tried = []
    for policy in every:
        progress(policy.name)
        tried.append(Tried(policy, run(replace(case, policy=policy), series=True)))
    return Backtest(model, start_s, end_s, tuple(tried), (*notes, *record.notes(model)))
