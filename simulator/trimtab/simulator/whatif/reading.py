"""Reading a scenario so that every fault is found at once, each with its path in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from pydantic import TypeAdapter, ValidationError

from trimtab.platform.errors import TrimtabError
from trimtab.simulator.whatif.cells import Cell, cells_of
from trimtab.simulator.whatif.loads import trace_of
from trimtab.simulator.whatif.origin import Origin, origin_of
from trimtab.simulator.whatif.scenario import (
    MOST_ADDED,
    TOO_MANY_ADDED,
    AddHosts,
    Base,
    Change,
    CloudBase,
    Horizon,
    InvalidScenario,
    LoadPoint,
    Scenario,
    Topology,
    plain,
    raw_scenario,
)
from trimtab.simulator.whatif.topology import Unknown, changed

MOST_CELLS = 100_000
TAGS = ("kind", "action")  # fields that say which form of a part is meant

_BASE: TypeAdapter[Any] = TypeAdapter(Base)
_CHANGE: TypeAdapter[Any] = TypeAdapter(Change)
_HORIZON: TypeAdapter[float] = TypeAdapter(Horizon)


class Sweep(NamedTuple):
    """A scenario that is sound, where it begins, and its cells."""

    scenario: Scenario
    origin: Origin
    cells: list[Cell]


def read_scenario(source: Path | str | dict[str, Any], *, files: bool = True) -> Scenario:
    """A scenario from a file, a text (YAML or JSON) or a dictionary; hosts and zones are not looked up.

    Raises:
        InvalidScenario: every fault with its path.
    """
    raw, folder = raw_scenario(source)
    scenario, faults = _validated(completed(raw), folder, files=files)
    if scenario is None or faults:
        raise InvalidScenario(faults)
    return scenario


def read_sweep(
    source: Path | str | dict[str, Any],
    *,
    origin: Origin | None = None,
    most_cells: int = MOST_CELLS,
    files: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Sweep:
    """A scenario with its origin and cells, checked to the last name.

    Args:
        source: file, text (YAML or JSON) or dictionary.
        origin: the running cloud, for scenarios whose base is that.
        most_cells: more are refused.
        files: whether the scenario may name files.
        changes: fields that replace the scenario's own.

    Raises:
        InvalidScenario: every fault with its path: of form, and of what is not there in the base.
    """
    raw, folder = raw_scenario(source)
    raw = completed({**raw, **(changes or {})})
    size = _size(raw)
    # A row of seeds is written out only when its cells are few enough.
    scenario, faults = _validated(raw if size <= most_cells else _one_seed(raw), folder, files=files)
    if size > most_cells:
        faults.append(
            f"axes: {size:,} cells are too many, at most {most_cells:,}: shorten an axis, "
            "or raise the setting TRIMTAB_WHATIF_MOST_CELLS"
        )
    try:
        base = _BASE.validate_python(raw.get("base", {}), context={"folder": folder, "no_files": not files})
        begin = origin if isinstance(base, CloudBase) and origin is not None else origin_of(base)
    except ValidationError:
        raise InvalidScenario(faults) from None
    except TrimtabError as error:
        raise InvalidScenario([*faults, f"base: {error}"]) from error
    faults += _topology_faults(raw, begin, _horizon_h(raw))
    faults += _load_faults(raw, begin, {"folder": folder, "no_files": not files})
    faults = list(dict.fromkeys(faults))
    if scenario is None or faults:
        raise InvalidScenario(faults)
    return Sweep(scenario, begin, cells_of(scenario, begin.fingerprint))


def completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A scenario with the sources of its loads: a named trace, else the record where the base is the running cloud."""
    base, axes = raw.get("base"), raw.get("axes", {})
    if not isinstance(axes, Mapping):
        return raw
    usual = "history" if isinstance(base, Mapping) and base.get("kind") == "cloud" else "generated"
    points = axes.get("load", [{"name": "recorded" if usual == "history" else "generated"}])
    if not isinstance(points, list | tuple):
        return raw
    loads = [
        {"source": "trace" if point.get("trace") is not None else usual, **point}
        if isinstance(point, Mapping)
        else point
        for point in points
    ]
    return {**raw, "axes": {**axes, "load": loads}}


def _validated(raw: Mapping[str, Any], folder: Path, *, files: bool) -> tuple[Scenario | None, list[str]]:
    try:
        return Scenario.model_validate(raw, context={"folder": folder, "no_files": not files}), []
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return None, [fault for problem in problems for fault in _faults(raw, dict(problem))]


