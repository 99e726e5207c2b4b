from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from killswitch import errors
from killswitch.commands import Containment, KillProcess, Outcome
from killswitch.contain.protected import Protected
from killswitch.contain.switch import Switch
from killswitch.kernel import cgroupfs, procfs
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import SLEEPER, actor, ref

CUT = Containment(severed=True, frozen=True)


@contextmanager
def running(cgroup: Cgroup, name: str, folder: Path) -> Iterator[int]:
    """A program whose executable has this name."""
    program = folder / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = cgroup.popen(program, "600")
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_the_root_is_refused_and_the_message_says_what_to_name(mount: Path) -> None:
    with pytest.raises(errors.Protected, match=r"holds the whole host.*name a cgroup below it"):
        Protected().check_cgroup(mount)


def test_a_cgroup_that_holds_the_daemon_is_refused_and_one_below_is_not(cgroup: Cgroup) -> None:
    below = cgroup.child("below")
    protected = Protected()
    before = cgroupfs.from_root(procfs.cgroup(os.getpid()))
    inner = cgroup.child("daemon")
    cgroupfs.move(inner.path, os.getpid())
    try:
        with pytest.raises(errors.Protected, match=rf"process {os.getpid()} \(the daemon itself\) in .*/daemon;"):
            protected.check_cgroup(cgroup.path)
        with pytest.raises(errors.Protected):
            protected.check_cgroup(inner.path)
        protected.check_cgroup(below.path)
    finally:
        cgroupfs.move(before, os.getpid())
    protected.check_cgroup(cgroup.path)


def test_the_switch_does_nothing_to_it(plane: DataPlane, mount: Path, watched: Cgroup, tmp_path: Path) -> None:
    below = watched.child("important")
    name = cgroupfs.below_root(below.path)
    switch = Switch(plane, tmp_path, protected=Protected([name]))
    with actor(below, SLEEPER):
        for target in (watched, below):
            with pytest.raises(errors.Protected, match="protected by configuration"):
                asyncio.run(switch.contain(ref(target), CUT, capture=False, incident="inc-1"))
        assert plane.containment(watched.id) == Containment() and not cgroupfs.is_frozen(watched.path)
        pid = cgroupfs.processes(below.path)[0]
        order = KillProcess(watched.id, "inc-1", pid, procfs.start_ticks(pid), "test")
        assert asyncio.run(switch.kill_process(order)).outcome is Outcome.REFUSED
        assert procfs.same(pid, order.start_ticks)


def test_the_operators_sshd_protects_its_cgroup_from_when_it_is_seen(cgroup: Cgroup, tmp_path: Path) -> None:
    protected = Protected()
    with running(cgroup, "sshd", tmp_path) as pid:
        protected.refresh()
        with pytest.raises(errors.Protected, match=rf"process {pid} \(sshd, the operators' way in\)"):
            protected.check_cgroup(cgroup.path)
        with pytest.raises(errors.Protected):
            protected.check_process(pid)
    protected.check_cgroup(cgroup.path)  # it has ended: nobody there needs protection


def test_a_workload_does_not_make_itself_untouchable_by_starting_an_sshd(
    plane: DataPlane, watched: Cgroup, tmp_path: Path
) -> None:
    switch = Switch(plane, tmp_path / "evidence", protected=(protected := Protected()))
    below = watched.child("sneaky")
    with running(below, "sshd", tmp_path):
        protected.refresh()
        receipts = asyncio.run(switch.contain(ref(watched), CUT, capture=False, incident="inc-1"))
        assert {r.outcome for r in receipts} == {Outcome.DONE}


def test_an_sshd_that_was_there_first_stays_protected_when_its_cgroup_is_watched_or_it_is_moved_into_one(
    plane: DataPlane, watched: Cgroup, tmp_path: Path
) -> None:
    outside = Cgroup(watched.path.with_name(watched.path.name + "-outside"))
    protected = Protected()
    Switch(plane, tmp_path / "evidence", protected=protected)
    try:
        with running(outside, "sshd", tmp_path) as pid:
            protected.refresh()
            cgroupfs.move(watched.path, pid)
            protected.refresh()
            with pytest.raises(errors.Protected):
                protected.check_cgroup(watched.path)
    finally:
        outside.remove()


def test_a_process_that_only_calls_itself_sshd_protects_nobody(cgroup: Cgroup) -> None:
    code = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"sshd", 0, 0, 0)
print("ready", flush=True)
time.sleep(600)
"""
    with actor(cgroup, code) as a:
        assert procfs.stat(a.pid).comm == "sshd"
        protected = Protected()
        protected.refresh()
        protected.check_cgroup(cgroup.path)


def test_configured_names_are_protected(cgroup: Cgroup, tmp_path: Path) -> None:
    with running(cgroup, "backup-agent", tmp_path):
        protected = Protected(names=["backup-agent"])
        with pytest.raises(errors.Protected, match="backup-agent, protected by configuration"):
            protected.check_cgroup(cgroup.path)


def test_the_check_before_a_kill_costs_the_same_whatever_runs(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at the protected processes only: /proc is not walked, and the target's processes are not listed."""
    protected = Protected()
    protected.refresh()

    def walked(*_: object) -> list[int]:
        raise AssertionError("it walks")

    monkeypatch.setattr(procfs, "pids", walked)
    monkeypatch.setattr(cgroupfs, "processes", walked)
    protected.check_cgroup(cgroup.path, fresh=False)
