"""The hold: from exec until the daemon has judged it, a program and what it forks put no packet on the wire."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Packet, Sink
from tests.rig.netns import FarSide

HEAD = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: holding, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: %s
%s
rules:
"""
NEVER = (
    "  - {id: never, title: t, level: low, on: exec, match: {a: {process.name: n}}, condition: a, response: [alert]}\n"
)
BY_HASH = """\
  - id: by-hash
    title: Known by its content
    level: high
    on: exec
    match: {a: {file.hash.sha256: %s}}
    condition: a
    response: [kill_process]
"""
QUIET = 0.6  # seconds in which what was not held would have come


class Scene:
    """A daemon, a watched workload, and a far side that takes in and counts what comes."""

    def __init__(self, daemon: Daemon, far: FarSide, counter: Counter, sinks: dict[str, Sink]) -> None:
        self.daemon, self.far, self.counter, self.sinks = daemon, far, counter, sinks
        self.first = str(program("first"))

    def sends(self, what: str, *, six: bool = False, first: str = "") -> subprocess.Popen[bytes]:
        kind = ("tcp" if what == "tcp" else "udp") + "6" * six
        address = self.far.far6 if six else self.far.far4
        return self.daemon.spawn("w", first or self.first, what, address, str(self.sinks[kind].address[1]))

    def arrived(self, since: int) -> list[Packet]:
        return self.counter.since(since)

    @contextmanager
    def stopped(self) -> Iterator[int]:
        """With the daemon stopped; the time since when."""
        assert self.daemon.process
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            yield time.time_ns()
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)


@pytest.fixture
def scene(make_daemon: Callable[..., Daemon], far: FarSide) -> Iterator[Callable[..., Scene]]:
    """Starts a daemon with this policy, and the workload ``w``."""
    v6 = socket.AF_INET6
    with (
        Sink(far) as tcp,
        Sink(far, kind=socket.SOCK_DGRAM) as udp,
        Sink(far, family=v6) as tcp6,
        Sink(far, family=v6, kind=socket.SOCK_DGRAM) as udp6,
        Counter(far) as counter,
    ):

        def start(said: str = "hold: all", rules: str = NEVER, mode: str = "enforce") -> Scene:
            daemon = make_daemon()
            daemon.write_policies({"holding.yaml": HEAD % (mode, said) + rules})
            daemon.start()
            daemon.watched("w")
            made = Scene(daemon, far, counter, {"tcp": tcp, "udp": udp, "tcp6": tcp6, "udp6": udp6})
            assert made.sends("udp").wait(10) == 0  # the neighbours know each other from now on
            assert made.sends("udp", six=True).wait(10) == 0
            return made

        yield start


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_nothing_leaves_while_nobody_judges_and_then_all_of_it(scene: Callable[..., Scene], six: bool) -> None:
    s = scene()
    before = s.sinks["tcp6" if six else "tcp"].received
    with s.stopped() as since:
        made = [s.sends(what, six=six) for what in ("tcp", "udp", "fork", "exec", "tcp")]
        time.sleep(QUIET)
        assert s.arrived(since) == []
        assert [p.poll() for p in made] == [None, 0, 0, 0, None], "a datagram is gone for good, a connection waits"
    assert [p.wait(10) for p in made] == [0] * 5
    assert s.sinks["tcp6" if six else "tcp"].received == before + 10
    w = s.daemon.workload("w")
    assert w and w.held_packets >= 5
    assert w.dropped_packets == 0, "held is not severed"
    assert not s.daemon.client.incidents()


HANDS_ON = """
import os, socket, subprocess, sys
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
line.sendall(b"before")
print("ready", flush=True)
sys.stdin.readline()
print(subprocess.run([sys.argv[3], "fd", str(line.fileno())], pass_fds=[line.fileno()]).returncode, flush=True)
sys.stdin.readline()
"""


def test_what_ran_before_goes_on_and_what_it_executes_is_held(scene: Callable[..., Scene]) -> None:
    """A process that was judged sends on; a fresh program is held also on a connection that it was given."""
    s = scene()
    port = str(s.sinks["tcp"].address[1])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    giver = s.daemon.spawn("w", sys.executable, "-c", HANDS_ON, s.far.far4, port, s.first, **pipes)
    assert giver.stdin and giver.stdout
    with giver.stdin, giver.stdout:
        assert giver.stdout.readline() == b"ready\n"
        s.daemon.spawn("w", str(program("sender")), "udp", s.far.far4, str(s.sinks["udp"].address[1]), "50", "400")
        s.counter.wait_for(30)
        with s.stopped() as since:
            received = s.sinks["tcp"].received
            giver.stdin.write(b"\n")
            giver.stdin.flush()
            assert giver.stdout.readline() == b"0\n", "it was written into the socket"
            time.sleep(QUIET)  # the kernel tries again and again, when the program has long ended
            assert s.sinks["tcp"].received == received
            assert {p.protocol for p in s.arrived(since)} == {socket.IPPROTO_UDP}, "who was judged goes on"
        s.daemon.wait_for("what was written", lambda: s.sinks["tcp"].received == received + 5)


