"""Outlet temperature: load is taken off hosts whose outlet is too hot and given to the coolest that have room.

Watcher's strategy of this name made sound. Of a hot host the instance that uses most CPU goes, because that is what
heats. One migration unless `max_migrations` says more: then hot hosts give in turn, the hottest first, and a receiver
comes behind those that received less often, since nobody has measured yet how warm it will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import VCPU, InstanceState
from trimtab.platform.proposal import Candidate, Migrate
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import note, where_it_is
from trimtab.strategies.receiving import in_rounds, receive
from trimtab.strategies.telling import by_move

ONCE_MORE = 1e6  # degrees that a host counts as warmer each time it receives: more than any difference


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold: float = Option(35.0, description="temperature threshold for migration")
    period: float = Option(30, description="The time interval in seconds for getting statistic aggregation")
    granularity: float = Option(
        300, description="The time between two measures in an aggregated timeseries of a metric."
    )
    max_migrations: int | None = Option(
        None, ge=0, description="The plan holds at most so many migrations. Left out: one."
    )


class OutletTemperature:
    """Load off hot hosts."""

    name: ClassVar[str] = "outlet_temperature"
    display_name: ClassVar[str] = "Outlet temperature based strategy"
    goal: ClassVar[str] = "thermal_optimization"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:
        """Outlet temperature of hosts, CPU of instances."""
        window, grain = round(parameters.period), round(parameters.granularity)
        return (
            Need("host_outlet_temp", "host", "mean", window, grain),
            Need("instance_cpu_usage", "instance", "mean", max(window, grain), grain),
        )

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Watcher's defaults, then more migrations at once."""
        return {}, {"max_migrations": 10}, {"max_migrations": 100}

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when no host is hot or nothing on a hot one can be moved."""
        model = snapshot.model
        outlet, cpu = (snapshot.metric(need) for need in self.needs(parameters))
        known = np.isfinite(outlet)
        hot = model.usable & known & (outlet >= parameters.threshold)
        free = model.movable & (model.state == InstanceState.ACTIVE) & where_it_is(hot, model.host_of)
        free[list(snapshot.failed_before)] = False
        rows = np.flatnonzero(free)
        cores = np.nan_to_num(cpu[rows] * model.demand[rows, VCPU])
        heat = -outlet[model.host_of[rows]]
        queue, turn = in_rounds(model.host_of[rows], heat, np.lexsort((rows, -model.demand[rows, VCPU], -cores)))
        field = field_of(model, model.capacity, model.demand)
        moves = receive(
            field,
            model.host_of.copy(),
            used_of(field, model.host_of),
            model.usable & known & ~hot,
            np.where(known, outlet, np.inf),
            np.full(model.instances, ONCE_MORE),
            rows[queue].astype(np.int32),
            turn,
            1 if parameters.max_migrations is None else parameters.max_migrations,
            False,
        )

        def told(instance: int, source: int, host: int) -> str:
            used = cpu[instance] * model.demand[instance, VCPU] / 100.0
            size = f"{used:.2f} cores in use" if np.isfinite(used) else f"{model.demand[instance, VCPU]:g} vCPUs"
            return (
                f"the outlet of {model.host_name(source)} has {outlet[source]:g} °C, and the limit is "
                f"{parameters.threshold:g}: who uses most CPU leaves first ({size}), for the coolest outlet of those "
                f"with room that received least: {model.host_name(host)} has {outlet[host]:g} °C"
            )

        return (
            Candidate(
                tuple(Migrate(instance, host, live=True) for instance, host in moves.tolist()),
                because=f"{int(hot.sum())} hosts have an outlet of {parameters.threshold:g} °C or more; "
                f"{len(moves)} migrations take load off them",
                indicators={"hot_hosts_count": int(hot.sum()), "instance_migrations_count": len(moves)},
                reasons=by_move(model, moves, told),
                notes=tuple(
                    note(
                        model.usable & ~known,
                        model.host_names,
                        "{count} hosts without outlet temperature neither give nor receive",
                    )
                ),
            ),
        )
