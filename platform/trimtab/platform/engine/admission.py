"""Before a plan is recommended: the cloud is asked about its moves, and what it refuses is planned without."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from trimtab.platform.contracts import Goal, Wanted
from trimtab.platform.engine.exploration import Proposed, try_all
from trimtab.platform.engine.parts import Frozen, Parts
from trimtab.platform.errors import TrimtabError
from trimtab.platform.model import ClusterModel
from trimtab.platform.outcome import Entry, choose
from trimtab.platform.planner.wire import understood
from trimtab.platform.proposal import Act, Candidate, Migrate, Plan, Step
from trimtab.platform.trial import Tried

log = logging.getLogger(__name__)

Key = TypeVar("Key", int, str)
MAINTAINING = "watcher_maintaining"
OPENS = {"change_nova_service_state": "enabled", "change_node_power_state": "on"}


async def admitted(
    parts: Parts, goal: Goal, frozen: Frozen, entries: Sequence[Entry], *, named: bool
) -> tuple[list[Entry], int | None, str | None]:
    """Choose, ask the cloud about the moves of what was chosen, and choose again if it refuses any.

    The first time a candidate is tried again without the moves that are refused, the second time it is out.

    Returns:
        The entries as they are then, and what `choose` says of them.

    Raises:
        StrategyError: see `choose`.
    """
    entries = list(entries)
    again: set[int] = set()
    while True:
        chosen, message = choose(goal, entries, named=named)
        if chosen is None:
            return entries, None, message
        entry = entries[chosen]
        refused = await refusals(parts, frozen, entry)
        if refused is None:
            entries[chosen] = _noted(entry, ["the cloud was not asked whether it takes the moves: it did not answer"])
            return entries, chosen, message
        if not refused:
            return entries, chosen, message
        if chosen in again:
            entries[chosen] = entry._replace(tried=Tried(None, None, tuple(refused.values())))
            continue
        again.add(chosen)
        entries[chosen] = await without(parts, goal, frozen, entry, refused)


async def refusals(parts: Parts, frozen: Frozen, entry: Entry) -> dict[int, str] | None:
    """What the cloud has against the moves of a planned entry, by row of the instance; None when it does not answer."""
    wanted = wanted_of(frozen.snapshot.model, entry.tried.plan) if entry.tried.plan is not None else {}
    if not wanted:
        return {}
    try:
        answers = await parts.refusals(list(wanted.values()))
    except TrimtabError as error:
        log.warning("moves were not checked with the cloud: %s", error)
        return None
    return {row: answer for row, answer in zip(wanted, answers, strict=True) if answer}


class Move(NamedTuple, Generic[Key]):
    """One migration of a plan, stored or only planned; "" where the destination is the cloud's choice.

    `parents` are keys of other actions, `needs_room`: some of them must have made room first.
    """

    key: Key
    server_id: str
    source: str
    destination: str
    parents: Sequence[Key]
    needs_room: bool


def questions(moves: Sequence[Move[Key]], opened: Set[str]) -> dict[Key, Wanted]:
    """What to ask the cloud about migrations to named hosts, by key.

    One that waits for others to leave its destination is not for now. Hosts that the plan opens first are left out:
    what they are like by then nobody can tell.

    Args:
        moves: all migrations of a plan.
        opened: hosts that the plan opens.
    """
    leaves = {move.key: move.source for move in moves}
    return {
        move.key: Wanted(
            move.server_id,
            move.destination,
            not move.needs_room and all(leaves.get(parent) != move.destination for parent in move.parents),
        )
        for move in moves
        if move.destination and move.destination not in opened
    }


def opens(action_type: str, parameters: Mapping[str, Any]) -> str:
    """The host that an action opens for instances; "" when it opens none."""
    if OPENS.get(action_type, "") != parameters.get("state"):
        return ""
    return str(parameters.get("resource_name") or parameters.get("resource_id"))


def wanted_of(model: ClusterModel, plan: Plan) -> dict[int, Wanted]:
    """What to ask the cloud about a plan, by row of the instance; see `questions`."""
    name, ident = model.host_name, model.instance_id
    moves = [
        Move(
            n,
            ident(action.instance),
            name(action.source) if action.source >= 0 else "",
            name(action.destination) if action.destination >= 0 else "",
            action.parents,
            bool(action.needs_room_of),
        )
        for n, action in enumerate(plan.actions)
        if action.instance >= 0
    ]
    opened = {opens(action.action_type, action.parameters) for action in plan.actions}
    return {plan.actions[n].instance: one for n, one in questions(moves, opened).items()}


async def without(parts: Parts, goal: Goal, frozen: Frozen, entry: Entry, refused: dict[int, str]) -> Entry:
    """The entry judged, planned and rehearsed again without the moves of some instances (by row), which it notes."""
    candidate = entry.candidate or Candidate(())
    meant = understood(frozen.snapshot.model, candidate.steps)
    steps = tuple(
        step
        for step, move in zip(candidate.steps, meant, strict=True)
        if not (isinstance(move, Migrate) and move.instance in refused)
    )
    names = frozen.snapshot.model.instance_id
    notes = [f"instance {names(row)} stays: {why}" for row, why in refused.items()]
    steps = tuple(kept_open(frozen.snapshot.model, steps, refused, notes))
    if not steps:
        return entry._replace(tried=Tried(None, None, tuple(refused.values())))
    kept = replace(candidate, steps=steps, notes=(*candidate.notes, *notes))
    fresh = (await try_all(parts, goal, frozen, [Proposed(entry.job, kept, entry.propose_s)]))[-1]
    return fresh._replace(rehearse_s=entry.rehearse_s + fresh.rehearse_s)


def kept_open(model: ClusterModel, steps: Sequence[Step], staying: Iterable[int], notes: list[str]) -> list[Step]:
    """The steps without those that close a host which one of these instances (rows) stays on; noted, each.

    A host that is closed for maintenance is closed all the same: its operator asked for that.
    """
    held = {int(model.host_of[row]) for row in staying}
    shut = [step for step in steps if isinstance(step, Act) and step.host in held and _closes(step)]
    notes += [f"{model.host_name(step.host)} stays enabled: not all who should leave it can" for step in shut]
    return [step for step in steps if step not in shut]


def _closes(act: Act) -> bool:
    wanted = act.parameters
    closing = act.action_type == "change_nova_service_state" and wanted.get("state") == "disabled"
    return closing and wanted.get("disabled_reason") != MAINTAINING


def _noted(entry: Entry, notes: Sequence[str]) -> Entry:
    candidate = entry.candidate or Candidate(())
    return entry._replace(candidate=replace(candidate, notes=(*candidate.notes, *notes)))
