"""Migrations as fluid flows: what is left to copy falls at the rate of the network minus the rate of dirtying.

Live migration is iterative pre-copy (Clark et al., "Live migration of virtual machines", NSDI 2005): memory M is copied
at rate r while the guest dirties it at rate d; the sum of the rounds M/r, (M/r)(d/r), .. is M/(r - d), which the fluid
model gives without the rounds. When what is left fits into the allowed downtime the guest stops and the rest is copied:

    copy time = (M - rD) / (r - d)        downtime = D        transferred = r (M - rD) / (r - d) + rD

Where d comes too near to r the hypervisor slows the guest until d = `CONVERGE` r (QEMU's auto-converge), so every copy
ends. `precopy_rounds` is the same round by round.

Post-copy (Hines, Deshpande and Gopalan, "Post-copy live migration of virtual machines", SIGOPS OSR 43(3), 2009): the
guest stops at once for D, goes on at the destination, and every page crosses the network once while the guest is slowed
by page faults. A failure in that time loses what the guest had in memory.

A cold migration copies the disk while the server is down.

Links are shared equally, as ideal processor sharing: the network card of a host among the migrations in which the host
takes part, as source or destination; the uplink of a group of hosts (a rack, a zone) among those that leave or enter
it. A flow gets the smallest of its shares, and what it leaves unused nobody gets: rates change only when a flow begins
or ends, and only for flows that share a link with it. (Max-min fairness would hand the rest out; it needs all flows of
the cloud at every change.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from trimtab.platform.errors import InvalidInput
from trimtab.platform.model.compute import Floats, Ints
from trimtab.simulator.events import Event, Events
from trimtab.simulator.timeline import LIVE_LOSS

CONVERGE = 0.8
GIB_MB = 1024.0
FAULT_LOSS = 0.3  # assumed; depends on how much of its memory a guest touches, and how fast
MOST_ROUNDS = 10_000

Variant = Literal["pre-copy", "post-copy"]


@dataclass(frozen=True, slots=True)
class Physics:
    """Rates and sizes that migrations obey: assumed ones in a rehearsal, true ones in the simulated cloud.

    `nic_mb_s` [H]: network for migrations, MB/s. `dirty_mb_s` [V]: memory dirtied while running. `memory_mb`, `disk_mb`
    [V]: what a live and a cold migration copy. `setup_s`: from the request until copying begins. `downtime_s`: longest
    stop that a live migration is allowed; what a post-copy takes to move the guest. `variant`: how live migrations
    copy. `slowdown`: share of its CPU work that a guest loses in pre-copy; `fault_slowdown`: in post-copy.

    `uplink_of` [H]: which uplink a host is behind, -1 none; `uplink_mb_s`: capacities. A flow takes an uplink
    unless its other end is behind the same one.
    """

    nic_mb_s: Floats
    dirty_mb_s: Floats
    memory_mb: Floats
    disk_mb: Floats
    setup_s: float
    downtime_s: float
    variant: Variant = "pre-copy"
    slowdown: float = LIVE_LOSS
    fault_slowdown: float = FAULT_LOSS
    uplink_of: Ints | None = None
    uplink_mb_s: Floats | None = None

    def __post_init__(self) -> None:
        if self.variant not in {"pre-copy", "post-copy"}:
            raise InvalidInput(f"live migration {self.variant!r} does not exist: use pre-copy or post-copy")
        for name in ("slowdown", "fault_slowdown"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}: it is a share of CPU work, 0..1")
        if (self.uplink_of is None) != (self.uplink_mb_s is None):
            raise InvalidInput("shared uplinks need both uplink_of (by host) and uplink_mb_s (by uplink)")
        if self.uplink_of is not None and self.uplink_mb_s is not None:
            if self.uplink_of.shape != self.nic_mb_s.shape:
                raise InvalidInput(f"uplink_of has shape {self.uplink_of.shape}: give one number a host, -1 for none")
            if (wrong := np.flatnonzero((self.uplink_of < -1) | (self.uplink_of >= len(self.uplink_mb_s)))).size:
                raise InvalidInput(
                    f"uplink_of[{wrong[0]}] is {self.uplink_of[wrong[0]]}: "
                    f"uplink_mb_s has {len(self.uplink_mb_s)} uplinks; -1 is none"
                )

    def links(self, source: int, destination: int) -> tuple[int, ...]:
        """Links between two hosts: network cards by host row, then uplinks, numbered from the number of hosts on."""
        if self.uplink_of is None:
            return (source, destination)
        ends = (int(self.uplink_of[source]), int(self.uplink_of[destination]))
        crossed = () if ends[0] == ends[1] else tuple(len(self.nic_mb_s) + up for up in ends if up >= 0)
        return (source, destination, *crossed)

    def capacity_mb_s(self, link: int) -> float:
        """What a link of `links` carries."""
        if link < len(self.nic_mb_s) or self.uplink_mb_s is None:
            return float(self.nic_mb_s[link])
        return float(self.uplink_mb_s[link - len(self.nic_mb_s)])


class Rounds(NamedTuple):
    """A pre-copy round by round: MB sent in each while the guest ran, and in the stop at the end; times at one rate."""

    sent_mb: Floats
    last_mb: float
    copy_s: float
    stop_s: float


def precopy_rounds(memory_mb: float, rate_mb_s: float, dirty_mb_s: float, downtime_s: float) -> Rounds:
    """Iterative pre-copy at a constant rate: each round sends what was dirtied during the one before.

    The guest stops after the first round that leaves no more than fits into the downtime. The fluid model stops when
    that is reached within a round, so it is at most one round shorter; where the limit falls on the end of a round, and
    for a downtime of zero, the two agree.

    Args:
        memory_mb: what the first round sends.
        rate_mb_s: of the network; above zero.
        dirty_mb_s: of the guest; no more than `CONVERGE` times the rate counts.
        downtime_s: longest stop.
    """
    if not rate_mb_s > 0:
        raise InvalidInput(f"a migration at {rate_mb_s} MB/s never ends: give a rate above zero")
    ratio = min(dirty_mb_s / rate_mb_s, CONVERGE)
    sent, left = list[float](), memory_mb
    while left > max(rate_mb_s * downtime_s, 1e-9) * (1 + 1e-12) and len(sent) < MOST_ROUNDS:
        sent.append(left)
        left *= ratio
    return Rounds(np.array(sent), left, sum(sent) / rate_mb_s, left / rate_mb_s)


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with a migration: it fails at its end, it never gets on, or it is slower by a factor."""

    fails: bool = False
    hangs: bool = False
    slower: float = 1.0


