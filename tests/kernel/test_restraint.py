"""What verdicts must not do: hit who is protected, sever who lives with one, go past the budget of automatic kills."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.commands import Clause, Containment, KernelTables
from killswitch.events import Done, Exec, Wire
from killswitch.kernel import procfs
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.automata import FIRST, Automaton, clause, tables
from tests.kernel.cgroups import Cgroup

KILLED = -signal.SIGKILL


def by_name(*names: bytes, kill: bool = True, sever: bool = False) -> KernelTables:
    a = Automaton()
    return tables(a, [clause(FIRST, kill=kill, sever=sever)], name=a.equals(names, FIRST))


def on_the_wire(word: bytes, *, sever: bool) -> KernelTables:
    a = Automaton()
    start = a.contains(word, FIRST)
    told = 1 << FIRST
    forbidden = Clause(told, told, policy=0, rule=0, kill=False, sever=sever, deny=True)
    return replace(tables(a), start_sent=start, wire_bits=told, told_bits=told, wire_clauses=(forbidden,))


def execs(plane: DataPlane) -> list[Exec]:
    return [e for e in plane.drain(100_000) if isinstance(e, Exec)]


@contextmanager
def running(cgroup: Cgroup, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    process = cgroup.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def entity(pid: int, *, sshd: bool = False) -> tuple[int, int, bool]:
    return pid, procfs.start_ticks(pid), sshd


def test_a_protected_process_may_run_what_is_forbidden_and_its_number_protects_nobody_after_it(
    plane: DataPlane, watched: Cgroup
) -> None:
    plane.load_policy(by_name(b"sleep", sever=True), 1)
    with running(watched, "/bin/sh", "-c", "read x; exec sleep 0") as shell:
        plane.protect([entity(shell.pid)])
        shell.communicate(b"\n", timeout=20)
        assert shell.returncode == 0
    assert not plane.containment(watched.id).severed
    told = [e for e in execs(plane) if e.name == "sleep"]
    assert [(e.clause, e.done) for e in told] == [(0, Done.NOTHING)], "it is told, and nothing is done"
    with running(watched, "/bin/sh", "-c", "read x; exec sleep 0") as shell:
        pid, start, _ = entity(shell.pid)
        plane.protect([(pid, start - 1, False)])  # somebody else who had the number before
        shell.communicate(b"\n", timeout=20)
        assert shell.returncode == KILLED


def test_what_the_operators_sshd_runs_under_its_own_name_is_protected_and_nothing_else_of_it(
    plane: DataPlane, watched: Cgroup, tmp_path: Path
) -> None:
    for name in ("sshd-session", "xmrig"):
        shutil.copy("/bin/true", tmp_path / name)
    plane.load_policy(by_name(b"sshd-session", b"xmrig"), 1)
    script = f"read x; {tmp_path}/sshd-session; echo $?; {tmp_path}/xmrig; echo $?"
    with running(watched, "/bin/sh", "-c", script) as shell:
        plane.protect([entity(shell.pid, sshd=True)])
        assert shell.communicate(b"\n", timeout=20)[0].split() == [b"0", b"137"]
    assert watched.run(tmp_path / "sshd-session").returncode == KILLED, "the name alone protects nobody"
    with running(watched, "/bin/sh", "-c", script) as shell:
        plane.protect([entity(shell.pid)])
        said = shell.communicate(b"\n", timeout=20)[0].split()
        assert said == [b"137", b"137"], "nor does a protected parent that is no sshd"


def test_a_shielded_workload_is_not_severed_but_what_is_forbidden_is_killed(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_name(b"sleep", sever=True), 1)
    plane.shield(watched.id, True)
    assert watched.run("/bin/sleep", "0").returncode == KILLED
    assert not plane.containment(watched.id).severed
    assert execs(plane)[-1].done == Done.KILLED
    plane.shield(watched.id, False)
    watched.run("/bin/sleep", "0")
    assert plane.containment(watched.id).severed


@pytest.fixture
def three(plane: DataPlane, make_cgroup: Callable[[], Cgroup]) -> list[Cgroup]:
    made = [make_cgroup() for _ in range(3)]
    for cgroup in made:
        plane.watch(cgroup.id, cgroup.path, 1)
    return made


def test_past_the_budget_verdicts_only_tell_but_go_on_with_whom_they_have_hit(
    plane: DataPlane, three: list[Cgroup]
) -> None:
    plane.load_policy(by_name(b"sleep"), 1)
    first, second, third = three
    spent, charged = plane.charges()
    assert not charged
    plane.allow_kills(spent, 2)
    assert [c.run("/bin/sleep", "0").returncode for c in (first, first, second, first, third, second)] == [
        KILLED, KILLED, KILLED, KILLED, 0, KILLED,
    ]  # fmt: skip
    assert [e.done for e in execs(plane) if e.workload == third.id] == [Done.NOTHING]
    now, charged = plane.charges()
    assert (now - spent, charged) == (2, {first.id, second.id})
    plane.set_containment(third.id, Containment(frozen=False, severed=True))
    assert third.run("/bin/sleep", "0").returncode == KILLED, "who is contained already costs nothing"
    plane.set_containment(third.id, Containment())
    plane.allow_kills(now, 1, refunded=charged)  # the window has passed
    assert third.run("/bin/sleep", "0").returncode == KILLED
    assert first.run("/bin/sleep", "0").returncode == 0
    plane.allow_kills(now, None)
    assert first.run("/bin/sleep", "0").returncode == KILLED, "no budget at all"


def test_the_budget_outlives_who_set_it(
    plane: DataPlane, watched: Cgroup, mount: Path, pin_dir: Path, bpf_object: Path
) -> None:
    plane.load_policy(by_name(b"sleep"), 1)
    plane.allow_kills(plane.charges()[0], 0)
    plane.close()
    assert watched.run("/bin/sleep", "0").returncode == 0
    again = DataPlane.open(pin_dir, cgroup_mount=mount, obj=bpf_object)
    assert watched.run("/bin/sleep", "0").returncode == 0
    again.close()


SENDER = """
import socket, sys
print("ready", flush=True)
sys.stdin.readline()
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(3)
s.sendall(b"a forbidden word")
try:
    print(s.recv(1).decode() or "closed", flush=True)
