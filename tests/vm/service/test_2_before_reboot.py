"""Three services that send as soon as they are started, at every boot: one is let be, one severed, one killed."""

from __future__ import annotations

import time

from killswitch.commands import Containment
from tests.vm.service.host import arrived, client, sh, until, workload

PORTS = {"free": 7011, "severed": 7012, "killed": 7013}
CUT_OFF, SEVERED = Containment(severed=True, frozen=True), Containment(severed=True)


def test_what_is_contained_before_the_reboot() -> None:
    units = [f"ks-test-{name}.service" for name in PORTS]
    sh("systemctl", "enable", "--quiet", *units)
    sh("systemctl", "start", *units)
    for name, port in PORTS.items():
        until(f"{name} sends", lambda port=port: arrived(port) > 3)  # type: ignore[misc]
        until("it is watched", lambda name=name: workload(f"ks-test-{name}.service"))  # type: ignore[misc]
    with client() as c:
        assert c.sever("ks-test-severed.service", "before the reboot").workload.observed == SEVERED
        assert c.kill("ks-test-killed.service", "before the reboot", wait_for_evidence=True).complete
    cut = time.time()
    until("both send no more", lambda: arrived(7011, since=cut) > 10)
    assert arrived(7012, since=cut) == arrived(7013, since=cut) == 0

    def on_disk() -> bool:
        with client() as c:
            return "on disk" in {h.part: h.detail for h in c.status().health}["ledger"]

    until("the ledger is on disk", on_disk)
