"""A contained workload whose cgroup goes away: what a service manager starts there next is cut off before it is there."""

from __future__ import annotations

import socket
import subprocess
import time

from killswitch.commands import Containment
from killswitch.control.service import WorkloadInfo
from killswitch.kernel import cgroupfs
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

CUT_OFF = Containment(severed=True, frozen=True)
SEVERED = Containment(severed=True)
FREE = Containment()


def held(daemon: Daemon, other_than: int) -> WorkloadInfo | None:
    w = daemon.workload("agent")
    return w if w and w.id not in (0, other_than) and w.observed.severed else None


def test_what_is_started_in_its_place_sends_nothing_and_is_frozen(daemon: Daemon, far: FarSide) -> None:
    before = daemon.watched("agent").id
    incident = daemon.client.kill("agent", "test").incident
    path = daemon.cgroup_dir / "agent"
    path.rmdir()
    w = daemon.wait_for("its place is held", lambda: held(daemon, before))
    assert (w.desired, w.observed, w.incident, w.processes) == (CUT_OFF, SEVERED, incident, 0)
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:
        sender = (str(program("sender")), "udp", far.far4, str(sink.address[1]), "60", "500")
        daemon.spawn("agent", *sender)
        daemon.wait_for("frozen", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
        assert cgroupfs.is_frozen(path)
        assert counter.since(0) == []
        assert daemon.client.release("agent", "test").workload.observed == FREE
        daemon.spawn("agent", *sender)
        counter.wait_for(5)


def test_after_a_reboot_the_places_are_there_before_anything_runs(daemon: Daemon, far: FarSide) -> None:
    """As far as a reboot can be had here: programs, pins and cgroups are gone, the ledger is not."""
    daemon.watched("agent")
    incident = daemon.client.kill("agent", "test").incident
    daemon.stop()
    daemon.remove_pins()
    (daemon.cgroup_dir / "agent").rmdir()
    daemon.cgroup_dir.rmdir()
    daemon.start()
    w = daemon.workload("agent")
    assert w
    assert (w.desired, w.observed, w.incident) == (CUT_OFF, SEVERED, incident)
    assert cgroupfs.cgroup_id(daemon.cgroup_dir / "agent") == w.id
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:
        daemon.spawn("agent", str(program("sender")), "udp", far.far4, str(sink.address[1]), "60", "500")
        daemon.wait_for("frozen", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
        assert counter.since(0) == []


def test_a_place_that_something_moves_into_is_frozen_too(daemon: Daemon) -> None:
    """Without an exec inside that would tell."""
    before = daemon.watched("agent").id
    daemon.client.kill("agent", "test")
    (daemon.cgroup_dir / "agent").rmdir()
    daemon.wait_for("its place is held", lambda: held(daemon, before))
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        cgroupfs.move(daemon.cgroup_dir / "agent", process.pid)
        daemon.wait_for("frozen", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    finally:
        process.kill()
        process.wait()


def test_released_while_nothing_runs_there_the_place_goes_and_is_forgotten(daemon: Daemon) -> None:
    before = daemon.watched("agent").id
    incident = daemon.client.kill("agent", "test").incident
    (daemon.cgroup_dir / "agent").rmdir()
    daemon.wait_for("its place is held", lambda: held(daemon, before))
    order = daemon.client.release("agent", "test")
    assert order.complete and order.workload.observed == FREE
    assert daemon.client.incident(incident).closed_unix > 0
    daemon.wait_for("off the list", lambda: daemon.workload("agent") is None)
    time.sleep(0.3)
    assert not (daemon.cgroup_dir / "agent").exists()


def test_a_place_that_is_in_use_stays_when_it_is_released(daemon: Daemon) -> None:
    before = daemon.watched("agent").id
    daemon.client.kill("agent", "test")
    path = daemon.cgroup_dir / "agent"
    path.rmdir()
    w = daemon.wait_for("its place is held", lambda: held(daemon, before))
    (path / "inner").mkdir()
    assert daemon.client.release("agent", "test").complete
    assert cgroupfs.cgroup_id(path) == w.id
