"""The data plane's census tells the same as a walk through /proc, of the workload and of nobody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from killswitch.kernel import cgroupfs, netns, procfs, sockets
from killswitch.kernel.dataplane import DataPlane
from killswitch.kernel.netns import namespaces_of
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import LEADERLESS, SLEEPER, actor

FAMILY = """
import ctypes, os, socket, time
made = [socket.socket(f, k) for f in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
os.open("/etc/passwd", os.O_RDONLY)
ends, told = os.pipe(), []
for n in range(20):
    if os.fork() == 0:
        if n == 0:
            ctypes.CDLL(None).unshare(0x40000000)  # CLONE_NEWNET
        mine = socket.socket()
        os.write(ends[1], b"x")
        time.sleep(600)
    told.append(os.read(ends[0], 1))
print("ready", flush=True)
time.sleep(600)
"""


def test_it_agrees_with_proc(plane: DataPlane, watched: Cgroup) -> None:
    inner = watched.child("inner")
    with actor(watched, FAMILY), actor(inner, FAMILY):
        pids = cgroupfs.processes(watched.path)
        found = plane.census(cgroupfs.subtree_ids(watched.path))
        assert found.lives.keys() >= set(pids) and len(pids) == 42
        assert found.held.keys() == sockets.held_sockets(pids).keys() and len(found.held) >= 2 * (6 + 20)
        assert {net for tid, net in found.lives.items() if tid in pids} == namespaces_of(pids).keys()
        assert len(set(found.lives.values()) - {netns.own()}) == 2
        for inode, (pid, descriptor) in found.held.items():
            assert Path(f"/proc/{pid}/fd/{descriptor}").readlink() == Path(f"socket:[{inode}]")
        assert {tid: procfs.namespace(tid, "net") for tid in found.lives} == found.lives


def test_a_part_of_a_workload_is_told_alone(plane: DataPlane, watched: Cgroup) -> None:
    inner = watched.child("inner")
    with actor(watched, FAMILY), actor(inner, SLEEPER) as a:
        found = plane.census(frozenset({inner.id}))
        assert found.lives.keys() == {a.pid} and found.held == {}


def test_nothing_is_told_of_who_is_not_watched(plane: DataPlane, make_cgroup: Callable[[], Cgroup]) -> None:
    stranger = make_cgroup()
    with actor(stranger, FAMILY):
        found = plane.census(frozenset({stranger.id}))
    assert found.held == {} and found.lives == {}


def test_a_process_whose_first_thread_has_ended_is_in_it(plane: DataPlane, watched: Cgroup) -> None:
    with actor(watched, LEADERLESS) as a:
        inode = int(a.first.split()[1])
        assert inode in plane.census(frozenset({watched.id})).held
