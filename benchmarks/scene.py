"""The scene of a measurement: a real daemon that watches one workload, whose cgroup the measured program runs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from killswitch.config import SHIPPED_POLICIES
from tests.rig import clean_host
from tests.rig.daemon import Daemon

LABEL = "ks-bench"


def make_workload(daemon: Daemon, name: str) -> Path:
    """A watched, empty cgroup of the daemon's, judged by the shipped policies. Raises RuntimeError with the command's words."""
    path = daemon.cgroup_dir / name
    path.mkdir(parents=True, exist_ok=True)
    done = daemon.cli("watch", f"{daemon.cgroup_parent}/{name}", "--name", name)
    if done.returncode:
        raise RuntimeError(f"killswitch watch: {done.stderr.strip()}")
    return path


def entering(cgroup: Path) -> Callable[[], None]:
    """For ``preexec_fn``: the child is inside ``cgroup`` from its first instruction."""

    def enter() -> None:
        (cgroup / "cgroup.procs").write_text("0")  # 0 = the writer

    return enter


@contextmanager
def nothing() -> Iterator[None]:
    """No daemon, no probe: what everything is compared with."""
    yield None


@contextmanager
def unwatched() -> Iterator[None]:
    """The daemon is armed and watches a workload, and the measured program is not in it."""
    with Daemon(LABEL) as daemon:
        make_workload(daemon, "other")
        yield None


@contextmanager
def watched() -> Iterator[Path]:
    """The measured program is the watched workload, the shipped policies judge it, and its events are consumed."""
    with Daemon(LABEL) as daemon:
        yield make_workload(daemon, "measured")


@contextmanager
def watched_without_wire() -> Iterator[Path]:
    """The same without the rules that look at the wire: what these cost is the difference."""
    with Daemon(
        LABEL, policies={f.name: without_wire(f.read_text()) for f in SHIPPED_POLICIES.glob("*.yaml")}
    ) as daemon:
        yield make_workload(daemon, "measured")


def without_wire(policy: str) -> str:
    """A policy's text without its rules on the wire. Rules' own tests go too: they may speak of those."""
    made = yaml.load(policy, Loader=yaml.BaseLoader)
    made["rules"] = [
        {key: value for key, value in rule.items() if key != "tests"} for rule in made["rules"] if rule["on"] != "wire"
    ]
    return str(yaml.dump(made))


@contextmanager
def plain_cgroup() -> Iterator[Path]:
    """A cgroup like the watched one, without a daemon: so that a ratio does not count the cgroup itself."""
    root = clean_host.cgroup_root()
    assert root is not None
    top = root / f"{LABEL}-{os.getpid()}-plain"
    path = top / "measured"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        clean_host.remove_cgroup(top)
