"""Asking somebody outside to start something: the sockets that do so for whoever may open them."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.escapes.conftest import Inside

SCRIPT = """
for name in ("bus", "docker.sock", "systemd/private"):
    attempt(name, lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(f"{sys.argv[1]}/{name}"))
attempt("uncover", lambda: os.unlink(f"{sys.argv[1]}/bus"))
"""


@pytest.fixture
def runtime() -> Iterator[Path]:
    """As a user's runtime directory, with everybody let in."""
    made_parent = not Path("/run/user").exists()
    directory = Path("/run/user", f"ks-test-{os.getpid()}")
    (directory / "systemd").mkdir(parents=True)
    listening = []
    try:
        for name in ("bus", "docker.sock", "systemd/private"):
            listening.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listening[-1].bind(str(directory / name))
            listening[-1].listen()
            (directory / name).chmod(0o777)
        yield directory
    finally:
        for one in listening:
            one.close()
        shutil.rmtree(directory)
        if made_parent:
            directory.parent.rmdir()


def test_host_sockets(inside: Callable[..., Inside], user: str, runtime: Path) -> None:
    tried = inside(SCRIPT, runtime, user=user).results()
    assert {"ECONNREFUSED", "EACCES", "EBUSY"} >= set(tried.values()), tried


def test_kept_by_name(inside: Callable[..., Inside], runtime: Path) -> None:
    """So the attempt is a real one."""
    assert inside(SCRIPT, runtime, options=("--host-sockets",)).results()["bus"] == "done"
