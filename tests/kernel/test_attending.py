from __future__ import annotations

import asyncio
import sys

from killswitch.daemon.app import attend
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

SEND = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"


def test_a_daemon_that_still_judges_what_runs_cuts_nobody_off(plane: DataPlane, watched: Cgroup) -> None:
    def sends() -> bool:
        return watched.run(sys.executable, "-I", "-S", "-c", SEND).returncode == 0

    async def starts() -> bool:
        plane.set_grace(watched.id, 3000)
        attending = asyncio.create_task(attend(plane))
        await asyncio.sleep(4)  # longer than the grace, and nothing is drained
        attending.cancel()
        return await asyncio.to_thread(sends)

    assert asyncio.run(starts())
    assert not plane.unattended(watched.id)
    plane.set_grace(watched.id, 1)  # it was in force: who is not attended is cut off
    asyncio.run(asyncio.sleep(0.05))
    assert not sends()
    assert plane.unattended(watched.id)
