"""The optional LSM programs: what they refuse a workload, what they leave to it, and that the rest does without them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment, Guard, KernelTables
from killswitch.events import Denied, Exec
from killswitch.kernel import lsm
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.automata import FIRST, Automaton, clause, tables
from tests.kernel.cgroups import Cgroup

GUARDED = Guard.BPF | Guard.CGROUP_FILES | Guard.DAEMON | Guard.KERNEL_CODE | Guard.XDP_SOCKETS
EVERYTHING = GUARDED | Guard.PTRACE | Guard.SIGNALS
SEVERED = Containment(severed=True)
PRELUDE = """
import ctypes, errno, json, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
told = {}
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
def attempt(what, function):
    try:
        function()
        told[what] = "done"
    except OSError as e:
        told[what] = errno.errorcode[e.errno]
def finish():
    print(json.dumps(told), flush=True)
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def needs(*programs: str) -> Callable[[DataPlane], None]:
    def check(plane: DataPlane) -> None:
        for program in programs:
            if why := plane.left_out.get(program):
                pytest.skip(f"{program}: {why}")

    return check


def script(watched: Cgroup, code: str, *arguments: object) -> dict[str, str]:
    done = watched.run(sys.executable, "-I", "-S", "-c", PRELUDE + code + "\nfinish()", *map(str, arguments))
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, str] = json.loads(done.stdout)
    return told


class Waiting:
    """A script that says when it is ready, and goes on when it is told to."""

    def __init__(self, watched: Cgroup, code: str, *arguments: object, **popen: object) -> None:
        self.process = watched.popen(
            sys.executable, "-I", "-S", "-c", PRELUDE + code + "\nfinish()", *map(str, arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen,
        )  # fmt: skip

    def ready(self) -> None:
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"

    def result(self) -> dict[str, str]:
        out, _ = self.process.communicate(b"\n", timeout=60)
        assert self.process.returncode == 0
        told: dict[str, str] = json.loads(out)
        return told


def refused(plane: DataPlane) -> list[Denied]:
    return [e for e in plane.drain(10_000) if isinstance(e, Denied)]


@pytest.fixture
def outside() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["/bin/sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A unix socket of somebody outside."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "outside"))
        made.listen()
        yield made


# --- optional ---------------------------------------------------------------------------------------------------------


def test_each_program_is_in_force_or_has_its_reason(plane: DataPlane, pin_dir: Path) -> None:
    (generation,) = pin_dir.iterdir()
    pinned = {p.name for p in (generation / "links").iterdir()} & set(lsm.PROGRAMS)
    assert pinned == set(lsm.PROGRAMS) - set(plane.left_out)
    assert all(plane.left_out.values())
    if lsm.refusal():
        assert not pinned and set(plane.left_out.values()) == {lsm.refusal()}
    elif os.environ.get("KS_TEST_VM"):
        assert not plane.left_out, "these kernels are known to take them all"


def test_adopted_and_upgraded_like_the_rest(
    pin_dir: Path, mount: Path, bpf_object: Path, tmp_path: Path, cgroup: Cgroup
) -> None:
    plane = DataPlane.open(pin_dir, cgroup_mount=mount, obj=bpf_object)
    needs("lsm_bpf")(plane)
    other = tmp_path / "other.bpf.o"
    other.write_bytes(bpf_object.read_bytes() + b"\0")
    plane.watch(cgroup.id, cgroup.path, 1)
    plane.set_guards(cgroup.id, Guard.BPF)
    try:
        for obj in (bpf_object, other, bpf_object):
            assert script(cgroup, BPF)["bpf"] == "EPERM"
            plane.close()
            assert script(cgroup, BPF)["bpf"] == "EPERM", "without a daemon"
            plane = DataPlane.open(pin_dir, cgroup_mount=mount, obj=obj)
            assert not plane.left_out
        refused(plane)
        assert script(cgroup, BPF)["bpf"] == "EPERM"
        assert [e.operation for e in refused(plane)] == ["bpf"]
    finally:
        plane.remove()
    end = time.monotonic() + 20  # a link is taken off a moment after its last pin
    while script(cgroup, BPF)["bpf"] != "done":
        assert time.monotonic() < end


# --- exec -------------------------------------------------------------------------------------------------------------

NO_TRUE = Automaton()
NAME = NO_TRUE.equals([b"true"], FIRST)
ARGS = NO_TRUE.contains(b"--bad", FIRST + 1)


