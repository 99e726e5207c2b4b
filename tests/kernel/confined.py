"""Scripts in a workload's cgroup that try what LSM programs refuse, and tell what came of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from killswitch.commands import Containment, Guard
from killswitch.events import Denied
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

GUARDED = Guard.BPF | Guard.CGROUP_FILES | Guard.DAEMON | Guard.KERNEL_CODE | Guard.XDP_SOCKETS
EVERYTHING = GUARDED | Guard.PTRACE | Guard.SIGNALS
SEVERED = Containment(severed=True)
PRELUDE = """
import ctypes, errno, json, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
told = {}
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result
def attempt(what, function):
    try:
        function()
        told[what] = "done"
    except OSError as e:
        told[what] = errno.errorcode[e.errno]
def finish():
    print(json.dumps(told), flush=True)
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""
BPF = """
kind = ctypes.create_string_buffer(b"\\x02\\0\\0\\0\\x04\\0\\0\\0\\x04\\0\\0\\0\\x01\\0\\0\\0" + bytes(104))
attempt("bpf", lambda: call("syscall", 321, 0, kind, 120))
"""


def needs(*programs: str) -> Callable[[DataPlane], None]:
    def check(plane: DataPlane) -> None:
        for program in programs:
            if why := plane.left_out.get(program):
                pytest.skip(f"{program}: {why}")

    return check


def script(watched: Cgroup, code: str, *arguments: object) -> dict[str, str]:
    done = watched.run(sys.executable, "-I", "-S", "-c", PRELUDE + code + "\nfinish()", *map(str, arguments))
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, str] = json.loads(done.stdout)
    return told


class Waiting:
    """A script that says when it is ready, and goes on when it is told to."""

    def __init__(self, watched: Cgroup, code: str, *arguments: object, **popen: object) -> None:
        self.process = watched.popen(
            sys.executable, "-I", "-S", "-c", PRELUDE + code + "\nfinish()", *map(str, arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen,
        )  # fmt: skip

    def ready(self) -> None:
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"

    def result(self) -> dict[str, str]:
        out, _ = self.process.communicate(b"\n", timeout=60)
        assert self.process.returncode == 0
        told: dict[str, str] = json.loads(out)
        return told


def refused(plane: DataPlane) -> list[Denied]:
    return [e for e in plane.drain(10_000) if isinstance(e, Denied)]
