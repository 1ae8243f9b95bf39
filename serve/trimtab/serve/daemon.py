"""Keeping Trimtab running: a supervisor process that owns the local Ray, its pid file, its start and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from trimtab.platform.errors import Conflict, NotFound, TrimtabError
from trimtab.platform.secrets import hide_secrets
from trimtab.platform.settings import Settings

START_S = 180.0
LOST_S = 20.0  # Ray's head does not answer for so long: it does not come back by itself
STOP_S = 60.0


def _pid_file(settings: Settings) -> Path:
    return settings.data_dir / "trimtab.pid"


def _running(settings: Settings) -> psutil.Process | None:
    """The supervisor, if it is alive and really ours (pids are used again)."""
    try:
        noted = json.loads(_pid_file(settings).read_text())
        process = psutil.Process(noted["pid"])
        return process if abs(process.create_time() - noted["created"]) < 1.0 and process.is_running() else None
    except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
        return None


def running(settings: Settings) -> int | None:
    """The process id of the Trimtab that runs on a data folder; None when there is none."""
    process = _running(settings)
    return None if process is None else int(process.pid)


def name_cluster(settings: Settings) -> None:
    """To be called before Ray is imported: a cluster that is joined gets nothing of what a local Ray gets then."""
    if settings.ray.address is not None:
        os.environ["TRIMTAB_RAY__ADDRESS"] = settings.ray.address


def ask(settings: Settings, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the running Trimtab's store, from another process on its machine.

    Raises:
        TrimtabError: it is just starting or ending, or what the store raises.
    """
    try:
        ready = json.loads((settings.data_dir / "ready.json").read_text())
        address, signs_in = ready["ray"], ready.get("signs_in", {})  # one that is older has none
    except (FileNotFoundError, KeyError) as error:
        raise TrimtabError(f"Trimtab on {settings.data_dir} is just starting or ending: ask again") from error
    name_cluster(settings)
    for name, value in signs_in.items():
        os.environ.setdefault(name, value)
    from trimtab.serve import compose

    return compose.ask_store(address, method, *args, **kwargs)


def _signs_in() -> dict[str, str]:
    """How this process signs in to Ray: whether with a token, and which file has it. What the token is stays here."""
    from trimtab.serve import local_ray

    file = local_ray.token_file()
    found = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE"), "RAY_AUTH_TOKEN_PATH": None}
    if found["RAY_AUTH_MODE"] == "token" and file is not None:
        found["RAY_AUTH_TOKEN_PATH"] = str(file.absolute())
    return {name: value for name, value in found.items() if value is not None}


def up(settings: Settings, console: Console, arguments: Mapping[str, object]) -> None:
    """Start the supervisor in the background and wait until the API answers.

    `arguments` are those of the command line that were given. The supervisor reads the same file and environment
    again; so no secret is on its command line, where everybody could see it.

    Raises:
        Conflict: it runs already. TrimtabError: it did not come up; the message has the end of its log.
    """
    if (process := _running(settings)) is not None:
        raise Conflict(f"Trimtab runs already (pid {process.pid}); stop it with `trimtab down`")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    ready = settings.data_dir / "ready.json"
    ready.unlink(missing_ok=True)
    log_file = settings.data_dir / "trimtab.log"
    command = [sys.executable, "-m", "trimtab.serve.main", "up", "--foreground"]
    for name, value in arguments.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with log_file.open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 (our own program)
    deadline = time.monotonic() + START_S
    with console.status("starting Ray, the actors and the API…"):
        while not ready.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                if child.poll() is None:
                    _stop(psutil.Process(child.pid))
                tail = log_file.read_text(errors="replace")[-2000:]
                raise TrimtabError(f"Trimtab did not come up; the end of {log_file}:\n{tail}")
            time.sleep(0.2)
    addresses = json.loads(ready.read_text())
    console.print(f"API            {addresses['api']}  (OpenAPI: {addresses['api']}/docs)")
    console.print(f"Ray dashboard  {addresses['dashboard']}")
    console.print(f"log            {log_file}")
    where = [f"--{name.replace('_', '-')} {arguments[name]}" for name in ("config", "data_dir") if arguments.get(name)]
    console.print(" ".join(["stop it with   trimtab down", *where]), soft_wrap=True)


def serve_until_told(settings: Settings, console: Console) -> None:
    """Run in this process until SIGTERM or SIGINT.

    Raises:
        Conflict: another supervisor uses the same data folder.
    """
    hide_secrets(settings)
    name_cluster(settings)
    from trimtab.serve import compose

    if (process := _running(settings)) is not None:
        raise Conflict(f"Trimtab runs already (pid {process.pid}); stop it with `trimtab down`")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    me = psutil.Process()
    _pid_file(settings).write_text(json.dumps({"pid": me.pid, "created": me.create_time()}))
    told = threading.Event()

    def listen() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())

    listen()
    try:
        running = compose.deploy(settings)
        listen()  # Ray put its own handlers in place
        addresses = {"api": running.api_url, "dashboard": running.dashboard_url, "ray": running.ray_address}
        part = settings.data_dir / "ready.json.part"
        part.write_text(json.dumps({**addresses, "signs_in": _signs_in()}))
        part.rename(settings.data_dir / "ready.json")
        console.print(f"API {addresses['api']}  Ray dashboard {addresses['dashboard']}")
        _watch(told, running.ray_address, LOST_S)
    finally:
        compose.shutdown()
        for name in ("ready.json", "trimtab.pid"):
            (settings.data_dir / name).unlink(missing_ok=True)


def _watch(told: threading.Event, ray_address: str, lost_s: float) -> None:
    """Wait until somebody says stop.

    Raises:
        TrimtabError: Ray's head has been gone for `lost_s`; all actors went with it, and whoever started this program
            (systemd, for one) starts it again. What is in the data folder is whole.
    """
    host, _, port = ray_address.rpartition(":")
    seen = time.monotonic()
    while not told.wait(2.0):
        with socket.socket() as probe:
            probe.settimeout(2.0)
            if probe.connect_ex((host, int(port))) == 0:
                seen = time.monotonic()
        if time.monotonic() - seen > lost_s:
            raise TrimtabError(f"Ray's head at {ray_address} is gone: start Trimtab again, nothing stored is lost")


def down(settings: Settings, console: Console) -> None:
    """Stop the supervisor and everything it started.

    Raises:
        NotFound: nothing runs.
    """
    process = _running(settings)
    if process is None:
        raise NotFound(f"nothing runs on {settings.data_dir}: start it with `trimtab up`")
    with console.status("stopping…"):
        left = _stop(process)
    _pid_file(settings).unlink(missing_ok=True)
    (settings.data_dir / "ready.json").unlink(missing_ok=True)
    console.print("stopped" + (f"; {left} processes had to be killed" if left else ""))


def _stop(process: psutil.Process) -> int:
    """Ask the supervisor to end, then make sure that it and all it started are gone; how many had to be killed."""
    family: list[Any] = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    psutil.wait_procs([process], timeout=STOP_S)
    _, alive = psutil.wait_procs(family, timeout=5.0)
    for survivor in alive:
        survivor.kill()
    psutil.wait_procs(alive, timeout=5.0)
    return len(alive)


def free_port(wanted: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens on a port."""
    import socket

    with socket.socket() as probe:
        return probe.connect_ex((host, wanted)) != 0


def stop_on_signal() -> None:
    """Make SIGTERM end this process like Ctrl-C, so that `finally` blocks run."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
