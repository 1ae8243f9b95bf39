"""Requests to OpenStack's services: openstacksdk's sessions in a few threads, patience, and refusals as our errors."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk
from openstack.connection import Connection
from openstack.utils import maximum_supported_microversion

from trimtab.platform.errors import CloudConflict, CloudError, CloudNotFound, CloudUnavailable

log = logging.getLogger(__name__)

AGAIN: Final = frozenset({408, 413, 429, 500, 502, 503, 504})  # answers of a service that may do better later
LONGEST_PAUSE_S: Final = 30.0
PAGE: Final = 1000
DOUBT_S: Final = 5.0  # how often at most a token is given up because of a service's trouble
# What we are written for; an older cloud is spoken to in what it knows.
NEWEST: Final = {"compute": "2.96", "placement": "1.39", "block_storage": "3.70", "baremetal": "1.90"}


class Rest:
    """Asks services for JSON; at most `in_flight` requests at a time.

    Reading is tried again, ever more rarely, until `deadline_s` is over. What changes the cloud is asked once: whether
    a request that was cut off had an effect only a look can tell, and that is for who asked. A token that has expired
    is replaced by keystoneauth, within the request; one that a service stumbles over, before the next request.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        in_flight: int = 8,
        timeout_s: float = 60.0,
        deadline_s: float = 120.0,
        pause_s: float = 0.5,
    ) -> None:
        self.connection = connection
        self.in_flight, self.timeout_s, self.deadline_s, self.pause_s = in_flight, timeout_s, deadline_s, pause_s
        self.calls: Counter[str] = Counter()  # requests sent, by service
        self._threads = ThreadPoolExecutor(in_flight, thread_name_prefix="openstack")
        self._versions: dict[str, str | None] = {}
        self._doubted_at = -math.inf
        self._discovering: dict[str, asyncio.Lock] = {}

    async def get(self, service: str, path: str, *, version: str | None = None, **params: Any) -> Any:
        """What a service answers to a question.

        Args:
            service: as openstacksdk calls it: compute, placement, block_storage, baremetal, ...
            path: below the service's endpoint.
            version: the newest microversion whose answer is understood; None for all we know.
            params: the query.

        Raises:
            CloudNotFound, CloudConflict: refused. CloudUnavailable: no answer within `deadline_s`.
        """
        give_up = time.monotonic() + self.deadline_s
        pause = self.pause_s
        while True:
            try:
                return await self._ask(service, "GET", path, version, params, None)
            except CloudUnavailable as error:
                if time.monotonic() + pause > give_up:
                    raise
                log.info("asking again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def change(
        self, service: str, method: str, path: str, body: Any = None, *, version: str | None = None
    ) -> Any:
        """Ask for a change, once; what the service answers.

        Raises:
            As `get`; after CloudUnavailable it may have had an effect or not.
        """
        return await self._ask(service, method, path, version, {}, body)

    async def pages(
        self, service: str, path: str, key: str, *, version: str | None = None, by: str = "id", **params: Any
    ) -> list[dict[str, Any]]:
        """All items of a list with pages, which follows `<key>_links`; `by`: what a page's last item is known by."""
        items: list[dict[str, Any]] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.get(service, path, version=version, limit=PAGE, **params, **marker)
            page = answer[key]
            items += page
            if not page or not any(link.get("rel") == "next" for link in answer.get(f"{key}_links", ())):
                return items
            marker = {"marker": page[-1][by]}

    async def offers(self, service: str) -> bool:
        """Whether the catalogue has this service."""
        try:
            await self._in_thread(lambda: self._proxy(service).get_endpoint_data())
        except CloudNotFound:
            return False
        return True

    async def door(
        self, service_type: str, interface: str, region: str | None, *, fresh: bool
    ) -> tuple[str, dict[str, str]]:
        """The address of a service that openstacksdk has no words for, and the headers with our token.

        Raises:
            CloudNotFound: the catalogue has no such service. CloudUnavailable: Keystone does not answer.
        """

        def ask() -> tuple[str, dict[str, str]]:
            session = self.connection.session
            if fresh:
                session.invalidate()
            address = session.get_endpoint(service_type=service_type, interface=interface, region_name=region)
            if address is None:
                raise CloudNotFound(f"the catalogue has no {interface} endpoint of {service_type}")
            return str(address), dict(session.get_auth_headers() or {})

        found: tuple[str, dict[str, str]] = await self._in_thread(ask)
        return found

    async def version(self, service: str, ceiling: str | None = None) -> str | None:
        """The newest microversion that the service and we know, at most `ceiling`; None where there are none."""
        wanted = ceiling or NEWEST.get(service)
        key = f"{service} {wanted}"
        async with self._discovering.setdefault(service, asyncio.Lock()):  # a service is asked once what it is
            if key not in self._versions:
                found = await self._in_thread(lambda: maximum_supported_microversion(self._proxy(service), wanted))
                self._versions[key] = found
        return self._versions[key]

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inside --------------------------------------------------------------------------------------------

    async def _ask(
        self, service: str, method: str, path: str, ceiling: str | None, params: Mapping[str, Any], body: Any
    ) -> Any:
        version = await self.version(service, ceiling)
        extra = {} if body is None else {"json": body}

        def send() -> Any:
            self.calls[service] += 1
            return self._proxy(service).request(
                path,
                method,
                params=dict(params),
                microversion=version,
                raise_exc=False,
                timeout=self.timeout_s,
                headers={"Accept": "application/json"},
                **extra,
            )

        response = await self._in_thread(send)
        if response.status_code == 500:
            await self._in_thread(self._doubt_the_token)
        if response.status_code >= 400:
            raise refusal(service, method, path, response.status_code, response.text)
        return response.json() if response.content else None

    def _doubt_the_token(self) -> None:
        """The next request signs in again, but not every time while a service is broken.

        A token that was revoked, or expired under way, may still be known to one service and not to the next one that
        it asks in our name: then it answers 500 instead of 401.
        """
        now = time.monotonic()
        if now - self._doubted_at > DOUBT_S:
            self._doubted_at = now
            self.connection.session.invalidate()

    async def _in_thread(self, ask: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except (ksa.EndpointNotFound, ksa.EmptyCatalog, sdk.ConfigException) as error:
            raise CloudNotFound(f"the cloud offers no such service: {error}") from error
        except ksa.Unauthorized as error:
            raise CloudUnavailable(f"Keystone lets us not in; check the credentials in clouds.yaml: {error}") from error
        except (ksa.ClientException, sdk.SDKException, OSError) as error:
            raise CloudUnavailable(f"no answer: {error}") from error

    def _proxy(self, service: str) -> Any:
        return getattr(self.connection, service)


def refusal(service: str, method: str, path: str, status: int, text: str) -> CloudError:
    """A refusal as one of our errors, with the service's own words."""
    said = f"{service} answered {status} to {method} {path}: {words(text)}"
    if status == 404:
        return CloudNotFound(said)
    if status == 401:
        return CloudUnavailable(f"{said}; check the credentials in clouds.yaml")
    if status in AGAIN:
        return CloudUnavailable(said)
    return CloudConflict(said)


def words(text: str) -> str:
    """What a service says in the body of a refusal: Nova's, Cinder's, Placement's and Ironic's ways."""
    try:
        body = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:500] or "nothing more"
    if isinstance(body, dict) and isinstance(body.get("errors"), list) and body["errors"]:  # Placement
        first = body["errors"][0]
        return str(first.get("detail") or first.get("title")).strip()
    if isinstance(body, dict) and "error_message" in body:  # Ironic, as text in JSON in JSON
        inner = body["error_message"]
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)
            except ValueError:
                return inner
        return str(inner.get("faultstring", inner)) if isinstance(inner, dict) else str(inner)
    for value in body.values() if isinstance(body, dict) else ():  # Nova and Cinder
        if isinstance(value, dict) and "message" in value:
            return str(value["message"])
    return str(body)[:500]
