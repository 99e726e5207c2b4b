"""Hashing that keeps small, short or out of sight, on the real kernel: found by what was seen when it ran."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from killswitch.commands import Command, Finding, ReadCode, RecordFinding
from killswitch.detect.mix import measure
from killswitch.engine import Engine
from killswitch.errors import Gone
from killswitch.events import Cpu, Tick, WorkloadAdded
from killswitch.kernel import codereader
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.load import load_text
from tests.kernel.loads import Load, opened_plane, start
from tests.rig.build import program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PATIENCE_S = 60.0

POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: hidden, version: 1}
workloads:
  - cgroup: /ks-test-*
mode: monitor
rules:
  - id: together
    title: The workload hashes
    level: high
    on: cpu
    match:
      much: {workload.cpu.hashing_seconds|gte: 2}
      mostly: {workload.cpu.hashing|gte: 0.5}
    condition: much and mostly
    response: [alert]
  - id: process
    title: The process hashes
    level: high
    on: cpu
    match:
      much: {cpu.hashing|gte: 0.7, cpu.hashing_seconds|gte: 1}
      made: {cpu.jit|gte: 0.5}
    condition: much and made
    response: [alert]
"""


@pytest.fixture(scope="module")
def plane() -> Iterator[DataPlane]:
    with opened_plane("hidden") as opened:
        yield opened


def watch(
    plane: DataPlane, name: str, command: str, rule: str, patience_s: float = PATIENCE_S
) -> tuple[list[Finding], list[Cpu]]:
    """Run it until the rule finds something, or for a minute. What was found, and what was seen."""
    compiled = compile_policies([load_text(POLICY, "hidden.yaml")])
    engine = Engine(compiled)
    out: list[Command] = []
    seen: list[Cpu] = []
    with ExitStack() as stack:
        load: Load = start(stack, plane, name, command, nice=-5)
        cgroup = f"/{load.cgroup.name}"
        engine.handle(WorkloadAdded(0, load.id, name, cgroup, compiled.policies_for(cgroup)))
        plane.cpu_window()
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and rule not in {f.rule for f in found(out)}:
            time.sleep(0.5)
            events = plane.cpu_window()
            seen += events
            for event in [*events, Tick(time.monotonic_ns())]:
                for command_ in engine.handle(event):
                    out.append(command_)
                    if isinstance(command_, ReadCode):
                        asked = command_.workload, command_.pid, command_.start_ticks, command_.hot
                        with suppress(Gone):
                            out += engine.handle(codereader.read_code(*asked, command_.code, command_.data))
    return found(out), seen


def found(out: list[Command]) -> list[Finding]:
    return [c.finding for c in out if isinstance(c, RecordFinding)]


def test_processes_that_live_for_a_moment_are_found_together(plane: DataPlane) -> None:
    hashes = program("hashes")
    findings, seen = watch(
        plane, "moment", f"while :; do {hashes} blake2b 0.05; {hashes} sha256d 0.05; done", "together"
    )
    assert "together" in {f.rule for f in findings}
    assert len({(c.pid, c.start_ticks) for c in seen}) > 10
    assert all(f.pid == 0 for f in findings if f.rule == "together")


def test_a_fresh_copy_of_the_program_for_each_batch_is_found(plane: DataPlane, tmp_path: Path) -> None:
    copy = f"cp {program('hashes')} {tmp_path}/$n && {tmp_path}/$n sha256d 0.1; rm -f {tmp_path}/$n"
    findings, _ = watch(plane, "copies", f"n=0; while :; do n=$((n+1)); {copy}; done", "together")
    assert "together" in {f.rule for f in findings}


def test_many_short_processes_that_do_not_hash_are_not(plane: DataPlane) -> None:
    work = program("bitwork")
    command = f"while :; do {work} chess 0.05; {work} radix 0.05; done"
    findings, seen = watch(plane, "innocent", command, "together", patience_s=8)
    assert findings == []
    assert len({(c.pid, c.start_ticks) for c in seen}) > 10


def test_code_that_is_unreadable_but_for_the_moment_it_runs_is_seen(plane: DataPlane) -> None:
    """It is overwritten and made inaccessible after every run: only the kernel, when it samples, sees what ran."""
    findings, seen = watch(plane, "unreadable", f"exec {program('randomx')} randomx-hidden 90", "process")
    assert "process" in {f.rule for f in findings}
    finding = next(f for f in findings if f.rule == "process")
    assert "virtual" in finding.summary and "made at run time" in finding.summary
    codes = [code for c in seen for code in c.code]
    assert sum(map(bool, codes)) > 0.9 * len(codes), "what ran was there when it ran"


def test_the_sampled_code_is_that_of_the_program(plane: DataPlane) -> None:
    _, seen = watch(plane, "program", f"exec {program('burner')} 60", "", patience_s=3)
    mine = [c for c in seen if c.code]
    assert mine and all(len(c.code) == len(c.hot) for c in mine)
    image = program("burner").read_bytes()
    codes = [code for c in mine for code in c.code if code]
    assert sum(code in image for code in codes) > 0.8 * len(codes)  # the rest is the kernel's own page of functions
    assert measure(mine[0].machine, ()) is None
    assert {c.program for c in mine} >= {program("burner").stat().st_ino}
