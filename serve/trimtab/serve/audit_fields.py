"""What the fields of an audit may be: types, times, intervals and flags, at its creation and in patches; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import Audit
from trimtab.platform.schedule import parse_interval
from trimtab.platform.scope_schema import check_scope
from trimtab.platform.states import AUDIT
from trimtab.serve import patching
from trimtab.serve.faults import refused
from trimtab.serve.patching import Operation

TYPES = ("ONESHOT", "CONTINUOUS", "EVENT")
LONGEST_NAME = 63
# What clients may bring about by asking for a state; the other edges belong to the engine.
OFFERED = frozenset(
    {
        ("PENDING", "run"), ("PENDING", "cancel"), ("ONGOING", "fail"), ("ONGOING", "succeed"), ("ONGOING", "cancel"),
        ("ONGOING", "suspend"), ("SUSPENDED", "resume"), ("SUSPENDED", "delete"), ("FAILED", "delete"),
        ("SUCCEEDED", "delete"), ("CANCELLED", "delete"),
    }
)  # fmt: skip
PATCHABLE = (
    "name", "audit_type", "state", "parameters", "interval", "scope", "goal_id", "strategy_id", "hostname",
    "auto_trigger", "next_run_time", "start_time", "end_time", "force",
)  # fmt: skip
IGNORED = ("goal", "strategy")  # Watcher's objects have them and nothing comes of changing them
NOT_UPDATED = frozenset({"/audit_template_uuid", "/type"})
_FLAG = TypeAdapter(bool)


def check_type(audit_type: Any) -> str:
    """One of Watcher's types of audits.

    Raises:
        InvalidInput: it is none.
    """
    if audit_type not in TYPES:
        raise InvalidInput(f"Audit type {audit_type} could not be found")
    return str(audit_type)


def moment(field: str, value: Any) -> datetime:
    """A time as ISO 8601 text, in UTC; without an offset it is the server's local time.

    Raises:
        InvalidInput: it is no such text, or out of range.
    """
    if not isinstance(value, str):
        raise _wrong_type(field, value, datetime)
    try:
        return datetime.fromisoformat(value.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise refused(field, value, "Not a legal ISO 8601 time, as in 2030-01-31T22:00:00+00:00") from error


def flag(field: str, value: Any) -> bool:
    """A boolean, or one of the words for it.

    Raises:
        InvalidInput: it is neither.
    """
    try:
        return _FLAG.validate_python(value)
    except ValidationError:
        if isinstance(value, str):
            raise refused(field, value, f"Value not an unambiguous boolean: {value}") from None
        raise _wrong_type(field, value, bool) from None


def interval(value: Any) -> str:
    """The seconds between two runs, or a cron line.

    Raises:
        InvalidInput: it is neither.
    """
    if not isinstance(value, str):
        raise _wrong_type("interval", value, str)
    parse_interval(value)
    return value


class Change(NamedTuple):
    """What a patch does to an audit: an event of its state machine (None: none), and new values of fields."""

    event: str | None
    fields: dict[str, Any]


def patched(audit: Audit, operations: Sequence[Operation]) -> Change:
    """The change that a patch asks for. New values of goal_id and strategy_id are as they were given: unchecked.

    Raises:
        InvalidInput: Watcher would not do it, or it is a value nobody could work with.
    """
    prepared = [_prepared(operation) for operation in operations]
    known = {name: getattr(audit, name) for name in PATCHABLE}
    whole = patching.apply(
        {**known, **dict.fromkeys(IGNORED)}, prepared, forbidden={"/status_message", "/deleted", "/triggered_at"}
    )
    event = None
    if any(operation.root == "/state" for operation in operations):
        event = _event(audit.state, whole["state"], operations)
    given = {operation.root.removeprefix("/"): operation for operation in prepared}
    changes = {
        name: _value(name, whole[name], removed=given[name].op == "remove")
        for name in PATCHABLE
        if name != "state" and name in given and whole[name] != known[name]
    }
    after = {**known, **changes}
    if changes.keys() & {"interval", "audit_type"} and after["audit_type"] == "CONTINUOUS" and not after["interval"]:
        raise InvalidInput("Interval of audit must be specified for CONTINUOUS.")
    return Change(event, {name: value for name, value in changes.items() if value != known[name]})


def _prepared(operation: Operation) -> Operation:
    """The operation with its times read."""
    path, op, value = operation.path, operation.op, operation.value
    if path in NOT_UPDATED or (path == "/state" and value is None):
        raise patching.not_applied([operation], f"{path} can't be updated.")
    if path in {"/start_time", "/end_time"} and op != "remove":
        if op == "add":
            raise patching.not_applied([operation], f"{path} can't be added: use replace")
        return Operation(op, path, moment(path.removeprefix("/"), value))
    return operation


def _event(state: str, wanted: Any, operations: Sequence[Operation]) -> str:
    for source, event in OFFERED:
        if source == state and AUDIT.edges.get((source, event)) == wanted:
            return event
    raise not_allowed(state, wanted, operations)


def not_allowed(state: str, wanted: Any, operations: Sequence[Operation]) -> InvalidInput:
    """The error for a state that cannot follow."""
    return patching.not_applied(operations, f"State transition not allowed: ({state} -> {wanted})")


def _value(name: str, value: Any, *, removed: bool) -> Any:
    """A new value of a field, of the right type; what was removed becomes the field's empty value."""
    match name:
        case "name":
            if not isinstance(value, str):
                raise _wrong_type(name, value, str)
            if not 0 < len(value) <= LONGEST_NAME:
                raise refused(name, value, f"Use 1 to {LONGEST_NAME} characters")
        case "audit_type":
            check_type(value)
        case "interval":
            return None if value is None else interval(value)
        case "auto_trigger" | "force":
            return False if removed else flag(name, value)
        case "parameters":
            return _of_type(name, {} if value is None else value, dict)
        case "scope":
            return check_scope(_of_type(name, [] if value is None else value, list))
        case "hostname":
            return None if value is None else _of_type(name, value, str)
        case "next_run_time" if value is not None:
            raise _wrong_type(name, value, datetime)
        case _:
            pass
    return value


def _of_type(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _wrong_type(name, value, kind)
    return value


def _wrong_type(name: str, value: Any, kind: type) -> InvalidInput:
    return refused(name, value, f"Wrong type. Expected '{kind}', got '{type(value)}'")


def check_new(audit_type: str, given: Mapping[str, Any]) -> None:
    """Whether what was given to a new audit fits its type.

    Raises:
        InvalidInput: it does not, in Watcher's words and order.
    """
    check_type(audit_type)
    if not given["audit_template_uuid"] and not given["goal"]:
        raise InvalidInput("A valid goal or audit_template_id must be provided")
    if given["audit_template_uuid"] and given["goal"]:
        raise InvalidInput("Either audit_template_uuid or goal should be provided.")
    if audit_type == "ONESHOT" and given["interval"] is not None:
        raise InvalidInput("Interval of audit must not be set for ONESHOT.")
    if audit_type == "CONTINUOUS" and given["interval"] is None:
        raise InvalidInput("Interval of audit must be specified for CONTINUOUS.")
    if audit_type == "ONESHOT" and (given["start_time"] is not None or given["end_time"] is not None):
        raise InvalidInput("Start or End time of audit must not be set for ONESHOT.")
