"""The population of a trace: its instances as a table of a model, and when they come and go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.happenings import Happening
from trimtab.simulator.load import SAMPLE_S, Load
from trimtab.simulator.traces.columns import Floats
from trimtab.simulator.traces.trace import Trace, to_days


class Population(NamedTuple):
    """What a closed loop needs of a trace.

    `instances`: one row a series, in its order, for `ClusterModel.from_arrow`; none is placed yet. `happenings`: who
    arrives and departs when, for `closed_loop.Case`. `load`: row by row, at the time it was recorded. `start_s`: begin
    of the first whole sample, for `Case.start_s`.
    """

    instances: pa.Table
    happenings: tuple[Happening, ...]
    load: Load
    start_s: float


def population(
    trace: Trace,
    *,
    start_s: float | None = None,
    vcpus: float | None = None,
    memory_mb: float | None = None,
    disk_gb: float = 0.0,
) -> Population:
    """A trace's instances as they come and go.

    Who is there at the start arrives then; the scheduler places everyone, and an arrival that no host can take is
    counted in `World.rejected` and never comes. Departures at the same time go first. Who is gone before the start, or
    lives no time, never comes. Holes of the record are filled by `typical`.

    Args:
        trace: begins and ends may be unknown (None or infinite): such instances are there all the time.
        start_s: when the run starts; None: with the trace.
        vcpus: of instances whose size the trace does not tell.
        memory_mb: likewise.
        disk_gb: of every instance; no trace tells.

    Raises:
        InvalidInput: a size is unknown, or no instance is left.
    """
    start = trace.start_s if start_s is None else start_s
    start = float(np.ceil(start / SAMPLE_S - 1e-9) * SAMPLE_S)
    count = len(trace.ids)
    if not (np.isfinite(start) and start >= 0):
        raise InvalidInput(f"a run that starts at {start:g} s: give seconds, zero or more")
    table = pa.table(
        {
            "uuid": trace.ids.cast(pa.string()),
            "name": trace.ids.cast(pa.string()),
            "node": pa.nulls(count, pa.string()),
            "vcpus": _sizes(trace, trace.vcpus, vcpus, "vcpus"),
            "memory_mb": _sizes(trace, trace.memory_mb, memory_mb, "memory_mb"),
            "disk_gb": np.full(count, float(disk_gb)),
        }
    )
    begins = np.maximum(np.full(count, -np.inf) if trace.begins_s is None else trace.begins_s, start)
    ends = np.full(count, np.inf) if trace.ends_s is None else trace.ends_s
    come = np.flatnonzero((ends > begins) & np.isfinite(begins))
    if not come.size:
        raise InvalidInput(f"none of {count} instances lives after {start:g} s: choose an earlier start")
    happenings = [Happening(float(begins[row]), "arrive", int(row)) for row in come]
    happenings += [Happening(float(ends[row]), "depart", int(row)) for row in come if np.isfinite(ends[row])]
    happenings.sort(key=lambda happening: (happening.at, happening.kind == "arrive"))
    load = Load(to_days(trace, count, variation=0.0, own_rows=True), count)
    return Population(table, tuple(happenings), load, start)


def _sizes(trace: Trace, given: Floats | None, unknown: float | None, name: str) -> Floats:
    values = np.full(len(trace.ids), np.nan) if given is None else given
    missing = np.isnan(values)
    if missing.any() and unknown is None:
        row = int(np.argmax(missing))
        raise InvalidInput(
            f"{name} of {trace.ids[row]} is unknown ({int(missing.sum())} of {len(values)} instances): give {name}="
        )
    return np.where(missing, np.nan if unknown is None else unknown, values)
