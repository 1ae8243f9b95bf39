"""When hosts fail and come back: drawn from distributions, or read from a trace.

Times between failures are exponential or Weibull, times to repair exponential: Schroeder and Gibson, "A large-scale
study of failures in high-performance-computing systems", DSN 2006, found Weibull shapes of 0.7 to 0.8 between failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gamma

import numpy as np
import pyarrow as pa

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Bools, Floats
from trimtab.simulator.happenings import Happening


def random_failures(
    hosts: int,
    horizon_s: float,
    mtbf_h: float,
    mttr_h: float,
    rng: np.random.Generator,
    start_s: float,
    shape: float = 1.0,
    evacuate_after_s: float | None = None,
) -> list[Happening]:
    """Failures of hosts that work at the start, each followed by a repair; ordered by time.

    Args:
        hosts: number of hosts.
        horizon_s: nothing happens at or after `start_s + horizon_s`; a repair due then is left out.
        mtbf_h: mean time from a start or repair to the next failure, hours.
        mttr_h: mean time to repair, hours.
        rng: the only source of chance.
        start_s: cloud time.
        shape: of the Weibull distribution between failures; 1 is the exponential one, less means that failures cluster.
        evacuate_after_s: so long after a failure what is on the host is rebuilt elsewhere, unless it is back by then.

    Raises:
        InvalidInput: a mean or shape that is not above zero, or a negative time.
    """
    for name, value in (("mtbf_h", mtbf_h), ("mttr_h", mttr_h), ("shape", shape)):
        if not 0 < value < float("inf"):
            raise InvalidInput(f"{name} is {value}: it must be above zero")
    if not 0 <= horizon_s < float("inf"):
        raise InvalidInput(f"horizon_s is {horizon_s}: give seconds, zero or more")
    scale_s = mtbf_h * 3600 / gamma(1 + 1 / shape)
    rows, works_from = np.arange(hosts), np.zeros(hosts)
    failed, down, up = list[np.ndarray](), list[Floats](), list[Floats]()
    while len(rows):
        fails = works_from + scale_s * rng.weibull(shape, len(rows))
        works_from = fails + rng.exponential(mttr_h * 3600, len(rows))
        soon = fails < horizon_s
        rows, works_from = rows[soon], works_from[soon]
        failed.append(rows)
        down.append(fails[soon])
        up.append(works_from)
    if not failed:
        return []
    where, begins, ends = np.concatenate(failed), np.concatenate(down), np.concatenate(up)
    ends = np.where(ends < horizon_s, ends, np.inf)
    return _happenings(where, start_s + begins, start_s + ends, start_s + horizon_s, evacuate_after_s)


def within(happenings: Sequence[Happening], begins: Floats, ends: Floats) -> list[Happening]:
    """Drawn failures of hosts that exist for some of the time only; their order stays.

    A failure that begins outside [begin, end) of its host is left out with its evacuation and its repair; of one that
    begins inside, what comes at the end or later.

    Args:
        happenings: of `random_failures`: every host goes down and up in turn, ordered by time.
        begins: cloud time from which each host exists, s, [H].
        ends: until when, s, [H].
    """
    kept, counts = list[Happening](), dict[int, bool]()
    for happening in happenings:
        if happening.kind == "host_down":
            counts[happening.row] = bool(begins[happening.row] <= happening.at)
        if counts[happening.row] and happening.at < ends[happening.row]:
            kept.append(happening)
    return kept


def overlaid(up: Bools, happenings: Iterable[Happening]) -> list[Happening]:
    """Happenings of several causes as what becomes of the hosts: a `host_up` ends one `host_down` only.

    A host is up again when everything that brought it down has ended; one that is down in the model from the start is
    so until a `host_up` that answers no `host_down`. Everything else stays as it is.

    Args:
        up: hosts that are up at the start, [H].
        happenings: ordered by time.
    """
    causes, kept = np.where(up, 0, 1), list[Happening]()
    for happening in happenings:
        row = happening.row
        if happening.kind == "host_down":
            causes[row] += 1
            if causes[row] > 1:
                continue
        elif happening.kind == "host_up":
            causes[row] = max(causes[row] - 1, 0)
            if causes[row] > 0:
                continue
        kept.append(happening)
    return kept


def from_trace(
    table: pa.Table, model: ClusterModel, evacuate_after_s: float | None = None, end_s: float = float("inf")
) -> list[Happening]:
    """Failures as recorded; ordered by time.

    Args:
        table: columns host (uuid or name), down_at, up_at (cloud time, s; null: it never came back).
        model: knows the hosts.
        evacuate_after_s: as in `random_failures`.
        end_s: what comes at or after that time is left out.

    Raises:
        InvalidInput: a column is missing, a host is unknown, or times are missing, in the wrong order or overlapping.
    """
    for name in ("host", "down_at", "up_at"):
        if name not in table.column_names:
            raise InvalidInput(
                f"failures: column {name!r} is missing (there are {', '.join(table.column_names) or 'none'}); "
                "a trace has host, down_at and up_at"
            )
    names = pa.array(table["host"].to_pylist(), pa.string())
    rows = np.maximum(model.host_rows(names), model.host_rows_by_name(names))
    try:
        down = table["down_at"].cast(pa.float64()).to_numpy()
        up = table["up_at"].cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(f"failures: down_at and up_at must be cloud times in seconds: {error}") from error
    up = np.where(np.isnan(up), np.inf, up)
    for row in np.flatnonzero((rows < 0) | ~np.isfinite(down) | (up <= down)).tolist():
        why = (
            "the model has no such host"
            if rows[row] < 0
            else f"down at {down[row]:g}, up at {up[row]:g}: a failure begins, and ends later"
        )
        raise InvalidInput(f"failures row {row} (host {names[row].as_py()}): {why}")
    order = np.lexsort((down, rows))
    again = (rows[order][1:] == rows[order][:-1]) & (down[order][1:] < up[order][:-1])
    if again.any():
        row = int(order[1:][again][0])
        raise InvalidInput(
            f"failures row {row} (host {names[row].as_py()}): it fails at {down[row]:g}, while it is down already"
        )
    return _happenings(rows, down, up, end_s, evacuate_after_s)


def _happenings(
    rows: np.ndarray, down: Floats, up: Floats, end_s: float, evacuate_after_s: float | None
) -> list[Happening]:
    if evacuate_after_s is not None and not 0 <= evacuate_after_s < float("inf"):
        raise InvalidInput(f"evacuate_after_s is {evacuate_after_s}: give seconds, zero or more, or None")
    found = [Happening(float(at), "host_down", int(row)) for row, at in zip(rows, down, strict=True) if at < end_s]
    found += [Happening(float(at), "host_up", int(row)) for row, at in zip(rows, up, strict=True) if at < end_s]
    if evacuate_after_s is not None:
        found += [
            Happening(float(at) + evacuate_after_s, "evacuate", int(row))
            for row, at, back in zip(rows, down, up, strict=True)
            if at + evacuate_after_s < min(back, end_s)
        ]
    return sorted(found, key=lambda happening: happening.at)
