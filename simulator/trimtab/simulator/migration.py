"""Migrations as fluid flows: what is left to copy falls at the rate of the network minus the rate of dirtying.

Live migration is iterative pre-copy (Clark et al., "Live migration of virtual machines", NSDI 2005): memory M is copied
at rate r while the guest dirties it at rate d; the sum of the rounds M/r, (M/r)(d/r), .. is M/(r - d), which the fluid
model gives without the rounds. When what is left fits into the allowed downtime the guest stops and the rest is copied:

    copy time = (M - rD) / (r - d)        downtime = D        transferred = r (M - rD) / (r - d) + rD

Where d comes too near to r the hypervisor slows the guest until d = `CONVERGE` r (QEMU's auto-converge), so every copy
ends. A cold migration copies the disk while the server is down. A host's network card is shared equally among the
migrations in which the host takes part, as source or destination; a flow gets the smaller of its two shares. Rates
change only when a flow begins or ends, and only for flows that share a host with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trimtab.platform.model.compute import Floats
from trimtab.simulator.events import Event, Events

CONVERGE = 0.8
GIB_MB = 1024.0


@dataclass(frozen=True, slots=True)
class Physics:
    """Rates and sizes that migrations obey: assumed ones in a rehearsal, true ones in the simulated cloud.

    `nic_mb_s` [H]: network for migrations, MB/s. `dirty_mb_s` [V]: memory dirtied while running. `memory_mb`, `disk_mb`
    [V]: what a live and a cold migration copy. `setup_s`: from the request until copying begins. `downtime_s`: longest
    stop that a live migration is allowed.
    """

    nic_mb_s: Floats
    dirty_mb_s: Floats
    memory_mb: Floats
    disk_mb: Floats
    setup_s: float
    downtime_s: float


@dataclass(frozen=True, slots=True)
class Mishap:
    """What goes wrong with a migration: it fails at its end, it never gets on, or it is slower by a factor."""

    fails: bool = False
    hangs: bool = False
    slower: float = 1.0


@dataclass(eq=False, slots=True)
class Flow:
    """One migration on its way. `stopped_at`: when the guest stopped (the downtime began), None while it runs."""

    instance: int
    source: int
    destination: int
    live: bool
    started_at: float
    done: Callable[[Flow], None]
    left_mb: float
    dirty_mb_s: float
    slower: float = 1.0
    hangs: bool = False
    fails: bool = False
    copying: bool = False
    rate: float = 0.0
    sent_mb: float = 0.0
    settled_at: float = 0.0
    stopped_at: float | None = None
    ended_at: float | None = None
    event: Event | None = field(default=None, repr=False)

    def sent_by(self, now: float) -> float:
        """MB transferred until now."""
        return self.sent_mb + (self.rate * (now - self.settled_at) if self.copying else 0.0)


class Network:
    """The running flows and their rates, in one event kernel."""

    def __init__(self, events: Events, physics: Physics) -> None:
        self.events, self.physics = events, physics
        self._at_host: dict[int, dict[Flow, None]] = {}

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
    ) -> Flow:
        """Start a migration now; `done` is called when it has ended by itself.

        Args:
            instance: row of what moves.
            source: row of the host it leaves.
            destination: row of the host it goes to.
            live: pre-copy of the memory; otherwise the disk is copied while the server is down.
            running: whether the guest dirties memory at all.
            done: gets the flow at its end.
            mishap: what goes wrong with the copy.
        """
        physics = self.physics
        flow = Flow(
            instance,
            source,
            destination,
            live,
            self.events.now,
            done,
            float(physics.memory_mb[instance] if live else physics.disk_mb[instance]),
            float(physics.dirty_mb_s[instance]) if live and running else 0.0,
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

    def _copy(self, flow: Flow) -> None:
        flow.copying, flow.settled_at = True, self.events.now
        if not flow.live:
            flow.stopped_at = self.events.now
        for host in (flow.source, flow.destination):
            self._at_host.setdefault(host, {})[flow] = None
        self._share_again(flow)

    def _end(self, flow: Flow) -> None:
        self._settle(flow)
        was_copying, flow.copying, flow.ended_at = flow.copying, False, self.events.now
        if was_copying:
            for host in (flow.source, flow.destination):
                self._at_host[host].pop(flow, None)
            self._share_again(flow)

    def _share_again(self, changed: Flow) -> None:
        """New rates for all flows that share a host with one that began or ended."""
        touched = {**self._at_host[changed.source], **self._at_host[changed.destination]}
        for flow in touched:
            self._settle(flow)
            flow.rate = 0.0 if flow.hangs else self._rate(flow)
            self._wait(flow)

    def _rate(self, flow: Flow) -> float:
        nic, at = self.physics.nic_mb_s, self._at_host
        share = min(float(nic[host]) / len(at[host]) for host in (flow.source, flow.destination))
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
