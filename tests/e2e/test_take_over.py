"""A workload that has run for a while is watched: what is there already (processes, connections, listeners) is taken over."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment, Outcome, Step
from killswitch.kernel import cgroupfs
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

CUT_OFF = Containment(severed=True, frozen=True)
SHARE = b'{"id":4,"method":"mining.submit","params":["x","1","0","0","0"]}\n'
OTHER = b'{"jsonrpc":"2.0","id":4,"method":"textDocument/hover","params":{}}\n'
# Opens everything before it is watched; each line that it is told then goes out on the connection that it had.
OLD_HAND = """
import socket, sys
far, near, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
stream = socket.create_connection((far, port))
stream.sendall(b"hello\\n")
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener = socket.create_server((near, 0))
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    try:
        stream.sendall(bytes.fromhex(line.strip()))
        datagrams.sendto(b"d", (far, port))
        print("sent", flush=True)
    except OSError as e:
        print(e.errno, flush=True)
"""


class Early:
    """A cgroup that no policy watches, with a program in it that has connections already."""

    def __init__(self, daemon: Daemon, far: FarSide, sink: Sink) -> None:
        self.path = Path(f"{daemon.cgroup_dir}-early")  # beside its own, so that no glob matches
        self.name = f"{daemon.cgroup_parent}-early"
        self.path.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", OLD_HAND, far.far4, far.near4, str(sink.address[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: (self.path / "cgroup.procs").write_text("0") and None,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def tell(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.hex() + "\n")
        self.process.stdin.flush()

    def told(self, line: bytes) -> str:
        self.tell(line)
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def close(self, daemon: Daemon) -> None:
        self.process.kill()
        daemon.kill9()
        cgroupfs.freeze(self.path, False)
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        cgroupfs.kill(self.path)
        cgroupfs.remove(self.path, timeout_s=5)


@pytest.fixture
def sink(far: FarSide) -> Iterator[Sink]:
    with Sink(far) as found:
        yield found


@pytest.fixture
def early(daemon: Daemon, far: FarSide, sink: Sink) -> Iterator[Early]:
    made = Early(daemon, far, sink)
    try:
        yield made
    finally:
        made.close(daemon)


def watch_by_policy(daemon: Daemon) -> None:
    """The policies come to watch it, with all their rules."""
    for file in daemon.policy_dir.glob("*.yaml"):
        file.write_text(file.read_text().replace(f"{daemon.cgroup_parent}/**", f"{daemon.cgroup_parent}-*"))
    daemon.client.reload_policies("watch what runs")


def test_connections_and_listeners_of_before_are_cut_off(daemon: Daemon, far: FarSide, early: Early) -> None:
    with Counter(far) as counter:
        assert early.told(OTHER) == "sent"
        counter.wait_for(2)
        daemon.client.watch(early.name)
        assert early.told(OTHER) == "sent"  # to be watched is not to be cut off
        knock = far.open_socket()
        knock.settimeout(5)
        knock.connect((far.near4, early.port))  # and who listens is reached
        severed = daemon.client.sever(early.name, "test")
        cut = time.time_ns()
        at = {r.step: r for r in severed.receipts}
        assert at[Step.DESTROY_SOCKETS].outcome is Outcome.DONE
        assert int(at[Step.DESTROY_SOCKETS].proof["destroyed"]) >= 3
        assert early.told(OTHER) != "sent"
        late = far.open_socket()
        late.settimeout(0.5)
        with pytest.raises(OSError):
            late.connect((far.near4, early.port))
        for s in (knock, late):
            s.close()
        assert counter.since(cut) == []


def test_an_open_connection_is_judged_from_its_next_message(daemon: Daemon, sink: Sink, early: Early) -> None:
    """Its handshake was over before anybody looked."""
    watch_by_policy(daemon)
    w = daemon.wait_for("watched", lambda: next((x for x in daemon.client.workloads() if x.cgroup == early.name), None))
    before = sink.received
    early.tell(SHARE)  # it may be frozen before it answers
    daemon.wait_for(
        "cut off", lambda: next(x for x in daemon.client.workloads() if x.cgroup == early.name).observed.severed
    )
    time.sleep(0.3)
    assert sink.received == before
    incident = daemon.client.incidents()[0]
    assert incident.cgroup == w.cgroup and incident.level == "critical"


def test_an_open_connection_with_honest_work_goes_on(daemon: Daemon, sink: Sink, early: Early) -> None:
    watch_by_policy(daemon)
    daemon.wait_for("watched", lambda: [x for x in daemon.client.workloads() if x.cgroup == early.name])
    before = sink.received
    for _ in range(20):
        assert early.told(OTHER) == "sent"
    daemon.wait_for("all of it", lambda: sink.received == before + 20 * len(OTHER))
    assert not daemon.client.incidents()


def test_processes_of_before_are_frozen_with_all_that_they_start(daemon: Daemon, early: Early) -> None:
    crowd = subprocess.Popen(
        [program("storm"), "30"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: (early.path / "cgroup.procs").write_text("0") and None,
    )
    try:
        assert crowd.stdout and crowd.stdin
        crowd.stdout.readline()
        daemon.client.watch(early.name)
        killed = daemon.client.kill(early.name, "test")
        assert killed.complete and killed.workload.observed == CUT_OFF
        before = cgroupfs.cpu_usage_ns(early.path), set(cgroupfs.processes(early.path))
        time.sleep(0.2)
        assert (cgroupfs.cpu_usage_ns(early.path), set(cgroupfs.processes(early.path))) == before
        assert len(before[1]) >= 31
    finally:
        crowd.kill()
        cgroupfs.freeze(early.path, False)
        crowd.wait(10)
