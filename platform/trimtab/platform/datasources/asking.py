"""Asking a metrics backend: one client, a deadline, and a backend that is dead noticed once and fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from trimtab.platform.errors import CloudError, DatasourceError

DOWN = (502, 503, 504)  # what stands before a backend says so when nobody is behind it
REST_S = 30.0  # a backend that did not answer is not asked again for so long: everybody hears at once that it is dead


class Refused(DatasourceError):
    """The backend is there, and refuses this question."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


class Asking:
    """GET and POST to one backend, as JSON; a few at a time.

    Args:
        name: of the datasource, for messages.
        client: of httpx, with certificates, and base address where that is told.
        door: for a backend behind Keystone: its address, and the headers that let us in; told at every request.
            Its argument asks for a fresh token, after a 401.
        at_most: requests at a time.
        now: a monotonic clock, s.
    """

    def __init__(
        self,
        name: str,
        client: httpx.AsyncClient,
        door: Callable[[bool], Awaitable[tuple[str, Mapping[str, str]]]] | None = None,
        at_most: int = 4,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.client = name, client
        self._door, self.now = door, now
        self._turns = asyncio.Semaphore(at_most)
        self._dead_until = 0.0
        self._why = ""

    async def get(self, path: str, **params: Any) -> Any:
        """The answer to a question.

        Raises:
            DatasourceError: none, or a refusal with the backend's own words.
        """
        return await self.ask("GET", path, params=params)

    async def ask(self, method: str, path: str, **what: Any) -> Any:
        """As `get`, for any method; `what` is what httpx takes."""
        async with self._turns:
            if self.now() < self._dead_until:
                raise DatasourceError(self._why)
            try:
                answer = await self._send(method, path, what)
            except (httpx.HTTPError, httpx.InvalidURL, CloudError) as error:
                raise self._dead(f"{type(error).__name__}: {error}") from error
            if answer.status_code in DOWN:
                raise self._dead(f"{answer.status_code}: {_words(answer)}")
        if answer.status_code >= 400:
            raise Refused(f"{self.name} answered {answer.status_code} to {path}: {_words(answer)}", answer.status_code)
        try:
            return answer.json()
        except ValueError as error:
            raise DatasourceError(f"{self.name} answered {path} with something that is no JSON") from error

    def _dead(self, why: str) -> DatasourceError:
        """What everybody is told until it is asked again."""
        where = f" at {self.client.base_url}" if str(self.client.base_url) else ""
        self._why = f"{self.name}{where} does not answer: {why}"
        self._dead_until = self.now() + REST_S
        return DatasourceError(self._why)

    async def _send(self, method: str, path: str, what: Mapping[str, Any]) -> httpx.Response:
        plain = {"Accept": "application/json"}  # some explain a refusal in HTML to those who do not say
        if self._door is None:
            return await self.client.request(method, path, headers=plain, **what)
        address, headers = await self._door(False)
        answer = await self.client.request(method, address.rstrip("/") + path, headers={**plain, **headers}, **what)
        if answer.status_code == 401:  # the token is older than the backend likes
            address, headers = await self._door(True)
            answer = await self.client.request(method, address.rstrip("/") + path, headers={**plain, **headers}, **what)
        return answer


def _words(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:300]
