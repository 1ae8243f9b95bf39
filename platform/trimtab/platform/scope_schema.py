"""What an audit's scope may be: its JSON schema, the old flat form, and what a schema cannot say; no model here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema

from trimtab.platform.errors import InvalidInput
from trimtab.platform.rules import check_rules

SECTIONS = ("compute", "storage", "baremetal")


def _items(**fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A list of objects that have exactly these fields."""
    item = {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}
    return {"type": "array", "items": item}


def _rules(**words: Mapping[str, Any]) -> Mapping[str, Any]:
    """A list of objects that may have these fields."""
    return {"type": "array", "items": {"type": "object", "properties": words, "additionalProperties": False}}


_NAMES, _UUIDS = _items(name={"type": "string"}), _items(uuid={"type": "string"})
_AGGREGATES = {
    "type": "array",
    "items": {
        "type": "object",
        "anyOf": [
            {"properties": {"id": {"anyOf": [{"type": "integer"}, {"enum": ["*"]}]}}, "required": ["id"]},
            {"properties": {"name": {"type": "string"}}, "required": ["name"]},
        ],
    },
}
COMPUTE_SCHEMA = _rules(
    host_aggregates=_AGGREGATES,
    availability_zones=_NAMES,
    exclude=_rules(
        instances=_UUIDS,
        compute_nodes=_NAMES,
        host_aggregates=_AGGREGATES,
        instance_metadata={"type": "array", "items": {"type": "object"}},
        projects=_UUIDS,
    ),
    rules={"type": "array"},
)
STORAGE_SCHEMA = _rules(
    volume_types=_NAMES,
    availability_zones=_NAMES,
    exclude=_rules(storage_pools=_NAMES, volumes=_UUIDS, projects=_UUIDS),
)
BAREMETAL_SCHEMA = _rules(exclude=_rules(ironic_nodes=_UUIDS))
SCHEMA = _rules(compute=COMPUTE_SCHEMA, storage=STORAGE_SCHEMA, baremetal=BAREMETAL_SCHEMA)


def check_scope(scope: object) -> list[dict[str, Any]]:
    """The scope as it is stored: checked, the old flat form (a list of compute rules) wrapped into `compute`.

    Raises:
        InvalidInput: names the place in the scope.
    """
    if isinstance(scope, list) and scope and isinstance(scope[0], dict):
        first = next(iter(scope[0]), "compute")
        if first not in SECTIONS:
            scope = [{"compute": scope}]
    try:
        jsonschema.validate(scope, SCHEMA)
    except jsonschema.ValidationError as error:
        raise InvalidInput(f"{_place(error.absolute_path)}: {error.message}") from error
    checked: list[dict[str, Any]] = list(scope) if isinstance(scope, list) else []
    for number, entry in enumerate(checked):
        _check_aggregates(entry.get("compute", []), f"scope[{number}]['compute']")
    rules = section(checked, "compute")
    for rule in rules:
        check_rules(rule.get("rules", []), "scope compute rules")
    included = any("host_aggregates" in rule for rule in rules)
    if included and any("host_aggregates" in item for rule in rules for item in rule.get("exclude", [])):
        raise InvalidInput("scope: host_aggregates can be included or excluded, not both")
    return checked


def section(scope: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """The rules of the first entry that has any under this name; none: the scope does not narrow that model."""
    return next((list(entry[name]) for entry in scope if entry.get(name)), [])


def all_aggregates(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these aggregates are all there are.

    Raises:
        InvalidInput: a star stands beside other ids, or beside other names.
    """
    for key in ("id", "name"):
        given = [item[key] for item in items if key in item]
        if "*" in given:
            if len(given) > 1:
                raise InvalidInput("scope host_aggregates: '*' cannot stand beside other aggregates; use it alone")
            return True
    return False


def _check_aggregates(rules: Iterable[Mapping[str, Any]], place: str) -> None:
    for number, rule in enumerate(rules):
        for part in (rule, *rule.get("exclude", [])):
            try:
                all_aggregates(part.get("host_aggregates", []))
            except InvalidInput as error:
                raise InvalidInput(f"{place}[{number}]: {error}") from error


def _place(path: Iterable[Any]) -> str:
    return "scope" + "".join(f"[{part!r}]" for part in path)
