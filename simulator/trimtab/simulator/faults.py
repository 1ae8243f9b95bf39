"""Things that go wrong in the simulated cloud because somebody asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.migration import Mishap
from trimtab.simulator.world import World

KINDS: Mapping[str, str] = {
    "migration_fails": "the running or else the next migration of a server fails at its end",
    "migration_hangs": "the running or else the next migration of a server never gets on; it can be aborted",
    "migration_slow": "the running or else the next migration of a server is slower by `factor`",
    "server_vanishes": "a server is deleted",
    "host_dies": "a host goes down with all that is on it",
    "host_recovers": "a host that is down comes back, and what is on it starts again",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What (a key of `KINDS`), whom (uuid of a server or name of a host), and when (cloud time; None: at once)."""

    kind: str
    target: str
    at: float | None = None
    factor: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInput(f"fault {self.kind!r} does not exist: use one of {', '.join(KINDS)}")
        if not self.factor >= 1:
            raise InvalidInput(f"fault factor is {self.factor}: it must be 1 or more")

    @property
    def of_host(self) -> bool:
        """Whether the target is a host."""
        return self.kind in {"host_dies", "host_recovers"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a JSON object with the fields of this class; `at` may be "now".

        Raises:
            InvalidInput: a field is missing, unknown or wrong.
        """
        given = dict(values)
        try:
            at = given.pop("at", None)
            return cls(at=None if at in {None, "now"} else float(at), **given)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"fault {dict(values)}: {error}; give kind, target, and if you like at, factor"
            ) from error

    def strike(self, world: World, row: int) -> None:
        """Let it happen to the target's row."""
        if self.kind == "host_dies":
            world.lose_host(row)
        elif self.kind == "host_recovers":
            world.restore_host(row)
        elif self.kind == "server_vanishes":
            world.lose_instance(row)
        elif self.kind == "migration_slow":
            world.upset(row, Mishap(slower=self.factor))
        else:
            world.upset(row, Mishap(fails=self.kind == "migration_fails", hangs=self.kind == "migration_hangs"))
