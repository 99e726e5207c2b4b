"""Severed, a workload makes no new unix connection: where the kernel asks programs on a cgroup, and has no BPF LSM."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment
from killswitch.kernel import attach, lsm, unixhooks
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import Actor

ASKS = """
import errno, socket, sys
print("ready", flush=True)
before = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for line in sys.stdin:
    kind, _, path = line.strip().partition(" ")
    try:
        if kind == "stream":
            socket.socket(socket.AF_UNIX).connect(path)
        elif kind == "connect":
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(path)
        else:
            before.sendto(b"x", path)
        print("done", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
"""


@pytest.fixture
def asks(watched: Cgroup) -> Iterator[Actor]:
    made = Actor(watched, ASKS)
    yield made
    watched.remove()
    made.process.communicate()


def tell(actor: Actor, line: str) -> str:
    assert actor.process.stdin
    assert actor.process.stdout
    actor.process.stdin.write(line.encode() + b"\n")
    actor.process.stdin.flush()
    return actor.process.stdout.readline().decode().strip()


def test_until_it_is_released(plane: DataPlane, watched: Cgroup, asks: Actor, tmp_path: Path) -> None:
    if why := unixhooks.refusal():
        pytest.skip(why)
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters:
        stream.bind(f"{tmp_path}/stream")
        stream.listen()
        letters.bind(f"{tmp_path}/letters")
        lines = [f"stream {tmp_path}/stream", f"connect {tmp_path}/letters", f"send {tmp_path}/letters"]
        for containment, expected in ((FREE, "done"), (Containment(severed=True), "EPERM"), (FREE, "done")):
            plane.set_containment(watched.id, containment)
            assert [tell(asks, line) for line in lines] == [expected] * 3
        with socket.socket(socket.AF_UNIX) as ours:  # the rest of the host is not asked
            plane.set_containment(watched.id, Containment(severed=True))
            ours.connect(f"{tmp_path}/stream")


def test_they_are_where_nothing_better_is(plane: DataPlane, watched: Cgroup) -> None:
    generation = plane._loaded.generation
    there = {name for name in attach.UNIX if (generation.cgroup(watched.id) / name).exists()}
    assert there == (set() if unixhooks.refusal() else set(attach.UNIX))
    if not lsm.refusal():
        assert not there
