from __future__ import annotations

import asyncio
import os
import signal

import pytest

from killswitch.errors import Gone
from killswitch.kernel import pidfd, procfs
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import SLEEPER, actor


def test_a_signal_hits_the_process_that_is_meant(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a:
        with pidfd.process(a.pid, procfs.start_ticks(a.pid)) as fd:
            pidfd.send(fd, signal.SIGTERM)
        assert a.process.wait(10) == -signal.SIGTERM


def test_a_signal_for_an_earlier_process_of_that_number_is_not_sent(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a:
        with pytest.raises(Gone, match="has ended"), pidfd.process(a.pid, procfs.start_ticks(a.pid) - 1) as fd:
            pidfd.send(fd, signal.SIGKILL)
        assert a.process.poll() is None


def test_a_held_descriptor_outlives_the_number(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a, pidfd.process(a.pid, procfs.start_ticks(a.pid)) as fd:
        a.process.kill()
        a.process.wait()
        assert pidfd.exited(fd)
        with pytest.raises(Gone):
            pidfd.send(fd, signal.SIGKILL)


def test_a_zombie_has_ended(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a:
        ticks = procfs.start_ticks(a.pid)
        a.process.kill()
        os.waitid(os.P_PID, a.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Gone):
            pidfd.open_process(a.pid, ticks)


def test_waiting_for_the_end(cgroup: Cgroup) -> None:
    async def scene(fd: int, pid: int) -> None:
        assert not await pidfd.wait_exit(fd, 0.05)
        waiting = asyncio.create_task(pidfd.wait_exit(fd, 30))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        assert await asyncio.wait_for(waiting, 10)

    with actor(cgroup, SLEEPER) as a, pidfd.process(a.pid, procfs.start_ticks(a.pid)) as fd:
        asyncio.run(scene(fd, a.pid))
