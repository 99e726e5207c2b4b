from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.kernel import cgroupfs, netns, procfs, sockdiag, sockets
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import LEADERLESS, actor
from tests.rig.netns import ip

ALL_KINDS = """
import socket, sys
far = (sys.argv[1], int(sys.argv[2]))
family = socket.AF_INET6 if ":" in far[0] else socket.AF_INET
def make(kind, *bind):
    s = socket.socket(family, kind)
    if bind:
        s.bind(bind)
    return s
listener = make(socket.SOCK_STREAM, far[0], 0); listener.listen()
outgoing = socket.create_connection(far)
incoming_client = socket.create_connection(listener.getsockname()[:2]); incoming, _ = listener.accept()
datagram = make(socket.SOCK_DGRAM, far[0], 0)
port = make(socket.SOCK_DGRAM, far[0], int(sys.argv[3]))
idle = make(socket.SOCK_DGRAM)
unconnected = make(socket.SOCK_STREAM)
reuse = []
for n in range(4):
    s = make(socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((far[0], reuse[0].getsockname()[1] if reuse else 0)); s.listen(); reuse.append(s)
pair = socket.socketpair()
print("ready", flush=True)
sys.stdin.readline()
def tell(name, act):
    try:
        print(name, "works", act())
    except OSError as e:
        print(name, e.errno)
tell("outgoing", lambda: outgoing.recv(1))
tell("incoming", lambda: incoming.send(b"x"))
tell("listener", listener.accept)
tell("datagram", lambda: datagram.recv(1))
tell("port", lambda: [port.sendto(b"x", far) for _ in range(3)])
tell("port again", lambda: port.sendto(b"x", far))
tell("idle", lambda: idle.sendto(b"x", far))
tell("unconnected", lambda: (unconnected.connect(far), unconnected.send(b"x")))
for s in reuse:
    tell("reuse", s.accept)
tell("pair", lambda: pair[0].send(b"x"))
"""
ECONNABORTED, EPIPE, EINVAL, ECONNRESET = 103, 32, 22, 104


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ks-test-{os.getpid()}-sock"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "delete", name)


def far_side(address: str, where: str) -> socket.socket:
    """A listener that accepts into its backlog and says nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def make() -> socket.socket:
        return socket.create_server((address, 0), family=family)

    if not where:
        return make()
    fd = os.open(f"/run/netns/{where}", os.O_RDONLY)
    try:
        made = netns.socket_in(fd, family, socket.SOCK_STREAM, 0)
    finally:
        os.close(fd)
    made.bind((address, 0))
    made.listen()
    return made


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "other-netns"])
def test_every_kind_of_socket_is_of_no_use_any_more(
    address: str, elsewhere: bool, cgroup: Cgroup, namespace: str
) -> None:
    where = namespace if elsewhere else ""
    with far_side(address, where) as far, far_side(address, where) as other:
        taken = other.getsockname()[1]
        with actor(cgroup, ALL_KINDS, address, str(far.getsockname()[1]), str(taken), enter=where) as a:
            report = sockets.destroy_sockets(cgroupfs.processes(cgroup.path), cgroupfs.subtree_ids(cgroup.path))
            assert report.complete and report.remaining == ()
            assert report.namespaces == (2 if elsewhere else 1)
            assert report.held == {"unix": 2} and report.foreign == 0
            said = a.says().splitlines()
        outcome = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in said if "works" not in line}
        assert outcome["outgoing"] == ECONNABORTED
        assert outcome["incoming"] in (ECONNABORTED, ECONNRESET, EPIPE)
        assert outcome["listener"] == outcome["reuse"] == EINVAL
        assert outcome["datagram"] == ECONNABORTED
        assert {outcome["port again"], outcome["idle"], outcome["unconnected"]} == {EPIPE}
        assert [x for x in said if "works" in x] == ["pair works 1"]  # a unix socket is not inet: counted, left alone


def test_what_is_not_the_workloads_is_left_alone(cgroup: Cgroup) -> None:
    with far_side("127.0.0.1", "") as far, socket.create_connection(far.getsockname()) as ours:
        accepted, _ = far.accept()
        with accepted, actor(cgroup, ALL_KINDS, "127.0.0.1", str(far.getsockname()[1]), "0"):
            sockets.destroy_sockets(cgroupfs.processes(cgroup.path), cgroupfs.subtree_ids(cgroup.path))
            ours.sendall(b"still here")
            assert accepted.recv(100) == b"still here"


def test_a_raw_socket_is_nobodys_to_destroy(cgroup: Cgroup) -> None:
    """The kernel would take the first that fits, which is the one of this process. The programs judge what the other sends."""
    code = """
