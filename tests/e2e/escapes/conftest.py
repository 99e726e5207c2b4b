"""The ground of the escape tests: a script inside ``killswitch run``, as root or as an ordinary user, that tries for real.

A script calls ``attempt(name, function)`` for each thing that it tries; what came of it (``"done"`` or the errno's name)
is in ``Inside.results()``. ``go()`` in a script waits for ``Inside.go()``. What is left of it all is counted outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from killswitch.kernel import cgroupfs
from tests.e2e.conftest import Daemon
from tests.rig import clean_host
from tests.rig.emulated import patience
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

PRELUDE = """
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWCGROUP, NEWUSER, NEWNET, BIND, REMOUNT = 0x20000, 0x2000000, 0x10000000, 0x40000000, 4096, 32

def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result

def attempt(what, function):
    try:
        function()
        outcome = "done"
    except OSError as e:
        outcome = errno.errorcode.get(e.errno, str(e.errno))
    print(json.dumps([what, outcome]), flush=True)

def say(what, value):
    print(json.dumps([what, value]), flush=True)

def go():
    say("ready", True)
    sys.stdin.readline()

def become_root_of_a_user_namespace(more=0):
    uid, gid = os.getuid(), os.getgid()
    call("unshare", NEWUSER | more)
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    open("/proc/self/gid_map", "w").write(f"0 {gid} 1")
"""


class Inside:
    """A script inside ``killswitch run``. Arguments are ``sys.argv[1:]`` over there."""

    made = 0

    def __init__(
        self,
        daemon: Daemon,
        script: str,
        *arguments: object,
        user: str = "root",
        options: tuple[str, ...] = (),
        **popen: Any,
    ) -> None:
        Inside.made += 1
        self.name = f"escape{Inside.made}"
        self._daemon = daemon
        self._said: dict[str, Any] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "killswitch", "run", "--name", self.name, "--user", user, *options, "--",
             "/usr/bin/python3", "-c", PRELUDE + textwrap.dedent(script), *map(str, arguments)],
            env=daemon.env, cwd="/", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen,
        )  # fmt: skip

    def _hear(self) -> bool:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line:
            what, value = json.loads(line)
            self._said[what] = value
        return bool(line)

    def ready(self) -> None:
        """Wait for the script's ``go()``."""
        self._said.pop("ready", None)
        self.hear_of("ready")

    def hear_of(self, what: str) -> None:
        """Wait until the script has said something of this."""
        while what not in self._said:
            if not self._hear():
                raise AssertionError(f"the script ended: {self.process.communicate()[1]}\n{self._said}")

    def sever(self) -> int:
        """Sever the workload, as an operator does; the time after the reply (unix ns)."""
        assert self._daemon.client.sever(self.name, "escape test").complete
        return time.time_ns()

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def results(self) -> dict[str, Any]:
        """What was said, once the script has ended by itself."""
        while self._hear():
            pass
        _, errors = self.process.communicate(timeout=patience(30))
        assert self.process.returncode == 0, f"{self.process.returncode}: {errors}\n{self._said}"
        return {k: v for k, v in self._said.items() if k != "ready"}

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["root", "nobody"])
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inside(shared_daemon: Daemon) -> Iterator[Callable[..., Inside]]:
    """``inside(script, *arguments, user=, options=)``: start it. Each ends with the test."""
    started: list[Inside] = []

    def start(script: str, *arguments: object, **options: Any) -> Inside:
        started.append(Inside(shared_daemon, script, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def loose(shared_daemon: Daemon) -> Iterator[Callable[..., Any]]:
    """``loose(script, *arguments, user=, prefix=)``: start it in a workload that is only watched."""
    from tests.e2e.escapes.loose import Loose  # it builds on what is here

    started: list[Inside] = []

    def start(script: str, *arguments: object, **options: Any) -> Inside:
        started.append(Loose(shared_daemon, script, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def outside_cgroup() -> Iterator[Path]:
    """A cgroup that nobody watches."""
    path = cgroupfs.find_mount() / f"ks-test-{os.getpid()}-outside"
    path.mkdir()
    yield path
    clean_host.remove_cgroup(path)


@pytest.fixture
def counter(far: FarSide) -> Iterator[Counter]:
    """Every packet that reaches the far side."""
    with Counter(far) as counting:
        yield counting


@pytest.fixture
def ears(far: FarSide) -> Iterator[list[Sink]]:
    """Port 4001 over there takes in everything: UDP and TCP, IPv4 and IPv6."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Sink(far, family=family, kind=kind, port=4001))
            for family in (socket.AF_INET, socket.AF_INET6)
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        ]


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process outside, of root, as the daemon is."""
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


def silent(counter: Counter, since: int) -> bool:
    """Nothing came after ``since``, and a while after that."""
    time.sleep(0.3)
    return counter.since(since) == []
