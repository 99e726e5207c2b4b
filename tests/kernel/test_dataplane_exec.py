"""What the data plane tells about an exec."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.events import Exec
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup


def execs(plane: DataPlane) -> list[Exec]:
    return [e for e in plane.drain(10_000) if isinstance(e, Exec)]


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_fields_of_an_exec(plane: DataPlane, watched: Cgroup) -> None:
    process = watched.popen("/usr/bin/sleep", "60", "", "a b", user=65534, group=65533)
    ticks = start_ticks(process.pid)
    watched.remove()
    process.wait()
    (e,) = execs(plane)
    real = Path("/usr/bin/sleep").stat()
    assert (e.workload, e.cgroup_id) == (watched.id, watched.id)
    assert (e.pid, e.start_ticks) == (process.pid, ticks)
    assert (e.ppid, e.parent_start_ticks) == (os.getpid(), start_ticks(os.getpid()))
    assert (e.uid, e.gid) == (65534, 65533)
    assert e.parent_name == os.fsencode(Path("/proc/self/exe").resolve().name)
    assert (e.executable, e.filename) == (b"/usr/bin/sleep", b"/usr/bin/sleep")
    assert e.argv == b"/usr/bin/sleep\x0060\0\0a b\0"
    assert e.args == ("/usr/bin/sleep", "60", "", "a b")
    assert e.argv_total == len(e.argv) and not e.truncated
    assert (e.inode, e.device, e.nlink, e.memfd) == (real.st_ino, real.st_dev, real.st_nlink, False)
    assert (e.generation, e.clause, e.done) == (0, -1, 0)
    assert 0 < e.verdict_ns < 10_000_000


def test_below_the_watched_cgroup(plane: DataPlane, watched: Cgroup) -> None:
    deep = watched
    for n in range(20):  # deeper than a workload itself may lie
        deep = deep.child(f"n{n}")
    deep.run("/bin/true")
    (e,) = execs(plane)
    assert (e.workload, e.cgroup_id) == (watched.id, deep.id)


def test_symbolic_and_hard_links(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    program = tmp_path / "real-name"
    shutil.copy("/bin/true", program)
    (tmp_path / "symbolic").symlink_to(program)
    (tmp_path / "hard").hardlink_to(program)
    watched.run(tmp_path / "symbolic")
    watched.run(tmp_path / "hard")
    symbolic, hard = execs(plane)
    assert symbolic.executable == bytes(program) and symbolic.filename == bytes(tmp_path / "symbolic")
    assert hard.executable == hard.filename == bytes(tmp_path / "hard")
    assert symbolic.inode == hard.inode == program.stat().st_ino
    assert symbolic.nlink == hard.nlink == 2


def test_script_is_shown_with_its_interpreter(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/dash\nexit 0\n")
    script.chmod(0o755)
    watched.run(script)
    (e,) = execs(plane)
    assert e.executable == b"/usr/bin/dash"
    assert e.filename == bytes(script)
    assert e.argv == b"/bin/dash\0" + bytes(script) + b"\0"


def test_memfd(plane: DataPlane, watched: Cgroup) -> None:
    fd = os.memfd_create("innocent", 0)
    os.write(fd, Path("/bin/true").read_bytes())
    watched.run(f"/proc/self/fd/{fd}", pass_fds=(fd,))
    os.close(fd)
    (e,) = execs(plane)
    assert e.memfd and e.nlink == 0
    assert e.executable == b"/memfd:innocent"
    assert e.filename == f"/proc/self/fd/{fd}".encode()


def test_file_that_is_only_named_like_a_memfd(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "memfd:x")
    watched.run(tmp_path / "memfd:x")
    (e,) = execs(plane)
    assert not e.memfd and e.nlink == 1


def test_unlinked_executable(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy("/bin/true", program)
    fd = os.open(program, os.O_RDONLY)
    program.unlink()
    watched.run(f"/proc/self/fd/{fd}", pass_fds=(fd,))
    os.close(fd)
    (e,) = execs(plane)
    assert e.nlink == 0 and not e.memfd
    assert e.executable == bytes(program)


def test_path_across_mounts(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    script = 'mount -t tmpfs none "$0" && mkdir "$0/d" && cp /bin/true "$0/d" && exec "$0/d/true"'
    watched.run("/usr/bin/unshare", "-m", "sh", "-c", script, tmp_path / "mnt")
    assert execs(plane)[-1].executable == bytes(tmp_path / "mnt/d/true")


def test_path_deeper_than_is_followed(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 120)
    deep.mkdir(parents=True)
    shutil.copy("/bin/true", deep / "true")
    plane.losses()
    watched.run(deep / "true")
    (e,) = execs(plane)
    assert not e.executable.startswith(b"/"), "a path whose beginning is missing does not look like a whole one"
    assert e.executable.endswith(b"/d/d/true") and e.filename == bytes(deep / "true")
    assert [(x.workload, x.reason, x.count) for x in plane.losses()] == [(watched.id, "path_cut", 1)]


@pytest.mark.parametrize(("extra", "truncated"), [(4096 - 10, False), (4096 - 9, True), (100_000, True)])
def test_long_arguments(plane: DataPlane, watched: Cgroup, extra: int, truncated: bool) -> None:
    watched.run("/bin/true", "x" * (extra - 1))  # "/bin/true\0" + extra
    (e,) = execs(plane)
    whole = b"/bin/true\0" + b"x" * (extra - 1) + b"\0"
    assert e.argv == whole[:4096]
    assert e.argv_total == len(whole)
    assert e.truncated is truncated
    assert e.predicates == truncated << 2, "BIT_TRUNCATED is set also while no policy is loaded"


def test_longest_everything_at_once(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    directory = tmp_path
    while len(bytes(directory)) < 3500:
        directory /= "d" * 200
        directory.mkdir()
    program = directory / ("n" * 255)
    shutil.copy("/bin/true", program)
    watched.run(program, "y" * 90_000)
    (e,) = execs(plane)
    assert e.executable == e.filename == bytes(program)
    assert len(e.argv) == 4096 and e.argv.endswith(b"y")


def test_exec_from_a_thread_is_the_process(plane: DataPlane, watched: Cgroup) -> None:
    code = "import os, threading; threading.Thread(target=lambda: os.execv('/bin/true', ['true'])).start()"
    process = watched.popen(sys.executable, "-c", code)
    process.wait()
    assert [e.pid for e in execs(plane)] == [process.pid, process.pid]


def test_unwatched_processes_leave_no_trace(plane: DataPlane, watched: Cgroup, cgroup: Cgroup) -> None:
    subprocess.run(["/bin/true"], check=True)
    watched.run("/bin/true")
    plane.unwatch(watched.id)
    watched.run("/bin/true")
    events = plane.drain(10_000)
    assert {getattr(e, "workload", watched.id) for e in events} == {watched.id}
    assert len([e for e in events if isinstance(e, Exec)]) == 1