import socket, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 254)
print("ready", flush=True)
sys.stdin.readline()
print(raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
"""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 254) as ours, actor(cgroup, code) as a:
        report = sockets.destroy_sockets(cgroupfs.processes(cgroup.path), cgroupfs.subtree_ids(cgroup.path))
        assert report.complete and not report.destroyed and report.held == {"raw": 1}
        assert a.says().splitlines() == ["0"]
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        ours.sendto(b"still here", ("127.0.0.1", 0))
        assert b"still here" in ours.recv(100)


def test_a_socket_that_was_made_outside_and_inherited_is_destroyed_unless_it_is_spared(cgroup: Cgroup) -> None:
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(far_side("127.0.0.1", ""))
        ends = [stack.enter_context(socket.create_connection(far.getsockname())) for _ in range(2)]
        process = cgroup.popen("sleep", "600", pass_fds=[e.fileno() for e in ends])
        stack.callback(process.wait)
        stack.callback(process.kill)
        spare = frozenset({os.fstat(ends[1].fileno()).st_ino})
        report = sockets.destroy_sockets([process.pid], cgroupfs.subtree_ids(cgroup.path), spare)
        assert report.foreign == 1 and len(report.destroyed) == 1 and report.complete
        with pytest.raises(ConnectionAbortedError):
            ends[0].recv(1)
        assert ends[1].send(b"x") == 1


def test_a_socket_in_a_namespace_that_every_process_has_left_is_found(cgroup: Cgroup, namespace: str) -> None:
    code = """
import ctypes, os, socket, sys
own = os.open("/proc/self/ns/net", os.O_RDONLY)
libc = ctypes.CDLL(None)
assert libc.setns(os.open(sys.argv[1], os.O_RDONLY), 0) == 0
listener = socket.create_server(("127.0.0.1", 0))
quiet = socket.create_server(("127.0.0.1", 0)); os.set_inheritable(quiet.fileno(), False)
assert libc.setns(own, 0) == 0
print("ready", flush=True)
sys.stdin.readline()
for s in (listener, quiet):
    try:
        s.accept()
    except OSError as e:
        print(e.errno)
"""
    with actor(cgroup, code, f"/run/netns/{namespace}") as a:
        report = sockets.destroy_sockets([a.pid], frozenset({cgroup.id}))
        assert report.namespaces == 2 and len(report.destroyed) == 2 and report.complete
        assert a.says().split() == [str(EINVAL)] * 2


def test_a_socket_of_a_process_whose_first_thread_has_ended_is_found() -> None:
    process = subprocess.Popen([sys.executable, "-c", LEADERLESS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        inode = int(process.stdout.readline().split()[1])
        assert inode in sockets.held_sockets([process.pid])
    finally:
        process.kill()
        process.communicate()


def test_packet_sockets_are_counted_not_forgotten(cgroup: Cgroup) -> None:
    code = """
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print("ready", flush=True)
time.sleep(600)
"""
    with actor(cgroup, code) as a:
        report = sockets.destroy_sockets([a.pid], frozenset({cgroup.id}))
        destroyed_raw = sum(s.transport == "raw" for s in report.destroyed)
        assert report.held.get("packet") == 1 and report.held.get("raw", 0) + destroyed_raw == 1


def test_entering_another_namespace_leaves_this_thread_where_it_was(namespace: str) -> None:
    before = netns.own(), Path("/proc/thread-self/ns/net").readlink(), threading.active_count()
    with far_side("127.0.0.1", namespace) as there:
        fd = netns.open_of_socket(there.fileno())
        assert os.fstat(fd).st_ino == Path(f"/run/netns/{namespace}").stat().st_ino != before[0]
        os.close(fd)
    assert (netns.own(), Path("/proc/thread-self/ns/net").readlink(), threading.active_count()) == before


def test_a_listing_has_addresses_states_and_the_cgroup_that_made_it() -> None:
    with far_side("::1", "") as far, socket.create_connection(far.getsockname()[:2]) as end, sockdiag.Diag() as diag:
        by_inode = {s.inode: s for s in diag.dump()}
        mine = by_inode[os.fstat(end.fileno()).st_ino]
        assert str(mine) == f"tcp established [::1]:{end.getsockname()[1]} > [::1]:{far.getsockname()[1]}"
        assert by_inode[os.fstat(far.fileno()).st_ino].state == 10
        assert mine.cgroup == cgroupfs.cgroup_id(cgroupfs.from_root(procfs.cgroup(os.getpid())))
