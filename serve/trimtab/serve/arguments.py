"""Arguments of requests: query strings and JSON bodies checked as Watcher checks them, and described in OpenAPI.

They are read by dependencies, so that a route decides by the order of its parameters what is told first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from trimtab.platform.errors import InvalidInput
from trimtab.serve import patching
from trimtab.serve.faults import UnknownMimetype, in_watchers_words, refused

M = TypeVar("M", bound=BaseModel)
JSON = frozenset({"application/json", "text/javascript", "application/javascript"})
FORM = "application/x-www-form-urlencoded"
DEEPEST = 100  # levels of a JSON body


class Arguments(BaseModel):
    """A query string: unknown names are refused, texts become numbers where numbers are wanted."""

    model_config = ConfigDict(extra="forbid")


class NewObject(BaseModel):
    """A JSON body: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _never(_: Any) -> Any:
    raise PydanticCustomError("read_only", "Cannot set read only field.")


# A field that answers have and bodies must not; default it to None.
ReadOnly = Annotated[Any, BeforeValidator(_never), WithJsonSchema({"readOnly": True})]


def query(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency: the query string as this model."""

    async def read_query(request: Request) -> M:
        try:
            return model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise InvalidInput(in_watchers_words(error.errors(), "query", query=True)) from error

    return describes(read_query, arguments=frozenset(model.model_fields), openapi=lambda: _parameters(model))


def body(model: type[M], argument: str) -> Callable[[Request], Awaitable[M]]:
    """A dependency: the JSON body as this model; Watcher calls it `argument`."""
    read_object = json_object(argument)

    async def read_body(request: Request) -> M:
        try:
            return model.model_validate(await read_object(request))
        except ValidationError as error:
            raise InvalidInput(in_watchers_words(error.errors(), argument)) from error

    return describes(read_body, openapi=lambda: json_body(model.model_json_schema()))


def json_object(argument: str) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    """A dependency: any JSON object as the body."""

    async def read_object(request: Request) -> dict[str, Any]:
        parsed = await parsed_body(request, argument)
        if not isinstance(parsed, dict):
            raise refused(argument, parsed, f"Wrong type. Expected '<class 'dict'>', got '{type(parsed)}'")
        return parsed

    return describes(read_object, openapi=lambda: json_body({"type": "object"}))


async def read_patch(request: Request) -> tuple[patching.Operation, ...]:
    """A dependency: the JSON patch in the body."""
    return patching.read(await parsed_body(request, "patch"))


async def read_any(request: Request) -> Any:
    """A dependency: any JSON body; Watcher calls it `body`."""
    return await parsed_body(request, "body")


async def parsed_body(request: Request, argument: str) -> Any:
    """The JSON body of a request.

    Raises:
        UnknownMimetype: it is something else (415). InvalidInput: there is none, or it is no JSON.
    """
    content = await request.body()
    mimetype = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and mimetype != FORM and mimetype not in JSON:
        raise UnknownMimetype(f"Unknown mimetype: {mimetype}")
    if not content or mimetype == FORM:
        raise missing(argument)
    try:
        parsed = _parsed(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("Request is not in valid JSON format") from error
    if parsed is None:
        raise missing(argument)
    return parsed


def missing(argument: str) -> InvalidInput:
    """The error for a body that is not there."""
    return InvalidInput(f'Missing argument: "{argument}"')


def _parsed(content: bytes) -> Any:
    """What the JSON says; ValueError for what could not be said back in JSON and UTF-8, or is nested without reason."""
    parsed = json.loads(content.decode(), parse_constant=_no_constant, parse_float=_finite)
    if b"\\ud" in content.lower():  # perhaps half a surrogate pair
        json.dumps(parsed, ensure_ascii=False).encode()
    if content.count(b"[") + content.count(b"{") > DEEPEST:
        level = [parsed]
        for _ in range(DEEPEST):
            level = [one for part in level for one in _inside(part)]
        if level:
            raise ValueError(f"more than {DEEPEST} levels")
    return parsed


def _inside(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


class Route(APIRoute):
    """A route that knows all names its query string may have, and describes what its dependencies read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        described: dict[str, Any] = {}
        for one in _all(self.dependant):
            described |= getattr(one.call, "openapi", dict)()
        if described:
            self.openapi_extra = {**described, **(self.openapi_extra or {})}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the check of names."""
        handle = super().get_route_handler()
        parts = list(_all(self.dependant))
        known = frozenset[str]().union(*(getattr(one.call, "arguments", ()) for one in parts))
        declared = any(one.query_params for one in parts)  # then FastAPI looks itself

        async def checked(request: Request) -> Response:
            if not declared:
                for name in request.query_params:
                    if name not in known:
                        raise InvalidInput(f'Unknown argument: "{name}"')
            return await handle(request)

        return checked


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _all(one)


C = TypeVar("C", bound=Callable[..., Any])


def describes(dependency: C, **said: Any) -> C:
    """A dependency that says what it reads: names of `arguments`, and a function `openapi` for its part of OpenAPI."""
    for name, value in said.items():
        setattr(dependency, name, value)
    return dependency


def _parameters(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": one}
            for name, one in schema["properties"].items()
        ]
    }


def json_body(schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    """OpenAPI's words for such a body."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


describes(
    read_patch,
    openapi=lambda: json_body(
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "op": {"enum": list(patching.OPERATIONS)},
                    "path": {"type": "string", "pattern": patching.PATTERN},
                    "value": {},
                },
                "required": ["op", "path"],
                "additionalProperties": False,
            },
        }
    ),
)
describes(read_any, openapi=lambda: json_body({}))


async def nothing(request: Request) -> None:
    """No body, or an empty object."""
    if not (await request.body()).strip():
        return
    given = await parsed_body(request, "body")
    if given != {}:
        unknown = ", ".join(given) if isinstance(given, dict) else str(given)
        raise InvalidInput(f"Unknown attribute for argument body: {unknown}")


describes(nothing, openapi=lambda: json_body({"type": "object", "maxProperties": 0}, required=False))

Nothing = Annotated[None, Depends(nothing)]
