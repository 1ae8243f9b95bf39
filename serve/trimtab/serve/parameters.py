"""Audit parameters against a strategy's JSON schema and its own rules: checked, and completed with its defaults."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema

from trimtab.platform.errors import InvalidInput
from trimtab.platform.plugins import load
from trimtab.platform.records import Strategy
from trimtab.platform.schema import faults


def checked(strategy: Strategy, parameters: Mapping[str, Any], field: str = "parameters") -> dict[str, Any]:
    """Parameters with the schema's defaults filled in.

    Raises:
        InvalidInput: an unknown name, a value the schema refuses, or values that the strategy itself does not take
            together; the message names them.
    """
    schema = strategy.parameters_spec
    if not schema:
        if parameters:
            raise InvalidInput(
                "Specify parameters but no predefined strategy for audit, or no parameter spec in predefined strategy"
            )
        return {}
    known = schema.get("properties", {})
    for name in parameters:
        if name not in known:
            raise InvalidInput(f"Audit parameter {name} are not allowed")
    complete = {
        **{name: copy.deepcopy(spec["default"]) for name, spec in known.items() if spec.get("default") is not None},
        **parameters,
    }
    given = complete if field == "parameters" else dict(parameters)
    try:
        jsonschema.validate(given, schema, jsonschema.Draft4Validator)
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        where = f"{place}: " if place else ""
        raise InvalidInput(f"Invalid {field} for strategy: {where}{error.message}") from error
    installed = load().strategies.get(strategy.name)
    if installed is not None and (wrong := faults(installed.parameters, given)):
        raise InvalidInput(f"Invalid {field} for strategy: {'; '.join(wrong)}")
    return given
