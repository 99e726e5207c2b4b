"""Whatever the way in which a forbidden program is executed: the same verdict, and not one of its instructions runs."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from killswitch.commands import Level, Mode, Response
from killswitch.events import Done, Exec
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.inode import os_inode
from killswitch.policy.load import load_files
from killswitch.policy.model import Policy, Predicate, Rule
from tests.kernel.cgroups import Cgroup

LIBC = ctypes.CDLL(None, use_errno=True)
AT_EMPTY_PATH, AT_FDCWD = 0x1000, -100
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SHIPPED = Path(__file__).parents[2] / "killswitch/policies/rogue-agent.yaml"
ALL = {"name", "inode", "args"}


def strings(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(values) + 1))(*values, None)


def execveat(fd: int, path: bytes, argv: Sequence[bytes], flags: int = 0) -> None:
    LIBC.execveat(fd, path, strings(argv), strings([]), flags)  # comes back only when it was refused


def in_turn(*steps: Callable[[], object]) -> Callable[[], object]:
    return lambda: [step() for step in steps]


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclasses.dataclass
class Scene:
    """A forbidden program that leaves a trace by its first instructions, and policies that know it by three facts."""

    plane: DataPlane
    cgroup: Cgroup
    folder: Path
    program: Path
    compiled: Compiled

    @property
    def trace(self) -> Path:
        return self.folder / "forbidden-word"

    @property
    def argv(self) -> list[bytes]:
        return [b"a", bytes(self.trace)]

    def run(self, start: Callable[[], object]) -> int:
        """Exit status (as subprocess has it) of a new process in the cgroup that calls ``start``."""
        pid = os.fork()
        if pid == 0:
            try:
                (self.cgroup.path / "cgroup.procs").write_text("0")
                os.umask(0)
                start()
            except BaseException as error:
                os.write(2, f"{error!r}\n".encode())
            finally:
                os._exit(127)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def execs(self, count: int = 1) -> list[Exec]:
        found: list[Exec] = []
        until = time.monotonic() + 10
        while len(found) < count and time.monotonic() < until:
            found += [event for event in self.plane.drain(1000) if isinstance(event, Exec)]
        assert len(found) == count
        return found

    def judged(self, start: Callable[[], object], facts: set[str]) -> Exec:
        """``start`` must not survive its exec; the kernel and its twin must both have seen exactly these facts."""
        assert self.run(start) == -signal.SIGKILL
        assert not self.trace.exists(), "it has run"
        (event,) = self.execs()
        assert event.done & Done.KILLED
        bits = self.compiled.predicates(event)
        assert event.predicates == bits, "the kernel and the daemon disagree"
        assert event.clause == self.compiled.clause(bits, 1)
        assert {m.rule.id for m in self.compiled.matches(event, 1)} == facts
        return event


@pytest.fixture
def scene(plane: DataPlane, watched: Cgroup, compile_program: Callable[[str], Path], tmp_path: Path) -> Iterator[Scene]:
    tmp_path.chmod(0o777)
    for above in tmp_path.parents:  # the setuid test comes as nobody
        if above.stat().st_mode & 1 == 0:
            above.chmod(above.stat().st_mode | 0o011)
    program = tmp_path / "forbidden"
    shutil.copy(compile_program("tracer"), program)
    program.chmod(0o755)
    facts = {
        "name": Predicate("process.name", "match", ("forbidden",)),
        "inode": Predicate("file.inode_of", "match", (str(program),)),
        "args": Predicate("process.args", "endswith", ("forbidden-word",)),
    }
    rules = tuple(Rule(i, "t", Level.HIGH, "exec", p, (Response.KILL_PROCESS,)) for i, p in facts.items())
    compiled = compile_policies([Policy("p", 1, ("/ks/**",), Mode.ENFORCE, rules)])
    made = Scene(plane, watched, tmp_path, program, dataclasses.replace(compiled, generation=1))
    assert made.run(lambda: os.execv(program, made.argv)) == 0, "without a policy it runs"
    made.trace.unlink()
    made.execs()
    plane.load_policy(compiled.tables, 1)
    yield made
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)  # deeper than Python's own would go


def test_by_its_own_path(scene: Scene) -> None:
    scene.judged(lambda: os.execv(scene.program, scene.argv), ALL)


def test_through_a_symbolic_link(scene: Scene) -> None:
    link = scene.folder / "innocent"
    link.symlink_to(scene.program)
    scene.judged(lambda: os.execv(link, scene.argv), ALL)


def test_through_a_hard_link(scene: Scene) -> None:
    link = scene.folder / "innocent"
    link.hardlink_to(scene.program)
    scene.judged(lambda: os.execv(link, scene.argv), {"inode", "args"})


def test_a_copy_behind_a_link_that_has_the_name(scene: Scene) -> None:
    copy = scene.folder / "copy"
    shutil.copy(scene.program, copy)
    (scene.folder / "sub").mkdir()
    link = scene.folder / "sub" / "forbidden"
    link.symlink_to(copy)
    scene.judged(lambda: os.execv(link, scene.argv), {"name", "args"})


@pytest.mark.parametrize("levels", [1, 3])
def test_as_the_interpreter_of_a_script(scene: Scene, levels: int) -> None:
    interpreter, argument = scene.program, f" {scene.trace}"
    for level in range(levels):
        script = scene.folder / f"s{level}"
        script.write_text(f"#!{interpreter}{argument}\n")
        script.chmod(0o755)
        interpreter, argument = script, ""
    event = scene.judged(lambda: os.execv(interpreter, [b"x"]), ALL)
    assert event.filename == bytes(interpreter)


def test_a_script_that_has_the_name(scene: Scene) -> None:
    place = scene.folder / "sub"
    place.mkdir()
    script = place / "forbidden"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    scene.judged(lambda: os.execv(script, [b"x"]), {"name"})


def test_from_memory(scene: Scene) -> None:
    fd = os.memfd_create("x", 0)
    os.write(fd, scene.program.read_bytes())
    with contextlib.closing(os.fdopen(fd)):
        event = scene.judged(lambda: os.execve(fd, scene.argv, {}), {"args"})
    assert event.memfd and event.nlink == 0


def test_a_deleted_file(scene: Scene) -> None:
    fd = os.open(scene.program, os.O_RDONLY)
    scene.program.unlink()
    with contextlib.closing(os.fdopen(fd)):
        event = scene.judged(lambda: os.execve(fd, scene.argv, {}), ALL)
    assert event.nlink == 0 and not event.memfd


def test_through_a_file_descriptor(scene: Scene) -> None:
    fd = os.open(scene.program, os.O_RDONLY)
    place = os.open(scene.folder, os.O_RDONLY)
    with contextlib.closing(os.fdopen(fd)):
        scene.judged(lambda: execveat(fd, b"", scene.argv, AT_EMPTY_PATH), ALL)
        scene.judged(lambda: execveat(place, b"forbidden", scene.argv), ALL)
        scene.judged(lambda: execveat(AT_FDCWD, bytes(scene.program), scene.argv), ALL)
        scene.judged(lambda: os.execve(fd, scene.argv, {}), ALL)
        scene.judged(lambda: os.execv(f"/proc/self/fd/{fd}", scene.argv), ALL)
    os.close(place)


def test_a_relative_path(scene: Scene) -> None:
    path = f"../{scene.folder.name}//./forbidden"
    scene.judged(in_turn(lambda: os.chdir(scene.folder), lambda: os.execv(path, scene.argv)), ALL)


def test_by_vfork(scene: Scene) -> None:
    def spawn() -> None:
        child = os.posix_spawn(scene.program, scene.argv, {})
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.kill(os.getpid(), -status if status < 0 else 0)  # hand it on

    scene.judged(spawn, ALL)


def test_from_a_thread(scene: Scene) -> None:
    def start() -> None:
        threading.Thread(target=lambda: os.execv(scene.program, scene.argv)).start()
        time.sleep(60)

    scene.judged(start, ALL)


@pytest.mark.parametrize(("name", "levels"), [("d", 300), ("n" * 250, 20), ("n" * 250, 15)])
def test_at_the_end_of_a_path_longer_than_is_followed(scene: Scene, name: str, levels: int) -> None:
    def start() -> None:
        os.chdir(scene.folder)
        for _ in range(levels):  # the path grows longer than any path may be
            Path(name).mkdir()
            os.chdir(name)
        os.link(scene.program, "forbidden")
        os.execv("./forbidden", scene.argv)

    event = scene.judged(start, ALL)
    assert event.executable.endswith(b"/forbidden")
    whole = bytes(scene.folder) + f"/{name}".encode() * levels + b"/forbidden"
    assert event.executable == whole if len(whole) < 4096 and levels < 80 else not event.executable.startswith(b"/")


@pytest.mark.parametrize("name", [b"new\nline", b"\x01\x1b[31m\x7f", b"\xff\xfe\x80", b" ", b"-", b"*", b"x" * 255])
def test_odd_names(scene: Scene, name: bytes) -> None:
    path = bytes(scene.folder) + b"/" + name
    os.link(scene.program, path)
    event = scene.judged(lambda: os.execv(path, scene.argv), {"inode", "args"})
    assert event.executable == event.filename == path


def test_odd_names_above_it(scene: Scene) -> None:
    place = bytes(scene.folder) + b"/a\nb\xff/(deleted)"
    Path(os.fsdecode(place)).mkdir(parents=True)
    os.link(scene.program, place + b"/forbidden")
    event = scene.judged(lambda: os.execv(place + b"/forbidden", scene.argv), ALL)
    assert event.executable == place + b"/forbidden"


def test_set_user_id(scene: Scene) -> None:
    scene.program.chmod(0o4755)
    start = in_turn(lambda: os.setresuid(65534, 65534, 65534), lambda: os.execv(scene.program, scene.argv))
    event = scene.judged(start, ALL)
    assert event.uid == 65534, "whose process it is, not whose rights it would have had"


def test_in_namespaces_of_its_own(scene: Scene) -> None:
    def start() -> None:
        check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        os.execv(scene.program, scene.argv)

    scene.judged(start, ALL)


def test_in_a_changed_root(scene: Scene) -> None:
    start = in_turn(lambda: os.chroot(scene.folder), lambda: os.execv("/forbidden", scene.argv))
    event = scene.judged(start, ALL)
    assert (event.executable, event.filename) == (bytes(scene.program), b"/forbidden")


@pytest.mark.parametrize("over", ["innocent", "forbidden"])
def test_mounted_over_another_file(scene: Scene, over: str) -> None:
    """A file that is itself a mount's root has the name of the place where it is mounted."""
    target = scene.folder / "sub" / over
    target.parent.mkdir()
    target.touch()
    scene.program.rename(scene.folder / "elsewhere")

    def start() -> None:
        check(LIBC.unshare(CLONE_NEWNS))
        check(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        check(LIBC.mount(bytes(scene.folder / "elsewhere"), bytes(target), None, MS_BIND, None))
        execveat(os.open(target, os.O_RDONLY), b"", scene.argv, AT_EMPTY_PATH)

    event = scene.judged(start, ALL if over == "forbidden" else {"inode", "args"})
    assert event.executable == bytes(target)


def test_without_any_argument(scene: Scene) -> None:
    event = scene.judged(lambda: LIBC.execve(bytes(scene.program), strings([]), strings([])), {"name", "inode"})
    assert event.argv in (b"", b"\0"), "newer kernels put an empty one there"


def test_empty_arguments(scene: Scene) -> None:
    argv = [b"", b"", b"", b"forbidden-word", b""]  # by the system call: os.execv refuses an empty first one
    event = scene.judged(lambda: LIBC.execve(bytes(scene.program), strings(argv), strings([])), ALL)
    assert event.argv == b"\0\0\0forbidden-word\0\0"


def test_a_padded_environment(scene: Scene) -> None:
    environment = {f"V{n}": "x" * 100_000 for n in range(10)}
    scene.judged(lambda: os.execve(scene.program, scene.argv, environment), ALL)


def test_arguments_by_the_thousand(scene: Scene) -> None:
    """Many and short ones, the word the last within the window."""
    room = 4096 - len(b"forbidden-word\0")
    argv = [b"a", *[b""] * (room - 2), b"forbidden-word", *[b"x"] * 20_000]
    event = scene.judged(lambda: LIBC.execve(bytes(scene.program), strings(argv), strings([])), ALL)
    assert event.truncated


def test_padding_before_the_word_is_never_innocent(scene: Scene, compile_program: Callable[[str], Path]) -> None:
    """What lies behind the window the kernel cannot judge: it says so, and the daemon reads the rest."""
    compiled = dataclasses.replace(compile_policies(load_files([SHIPPED])), generation=2)
    scene.plane.load_policy(compiled.tables, 2)
    client = scene.folder / "ssh"
    scene.program.rename(client)
    padding = ["-o", "SendEnv=" + "x" * 4096]
    inside = ["ssh", "-R", "9000:localhost:22", *padding, "host"]
    beyond = ["ssh", *padding, "-R", "9000:localhost:22", "host"]
    assert scene.run(lambda: os.execv(client, inside)) == -signal.SIGKILL
    assert scene.run(lambda: os.execv(client, beyond)) != -signal.SIGKILL
    seen, cut = scene.execs(2)
    assert (seen.truncated, cut.truncated) == (True, True)
    assert [m.rule.id for m in compiled.matches(seen, 1)] == ["reverse-ssh-tunnel"]
    assert compiled.matches(cut, 1) == () and compiled.wants_full_argv(cut, 1)
    whole = b"".join(a.encode() + b"\0" for a in beyond)
    assert cut.argv == whole[:4096]
    found = compiled.matches(cut, 1, {"process.command_line_bytes": whole})
    assert [m.rule.id for m in found] == ["reverse-ssh-tunnel"]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_inode_of_a_file_on_an_overlay(scene: Scene, layers: int) -> None:
    """Over two file systems, ``stat`` there answers with a device that no inode has."""
    read, write = os.pipe()
    place, file = scene.folder / "o", scene.folder / "o/merged/forbidden"

    def start() -> None:
        check(LIBC.unshare(CLONE_NEWNS))
        check(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        for name in ("a", "b", "merged"):
            (place / name).mkdir(parents=True)
            if name == "a" or (name == "b" and layers == 2):
                check(LIBC.mount(b"none", bytes(place / name), b"tmpfs", 0, None))
        shutil.copy(scene.program, place / "a/forbidden")
        lower = f"lowerdir={place}/a:{place}/b,xino=off"
        check(LIBC.mount(b"none", bytes(file.parent), b"overlay", 0, lower.encode()))
        os.write(write, repr(os_inode(str(file))).encode())
        os.execv(file, scene.argv)

    event = scene.judged(start, {"name", "args"})
    assert os.read(read, 100).decode() == repr((event.device, event.inode))
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("way", ["itself", "symbolic link", "hard link", "other name", "loader", "script"])
def test_the_real_client(scene: Scene, way: str) -> None:
    client = Path(shutil.which("ssh") or pytest.skip("needs the OpenSSH client: apt install openssh-client")).resolve()
    compiled = compile_policies(load_files([SHIPPED]))
    scene.plane.load_policy(compiled.tables, 2)
    link = client.with_name(f"ks-test-{os.getpid()}") if way == "hard link" else scene.folder / "x"
    start, options = {"symbolic link": link, "hard link": link}.get(way, client), ["-NR", "9000:localhost:22"]
    first = "sshd: x" if way == "other name" else "x"
    if way == "loader":
        loaders = [p for p in Path("/lib64").glob("ld-linux-*") if p.exists()] or pytest.skip("needs glibc's loader")
        start, options = loaders[0], [str(client), *options]
    try:
        if way == "symbolic link":
            link.symlink_to(client)
        elif way == "hard link":
            link.hardlink_to(client)
        elif way == "script":
            start = scene.folder / "script"
            start.write_text(f"#!{client} -NR9000:localhost:22\n")
            start.chmod(0o755)
            options = []
        argv = [first, *options, "-p1", "127.0.0.1"]
        assert scene.run(lambda: os.execv(start, argv)) == -signal.SIGKILL
    finally:
        if way == "hard link":
            link.unlink(missing_ok=True)
    (event,) = scene.execs()
    rules = {m.rule.id for m in dataclasses.replace(compiled, generation=2).matches(event, 1)}
    assert rules & {"reverse-ssh-tunnel", "reverse-tunnel-other-client"}
    assert event.done == Done.KILLED | Done.SEVERED