def _faults(raw: Any, problem: Mapping[str, Any]) -> Iterator[str]:
    """One problem of pydantic's, or those that one of our validators gathered in it, as `path: message`."""
    place = _place(raw, problem["loc"])
    gathered = problem.get("ctx", {}).get("faults")
    if gathered is not None:
        for below, message in gathered:
            yield f"{path_of((*place, *below))}: {message}"
        return
    yield f"{path_of(place)}: {plain(problem)}"


def _place(raw: Any, location: Sequence[str | int]) -> tuple[str | int, ...]:
    """A location of pydantic's without the tags it puts in where a part has several forms."""
    place: list[str | int] = []
    at = raw
    for step in location:
        if isinstance(at, Mapping) and isinstance(step, str) and step not in at and step in _tags(at, place):
            continue
        place.append(step)
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            at = None
    return tuple(place)


def _tags(at: Mapping[str, Any], place: Sequence[str | int]) -> set[str]:
    return {str(at[tag]) for tag in TAGS if tag in at} | ({"simulated"} if list(place) == ["base"] else set())


def path_of(place: Sequence[str | int]) -> str:
    """A place in a file as people write it: `axes.policy[1].interval_min`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) or str(step).isdigit() else f".{step}" if text else str(step)
    return text or "scenario"


def _points(raw: Mapping[str, Any], axis: str) -> list[Any]:
    axes = raw.get("axes")
    points = axes.get(axis) if isinstance(axes, Mapping) else None
    return list(points) if isinstance(points, list | tuple) else []


def _size(raw: Mapping[str, Any]) -> int:
    """Number of cells, as far as the axes can be counted."""
    size = 1
    for axis in ("topology", "load", "policy", "seeds"):
        size *= max(len(_points(raw, axis)), 1)
    axes = raw.get("axes")
    seeds = axes.get("seeds") if isinstance(axes, Mapping) else None
    return size * min(max(seeds["count"], 1), 10**18) if _is_row(seeds) else size


def _is_row(seeds: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(seeds, Mapping) and isinstance(seeds.get("count"), int)


def _one_seed(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A scenario whose row of seeds is cut to one; it stands for what is wrong with the rest."""
    axes = raw.get("axes")
    seeds = axes.get("seeds") if isinstance(axes, Mapping) else None
    if not isinstance(axes, Mapping) or not _is_row(seeds) or seeds["count"] < 1:
        return raw
    return {**raw, "axes": {**axes, "seeds": {**seeds, "count": 1}}}


def _horizon_h(raw: Mapping[str, Any]) -> float:
    try:
        return float(_HORIZON.validate_python(raw.get("horizon_h", Scenario.model_fields["horizon_h"].default)))
    except ValidationError:
        return float("inf")  # told already


def _topology_faults(raw: Mapping[str, Any], origin: Origin, horizon_h: float) -> Iterator[str]:
    """What the changes name and is not there; a change sees what the sound ones before it made."""
    for number, given in enumerate(_points(raw, "topology")):
        model, added = origin.model, 0
        for position, one in enumerate(_changes(given)):
            try:
                change = _CHANGE.validate_python(one)
            except ValidationError:
                continue  # told already
            where = ("axes", "topology", number, "changes", position)
            if change.at_h >= horizon_h:
                yield f"{path_of((*where, 'at_h'))}: {change.at_h:g} h is not within the horizon of {horizon_h:g} h"
            added += change.count if isinstance(change, AddHosts) else 0
            if added > MOST_ADDED:
                yield f"{path_of(('axes', 'topology', number, 'changes'))}: {TOO_MANY_ADDED}"
                break
            try:
                model = changed(Topology(name="so far", changes=(change,)), model, 0.0, first=position).model
            except Unknown as error:
                yield f"{path_of((*where, *error.place[1:]))}: {error.message}"


def _changes(point: Any) -> list[Any]:
    changes = point.get("changes", ()) if isinstance(point, Mapping) else ()
    return list(changes) if isinstance(changes, list | tuple) else []


def _load_faults(raw: Mapping[str, Any], origin: Origin, context: Mapping[str, Any]) -> Iterator[str]:
    """Loads that are not there: no record, or a trace that cannot be read."""
    for number, given in enumerate(_points(raw, "load")):
        try:
            point = LoadPoint.model_validate(given, context=dict(context))
        except ValidationError:
            continue  # told already
        where = ("axes", "load", number)
        if point.source == "history" and origin.history is None:
            yield f"{path_of((*where, 'source'))}: the base has no recorded load: use generated or trace"
        if point.source == "trace":
            try:
                trace_of(point)
            except TrimtabError as error:
                yield f"{path_of((*where, 'trace'))}: {error}"
