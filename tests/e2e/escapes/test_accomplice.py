"""Somebody outside who reads what it writes: a file, a pipe, shared memory. Nothing on the network is the workload's own."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge

SCRIPT = """
import mmap
directory = sys.argv[1]
with open(f"{directory}/memory", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 4096)
def write():
    with open(f"{directory}/file", "w") as file:
        file.write("told")
def pipe():
    os.write(os.open(f"{directory}/pipe", os.O_WRONLY | os.O_NONBLOCK), b"told")
def share():
    memory[:4] = b"told"
def every():
    write(), pipe(), share()
insist(every)
"""


@pytest.fixture
def place() -> object:
    with tempfile.TemporaryDirectory(prefix="ks-test-", dir="/tmp") as made:
        directory = Path(made)
        directory.chmod(0o777)
        (directory / "memory").write_bytes(bytes(4096))
        (directory / "file").touch()
        os.mkfifo(directory / "pipe")
        for name in ("memory", "file", "pipe"):
            (directory / name).chmod(0o666)
        yield directory


def test_accomplice(loose: Callable[..., Loose], user: str, place: Path, shared_daemon: Daemon) -> None:
    """Frozen it writes nothing; severed it does, and that is what `doctor` names."""
    pipe = os.open(place / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with (place / "memory").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)

    def heard() -> set[str]:
        """What has been told since the last time."""
        found = {"file"} if (place / "file").read_text() else set()
        try:
            found |= {"pipe"} if os.read(pipe, 4096) else set()
        except BlockingIOError:
            pass
        if memory[:4] == b"told":
            found.add("memory")
        (place / "file").write_text("")
        memory[:4] = bytes(4)
        return found

    try:
        script = loose(SCRIPT, place, user=user)
        script.ready()
        assert heard() == {"file", "pipe", "memory"}
        script.go()
        time.sleep(0.03)
        script.kill()
        heard()
        time.sleep(0.1)
        assert heard() == set(), "frozen"
        script.thaw()
        script.go()
        script.results()
        judge(shared_daemon, "no_accomplices", heard())
    finally:
        os.close(pipe)
        memory.close()
