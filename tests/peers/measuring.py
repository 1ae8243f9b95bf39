"""What tests of real backends of measurements share: a configuration behind Keystone, and the way of our settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import openstack
from tests.peers.identity import Keystone
from tests.peers.workers import Worker

from trimtab.platform.datasources.known import Known
from trimtab.platform.datasources.ordered import Ordered
from trimtab.platform.openstack.rest import Rest
from trimtab.platform.settings import Settings
from trimtab.platform.snapshot import Need
from trimtab.serve.sources import sources_of


@contextmanager
def serving(name: str, kind: str, home: Path, keystone: Keystone, **sections: Mapping[str, object]) -> Iterator[str]:
    """Serve a backend in its environment, behind Keystone and in its catalogue as this kind of service; its address."""
    middleware = {
        "www_authenticate_uri": keystone.url,
        "auth_url": keystone.url,
        "auth_type": "password",
        "username": "admin",
        "password": keystone.passwords["admin"],
        "project_name": "admin",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "interface": "public",
    }
    lines: list[str] = []
    for section, options in {**sections, "keystone_authtoken": middleware}.items():
        lines += [f"[{section}]", *(f"{option} = {value}" for option, value in options.items())]
    config = home / f".{name}" / f"{name}.conf"  # where keystonemiddleware looks for it by itself
    config.parent.mkdir()
    config.write_text("\n".join(lines) + "\n")
    worker = Worker(name, "metrics_worker.py", name, str(config), settings={"HOME": str(home)})
    try:
        url: str = worker.ask(do="where")["url"]
        keystone.endpoint(name, kind, url)
        yield url
    finally:
        worker.close()


def source(keystone: Keystone, name: str, known: Known, user: str = "admin", project: str = "admin") -> Ordered:
    """One datasource as the settings make it, found in Keystone's catalogue."""
    connection = openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth={
            "auth_url": f"{keystone.url}/v3", "username": user, "password": keystone.passwords[user],
            "project_name": project, "user_domain_name": "Default", "project_domain_name": "Default",
        },
    )  # fmt: skip
    return sources_of(Settings.model_validate({"datasources": [name]}), Rest(connection), lambda: known)


async def values(asked: Ordered, at: float, *needs: Need) -> dict[tuple[str, str], float]:
    """What is measured, by metric and resource."""
    table = (await asked.aggregate(needs, at)).to_pylist()
    return {(needs[row["need"]].metric, row["resource"]): row["value"] for row in table}
