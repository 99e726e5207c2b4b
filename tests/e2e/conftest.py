"""Real daemons as fixtures: each with places of its own, and everything it made removed again."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.config import SHIPPED_POLICIES
from killswitch.kernel.mounts import ensure_bpffs
from tests.rig.daemon import Daemon
from tests.rig.netns import FarSide

TALKATIVE = {"KILLSWITCH_LOG_LEVEL": "debug"}  # the log is what a failed test shows


@pytest.fixture(scope="session", autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests run the real daemon: run them as root (sudo make test)")
    ensure_bpffs(Path("/sys/fs/bpf"))


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are not started yet: ``make_daemon(KILLSWITCH_…="…")``."""
    made: list[Daemon] = []

    def make(**settings: str) -> Daemon:
        made.append(Daemon(**{**TALKATIVE, **settings}))
        return made[-1]

    yield make
    logs = [daemon.log() for daemon in made if daemon.log_file.exists()]
    with contextlib.ExitStack() as stack:
        for daemon in made:
            stack.callback(daemon.remove)
    for log in logs:  # what the daemon swallows so as to go on is a mistake of ours all the same
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:4000]


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A started daemon of the test's own."""
    return make_daemon().start()


@pytest.fixture(scope="session")
def session_daemon() -> Iterator[Daemon]:
    """Its policies guard nothing: what is tried here must hold without LSM programs (tests/kernel/test_lsm_*.py try those)."""
    shipped = {f.name: re.sub("^guard:.*$", "", f.read_text(), flags=re.M) for f in SHIPPED_POLICIES.glob("*.yaml")}
    with Daemon(policies=shipped, **TALKATIVE) as shared:
        yield shared


@pytest.fixture
def shared_daemon(session_daemon: Daemon) -> Iterator[Daemon]:
    """One started daemon for many tests. Each finds it without workloads, and need not tidy up what it made."""
    yield session_daemon
    session_daemon.tidy()


@pytest.fixture
def far() -> Iterator[FarSide]:
    """A network namespace at the end of a veth pair."""
    with FarSide() as side:
        yield side
