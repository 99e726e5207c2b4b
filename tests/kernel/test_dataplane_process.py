"""Forks, exits and moves between cgroups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from killswitch.events import CgroupCreated, CgroupMove, CgroupRemoved, Event, Exit, Fork
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [e for e in events if isinstance(e, kind)]


def below(cgroup: Cgroup) -> str:
    return f"/{cgroup.path.name}"


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3 << 8), ("kill -KILL $$", 9), ("kill -TERM $$", 15)]
)
def test_exit_code_is_as_wait_reports_it(plane: DataPlane, watched: Cgroup, script: str, status: int) -> None:
    process = watched.popen("/bin/sh", "-c", script)
    process.wait()
    (e,) = of(Exit, plane.drain(1000))
    assert isinstance(e, Exit)
    assert (e.pid, e.workload, e.cgroup_id) == (process.pid, watched.id, watched.id)
    assert e.exit_code & ~0x80 == status  # 0x80: a core was dumped


def test_fork_names_child_and_parent(plane: DataPlane, watched: Cgroup) -> None:
    process = watched.popen("/bin/sh", "-c", "/bin/true; exit 0")
    process.wait()
    events = plane.drain(1000)
    forks, exits = of(Fork, events), of(Exit, events)
    (fork,) = forks
    assert isinstance(fork, Fork)
    assert fork.ppid == process.pid and fork.workload == watched.id
    assert next((e.pid, e.start_ticks) for e in exits) == (fork.pid, fork.start_ticks)  # type: ignore[union-attr]


def test_threads_are_not_processes(plane: DataPlane, watched: Cgroup) -> None:
    code = "import threading; t = [threading.Thread(target=lambda: None) for _ in range(8)]; [x.start() for x in t]"
    watched.run(sys.executable, "-I", "-S", "-c", code)
    events = plane.drain(1000)
    assert of(Fork, events) == []
    assert len(of(Exit, events)) == 1


def test_last_thread_reports_once(plane: DataPlane, watched: Cgroup) -> None:
    """exit_group with many threads on all CPUs: two may see that they are the last."""
    code = (
        "import threading, os, time\n"
        "for _ in range(16): threading.Thread(target=lambda: time.sleep(60), daemon=True).start()\n"
        "os._exit(7)"
    )
    for _ in range(10):
        watched.run(sys.executable, "-I", "-S", "-c", code)
    exits = of(Exit, plane.drain(1000))
    assert [e.exit_code for e in exits] == [7 << 8] * 10  # type: ignore[union-attr]


def test_moves_in_within_and_out(plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]) -> None:
    outside, inside = make_cgroup(), watched.child("inside")
    process = outside.popen("/bin/sleep", "60")
    plane.drain(1000)
    for target in (watched, inside, outside):
        (target.path / "cgroup.procs").write_text(str(process.pid))
    moves = of(CgroupMove, plane.drain(1000))
    assert [(m.workload, m.from_cgroup, m.to_cgroup, m.to_workload, m.to_path) for m in moves] == [  # type: ignore[union-attr]
        (watched.id, 0, watched.id, watched.id, below(watched)),
        (watched.id, watched.id, inside.id, watched.id, below(watched) + "/inside"),
        (watched.id, inside.id, outside.id, 0, below(outside)),
    ]
    assert {m.pid for m in moves} == {process.pid}  # type: ignore[union-attr]
    process.kill()
    process.wait()


def test_who_moved_it_is_told_when_it_was_nobody_of_a_workload(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    outside = make_cgroup()
    process = watched.popen("/bin/sleep", "600")
    (outside.path / "cgroup.procs").write_text(str(process.pid))
    code = "import os, sys; open(sys.argv[1], 'w').write(sys.argv[2] if len(sys.argv) > 2 else str(os.getpid()))"
    other = watched.popen("/bin/sleep", "600")
    watched.run(sys.executable, "-I", "-S", "-c", code, outside.path / "cgroup.procs", str(other.pid))
    watched.run(sys.executable, "-I", "-S", "-c", code, outside.path / "cgroup.procs")
    moves = [m for m in of(CgroupMove, plane.drain(1000)) if isinstance(m, CgroupMove) and m.to_cgroup == outside.id]
    assert [(m.pid == process.pid, m.moved_by) for m in moves] == [(True, os.getpid()), (False, 0), (False, 0)]
    for sleeper in (process, other):
        sleeper.kill()
        sleeper.wait()


def test_move_of_a_process_that_was_there_before_the_watch(
    plane: DataPlane, cgroup: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    outside = make_cgroup()
    process = cgroup.popen("/bin/sleep", "60")
    plane.watch(cgroup.id, cgroup.path, 0)
    (outside.path / "cgroup.procs").write_text(str(process.pid))
    (move,) = of(CgroupMove, plane.drain(1000))
    assert isinstance(move, CgroupMove)
    assert (move.from_cgroup, move.to_cgroup, move.to_workload) == (cgroup.id, outside.id, 0)
    process.kill()
    process.wait()


CLONE_INTO = """
import ctypes, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
args = ctypes.create_string_buffer(struct.pack("<11Q", 1 << 33, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd))
pid = ctypes.CDLL(None, use_errno=True).syscall(435, args, 88)
if pid == 0:
    os._exit(0)
assert pid > 0, ctypes.get_errno()
print(pid)
os.waitpid(pid, 0)
"""


def test_child_born_into_another_cgroup_has_moved(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    outside = make_cgroup()
    done = watched.run(sys.executable, "-I", "-S", "-c", CLONE_INTO, outside.path)
    assert done.returncode == 0, done.stderr
    events = plane.drain(1000)
    moves = [m for m in of(CgroupMove, events) if isinstance(m, CgroupMove) and m.to_cgroup == outside.id]
    assert [(m.pid, m.workload, m.from_cgroup, m.to_workload) for m in moves] == [
        (int(done.stdout), watched.id, watched.id, 0)
    ]
    assert int(done.stdout) in {f.pid for f in of(Fork, events)}  # type: ignore[union-attr]


def test_cgroups_made_and_removed_are_told_everywhere(plane: DataPlane, make_cgroup: Callable[[], Cgroup]) -> None:
    plane.drain(1000)
    made = make_cgroup()
    made.remove()
    mine = [e for e in plane.drain(1000) if getattr(e, "cgroup_id", None) == made.id]
    assert [(type(e), e.path) for e in mine] == [(CgroupCreated, below(made)), (CgroupRemoved, below(made))]  # type: ignore[union-attr]


def test_a_watched_cgroup_that_is_removed_is_no_longer_watched(plane: DataPlane, watched: Cgroup) -> None:
    watched.remove()
    assert watched.id in plane.workloads()
    assert CgroupRemoved in map(type, plane.drain(1000))
    assert plane.workloads() == {}


def test_signals_of_the_data_plane_hit_nobody_else(plane: DataPlane, watched: Cgroup) -> None:
    bystander = subprocess.Popen(["/bin/sleep", "60"])
    watched.run("/bin/true")
    assert bystander.poll() is None
    bystander.send_signal(signal.SIGKILL)
    assert bystander.wait() == -signal.SIGKILL
    assert os.getpid() not in {getattr(e, "pid", 0) for e in plane.drain(1000) if not isinstance(e, CgroupMove)}
