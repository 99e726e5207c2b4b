"""A daemon that is gone, or does not get on, severs: when the last packet left, by how it went."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

from benchmarks import scene
from benchmarks.proof.figures import Figure, count, spread
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

GRACE_MS = 3000.0
LATEST_MS = 100.0  # after the grace
POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: guarded, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: enforce
on_daemon_loss: sever
daemon_grace: 3s
rules:
  - {id: never, title: never, level: low, on: exec, match: {a: {process.name: ks-none}}, condition: a, response: [alert]}
"""


def severs(losses: int, *, label: str = scene.LABEL) -> Iterator[Figure]:
    """In turn stopped (SIGSTOP) and killed (SIGKILL), while a workload sends without end."""
    found: dict[signal.Signals, list[float]] = {signal.SIGSTOP: [], signal.SIGKILL: []}
    late = 0
    with (
        Daemon(label, policies={"guarded.yaml": POLICY}) as daemon,
        FarSide(label) as far,
        Sink(far, kind=socket.SOCK_DGRAM) as sink,
        Counter(far) as counter,
    ):
        daemon.watched("talker")
        for number in range(losses):
            how = tuple(found)[number % len(found)]
            counter.packets.clear()
            sender = daemon.spawn(
                "talker", str(program("sender")), "udp", far.far4, str(sink.address[1]), "100", "1000"
            )
            counter.wait_for(10)
            last, after = _lose(daemon, counter, how)
            found[how].append(last)
            late += after
            sender.kill()
            sender.wait(10)
            if how is signal.SIGKILL:
                daemon.start()
            daemon.wait_for("let go again", lambda: (w := daemon.workload("talker")) and str(w.observed) == "free")
    yield count("absence", f"packets later than the grace and {LATEST_MS:.0f} ms", losses, late)
    for how, times in found.items():
        if times:
            what = f"{how.name}: last packet, after the grace of {GRACE_MS:.0f} ms"
            yield spread("absence", what, times, LATEST_MS, "negative: counted from the last sign of life")


def _lose(daemon: Daemon, counter: Counter, how: signal.Signals) -> tuple[float, int]:
    """(milliseconds from the end of the grace to the last packet, packets later than what is allowed)."""
    assert daemon.process
    pid = daemon.process.pid
    if how is signal.SIGKILL:
        daemon.kill9()
    else:
        os.kill(pid, how)
    gone = time.time_ns()
    try:
        time.sleep((GRACE_MS + LATEST_MS) / 1e3 + 0.5)
        heard = counter.since(0)
        last = max(p.unix_ns for p in heard)
        latest = gone + int((GRACE_MS + LATEST_MS) * 1e6)
        return (last - gone) / 1e6 - GRACE_MS, sum(p.unix_ns > latest for p in heard)
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
