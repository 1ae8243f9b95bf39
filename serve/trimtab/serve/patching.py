"""JSON patches as Watcher takes them: add, replace and remove, applied to the fields of one record; pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.platform.errors import InvalidInput

OPERATIONS = ("add", "remove", "replace")
PATTERN = r"^(/[\w-]+)+$"
INTERNAL = frozenset({"/created_at", "/id", "/links", "/updated_at", "/deleted_at", "/uuid"})  # nobody patches these
_PATH = re.compile(r"(/[\w-]+)+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation whose shape has been checked; `value` is None for a removal."""

    op: str
    path: str
    value: Any = None

    @property
    def root(self) -> str:
        """The attribute it is about, with its slash: "/parameters" of "/parameters/para1"."""
        return f"/{self.names[0]}"

    @property
    def names(self) -> list[str]:
        """The path in parts."""
        return self.path.split("/")[1:]

    def __str__(self) -> str:
        value = {} if self.op == "remove" else {"value": self.value}
        return str({"path": self.path, "op": self.op, **value})


def read(body: Any, argument: str = "patch") -> tuple[Operation, ...]:
    """The operations in the parsed body of a PATCH request.

    Raises:
        InvalidInput: it is no list of operations, in Watcher's words; `argument` is what Watcher calls the body.
    """
    if not isinstance(body, list):
        raise _refused(argument, body, f"Value not a valid list: {body}")
    return tuple(_operation(one, argument) for one in body)


def apply(
    resource_fields: Mapping[str, Any],
    operations: Sequence[Operation],
    *,
    forbidden: Collection[str] = (),
    allowed: Collection[str] | None = None,
    mandatory: Collection[str] = (),
) -> dict[str, Any]:
    """The fields after all operations, in their order; an attribute that was removed is None.

    The names of attributes come with their slash ("/state"): `forbidden` ones cannot be touched, nor can INTERNAL ones;
    with `allowed` all others cannot either; `mandatory` ones cannot be removed. What was given is left as it was.

    Raises:
        InvalidInput: an operation is not permitted or cannot be applied, in Watcher's words.
    """
    for operation in operations:
        check(operation, forbidden=forbidden, allowed=allowed, mandatory=mandatory)
    document = copy.deepcopy(dict(resource_fields))
    for operation in operations:
        if operation.op == "add" and len(operation.names) == 1 and operation.names[0] not in resource_fields:
            raise InvalidInput(f"Adding a new attribute ({operation.path}) to the root of  the resource is not allowed")
    for operation in operations:
        try:
            _apply_one(document, operation)
        except _CannotApply as error:
            raise not_applied(operations, str(error)) from error
    return {name: document.get(name) for name in resource_fields}


def check(
    operation: Operation,
    *,
    forbidden: Collection[str] = (),
    allowed: Collection[str] | None = None,
    mandatory: Collection[str] = (),
) -> None:
    """Whether one operation is permitted at all.

    Raises:
        InvalidInput: it is not.
    """
    if allowed is not None and operation.root not in allowed:
        raise InvalidInput(f"'{operation.path}' is not an allowed attribute and can not be updated")
    if operation.root in INTERNAL or operation.root in forbidden:
        raise InvalidInput(f"'{operation.path}' is an internal attribute and can not be updated")
    if operation.op == "remove" and operation.path in mandatory:
        raise InvalidInput(f"'{operation.path}' is a mandatory attribute and can not be removed")


def not_applied(operations: Sequence[Operation], reason: str) -> InvalidInput:
    """The error for a patch that is well-formed and still cannot be."""
    return InvalidInput(f"Couldn't apply patch '[{', '.join(map(str, operations))}]'. Reason: {reason}")


class _CannotApply(Exception):
    """Why an operation does not fit the document."""


def _operation(one: Any, argument: str) -> Operation:
    if not isinstance(one, dict):
        raise _refused(argument, one, f"Wrong type. Expected '<class 'dict'>', got '{type(one)}'")
    unknown = sorted(one.keys() - {"op", "path", "value"})
    if unknown:
        raise InvalidInput(f"Unknown attribute for argument {argument}: {', '.join(unknown)}")
    for name in ("path", "op"):
        if one.get(name) is None:
            raise _refused(name, None, "Mandatory field missing.")
    op, path = one["op"], one["path"]
    if not isinstance(path, str):
        raise _refused("path", path, f"Wrong type. Expected '<class 'str'>', got '{type(path)}'")
    if not _PATH.fullmatch(path):
        raise _refused("path", path, f"Value should match the pattern {PATTERN}")
    if op not in OPERATIONS:
        raise _refused("op", op, f"Value should be one of: {', '.join(OPERATIONS)}")
    if op == "remove":
        return Operation(op, path)
    if "value" not in one:
        raise InvalidInput("'add' and 'replace' operations needs value")
    return Operation(op, path, one["value"])


def _refused(name: str, value: Any, why: str) -> InvalidInput:
    return InvalidInput(f"Invalid input for field/attribute {name}. Value: '{value}'. {why}")


def _apply_one(document: dict[str, Any], operation: Operation) -> None:
    *way, last = operation.names
    place: Any = document
    for name in way:
        place = _member(place, name)
    if isinstance(place, dict):
        if operation.op != "add" and last not in place:
            raise _missing(operation.op, last)
        if operation.op == "remove":
            del place[last]
        else:
            place[last] = copy.deepcopy(operation.value)
    elif isinstance(place, list):
        _apply_to_list(place, last, operation)
    else:
        raise _CannotApply(f"a {type(place).__name__} has no member '{last}'")


def _apply_to_list(place: list[Any], last: str, operation: Operation) -> None:
    if operation.op == "add":
        index = len(place) if last == "-" else _position(last)
        if index > len(place):
            raise _CannotApply("can't insert outside of list")
        place.insert(index, copy.deepcopy(operation.value))
        return
    index = _position(last)
    if index >= len(place):
        raise _missing(operation.op, last)
    if operation.op == "remove":
        del place[index]
    else:
        place[index] = copy.deepcopy(operation.value)


def _member(place: Any, name: str) -> Any:
    if isinstance(place, dict):
        found = place.get(name, _ABSENT)
    elif isinstance(place, list):
        index = _position(name)
        found = place[index] if index < len(place) else _ABSENT
    else:
        raise _CannotApply(f"a {type(place).__name__} has no member '{name}'")
    if found is _ABSENT:
        raise _CannotApply(f"member '{name}' not found in {place}")
    return found


def _position(name: str) -> int:
    if not _INDEX.fullmatch(name):
        raise _CannotApply(f"'{name}' is not a valid sequence index")
    return int(name)


def _missing(op: str, name: str) -> _CannotApply:
    return _CannotApply(f"can't {op} a non-existent object '{name}'")
