"""Node resource consolidation: hosts with few allocated vCPUs are emptied into those with the fewest left.

Watcher's strategy of this name made sound; it looks at what is allocated only. A host counts as released when all its
instances find room elsewhere together; a host may take the instances of several others. With `host_choice` `auto` the
cloud chooses the receivers: everything that is empty or to be emptied is disabled first, so that it receives nothing,
and enabled again in the end; what was emptied is then disabled to stay so. Hence a plan that is cancelled, rolled back
or fails leaves no host disabled that is still in use. With any other value the plan names the receivers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option

from trimtab.platform.contracts import Context
from trimtab.platform.model import VCPU
from trimtab.platform.proposal import Candidate, Migrate, Step
from trimtab.platform.rules import bound_by_rules
from trimtab.platform.snapshot import Need, Snapshot
from trimtab.strategies.feasibility import field_of, used_of
from trimtab.strategies.loads import MIGRATES_COLD, MIGRATES_LIVE, note
from trimtab.strategies.releasing import release
from trimtab.strategies.services import CONSOLIDATED, switches
from trimtab.strategies.telling import by_source


class Parameters(BaseModel):
    """What an audit may set."""

    model_config = ConfigDict(extra="forbid", strict=True)

    host_choice: str = Option(
        "auto",
        description="The way to select the server migration destination node, The value auto means that Nova schedular "
        "selects the destination node, and specify means the strategy specifies the destination.",
    )


class NodeResourceConsolidation:
    """Fewer hosts in use, by allocation alone."""

    name: ClassVar[str] = "node_resource_consolidation"
    display_name: ClassVar[str] = "Node Resource Consolidation strategy"
    goal: ClassVar[str] = "server_consolidation"
    parameters: ClassVar[type[BaseModel]] = Parameters
    models: ClassVar[tuple[str, ...]] = ("compute",)

    def needs(self, parameters: Parameters) -> Sequence[Need]:  # noqa: ARG002 - the contract's signature
        """Nothing is measured."""
        return ()

    def grid(self) -> Sequence[Mapping[str, Any]]:
        """Both choices."""
        return {}, {"host_choice": "specify"}

    def propose(self, snapshot: Snapshot, parameters: Parameters, context: Context) -> Sequence[Candidate]:  # noqa: ARG002
        """One candidate; it has no step when no host can be emptied."""
        model = snapshot.model
        auto = parameters.host_choice == "auto"
        field = field_of(model, model.capacity, model.demand)
        failed = np.zeros(model.instances, bool)
        failed[list(snapshot.failed_before)] = True
        free = model.movable & (MIGRATES_LIVE | MIGRATES_COLD)[model.state] & ~failed
        placed = model.host_of >= 0
        stuck = np.bincount(model.host_of[placed & ~free], minlength=model.hosts) > 0
        guests = np.bincount(model.host_of[placed], minlength=model.hosts)
        worth = np.zeros((model.hosts, field.need.shape[1]))
        worth[:, VCPU] = 1.0
        used = used_of(field, model.host_of)
        allocated = used[:, VCPU].copy()
        moves, emptied = release(
            field,
            model.host_of.copy(),
            used,
            model.usable & (guests > 0),
            model.up & ~stuck,
            model.demand[:, VCPU].copy(),
            worth,
            -model.capacity[:, VCPU],
            np.zeros(model.hosts),
            0,
        )
        idle = np.flatnonzero(model.usable & (guests == 0)) if len(moves) and auto else np.empty(0, np.intp)
        leaving = emptied[model.enabled[emptied]] if auto else emptied[:0]
        closed = np.concatenate([idle, leaving]).astype(np.int32)
        close = switches(model, closed, enabled=False, reason=CONSOLIDATED)
        steps: list[Step] = [*close]
        live = MIGRATES_LIVE[model.state[moves[:, 0]]]
        bound = bound_by_rules(model)  # the cloud's own choice does not know the rules
        steps += [
            Migrate(instance, -1 if auto and not bound[instance] else host, runs)
            for (instance, host), runs in zip(moves.tolist(), live.tolist(), strict=True)
        ]
        steps += [*switches(model, closed, enabled=True), *close[len(idle) :]]
        where = "the cloud chooses where to" if auto else "the host with the fewest vCPUs left that has room receives"

        def told(host: int) -> str:
            return (
                f"{model.host_name(host)} is emptied: {allocated[host]:g} vCPUs are allocated on it, and the host with "
                f"the fewest gives first; {where}"
            )

        return (
            Candidate(
                tuple(steps),
                because=f"{len(emptied)} of {int((guests > 0).sum())} hosts in use are emptied "
                f"with {len(moves)} migrations{', the cloud chooses where to' if auto else ''}",
                # Only this planner lets everything that the cloud places wait for all that is closed to it.
                planner="node_resource_consolidation" if auto else "capacity",
                indicators={
                    "compute_nodes_count": model.hosts,
                    "released_compute_nodes_count": len(emptied),
                    "instance_migrations_count": len(moves),
                },
                reasons=by_source(model, moves, told),
                notes=tuple(
                    note(
                        model.up & stuck,
                        model.host_names,
                        "{count} hosts cannot be emptied: an instance is locked, excluded, in an unfit state, "
                        "or failed before",
                    )
                ),
            ),
        )
