"""Things that go wrong in the simulated cloud because somebody asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.migration import Mishap
from trimtab.simulator.world import World

KINDS: Mapping[str, str] = {
    "migration_fails": "the running or else the next migration of a server fails at its end",
    "migration_hangs": "the running or else the next migration of a server never gets on; it can be aborted",
    "migration_slow": "the running or else the next migration of a server is slower by `factor`",
    "resize_fails": "the next stop, start or resize of a server fails",
    "resize_hangs": "the next stop, start or resize of a server has no end",
    "volume_fails": "the running or else the next move or retype of a volume fails at its end",
    "volume_hangs": "the running or else the next move or retype of a volume has no end",
    "volume_slow": "the running or else the next move or retype of a volume is slower by `factor`",
    "power_fails": "the next change of power of a metal node fails",
    "power_hangs": "the next change of power of a metal node has no end",
    "server_vanishes": "a server is deleted",
    "host_dies": "a host goes down with all that is on it",
    "host_recovers": "a host that is down comes back, and what is on it starts again",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What (a key of `KINDS`), whom, and when (cloud time; None: at once).

    The target is a server, a volume or a metal node by its uuid, or a host by its name: see `of`.
    """

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
    def of(self) -> str:
        """Of what kind the target is: server, host, volume or metal."""
        if self.kind.startswith("host_"):
            return "host"
        return {"volume": "volume", "power": "metal"}.get(self.kind.partition("_")[0], "server")

    @property
    def mishap(self) -> Mishap:
        """What goes wrong with a running thing, for those kinds that are about one."""
        if self.kind.endswith("_slow"):
            return Mishap(slower=self.factor)
        return Mishap(fails=self.kind.endswith("_fails"), hangs=self.kind.endswith("_hangs"))

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

    def strike(self, world: World, row: int, upset: Callable[[int, Mishap], None]) -> None:
        """Let it happen to the target's row; `upset` is told of mishaps of what is running on the target or will."""
        if self.kind == "host_dies":
            world.lose_host(row)
        elif self.kind == "host_recovers":
            world.restore_host(row)
        elif self.kind == "server_vanishes":
            world.lose_instance(row)
        else:
            upset(row, self.mishap)
