"""A connection to a cloud as clouds.yaml describes it: the normal way of every OpenStack tool."""

from __future__ import annotations

import time

import openstack
from openstack import exceptions as sdk

from trimtab.platform.errors import InvalidInput
from trimtab.platform.openstack.driver import OpenStackDriver
from trimtab.platform.openstack.rest import Rest


def rest_of(cloud: str | None, region: str | None = None, *, in_flight: int = 8, deadline_s: float = 120.0) -> Rest:
    """Requests to a cloud of clouds.yaml (None: of the OS_* environment variables).

    Raises:
        InvalidInput: there is no such cloud, or its entry is not whole; nothing is asked of the cloud itself yet.
    """
    try:
        connection = openstack.connect(cloud=cloud, region_name=region, app_name="trimtab")
    except (sdk.ConfigException, sdk.SDKException, ValueError) as error:
        raise InvalidInput(
            f"openstack.cloud = {cloud!r}: {error}; name a cloud of your clouds.yaml (OS_CLIENT_CONFIG_FILE says where)"
        ) from error
    return Rest(connection, in_flight=in_flight, deadline_s=deadline_s)


def driver_of(rest: Rest) -> OpenStackDriver:
    """The driver over these requests, by wall time."""
    return OpenStackDriver(rest, time.time)
