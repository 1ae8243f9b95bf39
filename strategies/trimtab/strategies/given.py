"""Moves whose destination somebody else has chosen: each is checked against room and rules as things then stand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.strategies.feasibility import Field, fits, may_join, put

DONE, THERE, UNUSABLE, RULE, ROOM = 0, 1, 2, 3, 4
REASONS = (
    "moved",
    "it is there already",
    "the destination is down or disabled",
    "its zone, server group or another rule forbids it",
    "the destination has no room",
)


@njit(cache=True)
def follow(
    field: Field, host_of: Ints, used: Floats, usable: Bools, instances: Ints, destinations: Ints
) -> npt.NDArray[np.int8]:
    """Make given moves one after another where they are possible; returns one of the codes above for each, [N]."""
    outcome = np.zeros(len(instances), np.int8)
    for n in range(len(instances)):
        instance, host = instances[n], destinations[n]
        if host_of[instance] == host:
            outcome[n] = THERE
        elif not usable[host]:
            outcome[n] = UNUSABLE
        elif not may_join(field, host_of, instance, host):
            outcome[n] = RULE
        elif not fits(field, used, instance, host):
            outcome[n] = ROOM
        else:
            put(field, host_of, used, instance, host)
    return outcome
