"""Efficacy of the plan that is stored: a candidate's indicators, counted again from what the plan really does."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import jsonschema
import numpy as np

from trimtab.platform import rules
from trimtab.platform.contracts import Context, Goal, Strategy
from trimtab.platform.errors import StrategyError
from trimtab.platform.model import VCPU, ClusterModel
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.planner.wire import understood
from trimtab.platform.proposal import Act, Candidate, Migrate, Plan, PlannedAction, Step
from trimtab.platform.schema import read_parameters
from trimtab.platform.snapshot import Need, Snapshot

log = logging.getLogger(__name__)

RELEASED, REMAINING = "released_compute_nodes_count", "remaining_instances_count"
BROKEN_AFTER, VOLUMES = "rules_broken_after", "planned_volume_migrate_count"
SD_BEFORE, SD_AFTER = "standard_deviation_before_audit", "standard_deviation_after_audit"

# What a strategy's indicators are on another snapshot; None where nobody can say.
Ask = Callable[[Ints], Mapping[str, float] | None]


def _is(kind: str, **wanted: str) -> Callable[[PlannedAction], bool]:
    return lambda action: (
        action.action_type == kind and all(action.parameters.get(name) == value for name, value in wanted.items())
    )


# Indicators that are numbers of actions. Volumes count twice, as in Watcher, whose updates repeat the migrations.
COUNTED: Mapping[str, Callable[[PlannedAction], bool]] = {
    "instance_migrations_count": _is("migrate"),
    "planned_live_migrate_instance_count": _is("migrate", migration_type="live"),
    "planned_cold_migrate_instance_count": _is("migrate", migration_type="cold"),
    VOLUMES: _is("volume_migrate"),
    "planned_volume_update_count": _is("volume_migrate"),
    "stopped_instances_count": _is("stop"),
    "hosts_powered_off_count": _is("change_node_power_state", state="off"),
    "hosts_powered_on_count": _is("change_node_power_state", state="on"),
}


def check_indicators(goal: Goal, given: Mapping[str, float]) -> None:
    """Whether a strategy's indicators are what its goal says of them; those it says nothing about are left out.

    Raises:
        StrategyError: one is no finite number, or breaks its schema.
    """
    for indicator in goal.indicators:
        if indicator.name not in given:
            continue
        value = given[indicator.name]
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise StrategyError(f"indicator {indicator.name} of goal {goal.name} is {value!r}: give a finite number")
        fault = next(_schema(indicator.schema or "{}").iter_errors(number), None)
        if fault is not None:
            raise StrategyError(f"indicator {indicator.name} of goal {goal.name} breaks its schema: {fault.message}")


@cache
def _schema(text: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(text))


def recounted(snapshot: Snapshot, proposed: Candidate, planned: Candidate, plan: Plan, ask: Ask) -> Candidate:
    """The planned candidate with the indicators of its plan, and a note where they are not those proposed.

    Numbers of actions, released hosts, instances that remain and rules that stay broken are counted; a deviation after
    the plan is the strategy's own deviation of the cloud as the plan leaves it, and left out where that is not known.

    Args:
        snapshot: what the candidate was made on.
        proposed: what the strategy proposed, with its indicators.
        planned: what was planned of it.
        plan: the plan that is stored.
        ask: the strategy's indicators once everybody is where an array [V] says.
    """
    claimed, model = proposed.indicators, snapshot.model
    if not claimed:
        return planned
    meant = replace(proposed, steps=tuple(understood(model, proposed.steps)))
    wished, place = meant.final_host_of(model), _place(model, planned, plan)
    found = dict(claimed)
    for name in claimed.keys() & COUNTED.keys():
        found[name] = float(sum(map(COUNTED[name], plan.actions)))
    if RELEASED in claimed:
        found[RELEASED] = float(_released(model, meant, wished, plan, place, claimed[RELEASED]))
    if REMAINING in claimed:
        found[REMAINING] = claimed[REMAINING] + len(_gone_by_steps(model, meant.steps) - _gone(plan))
    elsewhere = not np.array_equal(wished, place)
    volumes_stay = sum(map(COUNTED[VOLUMES], plan.actions)) < sum(_is_volume(step) for step in meant.steps)
    if BROKEN_AFTER in claimed and elsewhere:
        found[BROKEN_AFTER] = float(len(rules.broken(model, host_of=place)))
    if SD_AFTER in claimed and (elsewhere or volumes_stay):
        after = None if volumes_stay else ask(place)
        if after is not None and SD_BEFORE in after:
            found[SD_AFTER] = after[SD_BEFORE]
        else:
            del found[SD_AFTER]
    told = _difference(claimed, found)
    if not told:
        return replace(planned, indicators=claimed)
    return replace(planned, indicators=found, notes=(*planned.notes, told))


def asking(snapshot: Snapshot, strategy: Strategy, given: Mapping[str, object], seed: int) -> Ask:
    """Ask a strategy for its indicators by letting it look at the cloud as a plan leaves it."""

    def ask(place: Ints) -> Mapping[str, float] | None:
        # Where it may be told to plan no moves it is quicker, and looks all the same.
        few = {"max_migrations": 0} if "max_migrations" in strategy.parameters.model_fields else {}
        try:
            parameters = read_parameters(strategy, {**given, **few})
            after = left_by(snapshot, place, strategy.needs(parameters))
            found = [] if after is None else strategy.propose(after, parameters, Context(seed=seed))
        except Exception as error:  # noqa: BLE001 - a strategy may be anybody's; an indicator is not worth an audit
            log.warning("strategy %s says nothing of the cloud as its plan leaves it: %s", strategy.name, error)
            return None
        return found[0].indicators if found else None

    return ask


def left_by(snapshot: Snapshot, place: Ints, needs: Sequence[Need]) -> Snapshot | None:
    """The snapshot when everybody is where `place` says, [V]; hosts' metrics change by what was measured of who moves.

    None where the cloud chooses somebody's host, or a host's metric is needed of which nobody knows what moves change.
    """
    model = snapshot.model
    moved = np.flatnonzero(place != model.host_of)
    if (place[moved] < 0).any():
        return None
    measured = dict(snapshot.measured)
    for need in needs:
        if need.kind != "host":
            continue
        adds = _adds(snapshot, need, needs)
        if adds is None:
            return None
        came_from, goes_to = model.host_of[moved], place[moved]
        change = np.bincount(goes_to, adds[moved], model.hosts)
        placed = came_from >= 0
        change -= np.bincount(came_from[placed], adds[moved][placed], model.hosts)
        per_host = np.maximum(model.total[:, VCPU], 1e-9) / 100.0 if need.metric == "host_cpu_usage" else 1 / 1024.0
        measured[need] = snapshot.metric(need) + change / per_host
    return replace(snapshot, model=model.with_changes(host_of=place), measured=measured)


def _adds(snapshot: Snapshot, need: Need, needs: Sequence[Need]) -> Floats | None:
    """What instances add to a metric of their host, [V]: cores, or MB."""
    of_guests = {"host_cpu_usage": "instance_cpu_usage", "host_ram_usage": "instance_ram_usage"}.get(need.metric)
    own = next((one for one in needs if one.kind == "instance" and one.metric == of_guests), None)
    if own is None:
        return None
    values = np.maximum(np.nan_to_num(snapshot.metric(own)), 0.0)
    return values / 100.0 * snapshot.model.demand[:, VCPU] if need.metric == "host_cpu_usage" else values


def _place(model: ClusterModel, planned: Candidate, plan: Plan) -> Ints:
    """Where everybody is when the plan is done and boots are started, [V]."""
    place = model.host_of.copy()
    for boot in planned.boots:
        place[boot.instance] = boot.host
    for action in plan.actions:
        if action.instance >= 0:
            place[action.instance] = action.destination
    return place


# -- released hosts ----------------------------------------------------------------------------


def _released(model: ClusterModel, wish: Candidate, wished: Ints, plan: Plan, place: Ints, claimed: float) -> int:
    """Hosts that a plan releases, counted as the strategy counts.

    Released are hosts that become empty, and empty ones that are closed, less those that are opened. Some strategies
    count enabled hosts only, some all: whichever gives their own figure for what they proposed.
    """
    free, opened = _freed(model, wished, _switched(wish.steps))
    kept, still_opened = _freed(model, place, _switched(plan.actions))
    for hosts in (model.enabled, np.ones(model.hosts, bool)):
        if max(int((free & hosts).sum()) - opened, 0) == claimed:
            return max(int((kept & hosts).sum()) - still_opened, 0)
    return max(int(claimed) - int((free & ~kept).sum()), 0)


def _freed(model: ClusterModel, place: Ints, enabled: Mapping[int, bool]) -> tuple[Bools, int]:
    before = np.bincount(model.host_of[model.host_of >= 0], minlength=model.hosts) > 0
    after = np.bincount(place[place >= 0], minlength=model.hosts) > 0
    closed = np.zeros(model.hosts, bool)
    closed[[host for host, on in enabled.items() if not on]] = True
    return ~after & (before | closed), sum(on and not model.enabled[host] for host, on in enabled.items())


def _switched(steps: Sequence[Step] | Sequence[PlannedAction]) -> dict[int, bool]:
    """Hosts whose service is switched -> whether it is enabled in the end."""
    return {
        step.host: step.parameters.get("state") == "enabled"
        for step in steps
        if not isinstance(step, Migrate) and step.host >= 0 and step.action_type == "change_nova_service_state"
    }


# -- instances that remain ---------------------------------------------------------------------


def _gone(plan: Plan) -> set[str]:
    """Ids of instances that are moved or stopped."""
    return {str(a.parameters.get("resource_id")) for a in plan.actions if a.action_type in {"migrate", "stop"}}


def _gone_by_steps(model: ClusterModel, steps: Sequence[Step]) -> set[str]:
    return {
        model.instance_id(step.instance) if isinstance(step, Migrate) else str(step.resource_id)
        for step in steps
        if not isinstance(step, Act) or step.action_type in {"migrate", "stop"}
    }


def _is_volume(step: Step) -> bool:
    return isinstance(step, Act) and step.action_type == "volume_migrate"


def _difference(claimed: Mapping[str, float], found: Mapping[str, float]) -> str:
    """What is not as proposed, as a note; "" where everything is."""
    other = [
        f"{name} is {found[name]:g} instead of {value:g}" if name in found else f"{name} is not known"
        for name, value in claimed.items()
        if name not in found or abs(found[name] - value) > 1e-9 * max(1.0, abs(value))
    ]
    return f"the plan is not all that was proposed: {', '.join(other)}" if other else ""
