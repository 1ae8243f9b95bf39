"""Uniform airflow: instances leave a host whose fans blow hardest for those that blow least and have room.

Watcher's strategy of this name made sound. A host that blows hard though it draws little power and its inlet is cool
has faulty hardware: all its instances leave. Otherwise one does, the one with most vCPUs. One host unless
`max_migrations` says more: then hosts at or above the threshold give in turn. What finds
no room stays, what has found some goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import VCPU
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import MIGRATES_COLD, MIGRATES_LIVE, note, note_instances, where_it_is
from trimtab.strategies.receiving import in_rounds, receive
from trimtab.strategies.telling import by_move


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold_airflow: float = Option(400.0, description="airflow threshold for migration, Unit is 0.1CFM")
    threshold_inlet_t: float = Option(28.0, description="inlet temperature threshold for migration decision")
    threshold_power: float = Option(350.0, description="system power threshold for migration decision")
    period: float = Option(300, description="aggregate time period of ceilometer")
    granularity: float = Option(
        300, description="The time between two measures in an aggregated timeseries of a metric."
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: those of one host."
    )


class UniformAirflow:
    """Instances off hosts whose fans blow too hard."""

    name: ClassVar[str] = "uniform_airflow"
    display_name: ClassVar[str] = "Uniform airflow migration strategy"
    goal: ClassVar[str] = "airflow_optimization"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """Airflow, inlet temperature and power of hosts."""
        window, grain = round(parameters.period), round(parameters.granularity)
        return tuple(
            Need(metric, "host", "mean", window, grain) for metric in ("host_airflow", "host_inlet_temp", "host_power")
        )

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then more migrations at once."""
        return {}, {"max_migrations": 10}, {"max_migrations": 100}

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when no host is above the threshold or nothing on one can be moved."""
        model = snapshot.model
        airflow, inlet, power = (snapshot.metric(need) for need in self.needs(parameters))
        known = np.isfinite(airflow)
        high = model.usable & known & (airflow >= parameters.threshold_airflow)
        # A comparison with what was not measured is false: such a host is not taken for faulty.
        faulty = high & (inlet < parameters.threshold_inlet_t) & (power < parameters.threshold_power)
        fit = MIGRATES_LIVE[model.state] | (MIGRATES_COLD[model.state] & where_it_is(faulty, model.host_of))
        free = model.movable & fit & where_it_is(high, model.host_of)
        free[list(snapshot.failed_before)] = False
        rows = np.flatnonzero(free)
        home = model.host_of[rows]
        blows = -airflow[home]
        queue, turn = in_rounds(home, blows, np.lexsort((rows, -model.demand[rows, VCPU])))
        turns = np.empty(len(rows), np.int32)
        turns[queue] = turn
        by_host = np.lexsort((turns, home, blows))
        if parameters.max_migrations is None:
            # One host after the other until one has given: all it has when it is faulty, else one instance.
            queue = by_host
            hosts = home[queue]
            begins = np.ones(len(queue), bool)
            begins[1:] = (hosts[1:] != hosts[:-1]) | ~faulty[hosts[1:]]
            batch = np.cumsum(begins).astype(np.int32)
        else:
            queue = np.concatenate([by_host[faulty[home[by_host]]], queue[~faulty[home[queue]]]])
            batch = np.zeros(len(queue), np.int32)
        field = field_of(model, model.capacity, model.demand)
        moves = receive(
            field,
            model.host_of.copy(),
            used_of(field, model.host_of),
            model.usable & known & ~high,
            np.where(known, airflow, np.inf),
            np.zeros(model.instances),
            rows[queue].astype(np.int32),
            batch,
            len(queue) if parameters.max_migrations is None else parameters.max_migrations,
            parameters.max_migrations is None,
        )
        live = MIGRATES_LIVE[model.state[moves[:, 0]]]
        gives = np.zeros(model.hosts, bool)
        gives[model.host_of[moves[:, 0]]] = True
        left = where_it_is(faulty & gives, model.host_of)
        left[moves[:, 0]] = False

        def told(instance: int, source: int, host: int) -> str:
            ill = (
                f", although its inlet has only {inlet[source]:g} °C and it draws only {power[source]:g} W: "
                "its hardware is at fault, and all leave"
                if faulty[source]
                else ""
            )
            return (
                f"the airflow of {model.host_name(source)} is {airflow[source]:g}, and the limit is "
                f"{parameters.threshold_airflow:g} (0.1 CFM){ill}; who has most vCPUs leaves first "
                f"({model.demand[instance, VCPU]:g}), for the least airflow with room: {model.host_name(host)} has "
                f"{airflow[host]:g}"
            )

        return (
            Candidate(
                tuple(
                    Migrate(instance, host, runs)
                    for (instance, host), runs in zip(moves.tolist(), live.tolist(), strict=True)
                ),
                because=f"{int(high.sum())} hosts have an airflow of {parameters.threshold_airflow:g} or more "
                f"(0.1 CFM), {int(faulty.sum())} of them for no reason but their hardware; {len(moves)} migrations",
                indicators={"hosts_over_threshold_count": int(high.sum()), "instance_migrations_count": len(moves)},
                reasons=by_move(model, moves, told),
                notes=(
                    *note(
                        model.usable & ~known,
                        model.host_names,
                        "{count} hosts without airflow neither give nor receive",
                    ),
                    *note(
                        high & ~(np.isfinite(inlet) & np.isfinite(power)),
                        model.host_names,
                        "{count} hosts without inlet temperature or power are not taken for faulty",
                    ),
                    *note_instances(
                        model,
                        left,
                        "{count} instances of faulty hosts stay: no room elsewhere, locked, excluded, in an unfit "
                        "state, failed before, or over the number of migrations",
                    ),
                ),
            ),
        )
