"""Policies that are compiled in a process of their own are what they would be in this one."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

import pytest

from killswitch.config import SHIPPED_POLICIES
from killswitch.daemon import compiling, policyset
from killswitch.errors import ConfigError, PolicyError
from killswitch.policy.compiled import Compiled

SMALL = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: small, version: 1}
mode: enforce
workloads:
  - cgroup: /jobs/**
rules:
  - id: by-name
    title: A program by its name
    level: high
    on: exec
    match:
      name: {process.name: miner}
    condition: name
    response: [kill_process]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def apart(*files: Path) -> Compiled:
    return asyncio.run(compiling.Compiler().compile(files, 7))


def said(compiled: Compiled) -> dict[str, object]:
    """All of it but what has no equality of its own."""
    shown = {f.name: getattr(compiled, f.name) for f in dataclasses.fields(compiled) if f.init}
    return shown | {"recogniser": compiled.recogniser.programs}


def test_it_is_the_same_for_the_shipped_policies(caplog: pytest.LogCaptureFixture) -> None:
    files = sorted(SHIPPED_POLICIES.glob("*.yaml"))
    compiled = apart(*files)
    assert said(compiled) == said(policyset.compile_files(files, 7))
    assert compiled.generation == 7
    assert compiled.recogniser.seen(b"") == frozenset(), "what was made anew of it works"
    assert not caplog.records, "it was another process that did it"


def test_all_problems_of_all_files_come_back(small: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        SMALL.replace("name: small", "name: broken")
        .replace("process.name", "process.nmae")
        .replace("level: high", "level: highest")
    )
    with pytest.raises(PolicyError) as told:
        apart(small, broken)
    assert {p.file for p in told.value.problems} == {str(broken)}
    assert len(told.value.problems) == 2
    with pytest.raises(PolicyError, match=r"missing\.yaml"):
        apart(small, tmp_path / "missing.yaml")


@pytest.mark.parametrize("how", ["another release", "no such program", "it fails"])
def test_where_there_can_be_no_process_it_is_done_here_and_said(
    how: str, small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "another release":
        monkeypatch.setattr(compiling, "RELEASE", "older")
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python3" if how == "no such program" else "/bin/false")
    assert said(apart(small)) == said(policyset.compile_files([small], 7))
    assert "by the daemon itself" in caplog.text


def test_one_that_was_killed_is_told_of_and_not_tried_again_here(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever killed it for its memory would kill the daemon next."""
    monkeypatch.setattr(compiling, "_BOOT", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ConfigError, match=r"killed by signal 9.*see that"):
        apart(small)
