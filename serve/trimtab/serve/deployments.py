"""The Ray Serve deployments: the HTTP API and the applier."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from trimtab.serve import replicas
from trimtab.serve.app import create_app
from trimtab.serve.resources import Backend

log = logging.getLogger(__name__)

LIGHT = {"num_cpus": 0}


@serve.deployment(name="api", num_replicas=1, ray_actor_options=LIGHT, max_ongoing_requests=100)
@serve.ingress()
class Api:
    """Stateless: answers from the state actor, hands started plans to the applier."""

    def __init__(self, build: Callable[[Any], Backend], applier: DeploymentHandle[Any]) -> None:
        replicas.listen_where_the_node_is()
        replicas.ask_for_announced_bodies_only()

        async def wake(plan_uuid: str) -> None:
            applier.wake.remote(plan_uuid)

        self.backend = build(wake)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application Serve wraps."""
        return create_app(self.backend)


@serve.deployment(name="applier", num_replicas=1, ray_actor_options=LIGHT)
class Applier:
    """Runs action plans; one owner a plan. A replacement takes over what a killed replica left."""

    def __init__(self, apply_forever: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        replicas.listen_where_the_node_is()
        self._apply_forever = apply_forever
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                await self._apply_forever(self._wake)
            except Exception as error:  # noqa: BLE001 (the next turn takes up what is unfinished, whatever it was)
                log.warning("the applier starts over: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1.0)

    async def wake(self, plan_uuid: str) -> None:
        """A plan was started."""
        log.info("plan %s was started", plan_uuid)
        self._wake.set()

    def check_health(self) -> None:
        """Serve replaces this replica when its loop has ended.

        Raises:
            RuntimeError: the loop has ended.
        """
        if self._task.done():
            raise RuntimeError(f"the applier's loop has ended: {self._task.exception()}")
