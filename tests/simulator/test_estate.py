"""The made-up estate: sound, uneven, reproducible."""

import numpy as np
import pytest

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model import ClusterModel
from trimtab.platform.rules import groups_broken
from trimtab.simulator.estate import build_estate


def test_the_usual_estate_is_sound_and_badly_placed() -> None:
    model = ClusterModel.from_arrow(*build_estate())
    used, in_use = model.used(), np.bincount(model.host_of, minlength=model.hosts) > 0
    assert (model.hosts, model.instances) == (200, 2000)
    assert 190 <= in_use.sum() <= 198
    assert (used <= model.capacity).all()
    assert (model.host_of >= 0).all()
    assert not groups_broken(model, model.host_of).any()
    pinned = model.pinned_zone >= 0
    assert 0.15 < pinned.mean() < 0.35
    assert (model.zone.codes[model.host_of[pinned]] == model.pinned_zone[pinned]).all()
    assert len(model.group_ids) > 10
    # the larger half of the hosts could hold everything
    largest = np.sort(model.capacity[:, 1])[::-1]
    assert np.searchsorted(np.cumsum(largest), used[:, 1].sum()) < 110
    # some hosts hold far more virtual CPUs for their size than usual
    crowded = used[:, 0] / model.total[:, 0]
    assert (crowded > 3 * np.median(crowded)).sum() >= 4
    assert model.host_name(0) == "host-001"
    assert model.instance_name(1999) == "vm-2000"
    assert len({model.flavor[v] for v in range(2000)}) == 9


def test_the_same_seed_gives_the_same_estate_and_another_seed_another() -> None:
    first, again, other = build_estate(20, 150, 4), build_estate(20, 150, 4), build_estate(20, 150, 5)
    assert all(a.equals(b) for a, b in zip(first, again, strict=True))
    assert not first[1].equals(other[1])


@pytest.mark.parametrize(("hosts", "instances", "zones"), [(1, 3, 1), (3, 0, 2), (5, 40, 5), (40, 300, 3)])
def test_any_size_makes_a_model(hosts: int, instances: int, zones: int) -> None:
    model = ClusterModel.from_arrow(*build_estate(hosts, instances, 2, zones))
    assert (model.hosts, model.instances) == (hosts, instances)
    assert (model.used() <= model.capacity).all()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="1 <= zones <= hosts"):
        build_estate(2, 10, 1, 3)
    with pytest.raises(InvalidInput, match="give more hosts"):
        build_estate(2, 500, 1, 1)
