"""Workloads for the containment tests: small Python programs in a cgroup of their own, that say when they are ready."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from killswitch.contain.switch import WorkloadRef
from tests.kernel.cgroups import Cgroup


class Actor:
    """A program in a cgroup. It prints ``ready``, waits for a line, and prints what it then sees."""

    def __init__(self, cgroup: Cgroup, code: str, *arguments: str | Path, enter: str = "") -> None:
        command: list[str | Path] = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        if enter:
            command = ["ip", "netns", "exec", enter, *command]
        self.process = cgroup.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.first = self.process.stdout.readline().decode().strip()  # blocks until it is ready; "" = it ended
        assert self.first.startswith("ready"), "the actor did not come up"

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self) -> str:
        """Give it its line; everything that it prints until it ends."""
        return self.process.communicate(b"\n", timeout=20)[0].decode()


@contextmanager
def actor(cgroup: Cgroup, code: str, *arguments: str | Path, enter: str = "") -> Iterator[Actor]:
    made = Actor(cgroup, code, *arguments, enter=enter)
    try:
        yield made
    finally:
        cgroup.remove()  # thaws, and kills what is left
        made.process.kill()  # the test may have moved it out
        made.process.stdin.close()  # type: ignore[union-attr]
        made.process.stdout.close()  # type: ignore[union-attr]
        made.process.wait()


def ref(cgroup: Cgroup) -> WorkloadRef:
    return WorkloadRef(cgroup.id, cgroup.path, cgroup.path.name)


SLEEPER = """
import sys, time
print("ready", flush=True)
time.sleep(600)
"""

# Its first thread has ended, another goes on and holds a socket, whose inode it tells.
LEADERLESS = """
import ctypes, os, socket, threading, time
far = socket.socket()
def stay():
    while open("/proc/%d/stat" % os.getpid()).read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    print("ready", os.fstat(far.fileno()).st_ino, flush=True)
    time.sleep(600)
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""

SPINNER = """
print("ready", flush=True)
while True:
    pass
"""

# Keeps so many children, each of which lives for a moment and is replaced by a fork of the next.
FORKING = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
            time.sleep(0.02)
print("ready", flush=True)
while True:
    os.wait()
"""