def denying(*bits: int) -> KernelTables:
    return dataclasses.replace(
        tables(NO_TRUE, [dataclasses.replace(clause(*bits, kill=False), deny=True)], name=NAME, args=ARGS),
        late_bits=1 << FIRST + 1 | 1 << 2,
    )


EXEC = """
import subprocess
def run(*command):
    subprocess.run(command, check=False)
attempt("true", lambda: run("/bin/true"))
attempt("link", lambda: run(sys.argv[1]))
attempt("false", lambda: run("/bin/false"))
"""


def test_exec_is_denied_and_its_caller_goes_on(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    needs("lsm_exec")(plane)
    (tmp_path / "link").symlink_to("/bin/true")
    plane.load_policy(denying(FIRST), 7)
    plane.drain(10_000)
    told = script(watched, EXEC.replace("import subprocess\n", "sys.path += sys.argv[2:]; import subprocess\n"),
                  tmp_path / "link", *[p for p in sys.path if p])  # fmt: skip
    assert told == {"true": "EPERM", "link": "EPERM", "false": "done"}
    events = plane.drain(10_000)
    assert {e.name for e in events if isinstance(e, Exec)} == {Path(sys.executable).resolve().name, "false"}
    first, *_ = (e for e in events if isinstance(e, Denied))
    assert (first.workload, first.operation, first.clause, first.generation) == (watched.id, "exec", 0, 7)
    assert first.target_name.endswith(b"/true") and not first.severed
    assert plane.denied(watched.id) == {"exec": 2}


def test_a_script_is_judged_by_what_runs_it(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    needs("lsm_exec")(plane)
    (tmp_path / "innocent").write_text("#!/bin/true\n")
    (tmp_path / "innocent").chmod(0o755)
    plane.load_policy(denying(FIRST), 7)
    code = "attempt('exec', lambda: os.execv(sys.argv[1], sys.argv[1:]))"
    assert script(watched, code, tmp_path / "innocent") == {"exec": "EPERM"}


def test_deny_by_arguments_kills(plane: DataPlane, watched: Cgroup) -> None:
    """On every kernel: before the exec nobody can read them, and afterwards there is no way back."""
    plane.load_policy(denying(FIRST, FIRST + 1), 7)
    assert watched.run("/bin/true", "--bad").returncode == -9
    assert watched.run("/bin/true").returncode == 0


def test_deny_kills_where_the_kernel_has_no_lsm(plane: DataPlane, watched: Cgroup) -> None:
    if "lsm_exec" not in plane.left_out:
        pytest.skip("this kernel has it")
    plane.load_policy(denying(FIRST), 7)
    assert watched.run("/bin/true").returncode == -9


# --- severed ----------------------------------------------------------------------------------------------------------

FAMILIES = """
for name, family, kind, protocol in (
    ("packet", 17, 3, 0), ("vsock", 40, 1, 0), ("xdp", 44, 3, 0), ("usersock", 16, 3, 2),
    ("unix", 1, 1, 0), ("route", 16, 3, 0), ("alg", 38, 5, 0), ("inet", 2, 1, 0),
):
    attempt(name, lambda: socket.socket(family, kind, protocol).close())
pair = socket.socketpair()
attempt("pair", lambda: (pair[0].send(b"x"), pair[1].recv(1)))
"""


def test_sockets_of_a_severed_workload(plane: DataPlane, watched: Cgroup) -> None:
    needs("lsm_socket")(plane)
    free = script(watched, FAMILIES)
    assert "EPERM" not in free.values(), free
    plane.set_containment(watched.id, SEVERED)
    cut = script(watched, FAMILIES)
    for family in ("packet", "vsock", "xdp", "usersock", "inet"):
        assert cut[family] == "EPERM", cut
    assert {cut[name] for name in ("unix", "route", "pair")} == {"done"}, cut
    assert cut["alg"] == free["alg"]


UNIX = """
inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
inside.bind(sys.argv[1] + "/inside"); inside.listen()
letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); letters.bind(sys.argv[1] + "/letters")
before = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); before.connect(sys.argv[1] + "/outside")
own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM); own.connect(sys.argv[1] + "/inside")
theirs, _ = inside.accept()
wait()
attempt("send over what was open", lambda: before.send(b"x"))
attempt("receive over what was open", lambda: before.recv(1))
attempt("connect outside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(sys.argv[1] + "/outside"))
attempt("datagram outside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", sys.argv[1] + "/post"))
attempt("send inside", lambda: own.send(b"x"))
attempt("receive inside", lambda: theirs.recv(1))
attempt("connect inside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(sys.argv[1] + "/inside"))
attempt("datagram inside", lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", sys.argv[1] + "/letters"))
"""


@pytest.mark.parametrize("severed", [False, True])
def test_unix_sockets(
    plane: DataPlane, watched: Cgroup, tmp_path: Path, listener: socket.socket, severed: bool
) -> None:
    needs("lsm_unix_connect", "lsm_unix_send", "lsm_sendmsg", "lsm_recvmsg")(plane)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as post:
        post.bind(str(tmp_path / "post"))
        workload = Waiting(watched, UNIX, tmp_path)
        workload.ready()
        peer, _ = listener.accept()
        peer.send(b"y")
        if severed:
            plane.set_containment(watched.id, SEVERED)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            inwards = client.connect_ex(str(tmp_path / "inside"))
        told = workload.result()
        peer.close()
    for what, outcome in told.items():
        assert outcome == ("EPERM" if severed and "inside" not in what else "done"), told
    assert (inwards != 0) == severed
    if severed:
        assert plane.denied(watched.id)["connect"] >= 2
        assert {(e.operation, e.number) for e in refused(plane)} == {
            ("send", socket.AF_UNIX), ("receive", socket.AF_UNIX), ("connect", socket.AF_UNIX)
        }  # fmt: skip


PASSED = """
import array
def take(sock):
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(16))
    return [fd for _, _, data in ancillary for fd in array.array("i", data)]
unix = socket.socket(fileno=int(sys.argv[1]))
print("ready", flush=True)
attempt("taken", lambda: told.__setitem__("descriptors", len(take(unix))))
"""


def test_sockets_that_are_passed_after_the_cut_are_not_taken_in(plane: DataPlane, watched: Cgroup) -> None:
    """Also to who has been waiting for them since before it."""
    needs("lsm_file_receive")(plane)
    near, far = socket.socketpair()
    with near, far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        workload = Waiting(watched, "sys.path += sys.argv[2:]\n" + PASSED, far.fileno(), *[p for p in sys.path if p],
                           pass_fds=[far.fileno()])  # fmt: skip
        workload.ready()
        while Path(f"/proc/{workload.process.pid}/wchan").read_text() in ("0", ""):
            if "S (sleeping)" in Path(f"/proc/{workload.process.pid}/status").read_text():
                break
        plane.set_containment(watched.id, SEVERED)
        socket.send_fds(near, [b"x"], [udp.fileno()])
        assert workload.result().get("descriptors", 0) == 0


# --- guarded ----------------------------------------------------------------------------------------------------------

BPF = """
kind = ctypes.create_string_buffer(b"\\x02\\0\\0\\0\\x04\\0\\0\\0\\x04\\0\\0\\0\\x01\\0\\0\\0" + bytes(104))
attempt("bpf", lambda: call("syscall", 321, 0, kind, 120))
"""
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


def test_bpf_and_pins(plane: DataPlane, watched: Cgroup, pin_dir: Path) -> None:
    needs("lsm_bpf", "lsm_inode", "lsm_umount")(plane)
    code = (
        BPF
        + """
import glob
attempt("unpin", lambda: os.unlink(sys.argv[1]))
attempt("mount", lambda: call("mount", b"bpf", sys.argv[2].encode(), b"bpf", 0, None))
attempt("unmount", lambda: call("umount2", sys.argv[2].encode(), 2))
"""
    )
    code = code.replace("import glob\n", "")
    (generation,) = pin_dir.iterdir()
    place = Path("/run") / pin_dir.name
    place.mkdir()
    try:
        plane.set_guards(watched.id, Guard.BPF)
        told = script(watched, code, generation / "links" / "on_signal", place)
        assert told == {"bpf": "EPERM", "unpin": "EPERM", "mount": "done", "unmount": "EPERM"}
        assert (generation / "links" / "on_signal").exists()
        assert {e.operation for e in refused(plane)} == {"bpf", "pin"}
        plane.set_guards(watched.id, Guard(0))
        assert script(watched, BPF) == {"bpf": "done"}
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
        place.rmdir()


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
