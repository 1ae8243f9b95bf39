"""What happens to a cloud from outside, as data: hosts fail and come back, instances arrive and leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from trimtab.platform.errors import InvalidInput
from trimtab.simulator.world import World


class Happening(NamedTuple):
    """One thing that happens. `at`: cloud time, s. `kind`: a key of `KINDS`. `row`: of the host or instance."""

    at: float
    kind: str
    row: int


KINDS: Mapping[str, Callable[[World, int], object]] = {
    "host_down": World.lose_host,
    "host_up": World.restore_host,
    "evacuate": World.evacuate,
    "disable": lambda world, row: world.set_service(row, enabled=False),
    "enable": lambda world, row: world.set_service(row, enabled=True),
    "arrive": World.arrive,
    "depart": World.lose_instance,
}
OF_INSTANCES = ("arrive", "depart")


def schedule(world: World, happenings: Iterable[Happening]) -> None:
    """Put happenings into a world's events; those of the same time happen in the order given.

    What makes no sense when its time has come (an arrival of what is there, a host that is up coming up) does nothing.

    Raises:
        InvalidInput: a kind or row that does not exist, or a time that has passed; nothing has been scheduled then.
    """
    happenings = list(happenings)
    for number, happening in enumerate(happenings):
        what = f"happening {number} ({happening.kind} of row {happening.row} at {happening.at})"
        if happening.kind not in KINDS:
            raise InvalidInput(f"{what}: no such kind; use one of {', '.join(KINDS)}")
        rows = world.model.instances if happening.kind in OF_INSTANCES else world.model.hosts
        if not 0 <= happening.row < rows:
            raise InvalidInput(f"{what}: the model has rows 0 to {rows - 1}")
        if not world.events.now <= happening.at < float("inf"):
            raise InvalidInput(f"{what}: give a time from now ({world.events.now}) on")
    for happening in happenings:
        world.events.at(happening.at, partial(_happen, world, happening))


def _happen(world: World, happening: Happening) -> None:
    KINDS[happening.kind](world, happening.row)
