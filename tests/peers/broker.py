"""A RabbitMQ of its own for a test: started as the current user on loopback, with its own names, ports and folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

# The package's wrapper in /usr/sbin insists on its own user and folders; the program beside it does not.
PLACES = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
)
START_S, STOP_S = 120.0, 30.0


def program() -> Path | None:
    """The broker's program, if this machine has one that anybody may start."""
    found = [Path(place) for place in PLACES if Path(place).exists()]
    if not found and (on_path := shutil.which("rabbitmq-server")) is not None:
        found = [Path(on_path)]
    return found[0] if found else None


def missing() -> str | None:
    """Why there can be no broker here, for a skip; None when there can."""
    if program() is None:
        return "no rabbitmq-server on this machine (package rabbitmq-server)"
    if shutil.which("erl") is None or shutil.which("epmd") is None:
        return "no Erlang on this machine (package erlang-base)"
    return None


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NotUpError(Exception):
    """The broker did not start; the message has the end of its log."""


class Broker:
    """One broker that can be started, killed and started again on the same port and the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._names_port, self._node_port = free_port(), free_port(), free_port()
        self._names: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        (folder / "enabled_plugins").write_text("[].\n")
        # A test's messages are small; a full disk elsewhere is nothing to stop for.
        (folder / "rabbitmq.conf").write_text("loopback_users.guest = true\ndisk_free_limit.absolute = 1MB\n")

    @property
    def url(self) -> str:
        """As oslo.messaging wants it."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}//"

    @property
    def amqp_url(self) -> str:
        """As kombu wants it."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        own = {
            "NODENAME": f"peers{self.port}@localhost",
            "NODE_IP_ADDRESS": "127.0.0.1",
            "NODE_PORT": str(self.port),
            "DIST_PORT": str(self._node_port),
            "MNESIA_BASE": str(self.folder / "data"),
            "LOG_BASE": str(self.folder / "log"),
            "CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            # The program becomes the broker instead of watching one, so that its process is the one to end.
            "ALLOW_INPUT": "1",
            "SERVER_START_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }
        own = {f"RABBITMQ_{name}": value for name, value in own.items()}
        return {
            **kept,
            **own,
            "HOME": str(self.folder),  # where its cookie is kept
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it; returns when it takes connections.

        Raises:
            NotUpError: it ended, or took too long.
        """
        environment = self._environment()
        if self._names is None:
            self._names = subprocess.Popen(
                ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        log = self.folder / "broker.log"
        with log.open("ab") as sink:
            self._node = subprocess.Popen(
                [str(program())],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        deadline = time.monotonic() + START_S
        while not self._takes_connections():
            if self._node.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NotUpError(f"RabbitMQ did not come up; its log ends:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def _takes_connections(self) -> bool:
        """Whether it greets a client as AMQP 0-9-1 has it: an open port alone may still close again."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.settimeout(5.0)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def kill(self) -> None:
        """End it as a power failure would."""
        if self._node is not None:
            self._node.kill()
            self._node.wait(STOP_S)
            self._node = None

    def stop(self) -> None:
        """End it and its name server."""
        self.kill()
        if self._names is not None:
            self._names.terminate()
            self._names.wait(STOP_S)
            self._names = None
