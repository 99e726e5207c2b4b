"""The daemon comes before what burns every CPU, with all of its threads; what it starts does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from killswitch.kernel import scheduling
from tests.rig.daemon import Daemon


def classes(pid: int) -> set[tuple[int, int]]:
    """(class, priority) of each thread."""
    threads = [int(t.name) for t in Path("/proc", str(pid), "task").iterdir()]
    return {(os.sched_getscheduler(t), os.sched_getparam(t).sched_priority) for t in threads}


def test_every_thread_is_of_the_real_time_class(daemon: Daemon) -> None:
    daemon.cgroup("w")
    daemon.client.watch(f"{daemon.cgroup_parent}/w", name="w")
    daemon.client.kill("w", reason="a test", wait_for_evidence=True)
    assert daemon.process
    found = classes(daemon.process.pid)
    if (os.SCHED_OTHER, 0) in found and "not in the real-time class" in daemon.log():
        pytest.skip("this kernel refuses the real-time class here, and the daemon has said so")
    assert found == {(os.SCHED_RR, scheduling.URGENT), (os.SCHED_RR, scheduling.BEHIND)}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
