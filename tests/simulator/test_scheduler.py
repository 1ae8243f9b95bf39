"""The scheduler against Nova's algorithm written down host by host, and what each filter does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel, Placement
from trimtab.simulator.scheduler import Weights, choose_host, in_aggregate, valid_hosts, weigh, with_traits

POLICIES = ["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


def _random(seed: int) -> tuple[Placement, np.ndarray]:
    rng = np.random.default_rng(seed)
    hosts, instances = 6, 20
    size = rng.choice([4, 8, 16], hosts)
    model = ClusterModel.from_arrow(
        pa.table(
            {
                "uuid": [f"h{n}" for n in range(hosts)],
                "hostname": [f"host-{n}" for n in range(hosts)],
                "vcpus": size,
                "memory_mb": size * 4096,
                "disk_gb": rng.choice([100, 200, 400], hosts),
                "vcpu_ratio": rng.choice([1.0, 4.0], hosts),
                "memory_ratio": rng.choice([1.0, 1.5], hosts),
                "memory_mb_reserved": rng.choice([0, 512], hosts),
                "zone": rng.choice(["a", "b"], hosts),
            }
        ),
        pa.table(
            {
                "uuid": [f"v{n}" for n in range(instances)],
                "name": [f"vm-{n}" for n in range(instances)],
                "node": [f"h{h}" if h >= 0 else None for h in rng.integers(-1, hosts, instances)],
                "vcpus": rng.choice([1, 2, 6], instances),
                "memory_mb": rng.choice([512, 4096], instances),
                "disk_gb": rng.choice([10, 40], instances),
                "pinned_zone": rng.choice(["", "", "a", "b"], instances),
                "group": rng.choice(["", "", *(f"g{n}" for n in range(4))], instances),
            }
        ),
        pa.table({"uuid": [f"g{n}" for n in range(4)], "name": [f"g{n}" for n in range(4)], "policy": POLICIES}),
    )
    return model.placement(), rng.random(hosts) < 0.8


def _slow(place: Placement, v: int, candidates: np.ndarray, weights: Weights) -> int:
    """Nova's filters and weighers, host after host."""
    model, passed = place.model, list[int]()
    group = int(model.group[v])
    peers = [p for p in range(model.instances) if group >= 0 and model.group[p] == group and p != v]
    for host in range(model.hosts):
        free = (model.total[host] - model.reserved[host]) * model.ratio[host] - place.used[:, host]
        homes = {int(place.host_of[p]) for p in peers} - {-1}
        policy = POLICIES[model.group_policy[group]] if group >= 0 else ""
        if (
            candidates[host]
            and host != place.host_of[v]
            and all(model.demand[v] <= free)
            and all(model.demand[v] <= model.total[host])
            and (model.pinned_zone[v] < 0 or model.zone.codes[host] == model.pinned_zone[v])
            and (policy != "anti-affinity" or host not in homes)
            and (policy != "affinity" or not homes or host in homes)
        ):
            passed.append(host)
    if not passed:
        return -1
    totals = dict.fromkeys(passed, 0.0)

    def add(multiplier: float, raw: list[float], minval: float | None) -> None:
        low = min(raw) if minval is None else minval
        raw = [max(value, low) for value in raw]
        if max(raw) != low:
            for host, value in zip(passed, raw, strict=True):
                totals[host] += multiplier * (value - low) / (max(raw) - low)

    for r, multiplier in ((1, weights.ram), (0, weights.cpu), (2, weights.disk)):
        ratio = model.ratio[:, 0] if r == 0 else np.ones(model.hosts)
        add(multiplier, [model.total[h, r] * ratio[h] - model.reserved[h, r] - place.used[r, h] for h in passed], 0.0)
    there = [float(sum(place.host_of[p] == h for p in peers)) for h in passed]
    if group >= 0 and model.group_policy[group] == 2:
        add(weights.soft_affinity, there, None)
    if group >= 0 and model.group_policy[group] == 3:
        add(weights.soft_anti_affinity, [-count for count in there], None)
    return max(passed, key=lambda h: totals[h])  # the first of equals


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from([Weights(), Weights(-1, -1, 0), Weights(0, 0, 0, 5, 5)]))
def test_chooses_what_nova_would(seed: int, weights: Weights) -> None:
    place, candidates = _random(seed)
    for v in range(place.model.instances):
        chosen, slow = choose_host(place, v, candidates, weights), _slow(place, v, candidates, weights)
        if chosen != slow:  # only where rounding decides between equals
            assert min(chosen, slow) >= 0
            one, other = weigh(place, v, np.flatnonzero(valid_hosts(place, v, candidates)), weights)[
                np.searchsorted(np.flatnonzero(valid_hosts(place, v, candidates)), [chosen, slow])
            ]
            assert one == pytest.approx(other, abs=1e-12)


def test_spreads_by_default_and_stacks_when_told(small_model: Callable[..., ClusterModel]) -> None:
    place = small_model(3, [0, 0, 1, -1]).placement()
    everywhere = np.ones(3, bool)
    assert choose_host(place, 3, everywhere) == 2
    assert choose_host(place, 3, everywhere, Weights(-1, -1, -1)) == 0


def test_an_instance_larger_than_the_host_goes_nowhere_whatever_the_ratio(
    small_model: Callable[..., ClusterModel],
) -> None:
    model = small_model(2, [-1], [(10, 1000, 10)], host_vcpu_ratio=[16.0, 16.0])
    assert choose_host(model.placement(), 0, np.ones(2, bool)) == -1


def test_only_candidates_are_chosen(small_model: Callable[..., ClusterModel]) -> None:
    place = small_model(3, [-1]).placement()
    assert choose_host(place, 0, np.array([False, True, False])) == 1
    assert choose_host(place, 0, np.zeros(3, bool)) == -1


def test_aggregates_and_traits_narrow_the_candidates(small_model: Callable[..., ClusterModel]) -> None:
    model = small_model(
        3, [-1], host_aggregates=[["fast"], [], ["fast", "gpu"]], host_traits=[["SSD"], ["SSD", "OLD"], []]
    )
    assert in_aggregate(model, "fast").tolist() == [True, False, True]
    assert with_traits(model, ["SSD"], ["OLD"]).tolist() == [True, False, False]
    assert with_traits(model, ["NOBODY"]).tolist() == [False] * 3
    assert with_traits(model, forbidden=["NOBODY"]).tolist() == [True] * 3
    assert choose_host(model.placement(), 0, in_aggregate(model, "gpu")) == 2
    with pytest.raises(InvalidInput, match="no host is in an aggregate 'slow': there are fast, gpu"):
        in_aggregate(model, "slow")
