"""Releases and single moves once more, slow and obvious: what `releasing` and `receiving` are compared with.

Nothing here is used by a strategy; every function takes the same arguments as its compiled twin and changes the same
arrays.
"""

from __future__ import annotations

import numpy as np

from trimtab.platform.model.compute import Bools, Floats, Ints
from trimtab.strategies.feasibility import Field
from trimtab.strategies.reference import allowed, move
from trimtab.strategies.releasing import REFRESHES

Moves = list[tuple[int, int]]


def release(
    field: Field,
    host_of: Ints,
    used: Floats,
    receives: Bools,
    donates: Bools,
    size: Floats,
    worth: Floats,
    base: Floats,
    first: Floats,
    attempts: int,
) -> tuple[Moves, list[int]]:
    """See `releasing.release`; every guest looks at all receivers in their order."""
    guests_of = {
        host: sorted(np.flatnonzero(host_of == host).tolist(), key=lambda one: (-size[one], one))
        for host in range(len(receives))
    }
    waiting = {host for host in range(len(receives)) if donates[host] and guests_of[host]}
    batch = max(1, len(waiting) // REFRESHES)
    moves: Moves = []
    emptied: list[int] = []
    failures = 0
    while waiting:
        load = (worth * used).sum(axis=1)
        donors = sorted(waiting, key=lambda host: (first[host] + load[host], -host))
        tried = 0
        order = sorted(range(len(receives)), key=lambda host: (-(base[host] + load[host]), host))
        for donor in donors:
            if donor not in waiting:
                continue
            if tried == batch:
                break
            tried += 1
            waiting.remove(donor)
            made: Moves = []
            for guest in guests_of[donor]:
                ok = allowed(field, host_of, used, guest) & receives
                host = next((host for host in order if ok[host]), -1)
                if host < 0:
                    break
                move(field, host_of, used, guest, host)
                made.append((guest, host))
            if len(made) < len(guests_of[donor]):
                for guest, _ in reversed(made):
                    move(field, host_of, used, guest, donor)
                failures += 1
                if attempts and failures > attempts:
                    return moves, emptied
                continue
            failures = 0
            receives[donor] = False
            emptied.append(donor)
            moves += made
            waiting -= {host for _, host in made}
    return moves, emptied


def lowest(field: Field, host_of: Ints, used: Floats, receives: Bools, key: Floats, instance: int) -> int:
    """See `receiving.lowest`."""
    ok = np.flatnonzero(allowed(field, host_of, used, instance) & receives & (key < np.inf))
    return int(ok[np.argmin(key[ok])]) if len(ok) else -1


def receive(
    field: Field,
    host_of: Ints,
    used: Floats,
    receives: Bools,
    key: Floats,
    adds: Floats,
    queue: Ints,
    batch: Ints,
    most: int,
    one_batch: bool,
) -> Moves:
    """See `receiving.receive`; every instance looks at all receivers."""
    moves: Moves = []
    given: set[int] = set()
    for instance, number in zip(queue.tolist(), batch.tolist(), strict=True):
        if len(moves) == most or (one_batch and given and number not in given):
            break
        host = lowest(field, host_of, used, receives, key, instance)
        if host >= 0:
            move(field, host_of, used, instance, host)
            key[host] += adds[instance]
            moves.append((instance, host))
            given.add(number)
    return moves


def even_out(
    field: Field,
    host_of: Ints,
    used: Floats,
    part: Bools,
    load: Floats,
    size: Floats,
    amount: Floats,
    free: Bools,
    threshold: float,
    most: int,
) -> Moves:
    """See `receiving.even_out`; every instance of the most loaded host looks at all receivers."""
    moves: Moves = []
    whole = float(load[part].sum() / size[part].sum()) if part.any() else 0.0
    gives = part & (load >= threshold * size)
    receives = part & ~gives
    while len(moves) < most and gives.any():
        share = np.where(part, load / size, -np.inf)
        source = int(np.argmax(np.where(gives, share, -np.inf)))
        surplus = load[source] - whole * size[source]
        guests = [one for one in np.flatnonzero(free & (host_of == source)).tolist() if amount[one] > 0]
        fine = sorted((one for one in guests if amount[one] <= surplus), key=lambda one: (-amount[one], one))
        large = sorted((one for one in guests if amount[one] > surplus), key=lambda one: (amount[one], one))
        for guest in fine + large:
            host = lowest(field, host_of, used, receives, share, guest)
            if host >= 0:
                move(field, host_of, used, guest, host)
                load[source] -= amount[guest]
                load[host] += amount[guest]
                free[guest] = False
                moves.append((guest, host))
                gives[source] = load[source] >= threshold * size[source]
                break
        else:
            gives[source] = False
    return moves
