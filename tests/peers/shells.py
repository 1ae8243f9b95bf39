"""The stock command lines, `openstack optimize` and `watcher`, as the tests call them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import environments

NURSERY = Path(__file__).with_name("shell_nursery.py")


def bare_environment() -> dict[str, str]:
    """This process's environment without any OpenStack client's options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OS_")}


class Nursery:
    """The process that forks command-line programs."""

    def __init__(self, url: str) -> None:
        command = [str(environments.programs("client") / "python"), str(NURSERY), url]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=bare_environment()
        )
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
        assert self.process.stdin is not None
        order = {"program": program, "arguments": list(arguments), "environment": dict(environment)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Done(**json.loads(self._read()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@dataclass(frozen=True)
class Done:
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Access:
    """How clients reach a server: options of each program, as environment variables."""

    watcher: Mapping[str, str]
    openstack: Mapping[str, str]


@dataclass(frozen=True)
class Shell:
    """One of the programs at one microversion."""

    nursery: Nursery
    access: Access
    program: str
    version: str | None  # None: what the client sends by itself

    @property
    def sent(self) -> str:
        """The microversion that the server gets to see: this client knows 1.5 as its latest."""
        return "1.5" if self.version in {None, "1.latest"} else str(self.version)

    @property
    def minor(self) -> int:
        """Its part after the dot."""
        return int(self.sent.partition(".")[2])

    def run(self, *arguments: str) -> Done:
        """Run a command, without judging how it ends."""
        version = [] if self.version is None else ["--os-infra-optim-api-version", self.version]
        words = ["optimize"] if self.program == "openstack" else []
        environment = self.access.openstack if self.program == "openstack" else self.access.watcher
        return self.nursery.run(self.program, [*version, *words, *arguments], environment)

    def ok(self, *arguments: str) -> str:
        """What a command prints that must succeed."""
        done = self.run(*arguments)
        assert done.code == 0, (arguments, done)
        return done.out

    def json(self, *arguments: str) -> Any:
        """Its output in the JSON formatter."""
        return json.loads(self.ok(*arguments, "-f", "json"))

    def fails(self, *arguments: str) -> str:
        """What a command complains that must not succeed."""
        done = self.run(*arguments)
        assert done.code != 0, (arguments, done)
        assert "Traceback" not in done.err, done.err
        return done.err
