"""The ledger is damaged, and the kernel's own record is lost besides, as by a reboot: what was contained is contained again,
and what happened is said."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.kernel import cgroupfs
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)
FREE = Containment()


def log(state: Path) -> None:
    """The write-ahead log is lost: SQLite itself does not notice."""
    (state / "ledger.db-wal").unlink()
    (state / "ledger.db-shm").unlink(missing_ok=True)


def database(state: Path) -> None:
    log(state)  # else the database is whole again by it
    (state / "ledger.db").write_bytes(os.urandom(65536))


def bits(state: Path) -> None:
    rng = random.Random(1)
    for file in state.glob("ledger.db*"):
        data = bytearray(file.read_bytes())
        for _ in range(len(data) // 64):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)


def everything_but_the_witness(state: Path) -> None:
    for file in state.glob("ledger.db*"):
        file.unlink()


def witness(state: Path) -> None:
    (state / "contained.json").write_bytes(os.urandom(512))


def ledger(daemon: Daemon) -> tuple[bool, str]:
    return next((h.ok, h.detail) for h in daemon.client.status().health if h.part == "ledger")


def copy_what_is_there(source: str, target: str) -> None:
    """Evidence is still being written, and its files are given their names when they are whole."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def rebooted(daemon: Daemon, state: Path | None = None) -> None:
    """The kernel forgets; ``state`` is what is found on the disk."""
    daemon.kill9()
    daemon.remove_pins()
    cgroupfs.freeze(daemon.cgroup_dir / "agent", False)
    if state:
        shutil.rmtree(daemon.state_dir)
        shutil.copytree(state, daemon.state_dir)


def contained_again(daemon: Daemon) -> None:
    assert not daemon.client.status().adopted
    w = daemon.workload("agent")
    assert w
    assert (w.desired, w.observed) == (CUT_OFF, CUT_OFF)


@pytest.fixture
def killed(daemon: Daemon) -> Daemon:
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    assert daemon.client.kill("agent", "test").complete
    return daemon


@pytest.mark.parametrize("damage", [database, log, bits, everything_but_the_witness])
def test_damaged_while_nobody_looked(killed: Daemon, damage: Callable[[Path], None]) -> None:
    rebooted(killed)
    damage(killed.state_dir)
    killed.start()
    contained_again(killed)
    assert "as it was opened: " in ledger(killed)[1]
    assert "contained cgroups were taken from" in killed.log()
    assert killed.client.verify_log()[0]
    assert killed.client.release("agent", "test").workload.observed == FREE
    rebooted(killed)
    killed.start()
    w = killed.workload("agent")
    assert w is None or w.desired == FREE  # what was released stays released


def test_damaged_witness_is_told_and_made_anew(killed: Daemon) -> None:
    rebooted(killed)
    witness(killed.state_dir)
    killed.start()
    contained_again(killed)
    assert "contained.json: cannot be read" in ledger(killed)[1]
    killed.restart()
    assert "contained.json" not in ledger(killed)[1]


@pytest.mark.parametrize("damage", [database, bits, everything_but_the_witness])
def test_damaged_while_it_is_in_use(daemon: Daemon, damage: Callable[[Path], None]) -> None:
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    damage(daemon.state_dir)
    assert daemon.client.kill("agent", "test").workload.observed == CUT_OFF
    contained = daemon.state_dir / "contained.json"
    daemon.wait_for("told to the witness", lambda: contained.exists() and "/agent" in contained.read_text())
    rebooted(daemon)
    daemon.start()
    contained_again(daemon)
    daemon.wait_for("a ledger that works", lambda: ledger(daemon)[0])


def test_power_cut_right_after_the_answer(killed: Daemon) -> None:
    """The disk as it is when the answer comes: what was answered is on it."""
    copy = killed.directory / "disk"
    shutil.copytree(killed.state_dir, copy, copy_function=copy_what_is_there)
    time.sleep(0.2)
    rebooted(killed, copy)
    killed.start()
    contained_again(killed)
    assert killed.client.verify_log()[0]
