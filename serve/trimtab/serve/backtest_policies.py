"""Policies of a backtest as people write them: in words on the command line, or as a list in YAML."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.platform.errors import InvalidInput
from trimtab.platform.plugins import load
from trimtab.platform.schema import read, read_parameters
from trimtab.simulator.closed_loop import Policy
from trimtab.simulator.whatif.cell_run import policy_of
from trimtab.simulator.whatif.scenario import PolicyPoint

MINUTES = {"s": 1 / 60, "min": 1.0, "h": 60.0, "d": 1440.0}
USUAL = ("workload_stabilization", "vm_workload_consolidation")
HOW = "write a strategy, then what you want to say of name=..., interval=30min, first=5min, PARAMETER=VALUE"


def policies_of(texts: Sequence[str], file: Path | None) -> list[Policy]:
    """Policies from `--policy` and `--policies`; without any the usual strategies, every hour.

    Raises:
        InvalidInput: names the policy, what is wrong with it and what is known.
    """
    given = [policy_words(text) for text in texts]
    if file is not None:
        given += _of_file(file)
    given = given or [{"strategy": name} for name in USUAL]
    points = []
    for number, one in enumerate(given, start=1):
        label = one.get("name") or one.get("strategy") or "nobody"
        strategy = load().strategies.get(str(one.get("strategy")))
        if strategy is not None:
            read_parameters(strategy, one.get("parameters", {}))  # tells more of a wrong one
        points.append(read(PolicyPoint, {"name": str(label), **one}, f"policy {number} ({label})"))
    return [policy_of(point) for point in points]


def policy_words(text: str) -> dict[str, Any]:
    """A policy as the command line writes it: `workload_stabilization interval=30min thresholds.x=0.05 name=eager`.

    Raises:
        InvalidInput: it has no strategy, or words that are not name=value.
    """
    try:
        first, *words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"policy {text!r}: {HOW}") from error
    if "=" in first:
        words, first = [first, *words], ""
    found: dict[str, Any] = {"strategy": first} if first else {}
    parameters: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidInput(f"policy {text!r}: {word!r} is not name=value; {HOW}")
        if name in {"name", "strategy"}:
            found[name] = value
        elif name in {"interval", "first"}:
            found[f"{name}_min"] = minutes(value, f"policy {text!r}: {name}")
        elif name in {"migrations_per_host", "migrations_total"}:
            found.setdefault("limits", {})[name] = _value(value)
        else:
            _put(parameters, name.split("."), _value(value))
    if "strategy" not in found:
        raise InvalidInput(f"policy {text!r} names no strategy; {HOW}")
    return {**found, **({"parameters": parameters} if parameters else {})}


def minutes(text: str, what: str) -> float:
    """A length of time such as 90s, 30min, 2h or 1d; a bare number counts minutes.

    Raises:
        InvalidInput: it is none; `what` says of what.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|m|h|d)?", text.strip())
    if found is None:
        raise InvalidInput(f"{what}: {text!r} is no length of time: write 90s, 30min, 2h or 1d")
    return float(found[1]) * MINUTES[{"m": "min", None: "min"}.get(found[2], found[2])]


def _put(into: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for step in path[:-1]:
        below = into.setdefault(step, {})
        if not isinstance(below, dict):
            raise InvalidInput(f"parameter {'.'.join(path)}: {step} has a value already")
        into = below
    into[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of_file(file: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    rows = raw.get("policies") if isinstance(raw, Mapping) else raw
    if not isinstance(rows, list) or not rows:
        raise InvalidInput(f"{file}: give a list of policies, or a mapping with such a list under `policies`")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("parameters", {}), dict):
            raise InvalidInput(f"{file}: policy {number} is no mapping: give name, strategy, interval_min, parameters")
    return rows
