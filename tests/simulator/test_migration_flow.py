"""Pre-copy as a fluid: against the closed form, and shared network cards."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.simulator.events import Events
from trimtab.simulator.migration import CONVERGE, Flow, Mishap, Network, Physics

SETUP, DOWN = 3.0, 0.5


def _network(nics: list[float], memory: list[float], dirty: list[float]) -> tuple[Events, Network]:
    events = Events(100.0)
    physics = Physics(np.array(nics), np.array(dirty), np.array(memory), np.array(memory) * 2, SETUP, DOWN)
    return events, Network(events, physics)


@settings(max_examples=60, deadline=None)
@given(st.floats(100, 500_000), st.floats(10, 3_000), st.floats(0, 5_000))
def test_one_live_migration_takes_what_the_closed_form_says(memory: float, rate: float, dirty: float) -> None:
    events, network = _network([rate, 2 * rate], [memory], [dirty])
    done: list[Flow] = []
    network.begin(0, 0, 1, live=True, running=True, done=done.append)
    events.run_until(1e12)
    (flow,) = done
    slowed = min(dirty, CONVERGE * rate)
    copying = max(memory - rate * DOWN, 0) / (rate - slowed)
    downtime = min(DOWN, memory / rate)
    assert flow.ended_at is not None
    assert flow.stopped_at is not None
    assert flow.stopped_at == pytest.approx(100 + SETUP + copying, abs=1e-6)
    assert flow.ended_at - flow.stopped_at == pytest.approx(downtime, abs=1e-5)
    assert flow.sent_mb == pytest.approx(rate * (copying + downtime), rel=1e-6)


def test_the_fluid_is_the_limit_of_clarks_rounds() -> None:
    memory, rate, dirty = 16_384.0, 1_000.0, 300.0
    left, took = memory, 0.0
    for _ in range(60):
        took, left = took + left / rate, left / rate * dirty
    events, network = _network([rate, rate], [memory], [dirty])
    network.physics = replace(network.physics, setup_s=0.0, downtime_s=0.0)
    done: list[Flow] = []
    network.begin(0, 0, 1, live=True, running=True, done=done.append)
    events.run_until(1e9)
    assert done[0].ended_at == pytest.approx(100 + took, abs=1e-6)
    assert done[0].sent_mb == pytest.approx(rate * took)


def test_a_guest_that_is_paused_dirties_nothing_and_a_cold_one_copies_its_disk_while_down() -> None:
    events, network = _network([100, 100, 100, 100], [1000, 1000], [50, 50])
    done: list[Flow] = []
    network.begin(0, 0, 1, live=True, running=False, done=done.append)
    network.begin(1, 2, 3, live=False, running=True, done=done.append)
    events.run_until(1e6)
    assert [flow.ended_at for flow in done] == pytest.approx([100 + SETUP + 10, 100 + SETUP + 20])
    assert done[1].stopped_at == 100 + SETUP


def test_migrations_share_the_card_of_the_host_they_have_in_common() -> None:
    events, network = _network([100, 100, 100, 1000], [1000, 1000, 500], [0, 0, 0])
    done: list[Flow] = []
    for instance, (source, destination) in enumerate([(0, 1), (0, 2), (3, 1)]):
        network.begin(instance, source, destination, live=True, running=True, done=done.append)
    events.run_until(1e6)
    # all at 50 MB/s; the third is through after 10 s, the others stay at 50 because host 0 is shared until the end
    ended = {flow.instance: flow.ended_at for flow in done}
    assert ended == pytest.approx({2: 100 + SETUP + 10, 0: 100 + SETUP + 20, 1: 100 + SETUP + 20})


def test_what_is_left_goes_faster_when_another_has_ended() -> None:
    events, network = _network([100, 1000, 1000], [1000, 400], [0, 0])
    done: list[Flow] = []
    network.begin(0, 0, 1, live=True, running=True, done=done.append)
    network.begin(1, 0, 2, live=True, running=True, done=done.append)
    events.run_until(1e6)
    assert [flow.ended_at for flow in done] == pytest.approx([100 + SETUP + 8, 100 + SETUP + 14])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_card_ever_carries_more_than_it_can_and_all_migrations_end(data: st.DataObject) -> None:
    hosts = data.draw(st.integers(2, 5))
    nics = data.draw(st.lists(st.floats(50, 1000), min_size=hosts, max_size=hosts))
    count = data.draw(st.integers(1, 12))
    memory = data.draw(st.lists(st.floats(10, 50_000), min_size=count, max_size=count))
    dirty = data.draw(st.lists(st.floats(0, 2_000), min_size=count, max_size=count))
    events, network = _network(nics, memory, dirty)
    flows: list[Flow] = []
    done: list[Flow] = []
    for instance in range(count):
        source = data.draw(st.integers(0, hosts - 1))
        destination = (source + data.draw(st.integers(1, hosts - 1))) % hosts
        begin = events.now + data.draw(st.floats(0, 60))
        events.run_until(begin)
        flows.append(network.begin(instance, source, destination, live=True, running=True, done=done.append))
        for host in range(hosts):
            carried = sum(f.rate for f in flows if f.copying and host in (f.source, f.destination))
            assert carried <= nics[host] * (1 + 1e-9)
    events.run_until(events.now + 1e9)
    assert len(done) == count
    ends = [flow.ended_at or 0.0 for flow in done]
    assert all(a <= b for a, b in pairwise(ends))
    assert all(flow.sent_mb >= memory[flow.instance] * (1 - 1e-9) for flow in done)


def test_a_hanging_copy_never_ends_and_a_slow_one_is_slower() -> None:
    events, network = _network([100] * 4, [1000, 1000], [0, 0])
    done: list[Flow] = []
    hanging = network.begin(0, 0, 1, live=True, running=True, done=done.append, mishap=Mishap(hangs=True))
    network.begin(1, 2, 3, live=True, running=True, done=done.append, mishap=Mishap(slower=10))
    events.run_until(1e6)
    assert [flow.instance for flow in done] == [1]
    assert done[0].ended_at == pytest.approx(100 + SETUP + 100)
    network.drop(hanging)
    assert hanging.ended_at == 1e6
    assert hanging.sent_mb == 0
