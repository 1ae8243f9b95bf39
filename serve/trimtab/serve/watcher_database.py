"""A Watcher database, read through SQLAlchemy and put into our records: MySQL, PostgreSQL or SQLite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from oslo_config import cfg

from trimtab.platform.errors import InvalidInput
from trimtab.platform.records import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    EfficacyIndicator,
    Goal,
    Strategy,
)
from trimtab.platform.secrets import MASK
from trimtab.platform.states import ActionState, AuditState, PlanState
from trimtab.platform.store.restoring import Heritage

Row: TypeAlias = Mapping[str, Any]
Tables: TypeAlias = Mapping[str, Sequence[Row]]

KINDS = {  # of tables, as the records call them
    "goals": "goal",
    "strategies": "strategy",
    "audit_templates": "audit_template",
    "audits": "audit",
    "action_plans": "action_plan",
    "actions": "action",
    "efficacy_indicators": "efficacy_indicator",
}
TABLES = tuple(KINDS)
# The driver of ours for each kind of database, whichever one Watcher's own configuration names.
DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "sqlite": "sqlite",
}
PATIENCE_S = 10  # for a server to answer
STOPPED = "Was under way in Watcher when it was imported."
UNFINISHED = frozenset({ActionState.PENDING, ActionState.ONGOING, ActionState.CANCELLING})


def read(url: str) -> Tables:
    """All rows of the tables that matter, deleted ones too, in the order of their ids, as they are at one moment.

    Columns that an older Watcher lacks are simply not in its rows.

    Raises:
        InvalidInput: the address is wrong, the database does not answer, or is not Watcher's; never shows a password.
    """
    try:
        import sqlalchemy as sa
    except ImportError as error:
        raise InvalidInput(
            "Watcher's database needs SQLAlchemy and drivers: pip install 'sqlalchemy>=2' pymysql 'psycopg[binary]'"
        ) from error
    address = _address(sa, url)
    shown = sa.URL.create(
        address.get_backend_name(), address.username, None, address.host, address.port, address.database
    ).render_as_string()
    options: dict[str, Any] = {}
    if address.get_backend_name() != "sqlite":
        options = {"connect_args": {"connect_timeout": PATIENCE_S}, "isolation_level": "REPEATABLE READ"}
    try:
        engine = sa.create_engine(address, **options)
        try:
            with engine.connect() as connection:
                found = set(sa.inspect(connection).get_table_names())
                if missing := [name for name in TABLES if name not in found]:
                    raise InvalidInput(f"{shown} is no Watcher database: it has no table {', '.join(missing)}")
                meta = sa.MetaData()
                meta.reflect(connection, only=TABLES)
                return {
                    name: [dict(row) for row in connection.execute(_all(sa, meta.tables[name])).mappings()]
                    for name in TABLES
                }
        finally:
            engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError, OSError, TypeError, ValueError) as error:  # drivers raise all of these
        told = str(getattr(error, "orig", None) or error).splitlines()[0]
        for secret in (address.password, *(value for name, value in address.query.items() if "pass" in name)):
            told = told.replace(str(secret), MASK) if secret else told
        raise InvalidInput(f"{shown} cannot be read: {told}") from error


def _address(sa: Any, url: str) -> Any:
    """The parsed address, with a driver of ours.

    Raises:
        InvalidInput: it is none. What was given is not told again, as nobody knows which part is the password.
    """
    try:
        address = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise InvalidInput("--db is no database URL: give one like mysql://user:password@host/watcher") from error
    kind = address.drivername.partition("+")[0]
    if kind not in DRIVERS:
        raise InvalidInput(f"--db names a database of the kind {kind}: what is read is {', '.join(DRIVERS)}")
    if "@" in (address.host or ""):
        raise InvalidInput(
            "--db has more than one @: in a password write %40 for @, %3A for :, %2F for / and %25 for %"
        )
    if kind == "sqlite" and not Path(address.database or "").is_file():
        raise InvalidInput(f"there is no file {address.database}: --db should name an existing Watcher database")
    # DevStack counts Watcher's queries by a plug-in that nobody else has.
    return address.set(drivername=DRIVERS[kind]).difference_update_query(["plugin"])


def connection_in(file: Path) -> str:
    """`[database]connection` of a watcher.conf.

    Raises:
        InvalidInput: it cannot be read, or does not say.
    """
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(str(file), found).parse()
    except (OSError, cfg.ParseError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    values = found.get("database", {}).get("connection", [])
    if not values:
        raise InvalidInput(f"{file} has no [database]connection: say where Watcher's database is by --db")
    return values[-1]


def _all(sa: Any, table: Any) -> Any:
    return sa.select(table).order_by(table.c.id)


class Translation(NamedTuple):
    """What is to be brought, what is left out (kind -> how many deleted rows), and what a person should know."""

    heritage: Heritage
    left_out: Counter[str]
    notes: list[str]


def translate(tables: Tables, *, resume: bool = False, deleted: bool = False) -> Translation:
    """Watcher's rows as records of ours, with Watcher's ids.

    What is under way in Watcher cannot go on here: such plans and actions end CANCELLED, such ONESHOT audits too.
    CONTINUOUS audits come over SUSPENDED, so that two optimisers never work on one cloud; with `resume` they go on.
    `deleted` brings soft-deleted rows as well.

    Raises:
        InvalidInput: a column holds what Watcher cannot have written; names table, row and column.
    """
    left_out: Counter[str] = Counter()
    notes: list[str] = []

    def rows(table: str) -> Sequence[Row]:
        live = [row for row in tables[table] if deleted or not row.get("deleted")]
        left_out[table] = len(tables[table]) - len(live)
        return live

    plans = [_plan(row) for row in rows("action_plans")]
    stopped = {plan.id for plan, cut in plans if cut}
    kept = {plan.id for plan, _ in plans}
    audits = [_audit(row, resume) for row in rows("audits")]
    if held := [audit.name for audit in audits if audit.state == AuditState.SUSPENDED]:
        what = "1 audit is SUSPENDED: set its" if len(held) == 1 else f"{len(held)} audits are SUSPENDED: set their"
        notes.append(f"{what} state to ONGOING when Watcher is stopped for good")
    actions = [_action(row, stopped) for row in rows("actions") if row["action_plan_id"] in kept]
    indicators = [_indicator(row) for row in rows("efficacy_indicators") if row["action_plan_id"] in kept]
    heritage = Heritage(
        [_goal(row) for row in tables["goals"]],
        [_strategy(row) for row in tables["strategies"]],
        [_template(row) for row in rows("audit_templates")],
        audits,
        [plan for plan, _ in plans],
        actions,
        indicators,
    )
    return Translation(heritage, +left_out, notes)


def _common(row: Row) -> dict[str, Any]:
    return {
        "id": int(row["id"]),
        "uuid": str(row["uuid"]),
        "created_at": _time(row.get("created_at")),
        "updated_at": _time(row.get("updated_at")),
        "deleted_at": _time(row.get("deleted_at")),
        "deleted": int(row.get("deleted") or 0),
    }


def _goal(row: Row) -> Goal:
    spec = _json("goals", row, "efficacy_specification", list)
    return Goal(
        **_common(row), name=row["name"], display_name=row["display_name"] or row["name"], efficacy_specification=spec
    )


def _strategy(row: Row) -> Strategy:
    return Strategy(
        **_common(row),
        name=row["name"],
        display_name=row["display_name"] or row["name"],
        goal_id=int(row["goal_id"]),
        parameters_spec=_json("strategies", row, "parameters_spec", dict),
    )


def _template(row: Row) -> AuditTemplate:
    return AuditTemplate(
        **_common(row),
        name=row["name"] or str(row["uuid"]),
        description=row.get("description"),
        goal_id=int(row["goal_id"]),
        strategy_id=row.get("strategy_id"),
        scope=_json("audit_templates", row, "scope", list),
        default_parameters=_json("audit_templates", row, "default_parameters", dict),
    )


def _audit(row: Row, resume: bool) -> Audit:
    state, message = str(row["state"]), row.get("status_message")
    continuous = row["audit_type"] == "CONTINUOUS"
    if continuous and state in {AuditState.PENDING, AuditState.ONGOING} and not resume:
        state = AuditState.SUSPENDED
    elif not continuous and state == AuditState.ONGOING:
        # An EVENT audit waits for its next webhook; a ONESHOT one would act on a cloud that has moved on.
        event = row["audit_type"] == "EVENT"
        state, message = (AuditState.PENDING, message) if event else (AuditState.CANCELLED, STOPPED)
    elif row["audit_type"] == "ONESHOT" and state == AuditState.PENDING:
        state, message = AuditState.CANCELLED, STOPPED
    return Audit(
        **_common(row),
        name=row.get("name") or str(row["uuid"]),
        audit_type=str(row["audit_type"]),
        state=state,
        status_message=message,
        parameters=_json("audits", row, "parameters", dict),
        interval=None if row.get("interval") is None else str(row["interval"]),
        goal_id=int(row["goal_id"]),
        strategy_id=row.get("strategy_id"),
        scope=_json("audits", row, "scope", list),
        auto_trigger=bool(row.get("auto_trigger")),
        next_run_time=_time(row.get("next_run_time")),
        start_time=_time(row.get("start_time")),
        end_time=_time(row.get("end_time")),
        force=bool(row.get("force")),
    )


def _plan(row: Row) -> tuple[ActionPlan, bool]:
    """The plan, and whether it was cut off."""
    state, message = str(row["state"]), row.get("status_message")
    cut = state in {PlanState.PENDING, PlanState.ONGOING, PlanState.CANCELLING}
    efficacy = _json("action_plans", row, "global_efficacy", object)
    plan = ActionPlan(
        **_common(row),
        state=PlanState.CANCELLED if cut else state,
        status_message=STOPPED if cut else message,
        hostname=row.get("hostname"),
        audit_id=int(row["audit_id"]),
        strategy_id=int(row["strategy_id"]),
        candidate=-1,
        settled=True,  # there is nothing to measure
        global_efficacy=efficacy if isinstance(efficacy, list) else [efficacy] if efficacy else [],
    )
    return plan, cut


def _action(row: Row, stopped: set[int]) -> Action:
    state = str(row["state"])
    cut = row["action_plan_id"] in stopped and state in UNFINISHED
    return Action(
        **_common(row),
        action_plan_id=int(row["action_plan_id"]),
        action_type=str(row["action_type"]),
        input_parameters=_json("actions", row, "input_parameters", dict),
        state=ActionState.CANCELLED if cut else state,
        status_message=STOPPED if cut else row.get("status_message"),
        parents=[str(parent) for parent in _json("actions", row, "parents", list)],
    )


def _indicator(row: Row) -> EfficacyIndicator:
    value = row.get("data") if row.get("data") is not None else row.get("value")
    return EfficacyIndicator(
        **_common(row),
        action_plan_id=int(row["action_plan_id"]),
        name=row["name"],
        description=row.get("description"),
        unit=row.get("unit"),
        data=float(value or 0.0),
    )


def _json(table: str, row: Row, column: str, kind: Callable[[], Any]) -> Any:
    """A JSON column; null and what an older Watcher lacks are empty."""
    value = row.get(column)
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInput(f"{table}.{column} of row {row['id']} is no JSON: {error}") from error
    if value is None:
        return [] if kind is object else kind()
    if kind is not object and not isinstance(value, kind):  # type: ignore[arg-type]
        if not value:
            return kind()
        raise InvalidInput(f"{table}.{column} of row {row['id']} should be a {kind.__name__}: {value!r:.80}")
    return value


def _time(moment: datetime | str | None) -> datetime | None:
    """Watcher's times are UTC without saying so."""
    if moment is None:
        return None
    stated = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return stated.replace(tzinfo=UTC) if stated.tzinfo is None else stated.astimezone(UTC)
