"""Kills under load: what the far side hears after the reply, how long they took, and what they leave behind in the daemon."""

from __future__ import annotations

import resource
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import scene
from benchmarks.proof import objects
from benchmarks.proof.figures import Figure, count, spread
from killswitch.commands import Outcome, Step
from killswitch.control.client import Client
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

SETTLE = 0.1  # seconds to listen at the far side after each reply
LIMIT_MS = 20.0
PORT = 7000
WARM_UP = 20  # kills after which a daemon has what it needs: threads, connections, caches
# What a leak of one descriptor or one thread in a hundred kills would exceed. Connections of this client come and go.
SPARE_DESCRIPTORS, SPARE_THREADS = 3, 2


@dataclass(frozen=True, slots=True)
class Killed:
    heard: int  # packets before the kill
    leaked: tuple[str, ...]  # packets that arrived after the reply
    proven: bool  # severed and frozen by the receipts, by the kernel's own files, and by no CPU time used since
    severed_ms: float  # from just before the call
    frozen_ms: float
    replied_ms: float


def nothing_leaves(kills: int, *, label: str = scene.LABEL) -> Iterator[Figure]:
    """Each kill has its own senders, UDP and TCP at once, in turn over IPv4 and IPv6; connections established and new."""
    done: list[Killed] = []
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # what is destroyed here stays open over there
    with Daemon(label) as daemon, FarSide(label) as far, Counter(far) as counter, ExitStack() as sinks:
        cgroup = scene.make_workload(daemon, "sender")
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sinks.enter_context(Sink(far, family=family, kind=kind, port=PORT))
        assert daemon.process
        before = objects.Holdings.of(daemon.process.pid)
        for number in range(kills):
            done.append(_kill_senders(daemon.client, cgroup, counter, (far.far4, far.far6)[number % 2]))
            if number == min(WARM_UP, kills - 1):
                before = objects.Holdings.of(daemon.process.pid)
        time.sleep(1)  # what serves a connection that was closed just now ends by itself
        after = objects.Holdings.of(daemon.process.pid)
    leaked = [p for k in done for p in k.leaked]
    note = "; ".join(leaked[:5]) or f"{sum(k.heard for k in done):,} heard before the kills"
    note += f"; besides, {counter.farewells} acknowledgements by the host, of connections closed before"
    yield count("kills", "packets at the far side after the reply", kills, len(leaked), note=note)
    yield count("kills", "severed and frozen, proven", kills, sum(k.proven for k in done), kills)
    yield spread("kills", "from the order to severed", [k.severed_ms for k in done], None)
    yield spread("kills", "from the order to frozen and proven so", [k.frozen_ms for k in done], LIMIT_MS)
    yield spread("kills", "from the order to the reply", [k.replied_ms for k in done], None)
    more = after.descriptors - before.descriptors, after.threads - before.threads
    yield Figure(
        "kills",
        "descriptors and threads more than before",
        kills,
        f"{more[0]:+d}, {more[1]:+d}",
        f"≤ {SPARE_DESCRIPTORS}, {SPARE_THREADS}",
        more[0] <= SPARE_DESCRIPTORS and more[1] <= SPARE_THREADS,
        f"{after.descriptors} and {after.threads}; {(after.resident_kib - before.resident_kib) / 1024:+.1f} MiB resident",
    )


def _kill_senders(client: Client, cgroup: Path, counter: Counter, host: str) -> Killed:
    counter.packets.clear()
    senders = [
        subprocess.Popen(
            [program("sender"), kind, host, str(PORT), "60", "100"],
            preexec_fn=scene.entering(cgroup),
        )
        for kind in ("udp", "tcp")
    ]
    try:
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
            _wait_for(counter, protocol)
        started = time.monotonic_ns()
        result = client.kill(cgroup.name, reason="proof", request_id=uuid.uuid4().hex)
        replied, replied_ns = time.time_ns(), time.monotonic_ns()
        used = _cpu_usec(cgroup)
        time.sleep(SETTLE)
        at = {r.step: r for r in result.receipts}
        proven = (
            all(step in at and at[step].outcome is Outcome.DONE for step in (Step.SEVER, Step.FREEZE))
            and "frozen 1" in (cgroup / "cgroup.events").read_text()
            and _cpu_usec(cgroup) == used
            and all(sender.poll() is None for sender in senders)
        )
        severed, frozen = (
            at[step].finished_ns if step in at else time.monotonic_ns() for step in (Step.SEVER, Step.FREEZE)
        )
        leaked = counter.since(replied)
        times = ((t - started) / 1e6 for t in (severed, frozen, replied_ns))
        after = tuple(f"{p} after {(p.unix_ns - replied) / 1e6:.1f} ms" for p in leaked)
        return Killed(len(counter.packets) - len(after), after, proven, *times)
    finally:
        for sender in senders:
            sender.kill()
        client.release(cgroup.name, reason="proof", stage="all")
        for sender in senders:
            sender.wait(10)


def _wait_for(counter: Counter, protocol: int, packets: int = 10, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while sum(p.protocol == protocol for p in list(counter.packets)) < packets:
        if time.monotonic() > end:
            raise TimeoutError(f"nothing of IP protocol {protocol} reached the far side before the kill")
        time.sleep(0.002)


def _cpu_usec(cgroup: Path) -> int:
    return int((cgroup / "cpu.stat").read_text().split()[1])
