"""The collector's storage and baremetal models: there when asked for, and a part that fails harms no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.platform.recorder import Recorder

from trimtab.platform.collector import Collector
from trimtab.platform.contracts import Inventory
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver, local_call
from trimtab.simulator.truth import CloudSpec

ALL = ("compute", "storage", "baremetal")
SPEC = CloudSpec(hosts=4, instances=12, seed=5, start_s=20_000 * 86_400.0, speed=0.0, history_s=3600.0)


class Scene:
    """A cloud whose inventory may be made worse on its way."""

    def __init__(self, folder: Path) -> None:
        self.cloud = SimulatedCloud(SPEC)
        self.worse: Callable[[Inventory], Inventory] = lambda inventory: inventory
        self.collector = Collector(
            SimulatedDriver(self.call), SimulatedDatasource(self.call), Recorder(folder / "metrics"), 3600.0
        )

    async def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        answer = await local_call(self.cloud)(method, arguments, named)
        return self.worse(answer) if method == "inventory" else answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_snapshots_hold_the_models_that_were_asked_for(scene: Scene) -> None:
    snapshot = await scene.collector.freeze([], [], (), ALL)
    assert snapshot.storage is not None
    assert snapshot.baremetal is not None
    assert snapshot.notes == ()
    inventory = scene.cloud.inventory()
    assert snapshot.storage.to_arrow() == inventory.storage
    assert snapshot.baremetal.to_arrow() == inventory.metal
    plain = await scene.collector.freeze([], [])
    assert (plain.storage, plain.baremetal) == (None, None)
    only = await scene.collector.freeze([], [], (), ("compute", "baremetal"))
    assert only.storage is None
    assert only.baremetal is snapshot.baremetal


async def test_the_scope_narrows_all_models_and_says_what_it_named_in_vain(scene: Scene) -> None:
    tables = scene.cloud.inventory()
    assert tables.storage is not None
    assert tables.metal is not None
    pool, node = tables.storage[1]["name"][0].as_py(), tables.metal["uuid"][0].as_py()
    scope = [
        {"storage": [{"exclude": [{"storage_pools": [{"name": pool}]}, {"volumes": [{"uuid": "nobody"}]}]}]},
        {"baremetal": [{"exclude": [{"ironic_nodes": [{"uuid": node}]}]}]},
    ]
    snapshot = await scene.collector.freeze(scope, [], (), ALL)
    assert snapshot.storage is not None
    assert snapshot.baremetal is not None
    assert pool not in snapshot.storage.pool_names.to_pylist()
    assert snapshot.baremetal.excluded.tolist() == [True, False, False, False]
    assert snapshot.notes == ("scope: there is no volume nobody",)
    assert (await scene.collector.freeze(scope, [])).notes == ()  # nobody asked about volumes


async def test_a_part_that_cannot_be_read_is_noted_and_its_last_good_model_kept(scene: Scene) -> None:
    await scene.collector.collect()
    first = scene.collector.storage
    scene.worse = lambda given: given._replace(storage=None, faults=(("storage", "cinder is away"),))
    version = await scene.collector.collect()
    assert version == 2
    snapshot = await scene.collector.freeze([], [], (), ALL)
    assert snapshot.storage is first
    assert snapshot.version == 2
    assert snapshot.notes == ("the storage model is stale: cinder is away",)
    assert (await scene.collector.freeze([], [])).notes == ()
    scene.worse = lambda given: given
    await scene.collector.collect()
    healed = await scene.collector.freeze([], [], (), ALL)
    assert healed.notes == ()
    assert healed.storage is not first


async def test_a_part_that_makes_no_model_is_noted_with_its_row(scene: Scene) -> None:
    def twice(given: Inventory) -> Inventory:
        assert given.metal is not None
        return given._replace(metal=pa.concat_tables([given.metal, given.metal.slice(0, 1)]))

    scene.worse = twice
    snapshot = await scene.collector.freeze([], [], (), ALL)
    assert snapshot.baremetal is None
    assert snapshot.storage is not None
    (note,) = snapshot.notes
    assert note.startswith("the baremetal model is not to be had: metal_nodes row 4 (")


async def test_a_cloud_without_storage_or_metal_says_so_to_who_asks(scene: Scene) -> None:
    scene.worse = lambda given: given._replace(storage=None, metal=None)
    snapshot = await scene.collector.freeze([], [], (), ALL)
    assert (snapshot.storage, snapshot.baremetal) == (None, None)
    assert snapshot.notes == (
        "the storage model is not to be had: the cloud has no block storage service",
        "the baremetal model is not to be had: the cloud has no metal service",
    )
    assert scene.collector.fault is None
    assert (await scene.collector.freeze([], [])).notes == ()
