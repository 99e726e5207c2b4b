"""The optional LSM programs: that each is in force or has its reason, outlives a daemon, and denies what rules deny."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import pytest

from killswitch.commands import Guard, KernelTables
from killswitch.events import Denied, Exec
from killswitch.kernel import lsm
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.automata import FIRST, Automaton, clause, tables
from tests.kernel.cgroups import Cgroup
from tests.kernel.confined import (
    BPF,
    needs,
    refused,
    script,
)


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
