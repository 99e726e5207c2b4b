"""The kernel and the daemon judge alike: real execs, random policies, every predicate bit and the clause compared."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from killswitch.commands import FREE, Level, Mode, Response
from killswitch.events import Done, Exec
from killswitch.kernel import cgroupfs
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.inode import os_inode
from killswitch.policy.model import Policy, Predicate, Rule
from tests.rig.build import program
from tests.unit.policy.matcher_strategies import SEGMENT, TEXT, policies

EXECS_AT_ONCE = 12
WINDOW = 4096


@dataclass(slots=True)
class Bench:
    """A watched cgroup, the data plane that watches it, and a folder with programs."""

    plane: DataPlane
    cgroup: Path
    cgroup_id: int
    folder: Path
    program: Path
    generation: int = 0

    def load(self, made: tuple[Policy, ...]) -> Compiled:
        compiled = compile_policies(made)
        self.generation += 1
        self.plane.load_policy(compiled.tables, self.generation)
        return replace(compiled, generation=self.generation)

    def run(self, start: Callable[[], None]) -> int:
        """In a new process in the cgroup; its wait status."""
        pid = os.fork()
        if pid == 0:
            try:
                cgroupfs.move(self.cgroup, os.getpid())
                start()
            finally:
                os._exit(127)
        return os.waitpid(pid, 0)[1]

    def execs(self, count: int) -> list[Exec]:
        found: list[Exec] = []
        until = time.monotonic() + 5
        while len(found) < count and time.monotonic() < until:
            found += [event for event in self.plane.drain(1000) if isinstance(event, Exec)]
        assert len(found) == count, f"{len(found)} of {count} execs came out: {self.plane.losses()}"
        return found


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    name = f"ks-test-{os.getpid()}-agreement"
    mount = cgroupfs.find_mount()
    folder = Path(tempfile.mkdtemp(prefix="ks-test-agreement-"))
    cgroup, pins = mount / name, Path("/sys/fs/bpf") / name
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        cgroup_id = cgroupfs.create(cgroup)
        undo.callback(cgroupfs.remove, cgroup)
        plane = DataPlane.open(pins, cgroup_mount=mount)
        undo.callback(plane.remove)
        copy = folder / "program"
        shutil.copy(program("nothing"), copy)
        plane.watch(cgroup_id, cgroup, 0b111)
        yield Bench(plane, cgroup, cgroup_id, folder, copy)


@dataclass(frozen=True, slots=True)
class Call:
    """One exec: how the file is named, how it is reached, and its arguments."""

    name: str
    way: str  # direct, symlink, unlinked, memfd
    args: tuple[str, ...]
    padding: int = 0  # bytes of one more argument at the front: pushes the rest out of the window


SSH_WORDS = st.sampled_from(
    ["-R", "9000:h:22", "-4NR9", "-o", "RemoteForward=9 h:1", "-oTunnel=yes", "--", "h", "-l", "ls", "-", "-W", "-D1"]
)
CALLS = st.one_of(
    st.builds(Call, SEGMENT, st.sampled_from(["direct", "direct", "symlink", "unlinked", "memfd"]),
              st.lists(TEXT, max_size=4).map(tuple), st.sampled_from([0, 0, 0, WINDOW - 3, WINDOW - 2, WINDOW + 9])),
    st.builds(Call, st.sampled_from(["ssh", "slogin", "SSH"]), st.just("direct"), st.lists(SSH_WORDS, max_size=6).map(tuple)),
)  # fmt: skip


def perform(bench: Bench, call: Call) -> int:
    place = Path(tempfile.mkdtemp(dir=bench.folder))
    target = place / call.name
    argv = [os.fsencode(call.name), *([b"b" * call.padding] if call.padding else []), *(a.encode() for a in call.args)]
    if call.way == "memfd":
        fd = os.memfd_create(call.name + "/ab", 0)
        os.write(fd, bench.program.read_bytes())
        return bench.run(lambda: os.execve(fd, argv, {}))
    os.link(bench.program, target)
    if call.way == "symlink":
        link = place / ("x" + call.name)
        link.symlink_to(target)
        return bench.run(lambda: os.execv(link, argv))
    if call.way == "unlinked":
        copy = place / "copy"
        shutil.copy(bench.program, copy)
        fd = os.open(copy, os.O_RDONLY)
        copy.unlink()
        return bench.run(lambda: os.execve(fd, argv, {}))
    return bench.run(lambda: os.execv(target, argv))


def compare(compiled: Compiled, event: Exec, policy_set: int) -> None:
    judged = compiled.predicates(event)
    assert event.generation == compiled.generation
    assert f"{event.predicates:b}" == f"{judged:b}", event
    assert event.clause == compiled.clause(judged, policy_set)
    killed = any(policy_set >> c.policy & 1 and judged & c.mask == c.value and c.kill for c in compiled.tables.clauses)
    assert bool(event.done & Done.KILLED) == killed


def always(bench: Bench) -> Policy:
    """What random policies would seldom ask: every way to the walks that the calls above were made for."""
    asked = [
        Predicate("file.inode_of", "match", (str(bench.program),)),
        Predicate("ssh.forward", "match", ("remote",)),
        Predicate("ssh.forward", "match", ("tun", "stdio")),
        Predicate("process.name", "startswith", ("x",)),  # the symbolic link
        Predicate("process.name", "match", ("ab",)),  # of a memfd
        Predicate("process.executable", "contains", ("/x",)),
        Predicate("process.executable", "endswith", ("/copy (deleted)", "/copy")),
        Predicate("process.args", "endswith", ("bb",)),  # where the window cuts
        Predicate("process.args", "match", ("a", "b", "")),
        Predicate("process.command_line", "contains", ("b ",)),
        Predicate("process.command_line", "startswith", ("ssh -", "a", "b ")),
        Predicate("process.parent.name", "re", ("^python",)),
    ]
    rules = tuple(Rule(str(i), "t", Level.HIGH, "exec", p, (Response.ALERT,)) for i, p in enumerate(asked))
    return Policy("always", 1, ("/ks/**",), Mode.MONITOR, rules)


# Not shrunk: what fails is small enough, and every try costs a dozen execs.
@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(made=policies(), calls=st.lists(CALLS, min_size=EXECS_AT_ONCE, max_size=EXECS_AT_ONCE), mask=st.integers(0, 7))
def test_kernel_and_daemon_agree_on_every_predicate(
    bench: Bench, made: tuple[Policy, ...], calls: list[Call], mask: int
) -> None:
    compiled = bench.load((*made, always(bench)))
    assert os_inode(str(bench.program)) is not None
    bench.plane.set_policies(bench.cgroup_id, mask)
    bench.plane.drain(10_000)
    statuses = [perform(bench, call) for call in calls]
    events = bench.execs(len(calls))
    for call, status, event in zip(calls, statuses, events, strict=True):
        compare(compiled, event, mask)
        assert bool(event.done & Done.KILLED) == (os.waitstatus_to_exitcode(status) == -9)
        assert event.memfd == (call.way == "memfd")
        assert (event.nlink == 0) == (call.way in ("unlinked", "memfd"))
        if call.padding:
            assert event.truncated == (event.argv_total > WINDOW)
    bench.plane.set_containment(bench.cgroup_id, FREE)


def test_what_agrees_is_not_nothing(bench: Bench) -> None:
    """The comparison above would pass on empty tables: here every kind of predicate is known to hold."""
    facts = [
        Predicate("process.name", "match", ("PROG*",)),
        Predicate("process.executable", "contains", ("agreement",)),
        Predicate("process.args", "re", ("^a+b$",)),
        Predicate("process.command_line", "contains", ("prog aab",)),
        Predicate("process.parent.name", "startswith", ("pyth",)),
        Predicate("file.inode_of", "match", (str(bench.program),)),
    ]
    rules = tuple(Rule(f"r{i}", "t", Level.HIGH, "exec", p, (Response.ALERT,)) for i, p in enumerate(facts))
    compiled = bench.load((Policy("p", 1, ("/ks/**",), Mode.ENFORCE, rules),))
    bench.plane.set_policies(bench.cgroup_id, 1)
    bench.plane.drain(10_000)
    bench.run(lambda: os.execv(bench.program, ["prog", "aab", "c"]))
    (event,) = bench.execs(1)
    compare(compiled, event, 1)
    assert [m.rule.id for m in compiled.matches(event, 1)] == [rule.id for rule in rules]