except OSError as e:
    print("silence", flush=True)
"""


def said(plane: DataPlane, cgroup: Cgroup, port: int, *, protect: bool = False) -> str:
    """What comes back to who sends the forbidden word over loopback: an echo, or silence."""
    with running(cgroup, sys.executable, "-I", "-c", SENDER, str(port)) as sender:
        assert sender.stdout and sender.stdout.readline()
        if protect:
            plane.protect([entity(sender.pid)])
        timer = threading.Timer(15, sender.kill)
        timer.start()
        try:
            out, _ = sender.communicate(b"\n")
        finally:
            timer.cancel()
        return out.decode().strip()


def test_flows_are_refused_within_the_budget_only_and_never_of_who_is_protected(
    plane: DataPlane, watched: Cgroup, listener: socket.socket
) -> None:
    held: list[socket.socket] = []

    def answer() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                connection.settimeout(0.3)
                try:
                    if connection.recv(16):
                        connection.sendall(b"y")
                except OSError:
                    pass
        except OSError:
            pass

    threading.Thread(target=answer, daemon=True).start()
    port = listener.getsockname()[1]
    try:
        plane.load_policy(on_the_wire(b"forbidden", sever=False), 1)
        spent, _ = plane.charges()
        plane.allow_kills(spent, 1)
        assert said(plane, watched, port) == "silence"
        assert plane.charges() == (spent, frozenset()), "to refuse a flow costs nothing of the budget"
        assert said(plane, watched, port, protect=True) == "y"
        plane.protect([])
        plane.allow_kills(spent, 0)
        assert said(plane, watched, port) == "y"
        told = [e.done for e in plane.drain(100_000) if isinstance(e, Wire)]
        assert told[0] == Done.DENIED and told[-2:] == [Done.NOTHING, Done.NOTHING]
    finally:
        for connection in held:
            connection.close()
