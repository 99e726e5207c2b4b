"""After a reboot: containment is in force before the services that it is about are started, and the far side has heard none."""

from __future__ import annotations

from pathlib import Path

from killswitch.commands import Outcome, Step
from tests.vm.service.host import UNIT, answers, arrived, cgroup_events, client, prop, until, workload
from tests.vm.service.test_2_before_reboot import CUT_OFF, PORTS, SEVERED


def tries(name: str) -> int:
    file = Path(f"/run/ks-test-tries-{name}")
    return file.read_text().count("\n") if file.exists() else 0


def at(name: str, unit: str) -> int:
    """Microseconds since the boot."""
    return int(prop(f"{name}TimestampMonotonic", unit))


def test_containment_was_there_before_they_were() -> None:
    until("the daemon is there", answers)
    until("what may send sends", lambda: arrived(PORTS["free"]) > 10)
    until("what is severed has tried for a while", lambda: tries("severed") > 5)
    until("what is killed is frozen", lambda: (w := workload("ks-test-killed.service")) and w.observed == CUT_OFF)
    # The whole boot is counted: the far side was up before the slice.
    assert arrived(PORTS["severed"]) == 0
    assert arrived(PORTS["killed"]) == 0
    ready = at("ActiveEnter", UNIT)
    assert 0 < at("ActiveEnter", "ks-test-far.service") < at("InactiveExit", "agents.slice")
    assert 0 < ready < at("InactiveExit", "agents.slice")
    for name in PORTS:
        assert ready < at("InactiveExit", f"ks-test-{name}.service")


def test_what_is_desired_is_what_is_observed() -> None:
    severed, killed = workload("ks-test-severed.service"), workload("ks-test-killed.service")
    free = workload("ks-test-free.service")
    assert severed and killed and free
    assert (severed.desired, severed.observed) == (SEVERED, SEVERED)
    assert (killed.desired, killed.observed) == (CUT_OFF, CUT_OFF)
    assert str(free.observed) == "free"
    assert cgroup_events("ks-test-killed.service") == {"populated": 1, "frozen": 1}


def test_the_ledger_says_so() -> None:
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if "btime" in line)
    with client() as c:
        assert not c.status().adopted  # nothing was pinned: it came from the ledger
        incidents = {i.workload_name: i for i in c.incidents() if not i.closed_unix}
        assert set(incidents) == {"ks-test-severed.service", "ks-test-killed.service"}
        for incident in incidents.values():
            assert incident.reason == "before the reboot"
            assert incident.opened_unix < booted + 1
            severed = [r.outcome for r in incident.receipts if r.step is Step.SEVER]
            assert severed[:2] == [Outcome.DONE, Outcome.DONE]  # then, and at this boot
        assert c.verify_log()[0]
