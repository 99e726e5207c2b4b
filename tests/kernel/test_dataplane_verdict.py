"""Verdicts before the first instruction."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import MAX_STATES, Containment, Grammar, KernelTables
from killswitch.errors import KernelError
from killswitch.events import Done, Exec
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.automata import FIRST, Automaton, clause, tables
from tests.kernel.cgroups import Cgroup

TRIES = int(os.environ.get("KILLSWITCH_TEST_TRIES", "300"))
Compile = Callable[[str], Path]


def execs(plane: DataPlane) -> list[Exec]:
    return [e for e in plane.drain(100_000) if isinstance(e, Exec)]


def by_name(*names: bytes, kill: bool = True, sever: bool = False, policy: int = 0) -> KernelTables:
    a = Automaton()
    return tables(a, [clause(FIRST, kill=kill, sever=sever, policy=policy)], name=a.equals(names, FIRST))


def by_args(word: bytes) -> KernelTables:
    a = Automaton()
    return tables(a, [clause(FIRST)], args=a.contains(word, FIRST))


def by_inode(path: Path) -> KernelTables:
    st = path.stat()
    return tables(Automaton(), [clause(FIRST)], inodes=[(st.st_dev, st.st_ino, 1 << FIRST)])


@pytest.fixture
def tracer(compile_program: Compile, tmp_path: Path) -> Path:
    program = tmp_path / "forbidden"
    shutil.copy(compile_program("tracer"), program)
    return program


@pytest.mark.parametrize("how", ["name", "args", "inode"])
def test_no_instruction_of_a_forbidden_program_runs(
    plane: DataPlane, watched: Cgroup, tracer: Path, tmp_path: Path, how: str
) -> None:
    chosen = {"name": by_name(b"forbidden"), "args": by_args(b"forbidden-word"), "inode": by_inode(tracer)}[how]
    trace = tmp_path / "forbidden-word"
    assert watched.run(tracer, trace).returncode == 0 and trace.exists(), "the program leaves its trace when it may run"
    trace.unlink()
    plane.load_policy(chosen, 1)
    execs(plane)
    tries = max(1, TRIES // 3)
    for n in range(tries):
        assert watched.run(tracer, trace).returncode == -signal.SIGKILL, f"try {n}"
        assert not trace.exists(), f"try {n}: it has run"
    told = execs(plane)
    assert len(told) == tries
    assert {(e.clause, e.done, e.generation, e.predicates) for e in told} == {(0, Done.KILLED, 1, 1 << FIRST)}


def test_only_what_matches_is_killed(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_name(b"sleep"), 1)
    assert watched.run("/bin/true").returncode == 0
    assert watched.run("/bin/sleep", "0").returncode == -signal.SIGKILL
    assert [e.clause for e in execs(plane)] == [-1, 0]


def test_the_name_asked_for_counts_as_well(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    plane.load_policy(by_name(b"asked"), 1)
    (tmp_path / "asked").symlink_to("/bin/true")
    assert watched.run(tmp_path / "asked").returncode == -signal.SIGKILL


def test_the_whole_name_is_compared(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    plane.load_policy(by_name(b"miner"), 1)
    for name in ("miner2", "mine", "aminer"):
        (tmp_path / name).symlink_to("/bin/true")
        assert watched.run(tmp_path / name).returncode == 0, name


def test_name_of_a_memfd_that_has_a_slash_in_it(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_name(b"miner"), 1)
    fd = os.memfd_create("a/miner", 0)
    os.write(fd, Path("/bin/true").read_bytes())
    assert watched.run(f"/proc/self/fd/{fd}", pass_fds=(fd,)).returncode == -signal.SIGKILL
    os.close(fd)
    (e,) = execs(plane)
    assert e.name == "miner" and e.memfd


def test_paths_and_parents(plane: DataPlane, watched: Cgroup, tmp_path: Path) -> None:
    a = Automaton()
    path, parent = a.equals([bytes(tmp_path / "x")], FIRST), a.equals([b"dash"], FIRST + 1)
    plane.load_policy(tables(a, [clause(FIRST, rule=0), clause(FIRST + 1, rule=1)], path=path, parent=parent), 1)
    shutil.copy("/bin/true", tmp_path / "x")
    assert watched.run(tmp_path / "x").returncode == -signal.SIGKILL
    assert watched.run("/bin/dash", "-c", "/bin/true; true").returncode == 0
    assert [(e.name, e.clause) for e in execs(plane)] == [("x", 0), ("dash", -1), ("true", 1)]


def test_arguments_up_to_the_window_and_not_beyond(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_args(b"needle"), 1)
    room = 4096 - len(b"/bin/true\0") - len(b"needle")
    assert watched.run("/bin/true", "x" * room + "needle").returncode == -signal.SIGKILL
    assert watched.run("/bin/true", "x" * (room + 1) + "needle").returncode == 0
    last = execs(plane)[-1]
    assert last.truncated and last.predicates == 1 << 2, "what the kernel could not see whole is marked"


def test_grammar_is_walked_only_behind_its_gate(plane: DataPlane, watched: Cgroup) -> None:
    a = Automaton()
    name = a.equals([b"sleep"], FIRST)
    grammar = Grammar(FIRST, a.contains(b"0\0", FIRST + 1))
    plane.load_policy(tables(a, [clause(FIRST, FIRST + 1)], name=name, grammars=[grammar]), 1)
    assert watched.run("/bin/true", "0").returncode == 0
    assert watched.run("/bin/sleep", "0").returncode == -signal.SIGKILL
    assert [e.predicates for e in execs(plane)] == [0, 0b11 << FIRST]


def test_every_matching_clause_acts_and_the_first_is_told(plane: DataPlane, watched: Cgroup) -> None:
    a = Automaton()
    name, args = a.equals([b"sleep"], FIRST), a.contains(b"0", FIRST + 1)
    both = [clause(FIRST + 5), clause(FIRST, sever=True, kill=False), clause(FIRST + 1, kill=True)]
    plane.load_policy(tables(a, both, name=name, args=args), 1)
    assert watched.run("/bin/sleep", "0").returncode == -signal.SIGKILL
    (e,) = execs(plane)
    assert (e.clause, e.done) == (1, Done.KILLED | Done.SEVERED)
    assert plane.containment(watched.id) == Containment(severed=True)


def test_policies_apply_to_their_workloads_only(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    other = make_cgroup()
    plane.watch(other.id, other.path, 0b10)
    plane.load_policy(by_name(b"true", policy=1), 1)
    assert watched.run("/bin/true").returncode == 0
    assert other.run("/bin/true").returncode == -signal.SIGKILL
    plane.set_policies(watched.id, 1 << 1 | 1 << 63)
    assert watched.run("/bin/true").returncode == -signal.SIGKILL


def test_generations_follow_one_another(plane: DataPlane, watched: Cgroup) -> None:
    """Each load replaces all of the one before it, whichever half it lies in."""
    assert plane.policy_generation == 0
    for generation, (forbidden, allowed) in enumerate([("true", "false"), ("false", "true")] * 3, start=1):
        plane.load_policy(by_name(forbidden.encode()), generation)
        assert plane.policy_generation == generation
        assert watched.run(f"/bin/{forbidden}").returncode == -signal.SIGKILL
        assert watched.run(f"/bin/{allowed}").returncode in (0, 1)
    assert {e.generation for e in execs(plane)} == set(range(1, 7))
    plane.load_policy(tables(Automaton()), 7)
    assert watched.run("/bin/true").returncode == 0


def test_policies_that_change_their_numbers_leave_no_gap(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    """While tables take each other's place, whom they forbid a program is always refused it, and nobody else ever is."""
    other = make_cgroup()
    other_is = {0: 0b10, 1: 0b01}  # under a policy whose number is at other times the forbidding one's
    plane.watch(other.id, other.path, other_is[0])
    plane.load_policy(by_name(b"true", policy=0), 1)
    ran: list[tuple[int, int]] = []
    done = threading.Event()

    def run() -> None:
        try:
            for _ in range(max(20, TRIES // 3)):
                ran.append((watched.run("/bin/true").returncode, other.run("/bin/true").returncode))
        finally:
            done.set()

    running = threading.Thread(target=run)
    running.start()
    generation = 1
    while not done.is_set():
        generation += 1
        number = generation & 1
        plane.prepare_policy(by_name(b"true", policy=number), generation)
        plane.switch_policy({watched.id: 1 << number, other.id: other_is[number]})
    running.join()
    assert generation > 2
    assert set(ran) == {(-signal.SIGKILL, 0)}
    assert {e.done for e in execs(plane) if e.workload == watched.id and e.executable.endswith(b"/true")} == {
        Done.KILLED
    }


def test_what_is_prepared_is_not_in_force(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_name(b"true"), 1)
    plane.prepare_policy(by_name(b"false", policy=1), 2)
    assert (plane.policy_generation, watched.run("/bin/true").returncode) == (1, -signal.SIGKILL)
    plane.set_policies(watched.id, 1)  # an operator's order comes between: it is about the tables in force
    assert watched.run("/bin/false").returncode == 1
    plane.switch_policy({watched.id: 0b10})
    assert (plane.policy_generation, watched.run("/bin/true").returncode) == (2, 0)
    assert watched.run("/bin/false").returncode == -signal.SIGKILL
    assert plane.workloads()[watched.id].policies == 0b10


def test_tables_that_do_not_fit_leave_the_old_ones_in_force(plane: DataPlane, watched: Cgroup) -> None:
    plane.load_policy(by_name(b"true"), 1)
    big = KernelTables(bytes(512 * (MAX_STATES + 1)), {}, 0, 0, 0, 0, (), (), ())
    with pytest.raises(KernelError, match="at most 32768 fit"):
        plane.load_policy(big, 2)
    assert plane.policy_generation == 1
    assert watched.run("/bin/true").returncode == -signal.SIGKILL


def test_largest_tables(plane: DataPlane, watched: Cgroup) -> None:
    """All states, and the last clause is the one that matches."""
    a = Automaton()
    while len(a.rows) < MAX_STATES - 6:
        a.state()
    name = a.equals([b"true"], 255)
    clauses = [clause(FIRST + 3, rule=n) for n in range(255)] + [clause(255, rule=255)]
    plane.load_policy(tables(a, clauses, name=name), 1)
    assert len(a.rows) <= MAX_STATES
    assert watched.run("/bin/true").returncode == -signal.SIGKILL
    (e,) = execs(plane)
    assert (e.clause, e.predicates) == (255, 1 << 255)
