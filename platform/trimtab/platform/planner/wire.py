"""Actions as the wire knows them: parameters of migrations and acts, and wire migrations read back as moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trimtab.platform.errors import PlanError
from trimtab.platform.model import ClusterModel
from trimtab.platform.proposal import Act, Migrate, Step

WORDS = frozenset({"migration_type", "resource_id", "resource_name", "source_node", "destination_node"})
TYPES = ("live", "cold")


def migrate_parameters(model: ClusterModel, instance: int, source: int, destination: int, live: bool) -> dict[str, Any]:
    """Input parameters of a `migrate` action; without `destination_node` the cloud chooses."""
    parameters = {
        "migration_type": "live" if live else "cold",
        "resource_id": model.instance_id(instance),
        "resource_name": model.instance_name(instance),
        "source_node": model.host_name(source),
    }
    if destination >= 0:
        parameters["destination_node"] = model.host_name(destination)
    return parameters


def act_parameters(act: Act) -> dict[str, Any]:
    """Input parameters of any other action, the resource's id among them.

    Raises:
        PlanError: the parameters name another resource than the act does.
    """
    parameters = dict(act.parameters)
    if act.resource_id is not None:
        if parameters.get("resource_id", act.resource_id) != act.resource_id:
            raise PlanError(
                f"{act.action_type}: parameter resource_id is {parameters['resource_id']!r} but the action's own is "
                f"{act.resource_id!r}; leave resource_id out of the parameters, the word is reserved"
            )
        parameters["resource_id"] = act.resource_id
    return parameters


def check_move(model: ClusterModel, move: Migrate) -> None:
    """Refuse a move that no planner can order.

    Raises:
        PlanError: no such instance or host in the model, or the instance is on no host.
    """
    if not 0 <= move.instance < model.instances or not -1 <= move.destination < model.hosts:
        raise PlanError(
            f"move of row {move.instance} to row {move.destination}: the model has {model.instances} instances "
            f"and {model.hosts} hosts; propose rows of the snapshot's own model"
        )
    if model.host_of[move.instance] < 0:
        raise PlanError(f"instance {label(model, move.instance)} is on no host and cannot be migrated; leave it out")


def check_act(model: ClusterModel, act: Act) -> None:
    """Refuse an act on a host the model does not have.

    Raises:
        PlanError: no such host in the model.
    """
    if act.host >= model.hosts:
        raise PlanError(
            f"{act.action_type} of host row {act.host}: the model has {model.hosts} hosts; name one of them"
        )


def label(model: ClusterModel, instance: int) -> str:
    """What people call an instance: its name, or its id when it has none."""
    return model.instance_name(instance) or model.instance_id(instance)


def understood(model: ClusterModel, steps: Iterable[Step]) -> list[Step]:
    """Steps, one for one, with every act of type `migrate` that says no more than a `Migrate` turned into one.

    An act about an unknown instance or host, or from another source than the model knows, stays as it is: the
    applier finds out.
    """
    steps = list(steps)
    acts = [n for n, step in enumerate(steps) if isinstance(step, Act) and step.action_type == "migrate"]
    if not acts:
        return steps
    wire = [act_parameters(step) for n in acts if isinstance(step := steps[n], Act)]
    instances = model.instance_rows([str(p.get("resource_id")) for p in wire])
    sources = model.host_rows_by_name([str(p.get("source_node")) for p in wire])
    destinations = model.host_rows_by_name([str(p.get("destination_node")) for p in wire])
    now: dict[int, int] = {}
    at = {n: position for position, n in enumerate(acts)}
    for n, step in enumerate(steps):
        if isinstance(step, Migrate):
            now[step.instance] = step.destination
            continue
        if n not in at:
            continue
        k = at[n]
        instance, source, destination = int(instances[k]), int(sources[k]), int(destinations[k])
        given = wire[k].get("destination_node") is not None
        if instance < 0 or source < 0 or (given and destination < 0):
            continue
        if now.get(instance, int(model.host_of[instance])) != source:
            continue
        if not wire[k].keys() <= WORDS or wire[k].get("migration_type") not in TYPES:
            continue
        steps[n] = Migrate(instance, destination if given else -1, wire[k]["migration_type"] == "live")
        now[instance] = destination if given else -1
    return steps
