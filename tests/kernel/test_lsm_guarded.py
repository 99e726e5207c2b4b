"""The optional LSM programs: what policies have them refuse a workload that is free, and what they leave to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment, Guard
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.confined import BPF, EVERYTHING, GUARDED, PRELUDE, SEVERED, needs, refused, script

REACH = """
pid = int(sys.argv[1])
attempt("term", lambda: os.kill(pid, 18))
attempt("exists", lambda: os.kill(pid, 0))
attempt("trace", lambda: call("ptrace", 0x4206, pid, 0, 0))
attempt("memory", lambda: open(f"/proc/{pid}/mem", "r+b").close())
attempt("descriptor", lambda: call("syscall", 438, os.pidfd_open(pid), 0, 0))
attempt("look", lambda: os.readlink(f"/proc/{pid}/exe"))
child = os.fork()
if not child:
    time.sleep(600)
attempt("trace own", lambda: call("ptrace", 0x4206, child, 0, 0))
attempt("memory of own", lambda: open(f"/proc/{child}/mem", "r+b").close())
attempt("kill own", lambda: os.kill(child, 9))
"""
CGROUP = """
own, elsewhere = sys.argv[1:3]
def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try: os.write(fd, text)
    finally: os.close(fd)
me = str(os.getpid()).encode()
attempt("make below", lambda: os.mkdir(own + "/below"))
attempt("move below", lambda: write(own + "/below/cgroup.procs", me))
attempt("freeze below", lambda: write(own + "/below/cgroup.freeze", b"0"))
attempt("move up again", lambda: write(own + "/cgroup.procs", me))
attempt("remove below", lambda: os.rmdir(own + "/below"))
attempt("hand on", lambda: write(own + "/cgroup.subtree_control", b""))
attempt("ordinary file", lambda: open(sys.argv[4], "w").close())
attempt("thaw itself", lambda: write(own + "/cgroup.freeze", b"0"))
attempt("freeze another", lambda: write(elsewhere + "/cgroup.freeze", b"0"))
attempt("make elsewhere", lambda: os.mkdir(elsewhere + "/new"))
attempt("born elsewhere", lambda: born(elsewhere))
if sys.argv[3] != "-":
    attempt("leave by a descriptor", lambda: os.write(int(sys.argv[3]), me))
attempt("leave", lambda: write(elsewhere + "/cgroup.procs", me))
"""
BORN = """
def born(where):
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    arguments = (ctypes.c_uint64 * 11)(0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd)
    child = call("syscall", 435, ctypes.byref(arguments), ctypes.c_size_t(88))
    if not child: os._exit(0)
    os.waitpid(child, 0)
"""


OWN = ("trace own", "memory of own", "kill own", "exists")


@pytest.mark.parametrize(
    ("guards", "severed", "denied"),
    [
        (Guard(0), False, ()),
        (GUARDED, False, ()),
        (EVERYTHING, False, ("term", "trace", "memory", "descriptor")),
        (Guard(0), True, ("term", "trace", "memory", "descriptor", "look")),
    ],
)
def test_processes_outside(
    plane: DataPlane, watched: Cgroup, outside: subprocess.Popen[bytes], guards: Guard, severed: bool,
    denied: tuple[str, ...],
) -> None:  # fmt: skip
    needs("lsm_ptrace", "lsm_kill")(plane)
    plane.set_guards(watched.id, guards)
    plane.set_containment(watched.id, Containment(severed=severed))
    told = script(watched, REACH, outside.pid)
    for what, outcome in told.items():
        assert (outcome in ("EPERM", "EACCES")) == (what in denied), (what, told)
    assert not set(OWN) & set(denied)
    events = refused(plane)
    assert {e.operation for e in events} == ({"kill", "ptrace"} if denied else set())
    for e in events:
        assert (e.target_pid, e.target_name, e.to_daemon, e.severed) == (outside.pid, b"sleep", False, severed)
    assert all(len([e for e in events if e.operation == o]) == 1 for o in {e.operation for e in events}), "no flood"


def test_the_daemon_is_guarded_by_itself(plane: DataPlane, watched: Cgroup, outside: subprocess.Popen[bytes]) -> None:
    needs("lsm_ptrace", "lsm_kill")(plane)
    plane.set_guards(watched.id, Guard.DAEMON)
    code = "for pid in sys.argv[1:]: attempt(pid, lambda: os.kill(int(pid), 18))"
    assert script(watched, code, os.getpid(), outside.pid) == {str(os.getpid()): "EPERM", str(outside.pid): "done"}
    (e,) = refused(plane)
    assert (e.operation, e.number, e.to_daemon, e.target_pid) == ("kill", 18, True, os.getpid())


@pytest.mark.parametrize("severed", [False, True])
def test_bpf_and_pins(plane: DataPlane, watched: Cgroup, pin_dir: Path, severed: bool) -> None:
    needs("lsm_bpf", "lsm_inode", "lsm_umount")(plane)
    code = (
        BPF
        + """
