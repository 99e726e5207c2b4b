"""``kill host``: everything is cut but the operators' way in and what is allowed; what is watched is frozen, the host is not.

The host is never the machine here: it is a cgroup and a network namespace of the test, which the daemon is told.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.errors import Protected, TargetError
from tests.kernel.cgroups import Cgroup
from tests.rig import clean_host
from tests.rig.daemon import Daemon, DaemonFailed
from tests.rig.farside import Counter, Packet
from tests.rig.island import Island
from tests.rig.sshd import Sshd

# Sends to the far side, ten times a second: datagrams, and tries to connect. Says each time that it lives, and what it heard
# from itself over its loopback.
SENDER = """
import socket, sys, time
target, port = sys.argv[1], int(sys.argv[2])
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own.bind(("127.0.0.1", 0)); own.setblocking(False)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for act in (lambda: s.sendto(b"x", (target, port)), lambda: s.sendto(b"l", own.getsockname())):
        try: act()
        except OSError: pass
    c = socket.socket(); c.setblocking(False); c.connect_ex((target, port))
    time.sleep(0.05)
    try: heard = own.recv(10)
    except OSError: heard = b""
    print(len(heard), flush=True)
    c.close()
"""
# The same by a packet socket.
FRAMES = """
import socket, struct, sys, time
device, source, target, port = *sys.argv[1:4], int(sys.argv[4])
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
frame = b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + ip + struct.pack("!HHHH", 4000, port, 8, 0)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); s.bind((device, 0x0800))
while True:
    try: s.send(frame)
    except OSError: pass
    time.sleep(0.05)
"""
HOSTS, CONTAINERS, FRAMED, WORKLOADS = 4001, 4002, 4003, 4004  # which port of the far side tells whose packet it was


@pytest.fixture
def island() -> Iterator[Island]:
    with Island() as made:
        yield made


@pytest.fixture
def host(island: Island) -> Iterator[Cgroup]:
    """The root of the host's cgroup tree, as far as the daemon is told."""
    root = clean_host.cgroup_root()
    assert root
    made = Cgroup(root / f"{island.name}-tree")
    yield made
    made.remove()


@pytest.fixture
def make(make_daemon: Callable[..., Daemon], island: Island, host: Cgroup) -> Callable[..., Daemon]:
    def start(*allow: str, **settings: str) -> Daemon:
        return make_daemon(
            KILLSWITCH_HOST_CGROUP=f"/{host.path.name}",
            KILLSWITCH_HOST_NETNS=str(island.host_netns),
            KILLSWITCH_HOST_ALLOW=";".join(allow),
            KILLSWITCH_RECONCILE_SECONDS="0.3",
            **settings,
        )

    return start


@pytest.fixture
def counter(island: Island) -> Iterator[Counter]:
    with Counter(island) as counting:
        yield counting


class Scene:
    """Whoever may send: the host, a container that it forwards for, a packet socket, a watched workload."""

    def __init__(self, island: Island, host: Cgroup, daemon: Daemon) -> None:
        self.island = island
        pipes = {"stdout": subprocess.PIPE}
        self.host = host.popen(*island.command("python3", "-c", SENDER, island.far4, str(HOSTS)), **pipes)
        inside = island.command("python3", "-c", SENDER, island.far4, str(CONTAINERS), namespace=island.container)
        self.container = host.popen(*inside, stdout=subprocess.DEVNULL)
        framing = (island.near_device, island.near4, island.far4, str(FRAMED))
        self.framing = host.popen(*island.command("python3", "-c", FRAMES, *framing))
        daemon.watched("agent")
        self.agent = daemon.spawn("agent", *island.command("python3", "-c", SENDER, island.far4, str(WORKLOADS)))
        self.all = (self.host, self.container, self.framing)

    def wait(self) -> None:
        for process in self.all:
            process.wait()

    def lives(self) -> bytes:
        """What the host's own process says next: it runs, and hears itself."""
        assert self.host.stdout
        while self.host.stdout.peek(1) and len(self.host.stdout.peek(1)) > 2:  # type: ignore[attr-defined]
            self.host.stdout.readline()
        return self.host.stdout.readline().strip()


def ports(packets: list[Packet]) -> set[int]:
    return {p.destination_port for p in packets}


ALL = {HOSTS, CONTAINERS, FRAMED, WORKLOADS}


def until_all(counter: Counter, wanted: set[int], since: int = 0) -> None:
    end = time.monotonic() + 15
    while not wanted <= ports(counter.since(since)):
        assert time.monotonic() < end, f"only {ports(counter.since(since))} of {wanted} arrive"
        time.sleep(0.05)


