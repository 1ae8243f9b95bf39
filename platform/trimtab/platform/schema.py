"""Parameters of plug-ins: pydantic models as plain JSON schema for the wire, and reading what came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.config import JsonDict

from trimtab.platform.errors import InvalidInput

Parameters = TypeVar("Parameters", bound=BaseModel)
UUID = "^[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{12}$"


class HasParameters(Protocol):
    """Anything that says which parameters it takes: a strategy class or one of its instances."""

    name: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]


def without(*words: str) -> Callable[[JsonDict], None]:
    """For `json_schema_extra`: check a bound without showing it, where Watcher's schema names none."""

    def drop(schema: JsonDict) -> None:
        for word in words:
            schema.pop(word, None)

    return drop


CLOSED: JsonDict = {"additionalProperties": "refused"}  # for the few schemas in which Watcher says so itself


def parameters_spec(strategy: HasParameters) -> dict[str, Any]:
    """The JSON schema of a strategy's parameters, as Watcher writes it: no titles, no references, no null types."""
    return wire_schema(strategy.parameters)


def wire_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A pydantic model as draft-4 JSON schema without pydantic's additions.

    References are written out, titles dropped, and a property that may be left out (`X | None = None`) is shown as an
    X without default. That unknown names are refused is not said, because Watcher does not say it either.
    """
    schema = model.model_json_schema()
    plain = _plain(schema, schema.get("$defs", {}))
    plain.pop("description", None)  # the docstring is for readers of the code
    if "required" not in plain:
        plain.pop("type", None)  # Watcher's own schemas name the type only where something is required
    return plain


def read_parameters(strategy: HasParameters, given: Mapping[str, Any]) -> Any:
    """The strategy's parameter object with all defaults filled in.

    Raises:
        InvalidInput: names the parameter, what is wrong with it and what the strategy knows.
    """
    return read(strategy.parameters, given, f"strategy {strategy.name}")


def read(model: type[Parameters], given: Mapping[str, Any], where: str) -> Parameters:
    """An instance of a pydantic model.

    Raises:
        InvalidInput: every fault, each with the path of the field; `where` says whose parameters they are.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidInput(f"{where}: {'; '.join(_faults(error, model))}") from error


def faults(model: type[BaseModel], given: Mapping[str, Any]) -> list[str]:
    """Everything a pydantic model has against parameters, each with the path of the field; empty when they are fine."""
    try:
        model.model_validate(dict(given))
    except ValidationError as error:
        return _faults(error, model)
    return []


def _faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    return [_fault(dict(problem), model) for problem in error.errors(include_url=False)]


def _fault(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "parameters"
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        known = ", ".join(model.model_fields) or "none"
        return f"there is no parameter {path!r}: use one of {known}"
    return f"{path}: {str(problem['msg']).removeprefix('Value error, ')}"


def _plain(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_plain(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        target = {**definitions[schema["$ref"].rpartition("/")[2]]}
        target.pop("description", None)
        return _plain({**target, **siblings}, definitions)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if type(schema.get(exclusive)) in {int, float}:  # draft 4 says it with a flag beside the bound
            schema = {**schema, bound: schema[exclusive], exclusive: True}
    choices = schema.get("anyOf", ())
    if len(choices) == 2 and {"type": "null"} in choices:
        inner = next(choice for choice in choices if choice != {"type": "null"})
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
        return _plain({**inner, **rest}, definitions)
    return {
        key: {name: _plain(value, definitions) for name, value in part.items()}
        if key == "properties"
        else False
        if (key, part) == ("additionalProperties", "refused")
        else part
        if key in {"default", "enum", "const", "examples"}
        else _plain(part, definitions)
        for key, part in schema.items()
        if key not in {"title", "$defs"} and not (key == "additionalProperties" and part is False)
    }
