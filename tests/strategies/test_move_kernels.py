"""The compiled releases and single moves do what the slow and obvious ones do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from trimtab.platform.model.compute import Floats, Ints
from trimtab.strategies import receiving, reference_moves, releasing, warm
from trimtab.strategies.feasibility import Field, used_of

SEEDS = some.integers(0, 2**32 - 1)


def random_field(seed: int, *, many: bool = False) -> tuple[np.random.Generator, Field, Ints, Floats]:
    """A search field with zones, pins and groups in which nobody is over a limit; who is where; what is used."""
    rng = np.random.default_rng(seed)
    count, instances, groups = int(rng.integers(1, 9)), int(rng.integers(0, 25)), 3
    if many:
        count, instances = count * 10, instances * 6
    sizes = rng.integers(1, 7, (5, 4)) / 2
    members = np.where(rng.random(instances) < 0.3, rng.integers(0, groups, instances), -1)
    start = np.zeros(groups + 1, np.int32)
    np.cumsum(np.bincount(members[members >= 0], minlength=groups), out=start[1:])
    rows = np.flatnonzero(members >= 0)
    need = sizes[rng.integers(0, len(sizes), instances)].reshape(instances, 4)
    field = Field(
        limit=np.zeros((count, 4)),
        need=need,
        zone=rng.integers(0, 2, count).astype(np.int32),
        pinned=rng.choice([-1, -1, 0, 1], instances).astype(np.int32),
        group=members.astype(np.int32),
        start=start,
        members=rows[np.argsort(members[rows], kind="stable")].astype(np.int32),
        policy=np.array([0, 1, 2], np.int8),
    )
    host_of = rng.integers(-1, count, instances).astype(np.int32)
    used = used_of(field, host_of)
    return rng, field._replace(limit=used + rng.integers(0, 13, (count, 4)) / 2), host_of, used


def pairs(moves: Ints) -> list[tuple[int, int]]:
    return [(int(instance), int(host)) for instance, host in moves]


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, attempts=some.integers(0, 3), many=some.booleans())
def test_releasing_is_the_reference(seed: int, attempts: int, many: bool) -> None:
    """With many hosts the order is not made anew after every donor."""
    rng, field, host_of, used = random_field(seed, many=many)
    hosts = len(used)
    receives, donates = rng.random(hosts) < 0.8, rng.random(hosts) < 0.8
    size = rng.integers(0, 3, len(host_of)).astype(float)
    # Powers of two: sums are exact, so that equals are equal in both.
    worth, base = rng.choice([0.0, 0.5, 1.0, 2.0], (hosts, 4)), rng.integers(-4, 4, hosts).astype(float)
    first = rng.choice([0.0, 1.0], hosts)
    fast = host_of.copy(), used.copy(), receives.copy()
    slow = host_of.copy(), used.copy(), receives.copy()
    moves, emptied = releasing.release(field, *fast, donates, size, worth, base, first, attempts)
    expected, hosts_emptied = reference_moves.release(field, *slow, donates, size, worth, base, first, attempts)
    assert pairs(moves) == expected
    assert emptied.tolist() == hosts_emptied
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_allclose(fast[1], slow[1])
    np.testing.assert_array_equal(fast[2], slow[2])


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, most=some.integers(0, 9), one_batch=some.booleans())
def test_receiving_is_the_reference(seed: int, most: int, one_batch: bool) -> None:
    rng, field, host_of, used = random_field(seed)
    receives = rng.random(len(used)) < 0.6
    key = rng.integers(0, 4, len(used)).astype(float)
    key[rng.random(len(used)) < 0.1] = np.inf
    adds = rng.choice([0.0, 1.0], len(host_of))
    queue = rng.permutation(np.flatnonzero((host_of >= 0) & ~np.append(receives, False)[host_of])).astype(np.int32)
    batch = np.sort(rng.integers(0, 4, len(queue))).astype(np.int32)
    fast, slow = (host_of.copy(), used.copy()), (host_of.copy(), used.copy())
    keys = key.copy(), key.copy()
    moves = receiving.receive(field, *fast, receives, keys[0], adds, queue, batch, most, one_batch)
    expected = reference_moves.receive(field, *slow, receives, keys[1], adds, queue, batch, most, one_batch)
    assert pairs(moves) == expected
    np.testing.assert_array_equal(keys[0], keys[1])
    np.testing.assert_allclose(fast[1], slow[1])


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, most=some.integers(0, 9), threshold=some.sampled_from([0.25, 0.5, 0.75]))
def test_evening_out_is_the_reference(seed: int, most: int, threshold: float) -> None:
    rng, field, host_of, used = random_field(seed)
    size = rng.choice([8.0, 16.0], len(used))
    field.limit[:, 3] = threshold * size
    part = rng.random(len(used)) < 0.9
    free = (host_of >= 0) & (rng.random(len(host_of)) < 0.8)
    amount = np.where(rng.random(len(host_of)) < 0.1, 0.0, field.need[:, 3])
    field.need[:, 3] = amount
    used = used_of(field, host_of)
    fast = host_of.copy(), used.copy(), part, used[:, 3].copy(), size, amount, free.copy()
    slow = host_of.copy(), used.copy(), part, used[:, 3].copy(), size, amount, free.copy()
    moves = receiving.even_out(field, *fast, threshold, most)
    assert pairs(moves) == reference_moves.even_out(field, *slow, threshold, most)
    np.testing.assert_allclose(fast[3], slow[3])
    np.testing.assert_array_equal(fast[6], slow[6])


def test_the_tree_finds_every_host_with_room_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        hosts = int(rng.integers(1, 40))
        limit, need = rng.integers(0, 6, (hosts, 3)).astype(float), rng.integers(0, 6, (5, 3)).astype(float)
        empty = np.empty(0, np.int32)
        field = Field(limit, need, empty, empty, empty, empty, empty, np.empty(0, np.int8))
        used, unit = np.zeros((hosts, 3)), releasing.units(field)
        leaves = 64
        tree = np.full((2 * leaves, 4), -np.inf)
        open_ = rng.random(hosts) < 0.8
        for host in range(hosts):
            releasing.set_room(tree, leaves, host, field, unit, used, host, bool(open_[host]))
        for instance in range(5):
            found, at = [], 0
            while (at := releasing.next_with_room(tree, leaves, field, unit, instance, at)) >= 0:
                found.append(at)
                at += 1
            assert found == np.flatnonzero(open_ & (limit >= need[instance]).all(axis=1)).tolist()


def test_warming_up_compiles_these_kernels_too() -> None:
    warm.warm()
    for kernel in (releasing.release, receiving.receive, receiving.even_out):
        assert len(kernel.signatures) >= 1


def test_rounds_let_hosts_take_turns() -> None:
    host_of = np.array([0, 0, 0, 1, 1, 2], np.int32)
    key = np.array([5.0, 5.0, 5.0, 1.0, 1.0, 3.0])
    queue, turn = receiving.in_rounds(host_of, key, np.array([2, 1, 0, 3, 4, 5]))
    assert queue.tolist() == [3, 5, 2, 4, 1, 0]
    assert turn.tolist() == [0, 0, 0, 1, 1, 2]
    queue, turn = receiving.in_rounds(host_of[:0], key[:0], np.empty(0, np.intp))
    assert len(queue) == len(turn) == 0
