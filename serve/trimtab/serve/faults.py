"""Errors as Watcher's clients read them: status codes, and bodies whose text is JSON again."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from trimtab.platform.errors import (
    CloudError,
    Conflict,
    DatasourceError,
    Forbidden,
    InvalidInput,
    NotFound,
    TrimtabError,
)

log = logging.getLogger(__name__)


class NotAcceptable(TrimtabError):
    """The request has something that its microversion has not (406)."""

    def __init__(self, message: str = "Request not acceptable.") -> None:
        super().__init__(message)


class UnknownMimetype(TrimtabError):
    """The body is no JSON (415)."""


class Busy(TrimtabError):
    """The service has as much of this under way as it can bear (503)."""


# The first that fits.
STATUS: tuple[tuple[type[TrimtabError], int], ...] = (
    (InvalidInput, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (NotAcceptable, 406),
    (Conflict, 409),
    (UnknownMimetype, 415),
    (CloudError, 503),
    (DatasourceError, 503),
    (Busy, 503),
    (TrimtabError, 500),
)
COLLECTIONS = "goals|strategies|audit_templates|audits|action_plans|actions|services|scoring_engines"
_DETAIL = re.compile(rf"/v1/({COLLECTIONS})/(?:[^/]+/)?detail/?")


def fault(status: int, faultstring: str) -> JSONResponse:
    """An error of a controller: JSON inside JSON."""
    inner = {"faultcode": "Client" if status < 500 else "Server", "faultstring": faultstring, "debuginfo": None}
    return JSONResponse({"error_message": json.dumps(inner)}, status)


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error of routing: plain text."""
    return JSONResponse({"error_message": text}, status, headers)


def refused(name: str, value: object, why: str) -> InvalidInput:
    """Watcher's words for one wrong value."""
    return InvalidInput(f"Invalid input for field/attribute {name}. Value: '{value}'. {why}")


def install(app: FastAPI) -> None:
    """Let an application answer errors this way."""
    app.add_exception_handler(TrimtabError, _known_error)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unknown_error)


def _known_error(_: Request, error: Exception) -> Response:
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error)
    return fault(status, str(error))


def _unknown_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return fault(500, f"Internal error ({type(error).__name__}); the server's log has the details")


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        text = f"405 Method Not Allowed\n\nThe method {request.method} is not allowed for this resource. \n\n "
        return plain(status, text, getattr(error, "headers", None))
    if status == 404:
        if detail := _DETAIL.fullmatch(str(request.scope["path"])):
            return fault(404, f"The {detail[1]} resource detail could not be found")
        return plain(status, "404 Not Found\n\nThe resource could not be found.\n\n   ")
    return fault(status, str(getattr(error, "detail", error)))


def _bad_request(_: Request, error: Exception) -> Response:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    return fault(400, in_watchers_words(faults, "body") if faults else str(error))


_EXPECTED = {
    "bool": "bool",
    "dict": "dict",
    "float": "float",
    "int": "int",
    "list": "list",
    "model": "dict",
    "string": "str",
}  # what pydantic calls a type, and Python does


def in_watchers_words(faults: Sequence[Any], argument: str, *, query: bool = False) -> str:
    """The first fault that validation found, as Watcher says it; unknown names go before wrong values.

    `argument` is what Watcher calls the body.
    """
    unknown = [one for one in faults if one["type"] == "extra_forbidden"]
    first = (unknown or faults)[0]
    place = [str(part) for part in first["loc"] if part not in {"body", "query", "path"}]
    name, kind, value = ".".join(place) or argument, first["type"], first.get("input")
    if kind == "extra_forbidden":
        if query or first["loc"][0] == "query":
            return f'Unknown argument: "{name}"'
        return f"Unknown attribute for argument {argument}: {', '.join(str(one['loc'][-1]) for one in unknown)}"
    if kind == "json_invalid":
        return "Request is not in valid JSON format"
    if kind == "missing":
        if not place:
            return f'Missing argument: "{argument}"'
        return str(refused(name, None, "Mandatory field missing."))
    return str(refused(name, value, _why(kind, value, first["msg"])))


def _why(kind: str, value: Any, message: str) -> str:
    expected = _EXPECTED.get(kind.partition("_")[0])
    if kind == "int_parsing" or (kind == "int_type" and isinstance(value, str)):
        return f"unable to convert to int. Error: invalid literal for int() with base 10: '{value}'"
    if kind == "bool_parsing":
        return f"Value not an unambiguous boolean: {value}"
    if expected is not None and kind.endswith("_type"):
        return f"Wrong type. Expected '<class '{expected}'>', got '{type(value)}'"
    return message
