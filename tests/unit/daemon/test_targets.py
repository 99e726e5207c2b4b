from __future__ import annotations

import os
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.daemon.targets import Unwatched, cgroup_path, resolve
from killswitch.daemon.workloads import Absent, Workloads
from killswitch.errors import Protected, TargetError


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    (tmp_path / "agents" / "a" / "inner").mkdir(parents=True)
    (tmp_path / "free").mkdir()
    return tmp_path


@pytest.fixture
def watched() -> Workloads:
    found = Workloads()
    found.add(42, "/agents/a", (), name="alpha")
    found.absent["/agents/gone"] = Absent("gone", "/agents/gone", Containment(severed=True), "inc-1", False)
    return found


@pytest.mark.parametrize("target", ["alpha", "42", "/agents/a", " alpha "])
def test_names_of_one_workload(watched: Workloads, mount: Path, target: str) -> None:
    assert resolve(target, watched, mount) is watched.get(42)
    assert resolve(f"{mount}/agents/a", watched, mount) is watched.get(42)


@pytest.mark.parametrize("target", ["gone", "/agents/gone"])
def test_one_that_is_gone_but_contained(watched: Workloads, mount: Path, target: str) -> None:
    assert isinstance(resolve(target, watched, mount), Absent)


def test_cgroup_that_nobody_watches(watched: Workloads, mount: Path) -> None:
    assert resolve("/free", watched, mount) == Unwatched("/free")


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("alhpa", TargetError, "did you mean alpha"),
        ("43", TargetError, "no workload has this name or id"),
        ("", TargetError, "no workload"),
        ("/agents/none", TargetError, "there is none"),
        ("/agents/a/inner", TargetError, "lies inside the workload alpha"),
        ("/agents/../x", TargetError, "absolute path"),
        ("/", Protected, "root"),
        ("host", TargetError, "whole host"),
        ("pid:", TargetError, "pid:N"),
        ("pid:-1", TargetError, "pid:N"),
        ("pid:4194305", TargetError, "ended"),
    ],
)
def test_what_cannot_be_meant(watched: Workloads, mount: Path, target: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        resolve(target, watched, mount)


def test_root_by_its_directory(mount: Path) -> None:
    with pytest.raises(Protected):
        cgroup_path(str(mount), mount)
    assert cgroup_path(f"{mount}/free/", mount) == "/free"


def test_our_own_process_is_found_by_its_cgroup(watched: Workloads, mount: Path) -> None:
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    if own == "/":
        with pytest.raises(Protected, match="root cgroup"):
            resolve(f"pid:{os.getpid()}", watched, mount)
    else:
        assert resolve(f"pid:{os.getpid()}", watched, mount) == Unwatched(own)