class HostsSshd(Sshd):
    """The operators' sshd: in the host's namespace and cgroup tree, and with the mounts of the daemon."""

    def __init__(self, island: Island, host: Cgroup, directory: Path) -> None:
        near = Island.__new__(Island)
        near.__dict__.update(island.__dict__, far4=island.near4, far6=island.near6, name=island.host)
        near.run = lambda *command, **options: host.popen(*island.command(*command), **options)  # type: ignore[method-assign]
        super().__init__(near, directory)

    def from_far(self, island: Island, *command: str) -> list[str]:
        """An ssh of the far side's to it."""
        return ["ip", "netns", "exec", island.name, *self.client(command=command)]


def test_everything_but_the_way_in(
    make: Callable[..., Daemon], island: Island, host: Cgroup, counter: Counter, tmp_path: Path
) -> None:
    daemon = make().start()
    scene = Scene(island, host, daemon)
    with HostsSshd(island, host, tmp_path / "sshd") as sshd:
        session = subprocess.Popen(
            sshd.from_far(island, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert session.stdin and session.stdout
        try:
            session.stdin.write(b"before\n")
            session.stdin.flush()
            assert session.stdout.readline() == b"before\n"
            until_all(counter, ALL)
            result = daemon.client.kill("host", "the whole host misbehaves")
            since = time.time_ns()
            assert result.complete, result.receipts
            sever = result.receipts[0]
            assert sever.proof["tried_nowhere"] == "dropped"
            assert sever.proof["tried_22"] == "passes"
            assert str(result.workload.observed) == "severed"
            session.stdin.write(b"after\n")
            session.stdin.flush()
            assert session.stdout.readline() == b"after\n"  # who gave the order keeps the session
            new = subprocess.run(sshd.from_far(island, "echo", "new"), capture_output=True, timeout=30)
            assert new.stdout == b"new\n", new.stderr
            time.sleep(0.5)
            assert not ports(counter.since(since)) & ALL
            assert scene.lives() == b"1"  # it runs, and its loopback is left to it
            agent = daemon.workload("agent")
            assert agent
            assert str(agent.observed) == "severed+frozen"

            # Nothing of it hangs on the daemon.
            daemon.kill9()
            time.sleep(0.3)
            assert not ports(counter.since(since)) & ALL
            daemon.start()
            assert str(daemon.client.status().host.observed) == "severed"
            shown = daemon.cli("status").stdout
            assert "cut off" in shown and "sshd" in shown
            time.sleep(0.5)
            assert not ports(counter.since(since)) & ALL

            assert daemon.client.release("host", "all clear").complete
            released = time.time_ns()
            until_all(counter, {HOSTS, CONTAINERS, FRAMED}, since=released)
            assert WORKLOADS not in ports(counter.since(since))  # it is released by its name
            assert str(daemon.client.status().host.desired) == "free"
            assert daemon.client.incidents(open_only=True)[0].id != result.incident
        finally:
            session.kill()
            session.communicate()
            host.remove()
            scene.wait()


def test_a_repair_under_way_does_not_undo_a_release(make: Callable[..., Daemon]) -> None:
    daemon = make("address 203.0.113.1", "in tcp 4020").start()
    for turn in range(6):
        assert daemon.client.kill("host", "x").complete
        time.sleep(0.05 * turn)  # the repairs come every 0.3 s
        assert daemon.client.release("host", "all clear").complete
        time.sleep(0.5)
        host = daemon.client.status().host
        assert (str(host.desired), str(host.observed)) == ("free", "free"), turn
    assert "had slipped" not in daemon.log()


def test_no_way_in_no_order(make: Callable[..., Daemon], island: Island, host: Cgroup, counter: Counter) -> None:
    daemon = make().start()
    scene = Scene(island, host, daemon)
    try:
        until_all(counter, ALL)
        with pytest.raises(Protected, match="--force"):
            daemon.client.kill("host", "x")
        assert daemon.cli("kill", "host", "--reason", "x").returncode == 4
        for wrong in (daemon.client.freeze, daemon.client.terminate):
            with pytest.raises(Protected):
                wrong("host", "x")
        with pytest.raises(TargetError, match="not cut off"):
            daemon.client.release("host", "x")
        until_all(counter, ALL, since=time.time_ns())  # nothing was begun
        done = daemon.cli("sever", "host", "--reason", "nobody is to get in", "--force")
        since = time.time_ns()
        assert done.returncode == 0, done.stderr
        time.sleep(0.5)
        assert not ports(counter.since(since)) & ALL
        agent = daemon.workload("agent")
        assert agent
        assert str(agent.observed) == "severed"  # not frozen: that was not ordered
        daemon.watched("later")
        daemon.wait_for("severed as well", lambda: str(daemon.workload("later").observed) == "severed")  # type: ignore[union-attr]
        assert daemon.client.release("host", "x").complete
    finally:
        host.remove()
        scene.wait()


def test_what_is_allowed_goes_through(
    make: Callable[..., Daemon], island: Island, host: Cgroup, counter: Counter
) -> None:
    """By who begins: what may come in may not be gone out by, nor the other way round."""
    daemon = make(f"out tcp {island.far4} 4010-4013", "in tcp 4020-4021", f"out udp {island.far4} {HOSTS}").start()
    scene = Scene(island, host, daemon)
    try:
        until_all(counter, ALL)
        assert daemon.client.sever("host", "x").complete
        since = time.time_ns()

        def connects(namespace: str, address: tuple[str, int], source_port: int = 0) -> bool:
            with island.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as s:
                s.settimeout(0.7)
                if source_port:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("0.0.0.0", source_port))
                try:
                    s.connect(address)
                except OSError:
                    return False
                return True

        here = [island.socket_in(island.host, socket.AF_INET, socket.SOCK_STREAM) for _ in range(2)]
        for s, port in zip(here, (4020, 4022), strict=True):
            s.bind((island.near4, port))
            s.listen()
        with island.listen(4010), island.listen(4015), here[0], here[1]:
            assert connects(island.name, (island.near4, 4020))
            assert not connects(island.name, (island.near4, 4022))
            assert connects(island.host, (island.far4, 4010))
            assert not connects(island.host, (island.far4, 4015))
            assert not connects(island.host, (island.far4, 4015), source_port=4021)  # from an allowed port
            assert not connects(island.name, (island.near4, 4022), source_port=4013)
            assert not connects(island.container, (island.far4, 4010))  # forwarded: never
        until_all(counter, {HOSTS}, since=since)
        assert not ports(counter.since(since)) & {CONTAINERS, WORKLOADS}
    finally:
        host.remove()
        scene.wait()


def test_it_is_repaired(make: Callable[..., Daemon], island: Island, host: Cgroup, counter: Counter) -> None:
    """What somebody takes away comes back; a device that appears is guarded."""
    daemon = make("address 203.0.113.1").start()
    scene = Scene(island, host, daemon)
    try:
        until_all(counter, ALL)
        assert daemon.client.sever("host", "x").complete
        for pin in (daemon.pin_dir / "host").iterdir():
            pin.unlink()
        at_devices = daemon.pin_dir / "devices"  # where the kernel has links that can be pinned
        for directory in at_devices.iterdir() if at_devices.exists() else ():
            for pin in directory.iterdir():
                pin.unlink()
        daemon.wait_for("repaired", lambda: len(list((daemon.pin_dir / "host").iterdir())) == 2)
        daemon.wait_for("seen", lambda: "slipped" in daemon.log())
        time.sleep(0.5)
        since = time.time_ns()
        time.sleep(0.4)
        assert not ports(counter.since(since)) & ALL
        # After a reboot there is no pin: the ledger says what is to be.
        daemon.kill9()
        daemon.remove_pins()
        daemon.start()
        since = time.time_ns()
        time.sleep(0.4)
        assert not ports(counter.since(since)) & ALL
        assert daemon.client.release("host", "x").complete
    finally:
        host.remove()
        scene.wait()


def test_it_can_be_switched_off(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(KILLSWITCH_HOST_CGROUP="none", KILLSWITCH_HOST_NETNS="/run/netns/ks-nowhere").start()
    done = daemon.cli("kill", "host", "--reason", "x", "--force")
    assert done.returncode != 0
    assert "switched off" in done.stderr


def test_no_test_can_mean_the_machine() -> None:
    for settings in ({"KILLSWITCH_HOST_CGROUP": "/"}, {"KILLSWITCH_HOST_NETNS": ""}):
        with pytest.raises(DaemonFailed, match="the machine itself"):
            Daemon(**settings)
    daemon = Daemon()
    try:
        daemon.start()
        done = daemon.cli(
            "kill", "host", "--reason", "x", "--force"
        )  # the default of the tests: a namespace that is none
        assert done.returncode != 0, done.stdout
        assert "network namespace" in done.stderr
    finally:
        daemon.remove()
