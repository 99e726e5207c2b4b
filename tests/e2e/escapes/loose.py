"""A script in a workload that is *only watched*: its root is the host's root, with every capability and nothing hidden from it.

The hardest case: whatever holds here by the programs on the cgroup holds for what ``killswitch run`` starts, too. A script
calls ``insist(function)`` for what it tries (``all_of(*functions)``: in several ways): once while it is free, again and
again while it is being cut off, and once more, severed but running, at the end. ``contained`` conducts that from outside.
"""

from __future__ import annotations

import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.conftest import PRELUDE, Inside
from tests.rig.farside import Counter

MORE = """
import select, subprocess, threading, time

def line(seconds):
    "Whether the outside has said something within this time."
    return bool(select.select([0], [], [], seconds)[0] and os.read(0, 1))

def go():
    say("ready", True)
    line(30)

def all_of(*functions):
    "All of them, whatever comes of the others; then raises what went wrong last."
    wrong = None
    for function in functions:
        try:
            function()
        except OSError as e:
            wrong = e
    if wrong:
        raise wrong

def insist(function, every=0.003, go_on=None):
    attempt("free", function)
    go()
    end = time.monotonic() + 20
    while not line(every) and time.monotonic() < end:
        try:
            (go_on or function)()
        except OSError:
            pass
    attempt("cut", function)
"""
AS_USER = ("/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


class Loose(Inside):
    """``prefix`` is what the script is started by, in its cgroup already (``ip netns exec …``). ``outside``: it is started in
    our own cgroup, to be moved in by who made it."""

    def __init__(
        self,
        daemon: Daemon,
        script: str,
        *arguments: object,
        user: str = "root",
        prefix: tuple[str, ...] = (),
        outside: bool = False,
        **popen: Any,
    ) -> None:
        Inside.made += 1
        self.name = f"loose{Inside.made}"
        self._daemon = daemon
        self._said = {}
        self.user = user
        daemon.watched(self.name)
        become = () if user == "root" else AS_USER
        code = PRELUDE + MORE + textwrap.dedent(script)
        command = (*prefix, *become, "/usr/bin/python3", "-c", code, *map(str, arguments))
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        popen = {**pipes, "text": True, "cwd": "/", **popen}
        self.process = subprocess.Popen(command, **popen) if outside else daemon.spawn(self.name, *command, **popen)

    @property
    def said(self) -> dict[str, Any]:
        return self._said

    def kill(self) -> int:
        """Severed and frozen, as an operator does it; the time after the reply (unix ns)."""
        order = self._daemon.client.kill(self.name, "escape test")
        assert order.complete, order
        return time.time_ns()

    def thaw(self) -> None:
        """It runs again, and stays severed."""
        assert self._daemon.client.release(self.name, "escape test", stage="thaw").complete


def quiet(counter: Counter, since: int, seconds: float = 0.15) -> bool:
    """Nothing came after ``since``, and a while after that."""
    time.sleep(seconds)
    return counter.since(since) == []


def contained(
    script: Loose, counter: Counter, *, arrive: int = 1, ready: bool = True, while_free: float = 0.03
) -> dict[str, Any]:
    """Let it try free, cut it off in the middle of trying, let it try severed: what it said.

    ``arrive`` packets come while it is free, so that the attempt is a real one; none comes after the reply to the kill.
    ``ready``: wait for its ``go()``; ``while_free``: so long (seconds) it goes on before the kill.
    """
    if ready:
        script.ready()
    try:
        counter.wait_for(arrive)
    except TimeoutError as e:
        raise AssertionError(f"free, it proves nothing: {e}; {script.said}") from e
    script.go()
    time.sleep(while_free)
    since = script.kill()
    assert quiet(counter, since), f"frozen: {counter.since(since)}"
    script.thaw()
    script.go()
    said = script.results()
    assert quiet(counter, since), f"severed: {counter.since(since)}"
    assert said["free"] == "done", said
    return said


def covered(daemon: Daemon, capability: str) -> bool:
    """What ``doctor`` says of this kernel. A row that is not there has given way to the LSM programs that cover it."""
    return {c.name: c.available for c in daemon.client.capabilities()}.get(capability, True)


def judge(daemon: Daemon, capability: str, escaped: object, *, always: bool = True) -> None:
    """A way out that some kernels leave open. It holds where ``doctor`` says so; where ``doctor`` says that it does not, it is
    open (``always``, or by luck only), or ``doctor`` is wrong."""
    if covered(daemon, capability):
        assert not escaped, f"{capability} is said to hold: {escaped}"
    elif escaped:
        pytest.xfail(f"{capability}: not covered by this kernel, and doctor says so: {escaped}"[:300])
    else:
        assert not always, f"{capability} is said not to hold, and it does"


def judge_leaver(daemon: Daemon, capability: str, outside: Path, counter: Counter, since: int) -> None:
    """What got out of its cgroup has ended, and has sent nothing since."""
    daemon.wait_for("nobody is there", lambda: not (outside / "cgroup.procs").read_text())
    left = [] if quiet(counter, since) else counter.since(since)
    judge(daemon, capability, left, always=False)
