"""The dead man's switch: a daemon that is killed, stopped or starved for longer than the policy's grace is itself a reason to
sever, and it is the kernel's programs that do it, since nobody else is there."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from killswitch.commands import Containment
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

GRACE_NS = 3_000_000_000
LATEST_NS = 100_000_000  # after the grace
LOOKS_NS = 500_000_000  # an idle daemon looks at its rings, which is its heartbeat, at least so often
FREE, SEVERED = Containment(), Containment(severed=True)

POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: guarded, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: enforce
on_daemon_loss: %s
%s
rules:
  - {id: never, title: never, level: low, on: exec, match: {a: {process.name: ks-none}}, condition: a, response: [alert]}
"""


@pytest.fixture
def guarded(make_daemon: Callable[..., Daemon], far: FarSide) -> Iterator[Callable[[str], tuple[Daemon, Counter]]]:
    """Starts a daemon whose policy says this of its absence, and a workload ``talker`` that sends to the far side without end."""
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:

        def start(what: str, grace: str = "daemon_grace: 3s") -> tuple[Daemon, Counter]:
            daemon = make_daemon()
            daemon.write_policies({"guarded.yaml": POLICY % (what, grace)})
            daemon.start()
            daemon.watched("talker")
            daemon.spawn("talker", str(program("sender")), "udp", far.far4, str(sink.address[1]), "100", "2000")
            counter.wait_for(10)
            return daemon, counter

        yield start


def silence_begins(counter: Counter, gone_ns: int) -> None:
    """Nothing leaves later than the grace and 100 ms after ``gone_ns``, and much leaves before."""
    time.sleep(max(0, gone_ns + GRACE_NS + LATEST_NS - time.time_ns()) / 1e9 + 0.7)
    assert counter.since(gone_ns + GRACE_NS + LATEST_NS) == []
    assert counter.since(gone_ns + GRACE_NS - LOOKS_NS - LATEST_NS) != []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_is_gone_severs_and_one_that_is_back_lets_go(
    guarded: Callable[..., tuple[Daemon, Counter]], how: signal.Signals
) -> None:
    daemon, counter = guarded("sever")
    daemon.end(how)
    gone = time.time_ns()
    silence_begins(counter, gone)
    if how is signal.SIGTERM:
        assert "severed by the kernel unless a daemon is back in time" in daemon.log()
    daemon.start()
    counter.wait_for(5, since=time.time_ns())
    w = daemon.workload("talker")
    assert w
    assert (w.desired, w.observed) == (FREE, FREE)
    (incident,) = daemon.client.incidents()
    assert [f.rule for f in daemon.client.incident(incident.id).findings] == ["unattended"]


def test_a_stopped_daemon_severs_and_goes_on_as_it_was(guarded: Callable[..., tuple[Daemon, Counter]]) -> None:
    daemon, counter = guarded("sever")
    assert daemon.process
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        silence_begins(counter, time.time_ns())
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    counter.wait_for(5, since=time.time_ns())
    daemon.wait_for("its finding", lambda: daemon.client.incidents() or None)


def test_kept_until_an_operator_releases_it(guarded: Callable[..., tuple[Daemon, Counter]]) -> None:
    daemon, counter = guarded("sever_and_keep")
    daemon.kill9()
    silence_begins(counter, time.time_ns())
    daemon.start()
    w = daemon.wait_for("severed by order", lambda: (x := daemon.workload("talker")) and x.desired == SEVERED and x)
    time.sleep(0.5)
    back = time.time_ns()
    daemon.kill9()
    daemon.start()  # from now on it is an order like any other
    assert counter.since(back) == []
    w = daemon.workload("talker")
    assert w
    assert (w.desired, w.observed) == (SEVERED, SEVERED)
    assert daemon.client.release("talker", "test").workload.observed == FREE


def test_an_order_outlasts_the_absence(guarded: Callable[..., tuple[Daemon, Counter]]) -> None:
    daemon, counter = guarded("sever")
    daemon.client.sever("talker", "test")
    cut = time.time_ns()
    daemon.kill9()
    time.sleep(GRACE_NS / 1e9 + 0.3)
    daemon.start()
    time.sleep(1.5)
    w = daemon.workload("talker")
    assert w
    assert w.desired == SEVERED
    assert counter.since(cut) == []


def test_a_restart_within_the_grace_cuts_nobody_off(guarded: Callable[..., tuple[Daemon, Counter]]) -> None:
    daemon, counter = guarded("sever", "daemon_grace: 30s")
    for how in (signal.SIGKILL, signal.SIGTERM):
        daemon.restart(how)
    counter.wait_for(5, since=time.time_ns())
    assert not daemon.client.incidents()


def test_who_may_go_on_goes_on(guarded: Callable[..., tuple[Daemon, Counter]]) -> None:
    daemon, counter = guarded("allow", "")
    daemon.kill9()
    time.sleep(GRACE_NS / 1e9 + 0.5)
    counter.wait_for(5, since=time.time_ns())
