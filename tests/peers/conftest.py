"""What the peers share: the servers they talk to and the processes they run in, made once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.peers import environments, server
from tests.peers.identity import Keystone, keystone_in
from tests.peers.shells import Access
from tests.peers.workers import Worker


def needed(name: str) -> None:
    """Fail, with the reason, where an environment could not be made: a test that nobody runs guards nothing."""
    if (why := environments.missing(name)) is not None:
        pytest.fail(why, pytrace=False)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without authentication; its address."""
    try:
        with server.running(tmp_path_factory.mktemp("trimtab"), {}) as url:
            yield url
    except server.NotUpError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def trimtab(address: str) -> server.Trimtab:
    """The same server for plain requests."""
    return server.Trimtab(address, {})


@pytest.fixture(scope="session")
def nursery() -> Iterator[Worker]:
    """Where command-line programs come from."""
    needed("client")
    made = Worker("client", "shell_nursery.py")
    yield made
    made.close()


@pytest.fixture(scope="session")
def open_access(address: str) -> Access:
    """Without authentication: an endpoint and any token for `watcher`, an endpoint alone for `openstack`."""
    return Access(
        watcher={"OS_ENDPOINT_OVERRIDE": address, "OS_AUTH_TOKEN": "any"},
        openstack={"OS_AUTH_TYPE": "none", "OS_ENDPOINT": address},
    )


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """A real Keystone with one administrator, `admin` of the project `admin`."""
    needed("keystone")
    with keystone_in(tmp_path_factory.mktemp("keystone")) as made:
        yield made
