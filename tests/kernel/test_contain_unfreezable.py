"""A tree that does not freeze: a process in a killable, not freezable, wait (for a FUSE server that never answers)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment, Outcome
from killswitch.contain.protected import Protected
from killswitch.contain.switch import Switch
from killswitch.kernel import cgroupfs, procfs, syscalls
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import Actor, actor, ref

FROZEN = Containment(frozen=True)
STUCK = """
import os, sys
print("ready", flush=True)
os.stat(sys.argv[1] + "/file")
"""


@pytest.fixture
def silent_mount(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / f"ks-test-{os.getpid()}-fuse"
    point.mkdir()
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as e:
        pytest.skip(f"no FUSE here: {e}")
    syscalls.mount("ks-test", str(point), "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
    yield point
    ctypes.CDLL(None).umount2(os.fsencode(point), 2)
    os.close(fd)  # the server is gone: whoever still waits for it gets an error


def wait_until_stuck(a: Actor) -> None:
    deadline = time.monotonic() + 10
    while procfs.stat(a.pid).state != "D":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def stuck(cgroup: Cgroup, point: Path) -> Iterator[Actor]:
    with actor(cgroup, STUCK, point) as a:
        wait_until_stuck(a)
        yield a


def test_it_is_killed_and_the_receipt_says_so(
    plane: DataPlane, watched: Cgroup, silent_mount: Path, tmp_path: Path
) -> None:
    switch = Switch(plane, tmp_path, protected=Protected(), freeze_timeout_s=0.2)
    with stuck(watched, silent_mount) as a:
        [receipt] = asyncio.run(switch.contain(ref(watched), FROZEN, capture=False, incident="inc-1"))
        assert receipt.outcome is Outcome.DONE
        assert (receipt.proof["frozen"], receipt.proof["fallback"], receipt.proof["populated"]) == (0, "killed", 0)
        assert f"{a.pid} ({Path(sys.executable).name}" in str(receipt.proof["why"]) and "not frozen after 0.2 s" in str(
            receipt.proof["why"]
        )
        assert a.process.wait(5) == -9


def test_it_is_left_alive_and_named_when_the_policy_says_so(
    plane: DataPlane, watched: Cgroup, silent_mount: Path, tmp_path: Path
) -> None:
    switch = Switch(plane, tmp_path, protected=Protected(), freeze_timeout_s=0.2, kill_unfrozen=False)
    with stuck(watched, silent_mount) as a:
        [receipt] = asyncio.run(switch.contain(ref(watched), FROZEN, capture=False, incident="inc-1"))
        assert receipt.outcome is Outcome.FAILED and receipt.proof["frozen"] == 0
        assert f"{a.pid} ({Path(sys.executable).name}, D)" in receipt.error and a.process.poll() is None
        assert not cgroupfs.is_frozen(watched.path)
