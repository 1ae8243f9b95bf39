"""Noisy neighbour: an instance that takes the shared cache away from a more important one leaves their host.

Watcher's strategy of this name made sound. The occupancy of the last period is compared with that of the period before.
On a host, the most important instance (lowest `watcher-priority` in its metadata, a number, 5 when there is none) that
lost more than the threshold is the victim; what is less important and grew by more than the threshold is noise, the
least important first. One migration unless `max_migrations` says more; it goes to the host with the least occupied
cache on which nobody suffers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Floats
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import MIGRATES_LIVE, RUNNING, note, note_instances, where_it_is
from trimtab.strategies.receiving import in_rounds, receive
from trimtab.strategies.telling import by_move

KEY = "watcher-priority"
PRIORITY = 5.0  # of an instance that names none


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cache_threshold: float = Option(35.0, description="Performance drop in L3_cache threshold for migration")
    period: float = Option(100.0, description="Aggregate time period of ceilometer and gnocchi")
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: one."
    )


class NoisyNeighbor:
    """Noise away from who suffers."""

    name: ClassVar[str] = "noisy_neighbor"
    display_name: ClassVar[str] = "Noisy Neighbor"
    goal: ClassVar[str] = "noisy_neighbor"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """Cache occupancy of instances over one period and over two."""
        period = round(parameters.period)
        return (
            Need("instance_l3_cache_usage", "instance", "mean", period, 300),
            Need("instance_l3_cache_usage", "instance", "mean", 2 * period, 300),
        )

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then more migrations at once."""
        return {}, {"max_migrations": 10}, {"max_migrations": 100}

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when nobody suffers from a neighbour that can be moved."""
        model = snapshot.model
        now, over_both = (snapshot.metric(need) for need in self.needs(parameters))
        before = 2 * over_both - now
        change = parameters.cache_threshold / 100.0
        there = (model.host_of >= 0) & RUNNING[model.state]
        # A comparison with what was not measured is false.
        lost, grew = there & (now < (1 - change) * before), there & (now > (1 + change) * before)
        rows = np.flatnonzero(lost | grew)
        rank = priorities(model, rows)
        order = np.lexsort((rows, rank, model.host_of[rows]))
        rows, rank = rows[order], rank[order]
        home = model.host_of[rows]
        # The victim: the first on each host that lost; what comes after it and grew is noise.
        suffering, victim = np.unique(home[lost[rows]], return_index=True)
        victim = np.flatnonzero(lost[rows])[victim]
        place = np.full(model.hosts, len(rows))
        place[suffering] = victim
        free = model.movable & MIGRATES_LIVE[model.state] & where_it_is(model.up, model.host_of)
        free[list(snapshot.failed_before)] = False
        noise = grew[rows] & (np.arange(len(rows)) > place[home])
        affected = np.zeros(model.hosts, bool)
        affected[home[noise]] = True
        movable = np.flatnonzero(noise & free[rows])
        worst = np.full(model.hosts, np.inf)  # the most important victim goes first
        worst[suffering] = rank[victim]
        queue, turn = in_rounds(home[movable], worst[home[movable]], np.arange(len(movable))[::-1])
        cache = np.nan_to_num(np.maximum(now, 0.0))
        field = field_of(model, model.capacity, model.demand)
        moves = receive(
            field,
            model.host_of.copy(),
            used_of(field, model.host_of),
            model.usable & ~affected,
            np.bincount(model.host_of[there], cache[there], model.hosts).astype(np.float64),
            cache,
            rows[movable[queue]].astype(np.int32),
            turn,
            1 if parameters.max_migrations is None else parameters.max_migrations,
            False,
        )
        sufferer = dict(zip(suffering.tolist(), victim.tolist(), strict=True))
        rank_of = dict(zip(rows.tolist(), rank.tolist(), strict=True))
        occupied = np.bincount(model.host_of[there], cache[there], model.hosts)

        def told(instance: int, source: int, host: int) -> str:
            hurt = int(rows[sufferer[source]])
            name = model.instance_name(hurt) or model.instance_id(hurt)
            here = occupied[host]
            occupied[host] += cache[instance]
            return (
                f"its cache went from {before[instance]:g} to {now[instance]:g} while that of {name} on the same host, "
                f"more important (priority {rank[sufferer[source]]:g} before {rank_of[instance]:g}), went from "
                f"{before[hurt]:g} to {now[hurt]:g}; of the hosts with room where nobody suffers from a neighbour "
                f"{model.host_name(host)} has the least cache occupied: {here:g}"
            )

        reasons = by_move(model, moves, told)
        unknown = there & where_it_is(model.up, model.host_of) & ~(np.isfinite(now) & np.isfinite(over_both))
        return (
            Candidate(
                tuple(Migrate(instance, host, live=True) for instance, host in moves.tolist()),
                because=f"on {int(affected.sum())} hosts an instance lost more than {parameters.cache_threshold:g} % "
                f"of its cache to less important ones; {len(moves)} of these migrate",
                indicators={"affected_hosts_count": int(affected.sum()), "instance_migrations_count": len(moves)},
                reasons=reasons,
                notes=(
                    *note_instances(
                        model, unknown, "{count} instances without cache measurement neither suffer nor disturb"
                    ),
                    *note(
                        affected & ~np.isin(np.arange(model.hosts), home[movable]),
                        model.host_names,
                        "{count} hosts keep their noise: it is locked, excluded, cannot migrate live, or failed before",
                    ),
                ),
            ),
        )


def priorities(model: ClusterModel, rows: Any) -> Floats:
    """`watcher-priority` of some instances, a number each; 5 where there is none, or what stands there is none."""
    found: dict[int, float] = {}
    codes = model.metadata.codes[rows]
    for code in np.unique(codes).tolist():
        found[code] = PRIORITY
        if code >= 0 and KEY in model.metadata.names[code]:
            try:
                said = float(json.loads(model.metadata.names[code])[KEY])
            except (KeyError, TypeError, ValueError):
                continue
            found[code] = said if math.isfinite(said) else PRIORITY
    return np.array([found[code] for code in codes.tolist()], np.float64)