def test_a_program_known_by_its_content_sends_nothing_before_its_verdict(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Each time another file, so that each has to be read; the verdict is a kill, so nothing ever comes."""
    copies = [Path(shutil.copy(program("first"), tmp_path / f"copy{n}")) for n in range(60)]
    for n, copy in enumerate(copies):
        with copy.open("ab") as file:
            file.write(b"%d" % n)
    sums = [hashlib.sha256(copy.read_bytes()).hexdigest() for copy in copies]
    s = scene("hold: matched", BY_HASH % f"[{', '.join(sums)}]")
    since = time.time_ns()
    for what in ("tcp", "udp", "fork", "exec", "udp"):
        made = [s.sends(what, first=str(copy)) for copy in copies]
        statuses = [p.wait(20) for p in made]
        assert set(statuses) <= {-signal.SIGKILL, 0, 4}, "killed, or it had ended before"
        if what == "tcp":
            assert set(statuses) == {-signal.SIGKILL}
    time.sleep(QUIET)
    assert s.arrived(since) == []
    assert s.sends("tcp").wait(10) == 0, "who is another file goes out"
    (incident,) = s.daemon.client.incidents()
    assert len(s.daemon.client.incident(incident.id).findings) >= 1


@pytest.mark.parametrize(
    ("said", "mode"), [("hold: off", "enforce"), ("hold: all", "monitor"), ("hold: matched", "enforce")]
)
def test_who_is_not_to_be_held_is_not(scene: Callable[..., Scene], said: str, mode: str) -> None:
    s = scene(said, mode=mode)
    with s.stopped() as since:
        assert s.sends("tcp").wait(5) == 0
        assert s.sends("udp").wait(5) == 0
        s.counter.wait_for(5, since=since)


def test_a_gate_that_is_to_open_opens_after_the_grace(scene: Callable[..., Scene]) -> None:
    s = scene("hold: all\non_daemon_loss: allow\ndaemon_grace: 3s")
    s.daemon.kill9()
    since = time.time_ns()
    waiting = s.sends("tcp")
    time.sleep(QUIET)
    assert s.arrived(since) == []
    assert waiting.wait(10) == 0
    assert s.sends("udp").wait(5) == 0
    s.counter.wait_for(5, since=since + 2_000_000_000)


def test_a_gate_that_is_to_stay_shut_stays_shut_until_a_daemon_is_back(scene: Callable[..., Scene]) -> None:
    """Also for what the new daemon finds running: it judges that before it lets it go."""
    s = scene("hold: all\non_daemon_loss: hold")
    s.daemon.kill9()
    since = time.time_ns()
    waiting = s.sends("tcp")
    time.sleep(4)
    assert s.arrived(since) == []
    s.daemon.start()
    assert waiting.wait(20) == 0
    assert s.sends("udp").wait(5) == 0
    assert s.daemon.workload("w").desired.severed is False  # type: ignore[union-attr]


def test_the_dead_mans_switch_cuts_who_is_held_like_everybody(scene: Callable[..., Scene]) -> None:
    s = scene("hold: all\non_daemon_loss: sever\ndaemon_grace: 3s")
    with s.stopped() as since:
        waiting = s.sends("tcp")
        time.sleep(3.3)
        assert s.arrived(since) == []
    assert waiting.wait(20) in (0, 3)
    s.daemon.wait_for("let go", lambda: s.sends("tcp").wait(10) == 0)


FLOOD = """
long = "x" * 4000
import subprocess, sys
for _ in range(int(sys.argv[2])):
    subprocess.run([sys.argv[1], long])
"""


def test_an_exec_that_there_was_no_room_to_tell_of_is_held_until_what_runs_is_judged(
    scene: Callable[..., Scene],
) -> None:
    """A ring that a flood has filled loses the exec, not the hold."""
    s = scene()
    with s.stopped() as since:
        assert s.daemon.spawn("w", sys.executable, "-c", FLOOD, s.first, "420").wait(60) == 0
        waiting = s.sends("tcp")
        time.sleep(QUIET)
        assert s.arrived(since) == []
    assert waiting.wait(20) == 0
    lost = s.daemon.wait_for("what was lost", lambda: s.daemon.client.status().lost)
    assert set(lost) & {"exec_ring_full", "execs_flooded"}
    assert s.sends("tcp").wait(10) == 0
