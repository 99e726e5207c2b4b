"""Containment outlives whatever befalls the daemon: it is killed, stopped, its ledger is lost, its disk is full."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.kernel import cgroupfs
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

CUT_OFF = Containment(severed=True, frozen=True)
FREE = Containment()


@pytest.fixture
def talking(daemon: Daemon, far: FarSide) -> Iterator[Counter]:
    """The workload ``talker`` sends to the far side, without end."""
    daemon.watched("talker")
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:  # type: ignore[arg-type]
        daemon.spawn("talker", str(program("sender")), "udp", far.far4, str(sink.address[1]), "100", "500")
        counter.wait_for(10)
        yield counter


def silent(counter: Counter, since: int) -> bool:
    time.sleep(0.4)
    return counter.since(since) == []


def test_kill_9_while_contained(daemon: Daemon, talking: Counter) -> None:
    killed = daemon.client.kill("talker", "first reason")
    cut = time.time_ns()
    assert killed.complete
    opened = daemon.client.incident(killed.incident).opened_unix
    daemon.wait_for("on disk", lambda: "on disk" in {h.part: h.detail for h in daemon.client.status().health}["ledger"])
    daemon.kill9()
    path = daemon.cgroup_dir / "talker"
    assert cgroupfs.is_frozen(path)
    cgroupfs.freeze(path, False)  # without the daemon, somebody thaws it: it is severed still
    assert silent(talking, cut)
    daemon.start()
    assert daemon.client.status().adopted
    w = daemon.workload("talker")
    assert w
    assert (w.desired, w.observed, w.incident) == (CUT_OFF, CUT_OFF, killed.incident)
    assert cgroupfs.is_frozen(path)
    assert silent(talking, cut)
    (incident,) = daemon.client.incidents()
    assert (incident.id, incident.reason, incident.opened_unix) == (killed.incident, "first reason", opened)
    assert len(incident.receipts) > len(killed.receipts)  # those of before and those of the restart
    released = daemon.client.release("talker", "test")
    assert released.complete
    assert released.workload.observed == FREE
    assert daemon.client.incident(killed.incident).closed_unix > 0


def test_released_after_a_restart_it_reaches_the_far_side_again(daemon: Daemon, far: FarSide) -> None:
    daemon.watched("talker")
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:
        daemon.client.sever("talker", "test")
        daemon.kill9()
        daemon.start()
        sender = (str(program("sender")), "udp", far.far4, str(sink.address[1]), "60", "500")
        daemon.spawn("talker", *sender)
        time.sleep(0.3)
        assert counter.since(0) == []
        daemon.client.release("talker", "test")
        daemon.spawn("talker", *sender)
        counter.wait_for(5)


def test_sigterm_keeps_containment_and_leaves_no_sockets(daemon: Daemon, talking: Counter) -> None:
    daemon.client.kill("talker", "test")
    cut = time.time_ns()
    assert daemon.stop() == 0
    assert list(daemon.runtime_dir.glob("*.sock")) == []
    assert cgroupfs.is_frozen(daemon.cgroup_dir / "talker")
    assert silent(talking, cut)
    daemon.start()
    w = daemon.workload("talker")
    assert w
    assert w.observed == CUT_OFF


def test_rules_in_the_kernel_go_on_without_a_daemon(daemon: Daemon, tmp_path: Path) -> None:
    rogue, trace = tmp_path / "xmrig", tmp_path / "trace"
    rogue.write_bytes(program("tracer").read_bytes())
    rogue.chmod(0o755)
    daemon.watched("agent")
    daemon.kill9()
    process = daemon.spawn("agent", "/usr/bin/env", "-i", f"T={trace}", str(rogue))
    assert process.wait(10) == -9
    assert not trace.exists()
    daemon.start()
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    daemon.wait_for("the finding", lambda: [f for i in daemon.client.incidents() for f in i.findings])


@pytest.mark.parametrize("damage", ["garbage", "deleted", "truncated"])
def test_lost_ledger_loses_no_containment(daemon: Daemon, talking: Counter, damage: str) -> None:
    daemon.client.kill("talker", "test")
    cut = time.time_ns()
    daemon.kill9()
    ledger = daemon.state_dir / "ledger.db"
    for file in daemon.state_dir.glob("ledger.db*"):
        if damage == "deleted" or file != ledger:
            file.unlink()
    if damage == "garbage":
        ledger.write_bytes(os.urandom(8192))
    elif damage == "truncated":
        os.truncate(ledger, 100)
    daemon.start()
    w = daemon.workload("talker")
    assert w
    assert (w.desired, w.observed) == (CUT_OFF, CUT_OFF)
    assert w.incident
    assert silent(talking, cut)
    if damage == "garbage":
        assert list(daemon.state_dir.glob("ledger.db.corrupt-*"))
        assert "moved to" in daemon.log()
    assert daemon.client.release("talker", "test").workload.observed == FREE
    assert daemon.client.verify_log()[0]


def test_lost_pins_lose_no_containment(daemon: Daemon, talking: Counter) -> None:
    """What a reboot does: the kernel's record is gone, the ledger's is left."""
    killed = daemon.client.kill("talker", "test")
    daemon.stop()
    daemon.remove_pins()
    daemon.start()
    cut = time.time_ns()
    assert not daemon.client.status().adopted
    w = daemon.workload("talker")
    assert w
    assert (w.desired, w.observed, w.incident) == (CUT_OFF, CUT_OFF, killed.incident)
    cgroupfs.freeze(daemon.cgroup_dir / "talker", False)
    assert silent(talking, cut)


def test_thawed_behind_its_back_is_frozen_again(daemon: Daemon) -> None:
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    daemon.client.kill("agent", "test")
    path = daemon.cgroup_dir / "agent"
    cgroupfs.freeze(path, False)
    daemon.wait_for("frozen again", lambda: cgroupfs.is_frozen(path))
    daemon.wait_for("said so", lambda: "repaired" in daemon.log())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 1 MiB: a state directory that can be filled."""
    disk = Path("/tmp", f"ks-test-{os.getpid()}-disk")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "ks-test", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        disk.rmdir()


