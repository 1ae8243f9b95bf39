"""What a plan brought on a cloud that is only looked at: by its record of migrations and the measured load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from trimtab.platform.contracts import Migration, Score
from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import MEMORY, VCPU, ClusterModel
from trimtab.platform.snapshot import History, Snapshot
from trimtab.simulator.forecast import Forecast
from trimtab.simulator.migration import GIB_MB
from trimtab.simulator.power import Power
from trimtab.simulator.score import Window, score
from trimtab.simulator.timeline import DOWN, HOST, INSTANCE, UP, Change, Move, Timeline
from trimtab.simulator.world import burns_cpu

# Nova's record of a cold migration or resize ends when it is confirmed, and of an evacuation when the dead host is
# back; when the guest was there is not told. It is taken to be down no longer than this.
COLD_LONGEST_S = 600.0


class Switch(NamedTuple):
    """A host, by its name, was changed at a moment: its compute service (`power` false) or its power, on or off."""

    at: float
    host: str
    power: bool
    on: bool


def score_recorded(
    model: ClusterModel, migrations: Sequence[Migration], switches: Sequence[Switch], history: History, window: Window
) -> Score:
    """The score of what happened, by the formulas of the rehearsal.

    Instances that are gone by now are left out, and those that came in the meantime count from their creation on.
    What crosses the network is not recorded by any cloud: `moved_gib` is the memory of those that moved.

    Args:
        model: the cloud as it is now, at the end of the window or later.
        migrations: all that the cloud recorded since the window began.
        switches: what was done to hosts since then, as far as it is known.
        history: load that was measured, of the model's instances; what is missing is taken as in a forecast.
        window: what is scored.

    Raises:
        InvalidInput: nothing was measured in the window.
    """
    first = int((window.start_s - history.start_s) // history.step_s)
    last = int(-(-(window.end_s - history.start_s) // history.step_s))
    if model.instances and not np.isfinite(history.cpu_pct[max(first, 0) : max(last, 0)]).any():
        raise InvalidInput("nothing was measured in that time")
    load = Forecast.of(Snapshot(model=model, taken_at=window.end_s, version=0, measured={}, history=history))
    timeline = timeline_of(model, migrations, switches, window.start_s)
    return score(model, timeline, load.blocks, Power.of(model.total[:, VCPU]), window)


def timeline_of(
    model: ClusterModel, migrations: Sequence[Migration], switches: Sequence[Switch], began: float
) -> Timeline:
    """What happened since a moment, from how things are now and the record of what changed.

    Args:
        model: as it is now.
        migrations: since then; who is unknown, or came from an unknown host, is taken to have been where it is.
        switches: since then.
        began: the moment.
    """
    rows = model.instance_rows([one.server_id for one in migrations])
    sources = model.host_rows_by_name([one.source for one in migrations])
    destinations = model.host_rows_by_name([one.destination for one in migrations])
    known = (rows >= 0) & (sources >= 0) & (destinations >= 0)
    trips = [
        (one, int(row), int(source), int(destination))
        for one, row, source, destination, ok in zip(migrations, rows, sources, destinations, known, strict=True)
        if ok and _end(one) > began
    ]
    arrived = sorted((trip for trip in trips if trip[0].status == "completed"), key=lambda trip: _end(trip[0]))
    host_of, running = model.host_of.copy(), burns_cpu(model)
    for _, row, source, _ in reversed(arrived):
        host_of[row] = source
    changes = [
        Change(_end(one), INSTANCE, row, destination, bool(running[row])) for one, row, _, destination in arrived
    ]
    born = _created(model)
    for row in np.flatnonzero(born > began).tolist():
        changes.append(Change(float(born[row]), INSTANCE, row, int(host_of[row]), bool(running[row])))
        host_of[row] = -1
    up, enabled, turned = _hosts(model, switches, began)
    moves = tuple(_move(model, *trip, running=bool(running[trip[1]])) for trip in trips)
    ordered = sorted([*changes, *turned], key=lambda change: change.at)
    return Timeline(began, host_of, running, up, enabled, tuple(ordered), moves)


def _end(one: Migration) -> float:
    """When the guest was where it is since then, as far as that can be told."""
    if one.ended_at is None:
        return np.inf
    return one.ended_at if one.live else min(one.ended_at, one.started_at + COLD_LONGEST_S)


def _move(model: ClusterModel, one: Migration, row: int, source: int, destination: int, *, running: bool) -> Move:
    return Move(
        instance=row,
        source=source,
        destination=destination,
        live=one.live,
        start=one.started_at,
        stop=_end(one) if one.live else one.started_at,  # how short the stop of a live migration was is not recorded
        end=_end(one),
        gib=float(model.demand[row, MEMORY]) / GIB_MB,
        arrived=one.status == "completed",
        running=running,
    )


def _hosts(
    model: ClusterModel, switches: Sequence[Switch], began: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[Change]]:
    """Which hosts worked and were enabled at first, and what changed."""
    rows = model.host_rows_by_name([one.host for one in switches])
    done = [(one, int(row)) for one, row in zip(switches, rows, strict=True) if row >= 0 and one.at > began]
    done.sort(key=lambda pair: pair[0].at)
    up, enabled = model.up.copy(), model.enabled.copy()
    for one, row in reversed(done):
        (up if one.power else enabled)[row] = not one.on
    first = up.copy(), enabled.copy()
    changes = []
    for one, row in done:
        (up if one.power else enabled)[row] = one.on
        changes.append(Change(one.at, HOST, row, UP if up[row] else DOWN, bool(enabled[row])))
    return *first, changes


def _created(model: ClusterModel) -> npt.NDArray[np.float64]:
    """When the instances were made, seconds since the epoch, [V]; NaN where that is not told."""
    told = pd.to_datetime(pd.Series(model.created.texts(), dtype="str"), utc=True, errors="coerce", format="ISO8601")
    seconds = (told - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return np.asarray(seconds, np.float64)
