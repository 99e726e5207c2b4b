"""What a crashed run leaves on the host goes at one call, and what a living one has stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import clean_host

CLEAN = [sys.executable, str(Path(clean_host.__file__))]


def of_one_that_crashed() -> str:
    """A prefix whose maker has ended."""
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    return f"ks-test-{ended.pid}-x"


def make_all(name: str) -> list[Path]:
    """A cgroup with a process in it, a network namespace, a mount, a folder, pins: what is to be gone."""
    root = clean_host.cgroup_root()
    assert root
    cgroup, folder, pins = root / name, Path("/tmp") / name, Path("/sys/fs/bpf") / name
    (cgroup / "inner").mkdir(parents=True)
    joins = f"echo 0 > {cgroup}/inner/cgroup.procs; exec sleep 60 > /dev/null 2>&1"
    subprocess.run(["/bin/sh", "-c", f"({joins}) &"], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    (folder / "mounted").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", name, folder / "mounted"], check=True)
    pins.mkdir()
    return [cgroup, folder, pins, Path("/run/netns") / name]


@pytest.fixture
def left() -> Iterator[list[Path]]:
    made = make_all(of_one_that_crashed())
    yield made
    subprocess.run([*CLEAN], check=False)


def test_what_was_left_is_told_and_goes(left: list[Path]) -> None:
    told = subprocess.run([*CLEAN, "--check"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert all(path.name in told.stdout for path in left)
    assert all(path.exists() for path in left)
    assert subprocess.run(CLEAN, check=False).returncode == 0
    assert not [path for path in left if path.exists()]


def test_what_a_living_run_has_stays() -> None:
    folder = Path("/tmp") / f"ks-test-{os.getpid()}-living"
    folder.mkdir()
    try:
        subprocess.run(CLEAN, check=True)
        assert folder.exists()
    finally:
        folder.rmdir()