def fill(disk: Path) -> Path:
    file = disk / "filler"
    with file.open("wb", buffering=0) as f, contextlib.suppress(OSError):  # full: what was wanted
        while f.write(b"x" * 4096):
            pass
    return file


def test_full_disk_delays_no_kill_and_loses_nothing(make_daemon: Callable[..., Daemon], small_disk: Path) -> None:
    daemon = make_daemon(KILLSWITCH_STATE_DIR=str(small_disk))
    daemon.start()
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    filler = fill(small_disk)
    result = daemon.client.kill("agent", "disk is full")
    assert result.workload.observed == CUT_OFF
    daemon.wait_for("it is reported", lambda: not {h.part: h.ok for h in daemon.client.status().health}["ledger"])
    filler.unlink()
    daemon.wait_for(
        "written again", lambda: {h.part: h.ok for h in daemon.client.status().health}["ledger"], seconds=30
    )
    daemon.stop()
    rows = sqlite3.connect(small_disk / "ledger.db").execute("SELECT data FROM desired").fetchall()
    assert len(rows) == 1
    assert '"severed":true' in rows[0][0]


def test_daemon_starts_on_a_full_disk(make_daemon: Callable[..., Daemon], small_disk: Path) -> None:
    daemon = make_daemon(KILLSWITCH_STATE_DIR=str(small_disk))
    fill(small_disk)
    daemon.start()
    daemon.watched("agent")
    assert daemon.client.kill("agent", "test").workload.observed == CUT_OFF
    assert not {h.part: h.ok for h in daemon.client.status().health}["ledger"]
    daemon.stop()  # before its disk goes: it still writes evidence there


def test_stuck_watchdog_is_not_fed(make_daemon: Callable[..., Daemon]) -> None:
    """A stopped daemon cannot feed; a running one does, and only with READY behind it."""
    daemon = make_daemon()
    address = daemon.directory / "watchdog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        daemon.process = daemon.launch(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="800000")
        seen = [listener.recv(4096) for _ in range(3)]
        assert seen[0].startswith(b"READY=1")
        assert seen[1:] == [b"WATCHDOG=1", b"WATCHDOG=1"]
        daemon.process.send_signal(signal.SIGSTOP)
        listener.settimeout(1.5)
        with pytest.raises(TimeoutError):
            for _ in range(20):  # what was on its way already
                listener.recv(4096)
        daemon.process.send_signal(signal.SIGCONT)
        listener.settimeout(20)
        assert listener.recv(4096) == b"WATCHDOG=1"
