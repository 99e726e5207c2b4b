from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections import OrderedDict
from pathlib import Path

import pytest

from killswitch.daemon import inspection
from killswitch.daemon.inspection import Identity, Inspection, running_file
from killswitch.events import Done, Exec
from killswitch.facts import Facts
from killswitch.kernel.syscalls import stat_cached
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_text

POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: p, version: 1}
workloads: [{cgroup: /ks/**}]
mode: enforce
programs:
  ended-quickly: {all: [GNU coreutils, 'ignored command line arguments']}
rules:
  - id: r
    title: t
    level: high
    on: exec
    match: {it: {file.program: ended-quickly}}
    condition: it
    response: [alert]
"""
WANTS = frozenset({"file.program"})
PROGRAM = "/bin/true"  # of the coreutils, and says so


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies([load_text(POLICY, "p.yaml")])


@pytest.fixture
def program(tmp_path: Path) -> Path:
    copy = tmp_path / "program"
    copy.write_bytes(Path(PROGRAM).read_bytes())
    copy.chmod(0o755)
    return copy


def ran(program: Path) -> Exec:
    """A process that has run it and ended."""
    process = subprocess.Popen([program])
    process.wait()
    path = os.fsencode(program)
    return Exec(
        time_ns=1, workload=7, cgroup_id=7, pid=process.pid, start_ticks=5, ppid=os.getpid(), parent_start_ticks=1, uid=0,
        gid=0, parent_name=b"sh", executable=path, filename=path, argv=path + b"\0", argv_total=len(path) + 1,
        inode=program.stat().st_ino, device=1, nlink=1, memfd=False, predicates=0, generation=0, clause=-1,
        done=Done.NOTHING, verdict_ns=0,
    )  # fmt: skip


def at_once(looked: Inspection, event: Exec, compiled: Compiled) -> Facts | None:
    """Whoever mounts or renames at that moment makes the kernel say that it does not know: then it is asked again."""
    try:
        stat_cached(event.executable)
    except BlockingIOError:
        pass
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EINVAL):
            pytest.skip("this kernel cannot be asked for what it has at hand: it is older than 5.12")
        raise
    tries = (looked.at_once(event, running_file(event.pid), compiled, WANTS) for _ in range(10_000))
    return next((found for found in tries if found is not None), None)


def test_a_program_that_has_ended_is_known_at_once_by_its_path(compiled: Compiled, program: Path) -> None:
    looked, event = Inspection(), ran(program)
    assert looked.at_once(event, running_file(event.pid), compiled, WANTS) is None  # nobody has read it
    read = looked.facts(event, compiled, WANTS)
    assert read == Facts(programs=("ended-quickly",))
    assert at_once(looked, event, compiled) == read


def test_what_lies_at_its_path_now_is_not_taken_for_it(compiled: Compiled, program: Path, tmp_path: Path) -> None:
    looked, event = Inspection(), ran(program)
    looked.facts(event, compiled, WANTS)
    (tmp_path / "other").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "other").rename(program)
    assert program.stat().st_ino != event.inode
    assert looked.facts(event, compiled, WANTS) == Facts() == at_once(looked, event, compiled)


def test_what_has_changed_since_is_read_again(compiled: Compiled, program: Path) -> None:
    looked, event = Inspection(), ran(program)
    looked.facts(event, compiled, WANTS)
    program.write_bytes(b"#!/bin/sh\n")
    assert program.stat().st_ino == event.inode
    assert looked.at_once(event, running_file(event.pid), compiled, WANTS) is None
    assert looked.facts(event, compiled, WANTS) == Facts()


def test_a_program_that_is_asked_about_while_it_is_looked_at_is_looked_at_once(
    compiled: Compiled, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, asked, go = threading.Event(), threading.Event(), threading.Event()

    class Memory(OrderedDict[Identity, inspection._Known]):
        def get(self, key: Identity, default: object = None) -> inspection._Known:  # type: ignore[override]
            found = super().get(key)
            if begun.is_set():
                asked.set()  # the second one has asked, and was told nothing
            return found  # type: ignore[return-value]

    def recognised(fd: int, recogniser: object) -> tuple[str, ...]:
        begun.set()
        assert go.wait(60)
        return ("it",)

    looked, event, found = Inspection(), ran(program), []
    looked._memory(compiled.recogniser)
    looked._known = Memory()
    monkeypatch.setattr(inspection, "recognised", recognised)
    threads = [
        threading.Thread(target=lambda: found.append(looked.facts(event, compiled, WANTS).programs)) for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    assert asked.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert found == [("it",), ("it",)]
    assert looked.scanned == 1
