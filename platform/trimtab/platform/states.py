"""State machines: (state, event) -> state. Nothing else in the project decides a state."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from trimtab.platform.errors import IllegalTransition


class AuditState(StrEnum):
    """Watcher's audit states."""

    PENDING = "PENDING"
    ONGOING = "ONGOING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


class PlanState(StrEnum):
    """Watcher's action plan states."""

    RECOMMENDED = "RECOMMENDED"
    PENDING = "PENDING"
    ONGOING = "ONGOING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    DELETED = "DELETED"


class ActionState(StrEnum):
    """Watcher's action states."""

    PENDING = "PENDING"
    ONGOING = "ONGOING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    DELETED = "DELETED"


class WhatIfState(StrEnum):
    """States of a what-if sweep."""

    PENDING = "PENDING"
    ONGOING = "ONGOING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    DELETED = "DELETED"


class Machine(NamedTuple):
    """One kind of record: its states and its edges."""

    kind: str
    states: type[StrEnum]
    edges: Mapping[tuple[str, str], str]

    def after(self, state: str, event: str) -> str:
        """The state that follows.

        Raises:
            IllegalTransition: there is no such edge.
        """
        try:
            return self.edges[state, event]
        except KeyError:
            possible = ", ".join(sorted(e for s, e in self.edges if s == state)) or "nothing"
            raise IllegalTransition(f"{self.kind} is {state}: cannot {event}; possible now: {possible}") from None

    def event_to(self, state: str, target: str) -> str:
        """The event that leads from one state to another, for clients that name the state they want.

        Raises:
            IllegalTransition: no edge leads there.
        """
        for (source, event), destination in self.edges.items():
            if source == state and destination == target:
                return event
        raise IllegalTransition(f"State transition not allowed: ({state} -> {target})")


A, P, X = AuditState, PlanState, ActionState

AUDIT = Machine(
    "audit",
    AuditState,
    {
        (A.PENDING, "run"): A.ONGOING,  # an engine took it
        (A.SUCCEEDED, "trigger"): A.ONGOING,  # an EVENT audit's webhook
        (A.ONGOING, "succeed"): A.SUCCEEDED,
        (A.ONGOING, "ran"): A.ONGOING,  # a run of a CONTINUOUS audit
        (A.ONGOING, "fail"): A.FAILED,
        (A.PENDING, "expire"): A.SUCCEEDED,  # the end_time of a CONTINUOUS audit
        (A.ONGOING, "expire"): A.SUCCEEDED,
        (A.PENDING, "cancel"): A.CANCELLED,
        (A.ONGOING, "cancel"): A.CANCELLED,
        (A.ONGOING, "suspend"): A.SUSPENDED,
        (A.SUSPENDED, "resume"): A.ONGOING,
        (A.SUSPENDED, "cancel"): A.CANCELLED,  # its goal or strategy is not what it was
        # Suspending does not break a run off; what it brings is kept.
        (A.SUSPENDED, "ran"): A.SUSPENDED,
        (A.SUSPENDED, "succeed"): A.SUCCEEDED,
        (A.SUSPENDED, "fail"): A.FAILED,
        (A.FAILED, "delete"): A.DELETED,
        (A.SUCCEEDED, "delete"): A.DELETED,
        (A.CANCELLED, "delete"): A.DELETED,
        (A.SUSPENDED, "delete"): A.DELETED,
    },
)

PLAN = Machine(
    "action plan",
    PlanState,
    {
        (P.RECOMMENDED, "start"): P.PENDING,  # a person said go
        (P.RECOMMENDED, "launch"): P.ONGOING,  # auto_trigger
        (P.RECOMMENDED, "supersede"): P.SUPERSEDED,
        (P.RECOMMENDED, "cancel"): P.CANCELLED,
        (P.PENDING, "cancel"): P.CANCELLED,
        (P.PENDING, "run"): P.ONGOING,  # an applier took it
        (P.ONGOING, "cancel"): P.CANCELLING,  # running actions still end
        (P.ONGOING, "succeed"): P.SUCCEEDED,
        (P.ONGOING, "fail"): P.FAILED,
        (P.CANCELLING, "stopped"): P.CANCELLED,
        (P.CANCELLING, "succeed"): P.SUCCEEDED,  # nothing was left to cancel
        (P.CANCELLING, "fail"): P.FAILED,
        (P.RECOMMENDED, "delete"): P.DELETED,
        (P.SUCCEEDED, "delete"): P.DELETED,
        (P.FAILED, "delete"): P.DELETED,
        (P.SUPERSEDED, "delete"): P.DELETED,
        (P.CANCELLED, "delete"): P.DELETED,
    },
)

ACTION = Machine(
    "action",
    ActionState,
    {
        (X.PENDING, "skip"): X.SKIPPED,
        (X.PENDING, "refuse"): X.FAILED,  # invalid parameters or a failed pre-condition
        (X.PENDING, "begin"): X.ONGOING,
        (X.PENDING, "cancel"): X.CANCELLED,
        (X.ONGOING, "succeed"): X.SUCCEEDED,
        (X.ONGOING, "fail"): X.FAILED,
        (X.ONGOING, "cancel"): X.CANCELLING,  # abort was asked for
        (X.CANCELLING, "stopped"): X.CANCELLED,
        (X.CANCELLING, "succeed"): X.SUCCEEDED,  # too late to abort
        (X.CANCELLING, "fail"): X.FAILED,
        (X.SUCCEEDED, "revert"): X.CANCELLING,  # rollback begins
        (X.SKIPPED, "cancel"): X.CANCELLED,  # with its whole plan
        **{(state, "delete"): X.DELETED for state in X if state != X.DELETED},
    },
)

W = WhatIfState

WHATIF = Machine(
    "what-if",
    WhatIfState,
    {
        (W.PENDING, "run"): W.ONGOING,
        (W.PENDING, "cancel"): W.CANCELLED,
        (W.ONGOING, "cancel"): W.CANCELLED,
        (W.ONGOING, "succeed"): W.SUCCEEDED,  # also when some cells failed: their rows say so
        (W.ONGOING, "fail"): W.FAILED,
        (W.SUCCEEDED, "delete"): W.DELETED,
        (W.FAILED, "delete"): W.DELETED,
        (W.CANCELLED, "delete"): W.DELETED,
    },
)

MACHINES: Mapping[str, Machine] = {"audit": AUDIT, "action_plan": PLAN, "action": ACTION, "what_if": WHATIF}