@dataclass(eq=False, slots=True)
class Flow:
    """One migration on its way. `stopped_at`: when the guest stopped (the downtime began), None while it runs.

    `resumed_at`: when it went on at the destination while memory was still to come, None unless post-copy.
    `links`: what it crosses.
    """

    instance: int
    source: int
    destination: int
    live: bool
    started_at: float
    done: Callable[[Flow], None]
    left_mb: float
    dirty_mb_s: float
    links: tuple[int, ...]
    post: Callable[[Flow], None] | None = None
    slower: float = 1.0
    hangs: bool = False
    fails: bool = False
    copying: bool = False
    rate: float = 0.0
    sent_mb: float = 0.0
    settled_at: float = 0.0
    stopped_at: float | None = None
    resumed_at: float | None = None
    ended_at: float | None = None
    event: Event | None = field(default=None, repr=False)

    def sent_by(self, now: float) -> float:
        """MB transferred until now."""
        return self.sent_mb + (self.rate * (now - self.settled_at) if self.copying else 0.0)


class Network:
    """The running flows and their rates, in one event kernel."""

    def __init__(self, events: Events, physics: Physics) -> None:
        self.events, self.physics = events, physics
        self._on_link: dict[int, dict[Flow, None]] = {}

    def begin(
        self,
        instance: int,
        source: int,
        destination: int,
        *,
        live: bool,
        running: bool,
        done: Callable[[Flow], None],
        mishap: Mishap | None = None,
        resumed: Callable[[Flow], None] = lambda _: None,
    ) -> Flow:
        """Start a migration now; `done` is called when it has ended by itself.

        Args:
            instance: row of what moves.
            source: row of the host it leaves.
            destination: row of the host it goes to.
            live: the memory is copied, by the physics' variant; otherwise the disk, while the server is down.
            running: whether the guest dirties memory at all.
            done: gets the flow at its end.
            mishap: what goes wrong with the copy.
            resumed: gets the flow of a post-copy when the guest goes on at the destination.
        """
        physics = self.physics
        post = live and physics.variant == "post-copy"
        flow = Flow(
            instance,
            source,
            destination,
            live,
            self.events.now,
            done,
            float(physics.memory_mb[instance] if live else physics.disk_mb[instance]),
            float(physics.dirty_mb_s[instance]) if live and running and not post else 0.0,
            physics.links(source, destination),
            resumed if post else None,
        )
        self._suffer(flow, mishap or Mishap())
        flow.event = self.events.at(self.events.now + physics.setup_s, lambda: self._copy(flow))
        return flow

    def disturb(self, flow: Flow, mishap: Mishap) -> None:
        """From now on something goes wrong with a running copy."""
        self._suffer(flow, mishap)
        if flow.copying:
            self._share_again(flow)

    @staticmethod
    def _suffer(flow: Flow, mishap: Mishap) -> None:
        flow.slower, flow.hangs, flow.fails = mishap.slower, mishap.hangs, mishap.fails

    def drop(self, flow: Flow) -> None:
        """End a migration before it is through: `done` is not called."""
        self.events.cancel(flow.event)
        self._end(flow)

    def load_mb_s(self) -> dict[int, float]:
        """What crosses each link now."""
        return {link: sum(flow.rate for flow in flows) for link, flows in self._on_link.items()}

    def _copy(self, flow: Flow) -> None:
        if flow.post is not None and flow.stopped_at is None:
            flow.stopped_at = self.events.now
            flow.event = self.events.at(self.events.now + self.physics.downtime_s, lambda: self._resume(flow))
            return
        flow.copying, flow.settled_at = True, self.events.now
        if not flow.live:
            flow.stopped_at = self.events.now
        for link in flow.links:
            self._on_link.setdefault(link, {})[flow] = None
        self._share_again(flow)

    def _resume(self, flow: Flow) -> None:
        flow.resumed_at = self.events.now
        if flow.post is not None:
            flow.post(flow)
        self._copy(flow)

    def _end(self, flow: Flow) -> None:
        self._settle(flow)
        was_copying, flow.copying, flow.ended_at = flow.copying, False, self.events.now
        if was_copying:
            for link in flow.links:
                self._on_link[link].pop(flow, None)
            self._share_again(flow)

    def _share_again(self, changed: Flow) -> None:
        """New rates for all flows that share a link with one that began or ended."""
        for flow in {flow: None for link in changed.links for flow in self._on_link[link]}:
            self._settle(flow)
            flow.rate = 0.0 if flow.hangs else self._rate(flow)
            self._wait(flow)

    def _rate(self, flow: Flow) -> float:
        share = min(self.physics.capacity_mb_s(link) / len(self._on_link[link]) for link in flow.links)
        return share / flow.slower

    def _settle(self, flow: Flow) -> None:
        """Book what was copied at the old rate."""
        if not flow.copying:
            return
        passed, flow.settled_at = self.events.now - flow.settled_at, self.events.now
        flow.sent_mb += flow.rate * passed
        flow.left_mb = max(flow.left_mb - self._falls(flow) * passed, 0.0)

    def _falls(self, flow: Flow) -> float:
        if flow.stopped_at is not None:
            return flow.rate
        return flow.rate - min(flow.dirty_mb_s, CONVERGE * flow.rate)

    def _wait(self, flow: Flow) -> None:
        """Ask for the flow's next event at its new rate."""
        self.events.cancel(flow.event)
        if flow.rate <= 0:
            flow.event = None
        elif flow.stopped_at is None:
            above = max(flow.left_mb - flow.rate * self.physics.downtime_s, 0.0)
            flow.event = self.events.at(self.events.now + above / self._falls(flow), lambda: self._stop(flow))
        else:
            flow.event = self.events.at(self.events.now + flow.left_mb / flow.rate, lambda: self._through(flow))

    def _stop(self, flow: Flow) -> None:
        self._settle(flow)
        flow.stopped_at = self.events.now
        self._wait(flow)

    def _through(self, flow: Flow) -> None:
        self._end(flow)
        flow.done(flow)
