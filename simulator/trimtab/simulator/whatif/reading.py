"""Reading a scenario so that every fault is found at once, each with its path in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from trimtab.platform.errors import TrimtabError
from trimtab.simulator.whatif.cells import Cell, cells_of
from trimtab.simulator.whatif.loads import trace_of
from trimtab.simulator.whatif.origin import Origin, origin_of
from trimtab.simulator.whatif.scenario import (
    Base,
    CloudBase,
    InvalidScenario,
    LoadPoint,
    Scenario,
    Topology,
    raw_scenario,
)
from trimtab.simulator.whatif.topology import Unknown, changed

MOST_CELLS = 100_000
TAGS = ("kind", "action")  # fields that say which form of a part is meant

_BASE: TypeAdapter[Any] = TypeAdapter(Base)


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
    scenario, faults = _validated(raw, folder, files=files)
    size = _size(raw)
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
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown field: remove it or correct its name"
    elif problem["type"] == "missing":
        message = "is missing"
    elif isinstance(problem.get("input"), str | int | float) and not message.endswith(")"):
        message = f"{message} (got {problem['input']!r})"
    yield f"{path_of(place)}: {message}"


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
    if isinstance(seeds, Mapping) and isinstance(seeds.get("count"), int):
        size *= max(seeds["count"], 1)
    return size


def _horizon_h(raw: Mapping[str, Any]) -> float:
    given = raw.get("horizon_h", Scenario.model_fields["horizon_h"].default)
    return float(given) if isinstance(given, int | float) else float("inf")


def _topology_faults(raw: Mapping[str, Any], origin: Origin, horizon_h: float) -> Iterator[str]:
    """What the changes name and is not there; a change sees what the sound ones before it made."""
    for number, given in enumerate(_points(raw, "topology")):
        try:
            point = Topology.model_validate(given)
        except ValidationError:
            continue  # told already
        sound: list[Any] = []
        for position, change in enumerate(point.changes):
            where = ("axes", "topology", number, "changes", position)
            if change.at_h >= horizon_h:
                yield f"{path_of((*where, 'at_h'))}: {change.at_h:g} h is not within the horizon of {horizon_h:g} h"
            try:
                changed(point.model_copy(update={"changes": (*sound, change)}), origin.model, 0.0)
            except Unknown as error:
                yield f"{path_of((*where, *error.place[1:]))}: {error.message}"
            else:
                sound.append(change)


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