attempt("unpin", lambda: os.unlink(sys.argv[1]))
attempt("mount", lambda: call("mount", b"bpf", sys.argv[2].encode(), b"bpf", 0, None))
attempt("unmount", lambda: call("umount2", sys.argv[2].encode(), 2))
"""
    )
    (generation,) = pin_dir.iterdir()
    place = Path("/run") / pin_dir.name
    place.mkdir()
    try:
        plane.set_guards(watched.id, Guard(0) if severed else Guard.BPF)
        plane.set_containment(watched.id, Containment(severed=severed))
        told = script(watched, code, generation / "links" / "on_signal", place)
        assert told == {"bpf": "EPERM", "unpin": "EPERM", "mount": "done", "unmount": "EPERM"}
        assert (generation / "links" / "on_signal").exists()
        assert {(e.operation, e.severed) for e in refused(plane)} == {("bpf", severed), ("pin", severed)}
        plane.set_guards(watched.id, Guard(0))
        plane.set_containment(watched.id, Containment())
        assert script(watched, BPF) == {"bpf": "done"}
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
        place.rmdir()


@pytest.mark.parametrize("severed", [False, True])
def test_cgroup_files(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup], tmp_path: Path, severed: bool
) -> None:
    """Its own subtree is its own, as the kernel's delegation has it; what contains it is not, nor is what others live in."""
    needs("lsm_inode")(plane)
    other = make_cgroup()
    passed = os.open(other.path / "cgroup.procs", os.O_WRONLY)
    try:
        plane.set_guards(watched.id, Guard(0) if severed else Guard.CGROUP_FILES)
        plane.set_containment(watched.id, Containment(severed=severed))
        arguments = [watched.path, other.path, passed, tmp_path / "file"]
        done = watched.run(sys.executable, "-I", "-S", "-c", PRELUDE + BORN + CGROUP + "\nfinish()", *arguments,
                           pass_fds=[passed])  # fmt: skip
    finally:
        os.close(passed)
    told = json.loads(done.stdout)
    inside = {k: v for k, v in told.items() if k in list(told)[:7]}
    assert set(inside.values()) == {"done"}, told
    assert {v for k, v in told.items() if k not in inside} == {"EPERM"}, told
    assert other.pids() == []
    assert plane.denied(watched.id)["cgroup_file"] == 6
    assert [e.operation for e in refused(plane)] == ["cgroup_file"]


def test_kernel_code(plane: DataPlane, watched: Cgroup) -> None:
    needs("lsm_load_data")(plane)
    code = 'attempt("module", lambda: call("syscall", 175, bytes(4096), 4096, b""))'
    plane.set_guards(watched.id, Guard.KERNEL_CODE)
    assert script(watched, code) == {"module": "EPERM"}
    plane.set_guards(watched.id, Guard(0))
    plane.set_containment(watched.id, SEVERED)
    assert script(watched, code) == {"module": "EPERM"}
    plane.set_containment(watched.id, Containment())
    assert script(watched, code) == {"module": "ENOEXEC"}


def test_who_is_not_watched_is_left_alone(plane: DataPlane, watched: Cgroup, cgroup: Cgroup, make_cgroup: Callable[[], Cgroup],
                                          outside: subprocess.Popen[bytes], tmp_path: Path) -> None:  # fmt: skip
    plane.set_guards(watched.id, EVERYTHING)
    plane.set_containment(watched.id, SEVERED)
    bystander, other = make_cgroup(), make_cgroup()
    assert set(script(bystander, REACH + BPF, outside.pid).values()) == {"done"}
    assert set(script(bystander, BORN + CGROUP, bystander.path, other.path, "-", tmp_path / "file").values()) == {
        "done"
    }
    assert refused(plane) == []
