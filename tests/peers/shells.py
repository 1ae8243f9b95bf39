"""The stock command lines, `openstack optimize` and `watcher`, as the tests call them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.peers.workers import Worker


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

    nursery: Worker
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

    @property
    def believed_minor(self) -> float:
        """What the program itself thinks it speaks: it takes 1.latest for more than any number, yet sends 1.5."""
        newest = self.version == "1.latest" or (self.version is None and self.program == "watcher")
        return float("inf") if newest else self.minor

    def run(self, *arguments: str) -> Done:
        """Run a command, without judging how it ends."""
        version = [] if self.version is None else ["--os-infra-optim-api-version", self.version]
        words = ["optimize"] if self.program == "openstack" else []
        environment = self.access.openstack if self.program == "openstack" else self.access.watcher
        words = [*version, *words, *arguments]
        return Done(**self.nursery.ask(program=self.program, arguments=words, environment=dict(environment)))

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
