"""The nursery of the crash story: imports everything once, then forks clouds and appliers that may be killed any time.

Speaks JSON lines: {"start": role, "with": {...}} -> {"pid": n}; {"poll": pid} -> {"ended": null | exit code | -signal}.
A process may be told when to kill itself: {"method": m, "nth": n, "when": "before" | "after"} means SIGKILL just before
or just after it does m for the nth time; "after" is when it is done and nobody has heard of it yet.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from trimtab.platform.applier import serve_plans
from trimtab.platform.clocks import PacedClock, WallClock
from trimtab.platform.contracts import Tools
from trimtab.platform.errors import CloudUnavailable, TrimtabError
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits
from trimtab.platform.records import ActionPlan
from trimtab.platform.store.port import StorePort
from trimtab.platform.store.state import Store
from trimtab.simulator.cloud import SimulatedCloud
from trimtab.simulator.driver import SimulatedDriver
from trimtab.simulator.truth import CloudSpec

Call = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
Fatal = dict[str, Any] | None


def mortal(call: Call, fatal: Fatal) -> Call:
    """The same call, with death in it."""
    done = 0

    async def dying(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        nonlocal done
        if fatal is None or method != fatal["method"]:
            return await call(method, arguments, named)
        done += 1
        last = done == fatal["nth"]
        if last and fatal["when"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await call(method, arguments, named)
        finally:
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

    return dying


# -- the cloud --------------------------------------------------------------------------------------------------


async def cloud(folder: str, spec: dict[str, Any], fatal: Fatal) -> None:
    """Serve a simulated cloud on a socket until killed."""
    simulated = SimulatedCloud(CloudSpec.from_json(spec), Path(folder) / "journal")

    async def here(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return getattr(simulated, method)(*arguments, **named)

    call = mortal(here, fatal)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = pickle.loads(await reader.read())
        try:
            answer = (True, await call(*question))
        except TrimtabError as error:
            answer = (False, error)
        writer.write(pickle.dumps(answer))
        await writer.drain()
        writer.close()

    path = Path(folder) / "socket"
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    await server.serve_forever()


def over_socket(path: Path) -> Call:
    """Ask the cloud behind a socket."""

    async def call(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(pickle.dumps((method, arguments, named)))
                writer.write_eof()
                good, answer = pickle.loads(await reader.read())
            finally:
                writer.close()
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise CloudUnavailable(f"{method}: the cloud did not answer: {error!r}") from error
        if not good:
            raise answer
        return answer

    return call


# -- the applier ------------------------------------------------------------------------------------------------


async def applier(folder: str, owner: str, clock: list[float], limits: list[int], fatal: Fatal) -> None:
    """Own the store and run its plans until they are all over."""
    store = Store(Path(folder) / "store.duckdb")
    of_store = fatal if fatal and fatal["method"] == "transitions" else None
    port = StorePort(mortal(StorePort.direct(store)._call, of_store))
    driver = SimulatedDriver(mortal(over_socket(Path(folder) / "socket"), None if of_store else fatal))
    tools = Tools(driver, PacedClock(*clock), WallClock())
    loop = asyncio.create_task(
        serve_plans(
            port,
            owner,
            handlers=load().actions,
            tools=tools,
            limits=Limits(*limits),
            wake=asyncio.Event(),
            lease_s=0.4,
            idle_s=0.05,
        )
    )
    while not all(plan.state in {"SUCCEEDED", "FAILED", "CANCELLED"} for plan in store.list(ActionPlan)):
        await asyncio.wait({loop}, timeout=0.1)
        if loop.done():
            loop.result()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    store.close()


# -- the nursery ------------------------------------------------------------------------------------------------

ROLES: dict[str, Callable[..., Any]] = {"cloud": cloud, "applier": applier}


def warm() -> None:
    """Compile and import whatever a first use would compile or import."""
    with tempfile.TemporaryDirectory() as folder:
        simulated = SimulatedCloud(CloudSpec(hosts=4, instances=8, history_s=0.0), Path(folder) / "journal")
        server = simulated.inventory().instances["uuid"][0].as_py()
        simulated.migrate(server, None, live=True)
        simulated.fast_forward(300)
        Store(None).close()
    load()


def main() -> None:
    """Take orders until the input ends, then leave nobody behind."""
    warm()
    alive: set[int] = set()
    print("ready", flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            pid = os.fork()
            if pid == 0:
                os.dup2(2, 1)
                _live(order)
            alive.add(pid)
            answer: dict[str, Any] = {"pid": pid}
        else:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            alive.discard(pid)
            answer = {"ended": os.waitstatus_to_exitcode(status) if pid else None}
        print(json.dumps(answer), flush=True)  # noqa: T201
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _live(order: dict[str, Any]) -> None:
    try:
        asyncio.run(ROLES[order["start"]](**order["with"]))
    except BaseException:  # noqa: BLE001 - this is the end of a process: it must not return into the nursery's loop
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
