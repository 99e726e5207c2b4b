"""Released after the reboot, they work as before, and nothing is left over."""

from __future__ import annotations

import time

from killswitch.commands import Containment
from tests.vm.service.host import arrived, client, until, workload
from tests.vm.service.test_2_before_reboot import PORTS


def test_released_they_send_again() -> None:
    began = time.time()
    for name in ("severed", "killed"):
        with client() as c:
            assert c.release(f"ks-test-{name}.service", "after the reboot").complete
        until(f"{name} sends", lambda name=name: arrived(PORTS[name], since=began) > 5)  # type: ignore[misc]
        w = workload(f"ks-test-{name}.service")
        assert w and w.observed == w.desired == Containment()
    with client() as c:
        assert [i for i in c.incidents() if not i.closed_unix] == []
        assert c.verify_log()[0]
