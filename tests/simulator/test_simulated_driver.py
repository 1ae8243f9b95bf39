"""Driver and datasource keep the contracts' promises over any way of calling."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

from trimtab.platform.contracts import Datasource, Driver, Inventory, Migration, Server, ServiceInfo
from trimtab.platform.errors import CloudConflict, CloudNotFound
from trimtab.platform.snapshot import Need
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDatasource, SimulatedDriver, local_call
from trimtab.simulator.truth import CloudSpec


async def test_the_same_answers_in_this_process_and_through_pickles(spec: CloudSpec) -> None:
    near, far = SimulatedCloud(spec), SimulatedCloud(spec)

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        method, arguments, named = pickle.loads(pickle.dumps((method, arguments, named)))
        try:
            return pickle.loads(pickle.dumps(getattr(far, method)(*arguments, **named)))
        except Exception as error:  # noqa: BLE001 - as an actor would send it
            raise pickle.loads(pickle.dumps(error)) from None

    answers = []
    for cloud, how in ((near, local_call(near)), (far, call)):
        driver: Driver = SimulatedDriver(how)
        source: Datasource = SimulatedDatasource(how)
        inventory = await driver.inventory()
        assert isinstance(inventory, Inventory)
        rows = inventory.instances.to_pylist()
        moved = next(row["uuid"] for row in rows if row["state"] == "active")
        host = str(inventory.hosts["hostname"][3].as_py())
        await driver.migrate(moved, None, live=True)
        with pytest.raises(CloudConflict, match="busy"):
            await driver.migrate(moved, None, live=True)
        with pytest.raises(CloudNotFound):
            await driver.migrate("nobody", None, live=True)
        await driver.abort_migration(moved)
        service = await driver.set_service(host, enabled=False, reason="why not")
        assert isinstance(service, ServiceInfo)
        assert await driver.service(host) == service
        assert await driver.service("nowhere") is None
        assert inventory.storage is not None
        assert inventory.metal is not None
        still = next(row["uuid"] for row in rows if row["state"] == "active" and row["uuid"] != moved)
        await driver.stop(still)
        with pytest.raises(CloudConflict, match="busy"):
            await driver.start(still)
        volume = next(row for row in inventory.storage[3].to_pylist() if not row["snapshots"] and row["type"])
        await driver.retype_volume(
            volume["uuid"], next(k.name for k in await driver.volume_types() if k.name != volume["type"])
        )
        with pytest.raises(CloudNotFound):
            await driver.migrate_volume(volume["uuid"], "nowhere")
        node = inventory.metal["uuid"][0].as_py()
        with pytest.raises(CloudConflict, match="on already"):
            await driver.set_power(node, on=True)
        grown = next(
            row
            for row in rows
            if row["flavor"] == "m1.small" and row["state"] == "active" and row["uuid"] not in {moved, still}
        )
        (flavor,) = (await driver.flavors(["m1.medium", "none"])).values()
        await driver.resize(grown["uuid"], flavor.id)
        with pytest.raises(CloudConflict):
            await driver.confirm_resize(grown["uuid"])
        others = [
            await driver.residents(host),
            await driver.volumes([volume["uuid"], "nobody"]),
            await driver.pools(),
            await driver.metal_node(node),
            await driver.metal_node("nobody"),
        ]
        servers, migrations = await driver.servers([moved, "nobody"]), await driver.migrations(moved)
        assert all(isinstance(server, Server) for server in servers.values())
        assert all(isinstance(migration, Migration) for migration in migrations)
        need = Need("host_cpu_usage", "host", "mean", 600)
        table = await source.aggregate([need], cloud.now())
        assert isinstance(table, pa.Table)
        samples = await source.samples("instance_cpu_usage", "instance", cloud.now() - 900, cloud.now())
        answers.append(
            (rows, service, servers, migrations, table.to_pylist(), samples.to_pylist(), source.name, others)
        )
    assert answers[0] == answers[1]
    assert answers[0][4]
    assert answers[0][5]
