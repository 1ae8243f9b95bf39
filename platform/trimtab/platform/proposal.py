"""What may be proposed: an ordered list of moves and acts, and the graph of actions a planner makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from trimtab.platform.model import ClusterModel
from trimtab.platform.model.compute import Ints


class Migrate(NamedTuple):
    """Move one instance (a row of the model) to a host (a row); -1 leaves the choice to the cloud."""

    instance: int
    destination: int
    live: bool = True


class Act(NamedTuple):
    """Any other action: type, target and parameters as on the wire; `host` is the row it concerns, or -1.

    `instances` are rows of instances whose moves must not overlap with it: those that have its volume attached.
    """

    action_type: str
    resource_id: str | None
    parameters: Mapping[str, Any]
    host: int = -1
    instances: tuple[int, ...] = ()


class Boot(NamedTuple):
    """Where an instance that is on no host had best be started; advice, no action: the cloud starts it."""

    instance: int
    host: int


Step = Migrate | Act


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one strategy proposes. `indicators` are the goal's efficacy indicators by name."""

    steps: tuple[Step, ...]
    because: str = ""
    planner: str = "capacity"
    indicators: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was left out and why: hosts without metrics, instances nobody can hold
    reasons: Mapping[int, str] = field(
        default_factory=dict
    )  # row of an instance -> why it moves, in the strategy's words
    boots: tuple[Boot, ...] = ()  # counted as done when all moves are; judged with them, no part of a plan

    def moves(self) -> Ints:
        """The migrations as rows (instance, destination), [M, 2], in order."""
        pairs = [(step.instance, step.destination) for step in self.steps if isinstance(step, Migrate)]
        return np.array(pairs, np.int32).reshape(-1, 2)

    def final_host_of(self, model: ClusterModel) -> Ints:
        """Where every instance is when all moves are done and boots started, [V]."""
        host_of = model.host_of.copy()
        for boot in self.boots:
            host_of[boot.instance] = boot.host
        for instance, destination in self.moves():
            host_of[instance] = destination
        return host_of


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One node of a plan's graph; `parents` are positions of earlier nodes.

    For a migration `instance`, `source`, `destination` are rows of the model (-1 otherwise), and `needs_room_of` are
    the parents whose leaving makes room for it at its destination.
    """

    action_type: str
    parameters: Mapping[str, Any]
    parents: tuple[int, ...] = ()
    needs_room_of: tuple[int, ...] = ()
    instance: int = -1
    source: int = -1
    destination: int = -1
    live: bool = True
    host: int = -1  # of a change_nova_service_state


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph of actions, in an order in which every parent comes first."""

    actions: tuple[PlannedAction, ...]
    notes: tuple[str, ...] = ()

    def migrations(self) -> list[int]:
        """Positions of the migrations."""
        return [position for position, action in enumerate(self.actions) if action.instance >= 0]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be in flight at once: migrations per host (in or out), and in total.

    One a host is Nova's own default, and best where the total is the limit: two on one link get half of it each, so
    that they take up two places for the work of one (measured: 1.7 times as long for 1,570 migrations, 20 in flight).
    """

    migrations_per_host: int = 1
    migrations_total: int = 20


def steps_to_json(model: ClusterModel, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Steps with ids instead of rows, to be stored."""
    rows: list[dict[str, Any]] = []
    for step in steps:
        if isinstance(step, Migrate):
            to = model.host_name(step.destination) if step.destination >= 0 else None
            rows.append({"instance": model.instance_id(step.instance), "to": to, "live": step.live})
        else:
            rows.append({"act": step.action_type, "resource_id": step.resource_id, "parameters": dict(step.parameters)})
    return rows


def steps_from_json(model: ClusterModel, rows: Iterable[Mapping[str, Any]]) -> tuple[list[Step], list[str]]:
    """What `steps_to_json` wrote, in rows of a model that may be a later one; and what no longer holds in it."""
    steps: list[Step] = []
    gone: list[str] = []
    for row in rows:
        if "act" in row:
            parameters = dict(row["parameters"])
            host = int(model.host_rows_by_name([str(parameters.get("resource_name", ""))])[0])
            at = host if row["act"] == "change_nova_service_state" else -1
            steps.append(Act(row["act"], row["resource_id"], parameters, at))
            continue
        instance = int(model.instance_rows([row["instance"]])[0])
        to = -1 if row["to"] is None else int(model.host_rows_by_name([row["to"]])[0])
        if instance < 0:
            gone.append(f"instance {row['instance']} is gone")
        elif row["to"] is not None and to < 0:
            gone.append(f"instance {row['instance']} should go to host {row['to']}, which is gone")
        elif to >= 0 and model.host_of[instance] == to:
            gone.append(f"instance {row['instance']} is on {row['to']} already")
        elif model.host_of[instance] < 0:
            gone.append(f"instance {row['instance']} is on no host any more")
        else:
            steps.append(Migrate(instance, to, bool(row["live"])))
    return steps, gone
