"""What becomes of a place that was held, when it is released. A directory stands for the cgroup."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from killswitch.commands import Containment
from killswitch.daemon.places import Places
from killswitch.daemon.workloads import Workload
from killswitch.kernel import cgroupfs


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "w"
    path.mkdir()
    return path


def vacate(place: Path, **facts: Any) -> None:
    core = SimpleNamespace(path_of=lambda cgroup: place.parent / cgroup.lstrip("/"))
    known = {"workload": cgroupfs.cgroup_id(place), "made": True, "awaited": True} | facts
    w = Workload(known.pop("workload"), "w", "/w", (), False, 0.0, **known)
    Places(cast(Any, core)).vacate(w)


def test_what_we_made_and_nobody_used_goes(place: Path) -> None:
    vacate(place)
    assert not place.exists()


@pytest.mark.parametrize(
    "facts",
    [
        {"made": False},  # somebody else's
        {"awaited": False},  # something has run in it
        {"desired": Containment(frozen=True)},  # only its network was released
        {"workload": 1},  # another cgroup lies there by now
    ],
)
def test_what_is_not_ours_to_remove_stays(place: Path, facts: dict[str, Any]) -> None:
    vacate(place, **facts)
    assert place.exists()


def test_what_somebody_uses_stays(place: Path) -> None:
    (place / "inner").mkdir()
    vacate(place)
    assert (place / "inner").exists()


def test_what_is_gone_already_is_no_error(place: Path) -> None:
    core = SimpleNamespace(path_of=lambda _: place)
    w = Workload(cgroupfs.cgroup_id(place), "w", "/w", (), False, 0.0, made=True, awaited=True)
    place.rmdir()
    Places(cast(Any, core)).vacate(w)
