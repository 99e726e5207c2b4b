"""Severed is severed: no packet leaves, none comes in, on sockets of every kind, made before or after."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment
from killswitch.events import Connect, Exec
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

PEER = Path(__file__).with_name("programs") / "peer.py"
SEVERED = Containment(severed=True)
KINDS = ("tcp4", "tcp6", "udp4", "udp6", "icmp4", "icmp6", "raw4", "raw6")


class Far:
    """The far side, not watched: counts what arrives."""

    def __init__(self, stack: contextlib.ExitStack, cgroup: Cgroup) -> None:
        tcp = {f: stack.enter_context(socket.create_server((a, 0), family=f)) for f, a in _LOOPBACK.items()}
        self.udp = {f: stack.enter_context(socket.socket(f, socket.SOCK_DGRAM)) for f in _LOOPBACK}
        for family, s in self.udp.items():
            s.bind((_LOOPBACK[family], 0))
        ports = [s.getsockname()[1] for s in (*tcp.values(), *self.udp.values())]
        self.process: subprocess.Popen[bytes] = cgroup.popen(
            sys.executable, "-I", "-S", PEER, *map(str, ports), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.callback(self._end)
        self.tcp = {f: stack.enter_context(s.accept()[0]) for f, s in tcp.items()}
        self.listener_port = int(self._line())

    def _end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().decode().strip()

    def ask(self, command: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()
        return self._line()

    def of(self, kind: str) -> socket.socket:
        return {"tcp4": self.tcp[socket.AF_INET], "tcp6": self.tcp[socket.AF_INET6],
                "udp4": self.udp[socket.AF_INET], "udp6": self.udp[socket.AF_INET6]}[kind]  # fmt: skip

    def heard(self, kind: str) -> bytes:
        """What arrives here."""
        s = self.of(kind)
        return s.recv(4096) if select.select([s], [], [], 10)[0] else b""

    def silent(self, kind: str) -> bool:
        return not select.select([self.of(kind)], [], [], 0.3)[0]


_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture
def far(watched: Cgroup) -> Iterator[Far]:
    with contextlib.ExitStack() as stack:
        yield Far(stack, watched)


def test_everything_works_before_and_nothing_after(plane: DataPlane, watched: Cgroup, far: Far) -> None:
    for kind in KINDS:
        assert far.ask(f"use {kind}") == "sent", kind
        if kind[:3] in ("tcp", "udp"):
            assert far.heard(kind) == b"ping " + kind.encode()
        if kind.startswith("icmp"):
            assert far.ask(f"hear {kind}").startswith("heard"), kind
    sent = plane.flows(watched.id).tx_packets

    plane.set_containment(watched.id, SEVERED)
    for kind in KINDS:
        far.ask(f"use {kind}")
        if kind[:3] in ("tcp", "udp"):
            assert far.silent(kind), f"{kind}: something arrived"
    assert far.ask("new") == " ".join(["denied"] * 6)
    flows = plane.flows(watched.id)
    assert flows.tx_packets == sent
    assert flows.tx_dropped >= len(KINDS)


def test_nothing_comes_in(plane: DataPlane, watched: Cgroup, far: Far) -> None:
    for kind in ("udp4", "udp6"):
        far.ask(f"use {kind}")
        far.udp_peer = far.of(kind).recvfrom(100)[1]  # type: ignore[attr-defined]
        far.of(kind).sendto(b"hello", far.udp_peer)  # type: ignore[attr-defined]
        assert far.ask(f"hear {kind}") == "heard 5"
        plane.set_containment(watched.id, SEVERED)
        far.of(kind).sendto(b"hello", far.udp_peer)  # type: ignore[attr-defined]
        assert far.ask(f"silent {kind}") == "silence"
        plane.set_containment(watched.id, FREE)
    for kind in ("tcp4", "tcp6"):
        plane.set_containment(watched.id, SEVERED)
        far.of(kind).send(b"hello")
        assert far.ask(f"silent {kind}") == "silence"
    assert plane.flows(watched.id).rx_dropped >= 4
    stranger = socket.socket()
    stranger.settimeout(0.5)
    with stranger, pytest.raises(TimeoutError):
        stranger.connect(("127.0.0.1", far.listener_port))


def test_release_reconnects(plane: DataPlane, watched: Cgroup, far: Far) -> None:
    plane.set_containment(watched.id, SEVERED)
    far.ask("use tcp4")
    assert far.silent("tcp4")
    plane.set_containment(watched.id, FREE)
    for kind in ("udp4", "udp6"):
        assert far.ask(f"use {kind}") == "sent"
        assert far.heard(kind) == b"ping " + kind.encode()
    assert far.ask("new") == " ".join(["made"] * 6)


def test_connect_is_denied_and_told(plane: DataPlane, watched: Cgroup) -> None:
    code = (
        "import socket, sys; s = socket.socket(); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(s.connect_ex(('127.0.0.1', 9)))\n"
        "for f in (lambda: u.sendto(b'', ('127.0.0.1', 9)), lambda: s.bind(('127.0.0.1', 0))):\n"
        "    try: f()\n"
        "    except OSError as e: print(e.errno)\n"
    )
    process = watched.popen(sys.executable, "-I", "-S", "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    plane.set_containment(watched.id, SEVERED)
    out, _ = process.communicate(b"\n")
    assert out.split() == [b"1", b"1", b"1"], "EPERM each time"
    told = [e for e in plane.drain(1000) if isinstance(e, Connect)]
    assert [(e.operation, e.denied) for e in told] == [("connect", True), ("sendmsg", True)]


def test_children_and_other_network_namespaces_are_cut_as_well(plane: DataPlane, watched: Cgroup) -> None:
    plane.set_containment(watched.id, SEVERED)
    code = "import socket; socket.socket()"
    for command in (["/bin/sh", "-c"], ["/usr/bin/unshare", "-n", "/bin/sh", "-c"]):
        done = watched.run(*command, f"{sys.executable} -I -S -c '{code}'; exit $?")
        assert b"Operation not permitted" in done.stderr
    deeper = watched.child("deeper")
    assert b"Operation not permitted" in deeper.run(sys.executable, "-I", "-S", "-c", code).stderr


def test_execs_of_a_severed_workload_are_still_told(plane: DataPlane, watched: Cgroup) -> None:
    plane.set_containment(watched.id, SEVERED)
    assert watched.run("/bin/true").returncode == 0
    assert [e.name for e in plane.drain(100) if isinstance(e, Exec)] == ["true"]


def test_the_rest_of_the_host_is_not_touched(plane: DataPlane, watched: Cgroup) -> None:
    plane.set_containment(watched.id, SEVERED)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.send(b"x")
        assert server.accept()[0].recv(1) == b"x"
