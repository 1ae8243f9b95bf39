"""Tokens, validated by Keystone through keystoneauth1: remembered for a while, asked about once at a time."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from keystoneauth1 import adapter, session
from keystoneauth1 import exceptions as ksa
from keystoneauth1.identity import generic
from keystoneauth1.plugin import AUTH_INTERFACE

from trimtab.platform.errors import TrimtabError
from trimtab.platform.settings import KeystoneSettings
from trimtab.serve.policy import Caller

log = logging.getLogger(__name__)

MOST_WAITING = 500  # tokens that wait to be asked about
LONGEST_TOKEN = 16_384


class KeystoneUnreachable(TrimtabError):
    """Keystone does not answer, or does not let us ask."""


Validated = tuple[Caller, float]  # who it is, and when the token ends (seconds since 1970)
Ask = Callable[[str], Validated | None]


class Tokens:
    """Who has which token.

    Args:
        ask: blocking; who a token belongs to, None when it is not valid, or KeystoneUnreachable.
        keep_s: seconds for which an answer is believed (a token that is revoked meanwhile stays valid so long).
        size: most tokens remembered.
        workers: most questions at once.
        patience_s: seconds after which nobody waits for an answer any longer.
        now: seconds since 1970.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        keep_s: float,
        size: int,
        workers: int,
        patience_s: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ask, self._keep_s, self._size, self._patience_s, self._now = ask, keep_s, size, patience_s, now
        self._failed = False  # the last question found no answer
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()  # until when it is believed
        self._asked: dict[bytes, asyncio.Task[Validated | None]] = {}
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="keystone")

    def remembered(self, token: str) -> Caller | None:
        """Who has a token that was asked about lately."""
        key = _key(token)
        caller, until = self._known.get(key, (None, 0.0))
        if caller is not None and self._now() >= until:
            del self._known[key]
            return None
        return caller

    async def caller(self, token: str) -> Caller | None:
        """Who has a token; None when it is not valid (any more).

        Raises:
            KeystoneUnreachable: nobody can say.
        """
        if not token or len(token) > LONGEST_TOKEN or not (token.isascii() and token.isprintable()):
            return None
        if (known := self.remembered(token)) is not None:
            return known
        key = _key(token)
        task = self._asked.get(key)
        if task is None:
            if (
                self._failed and self._asked
            ):  # one question finds out whether Keystone is back; nobody else waits for it
                raise KeystoneUnreachable("Keystone did not answer lately, and is being asked again")
            if len(self._asked) >= MOST_WAITING:
                raise KeystoneUnreachable(f"{MOST_WAITING} tokens wait to be validated already")
            task = asyncio.get_running_loop().create_task(self._validate(key, token))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        try:
            async with asyncio.timeout(self._patience_s):
                found = await asyncio.shield(task)  # one who hangs up does not take the answer from the others
        except TimeoutError:
            self._failed = True
            raise KeystoneUnreachable(f"Keystone did not answer within {self._patience_s:g} s") from None
        return None if found is None else found[0]

    def waiting(self) -> Sequence[asyncio.Task[Validated | None]]:
        """The questions that are asked at the moment."""
        return list(self._asked.values())

    def _answered(self, key: bytes, done: asyncio.Task[Validated | None]) -> None:
        del self._asked[key]
        self._failed = done.cancelled() or done.exception() is not None

    async def _validate(self, key: bytes, token: str) -> Validated | None:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, token)
        now = self._now()
        if found is None or found[1] <= now:
            return None
        if self._keep_s > 0:
            self._known[key] = (found[0], min(found[1], now + self._keep_s))
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return found


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()  # no token is kept


def validator(settings: KeystoneSettings) -> Ask:
    """A blocking validator that asks Keystone as the service user; safe to be called by several threads."""
    assert settings.auth_url is not None  # noqa: S101 (Settings see to it)
    password = settings.password.get_secret_value() if settings.password is not None else None
    auth = generic.Password(
        auth_url=settings.auth_url,
        username=settings.username,
        password=password,
        user_domain_id=settings.user_domain_id,
        user_domain_name=None if settings.user_domain_id else settings.user_domain_name,
        project_name=settings.project_name,
        project_domain_id=settings.project_domain_id,
        project_domain_name=None if settings.project_domain_id else settings.project_domain_name,
    )
    verify: bool | str = not settings.insecure if settings.cafile is None else str(settings.cafile)
    interface: Any = settings.interface or AUTH_INTERFACE
    keystone = adapter.Adapter(
        session.Session(auth, verify=verify, timeout=settings.http_connect_timeout, user_agent="trimtab"),
        service_type="identity",
        interface=interface,
        region_name=settings.region_name,
        version="3",
        connect_retries=1,
    )

    def ask(token: str) -> Validated | None:
        try:
            answer = keystone.get("/auth/tokens", headers={"X-Subject-Token": token}, params={"nocatalog": "1"})
            return read_token(answer.json()["token"])
        except ksa.NotFound:
            return None
        except ksa.ClientException as error:
            # What keystoneauth1 raises may quote addresses, never tokens.
            raise KeystoneUnreachable(f"Keystone cannot validate tokens: {type(error).__name__}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise KeystoneUnreachable(f"Keystone's answer cannot be understood: {type(error).__name__}") from error

    return ask


def read_token(token: Mapping[str, Any]) -> Validated:
    """Who Keystone says it is, and when the token ends.

    Raises:
        KeyError, TypeError, ValueError: this is no token of Keystone's version 3.
    """
    user, project, domain = token["user"], token.get("project") or {}, token.get("domain") or {}
    caller = Caller(
        user_id=str(user["id"]),
        user_name=str(user.get("name", "")),
        roles=tuple(str(role["name"]) for role in token.get("roles") or ()),
        project_id=project.get("id"),
        project_name=project.get("name"),
        domain_id=domain.get("id"),
        user_domain_id=(user.get("domain") or {}).get("id"),
        project_domain_id=(project.get("domain") or {}).get("id"),
        system_scope="all" if (token.get("system") or {}).get("all") else None,
        is_admin_project=bool(token.get("is_admin_project", True)),
    )
    return caller, datetime.fromisoformat(token["expires_at"]).timestamp()
