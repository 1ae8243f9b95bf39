"""The searches once more, slow and obvious: what the compiled kernels are compared with.

Nothing here is used by a strategy; every function takes the same arguments as its compiled twin and changes the same
arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimtab.platform.model import GroupPolicy
from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.platform.model.placement import ROUNDING
from trimtab.strategies.draining import ROUNDS
from trimtab.strategies.feasibility import Field
from trimtab.strategies.levelling import CYCLE, LEAST_GAIN, RETRY


def allowed(field: Field, host_of: Ints, used: Floats, instance: int) -> Bools:
    """Hosts that may take an instance, [H]: room, zone and server group; not where it is."""
    ok = (used + field.need[instance] <= field.limit + ROUNDING).all(axis=1)
    ok[host_of[instance]] = False
    if field.pinned[instance] >= 0:
        ok &= field.zone == field.pinned[instance]
    group = field.group[instance]
    if group < 0:
        return np.asarray(ok)
    peers = [p for p in np.flatnonzero(field.group == group) if p != instance and host_of[p] >= 0]
    together = np.bincount(host_of[peers], minlength=len(ok)) if peers else np.zeros(len(ok), int)
    if field.policy[group] == GroupPolicy.ANTI_AFFINITY:
        ok &= together == 0
    if field.policy[group] == GroupPolicy.AFFINITY and peers:
        ok &= (together > 0) & (together >= together[host_of[instance]])
    return np.asarray(ok)


def move(field: Field, host_of: Ints, used: Floats, instance: int, host: int) -> None:
    """Put an instance on a host."""
    used[host_of[instance]] -= field.need[instance]
    used[host] += field.need[instance]
    host_of[instance] = host


def fullest(field: Field, host_of: Ints, used: Floats, instance: int, hosts: Bools, weight: Floats) -> int:
    """Of some hosts the allowed one with the least weighted room left over; -1 when there is none."""
    ok = np.flatnonzero(allowed(field, host_of, used, instance) & hosts)
    if not len(ok):
        return -1
    rest = np.zeros(len(ok))
    for r in range(len(weight)):
        rest += (weight[r] * (field.limit[ok, r] - used[ok, r] - field.need[instance, r])) ** 2
    return int(ok[np.argmin(rest)])


def drain(field: Field, host_of: Ints, used: Floats, receives: Bools, donors: Ints, weight: Floats) -> int:
    """See `draining.drain`; a donor whose instances all find room is emptied, the others stay as they are."""
    emptied = 0
    latest = np.zeros(len(host_of), int)  # what came to a host last is looked at first
    moment = 0
    for _ in range(ROUNDS):
        before = emptied
        for donor in donors:
            guests = np.flatnonzero(host_of == donor)
            guests = guests[np.lexsort((guests, -latest[guests]))]
            size = np.zeros(len(guests))
            for r in range(len(weight)):
                size -= weight[r] * field.need[guests, r]
            guests = guests[np.argsort(size, kind="stable")]
            as_before = host_of.copy()
            placed = 0
            for guest in guests.tolist():
                target = fullest(field, host_of, used, guest, receives, weight)
                if target < 0:
                    break
                move(field, host_of, used, guest, target)
                placed += 1
            if placed < len(guests):
                for guest in guests[:placed].tolist():
                    move(field, host_of, used, guest, int(as_before[guest]))
            elif placed:
                latest[guests] = moment + 1 + np.arange(len(guests))
                moment += len(guests)
                receives[donor] = False
                emptied += 1
        if emptied == before:
            break
    return emptied


def relieve(
    field: Field,
    host_of: Ints,
    used: Floats,
    watched: Bools,
    tier: npt.NDArray[np.int8],
    movable: Bools,
    overloaded: Ints,
    weight: Floats,
    cost: Floats,
) -> None:
    """See `draining.relieve`; each instance of an overloaded host is tried once, the one that helps most first."""
    for source in overloaded:
        left = [int(guest) for guest in np.flatnonzero((host_of == source) & movable)]
        while True:
            over = used[source] - field.limit[source]
            excess = np.where(watched[source] & (over > ROUNDING), over, 0.0)
            heavy = excess > 0
            if not heavy.any():
                break
            share = {guest: min(1.0, (field.need[guest, heavy] / excess[heavy]).min()) for guest in left}
            useful = [guest for guest in left if share[guest] > 0]
            if not useful:
                break
            guest = min(useful, key=lambda one: (-share[one], cost[one], one))
            left.remove(guest)
            targets = [fullest(field, host_of, used, guest, tier == level, weight) for level in (1, 2, 3)]
            target = next((host for host in targets if host >= 0), -1)
            if target >= 0:
                move(field, host_of, used, guest, target)
                tier[target] = 1


def level(
    field: Field,
    host_of: Ints,
    used: Floats,
    load: Floats,
    amount: Floats,
    scale: Floats,
    weight: Floats,
    threshold: Floats,
    free: Bools,
    hosts: Ints,
    choice: int,
    tries: int,
    turn: int,
    most: int,
) -> tuple[list[tuple[int, int]], int, bool]:
    """See `levelling.level`: tries every instance on every host that `choice` lets it look at and takes the best."""
    moves: list[tuple[int, int]] = []
    idle = 0
    while len(moves) < most:
        if (load[:, hosts].std(axis=1) <= threshold).all():
            return moves, turn, True
        now = float(weight @ load[:, hosts].std(axis=1))
        pressure = (weight if len(weight) > 1 else np.ones(1)) @ load[:, hosts]
        order = hosts[np.argsort(pressure, kind="stable")]
        if choice == CYCLE:
            order = hosts[[turn % len(hosts)]]
            turn = (turn + 1) % len(hosts)
        best, least = None, now * (1 - LEAST_GAIN)
        for instance in np.flatnonzero(free).tolist():
            ok = allowed(field, host_of, used, instance)
            looked_at = [host for host in order.tolist() if ok[host]]
            for host in looked_at[: tries if choice == RETRY else None]:
                trial = load.copy()
                trial[:, host_of[instance]] -= amount[:, instance] / scale[:, host_of[instance]]
                trial[:, host] += amount[:, instance] / scale[:, host]
                value = float(weight @ trial[:, hosts].std(axis=1))
                if value < least:
                    best, least = (instance, host), value
        if best is None:
            idle += 1
            if choice != CYCLE or idle >= len(hosts):
                return moves, turn, True
            continue
        idle = 0
        instance, host = best
        load[:, host_of[instance]] -= amount[:, instance] / scale[:, host_of[instance]]
        load[:, host] += amount[:, instance] / scale[:, host]
        move(field, host_of, used, instance, host)
        free[instance] = False
        moves.append(best)
    return moves, turn, False
