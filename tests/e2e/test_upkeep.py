"""Somebody outside meddles with what is in the kernel: it is found, put right and said."""

from __future__ import annotations

import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment
from killswitch.kernel import cgroupfs, loader, pins
from killswitch.kernel.slots import Slots
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

SEVERED = Containment(severed=True)


def detach(daemon: Daemon, workload: int) -> None:
    tool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    for name in ("on_egress", "on_connect4", "on_sendmsg4"):
        (pin,) = daemon.pin_dir.glob(f"*/cgroups/{workload}/{name}")
        subprocess.run([tool, "link", "detach", "pinned", str(pin)], check=True)


def unpin(daemon: Daemon, workload: int) -> None:
    for pin in daemon.pin_dir.glob(f"*/cgroups/{workload}/*"):
        pin.unlink()


def overwrite(daemon: Daemon, workload: int) -> None:
    """The kernel's record says free, the ledger's severed."""
    (generation,) = pins.generations(daemon.pin_dir)
    opened = loader.Loaded(generation)
    try:
        Slots(opened).set_containment(workload, FREE)
    finally:
        opened.close()


def test_limits_of_the_daemon_are_put_back(daemon: Daemon) -> None:
    """Any process of root's may lower them, without a capability; with three files nothing can be frozen. (Hard limits take
    CAP_SYS_RESOURCE, which the unit has, and a container may lack.)"""
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "600")
    assert daemon.process
    pid, adjustment = daemon.process.pid, Path(f"/proc/{daemon.process.pid}/oom_score_adj")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE), adjustment.read_text()
    adjustment.write_text("1000")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[0][1]))
    daemon.wait_for("put back", lambda: "RLIMIT_NOFILE 3/" in daemon.log())
    daemon.wait_for("put back", lambda: "oom_score_adj 1000 (was" in daemon.log())
    assert (resource.prlimit(pid, resource.RLIMIT_NOFILE), adjustment.read_text()) == before
    assert daemon.client.kill("agent", "test").complete


@pytest.mark.parametrize("meddle", [detach, unpin, overwrite])
def test_what_severs_is_put_back(daemon: Daemon, far: FarSide, meddle: Callable[[Daemon, int], None]) -> None:
    workload = daemon.watched("agent").id
    counts = daemon.directory / "tried"
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:
        daemon.spawn("agent", str(program("insist")), str(sink.address[1]), "1000", str(counts), far.far4)
        counter.wait_for(10)
        daemon.client.sever("agent", "test")
        cut = time.time_ns()
        time.sleep(0.2)
        assert counter.since(cut) == []
        meddle(daemon, workload)
        daemon.wait_for(
            "put back", lambda: "attached again" in daemon.log() or "had slipped and was repaired" in daemon.log()
        )
        back = time.time_ns()
        tried = counts.read_bytes()
        time.sleep(0.4)
        assert counter.since(back) == []
        assert counts.read_bytes() != tried  # and not for want of trying
        w = daemon.workload("agent")
        assert w
        assert (w.desired, w.observed) == (SEVERED, SEVERED)


def test_all_pins_are_removed(daemon: Daemon) -> None:
    """Nothing can be put back: it ends, and the next start, which systemd sees to, begins anew with what the ledger says."""
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    assert daemon.client.kill("agent", "test").complete
    daemon.remove_pins()
    assert daemon.process
    assert daemon.process.wait(30) == 1
    assert "cannot be attached" in daemon.log()
    daemon.end()
    cgroupfs.freeze(Path(daemon.cgroup_dir, "agent"), False)
    daemon.start()
    w = daemon.workload("agent")
    assert w
    assert w.desired == w.observed == Containment(severed=True, frozen=True)
