from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from killswitch.errors import Gone
from killswitch.kernel import cgroupfs, codereader, procfs
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import SLEEPER, SPINNER, actor


def test_facts_of_a_process(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER, "an argument", "") as a:
        facts = procfs.facts(a.pid)
        assert facts.stat.pid == a.pid and facts.stat.ppid == os.getpid()
        assert facts.executable == os.path.realpath(sys.executable)
        assert facts.command_line[-2:] == ("an argument", "")
        assert facts.cgroup == cgroupfs.below_root(cgroup.path)
        assert (facts.uid, facts.gid, facts.cwd) == (0, 0, str(Path.cwd()))
        assert "PATH" in facts.environment and not any("=" in n or "/" in n for n in facts.environment)
        assert dict(facts.namespaces)["net"] == procfs.namespace(os.getpid(), "net")
        assert procfs.ancestors(a.pid)[0].pid == os.getpid()
        assert procfs.ancestors(a.pid)[-1].pid == 1


def test_a_zombie_still_has_facts_and_one_waited_for_is_gone() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    facts = procfs.facts(process.pid)
    assert (facts.stat.state, facts.executable, facts.command_line, facts.environment) == ("Z", "", (), ())
    process.wait()
    for read in (procfs.facts, procfs.stat, procfs.mappings, procfs.open_files, procfs.io_counters):
        with pytest.raises(Gone):
            read(process.pid)
    assert not procfs.same(process.pid, facts.stat.start_ticks)


def test_code_is_read_with_its_mapping_and_samples_of_one_address_are_one_block(cgroup: Cgroup) -> None:
    with actor(cgroup, SPINNER) as a:
        text = next(m for m in procfs.mappings(a.pid) if "x" in m.permissions and "python" in m.name)
        hot = ((text.start, 3), (text.start + 640, 9), (text.start, 4), (8, 100))
        code = codereader.read_code(cgroup.id, a.pid, procfs.start_ticks(a.pid), hot)
        assert [(b.address, b.samples) for b in code.blocks] == [(text.start + 640, 9), (text.start, 7)]
        assert {len(b.code) for b in code.blocks} == {codereader.CODE_BYTES}
        assert {b.mapping for b in code.blocks} == {os.path.realpath(sys.executable)}
        with Path(f"/proc/{a.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(text.start)
            assert code.blocks[1].code == memory.read(64)
        assert code.cpu_ns > 0 and code.read_bytes > 0 and code.read_calls > 0


def test_code_of_another_process_with_the_same_number_is_not_read(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a, pytest.raises(Gone):
        codereader.read_code(1, a.pid, procfs.start_ticks(a.pid) - 1, ())


def test_open_files_and_their_limit(cgroup: Cgroup) -> None:
    code = """
import socket, time
s = socket.socketpair()
f = open("/proc/self/status")
print("ready", s[0].fileno(), flush=True)
time.sleep(600)
"""
    with actor(cgroup, code) as a:
        found = dict(procfs.open_files(a.pid))
        assert f"/proc/{a.pid}/status" in found.values()
        assert int(a.first.split()[1]) in procfs.socket_inodes(a.pid).values()
        assert len(procfs.open_files(a.pid, 2)) == 2
