"""``top`` on a real terminal: what is on it, that it goes on over a restart of the daemon, and that it leaves it as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

from tests.rig.daemon import Daemon

BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


class Screen:
    """A terminal of ``columns`` x ``lines`` with a command on it. ``wait`` reads what it draws."""

    def __init__(self, daemon: Daemon, *arguments: str, columns: int, lines: int, **env: str) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.follower, self.before = follower, termios.tcgetattr(follower)
        self.process = subprocess.Popen(
            daemon.command(*arguments), stdin=follower, stdout=follower, stderr=follower,
            env={**daemon.env, "TERM": "xterm-256color", **env}, start_new_session=True,
        )  # fmt: skip
        self.raw = ""

    def wait(self, pattern: str, seconds: float = 20.0) -> str:
        """What was drawn since the last call, up to where it matches."""
        end = time.monotonic() + seconds
        while not re.search(pattern, plain(self.raw), re.DOTALL):
            assert time.monotonic() < end, f"not seen: {pattern}\n{plain(self.raw)[-3000:]}"
            if select.select([self.leader], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.raw += os.read(self.leader, 65536).decode(errors="replace")
        seen, self.raw = self.raw, ""
        return seen

    def press(self, key: str) -> None:
        os.write(self.leader, key.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self.leader)
        os.close(self.follower)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@contextlib.contextmanager
def screen(daemon: Daemon, *arguments: str, columns: int = 100, lines: int = 20, **env: str) -> Iterator[Screen]:
    shown = Screen(daemon, *arguments, columns=columns, lines=lines, **env)
    try:
        yield shown
    finally:
        shown.close()


def test_it_shows_who_does_what_and_outlives_a_restart(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    for name in ("busy", "cut"):
        daemon.watched(name)
    daemon.spawn("busy", "/usr/bin/python3", "-c", BUSY)
    daemon.client.kill("cut", "test")
    with screen(daemon, "top", "-d", "0.3") as shown:
        seen = shown.wait(r"cut +severed\+frozen.*\bbusy +free +0\.[0-9]*[1-9].*now by state")
        assert "\x1b[" in seen  # colour
        shown.press("s")
        shown.wait(r"now by cpu")
        daemon.kill9()
        shown.wait("THE DAEMON DOES NOT ANSWER")
        daemon.start()
        shown.wait(r"armed, up .*cut +severed\+frozen")
        shown.press("q")
        assert shown.process.wait(10) == 0
        assert termios.tcgetattr(shown.follower) == shown.before


def test_a_small_screen_without_colour(shared_daemon: Daemon) -> None:
    for number in range(30):
        shared_daemon.watched(f"job{number:02}")
    with screen(shared_daemon, "top", "-d", "0.3", columns=40, lines=14, NO_COLOR="1") as shown:
        seen = shown.wait(r"job00 .*and \d+ more.*q ends")
        assert not re.search(r"\x1b\[[0-9;]*m", seen)
        drawn = plain(seen.rpartition("\x1b[H")[2])
        assert max(map(len, drawn.splitlines())) <= 40
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(10) == 0


def test_a_pipe_gets_an_object_a_line(shared_daemon: Daemon) -> None:
    shared_daemon.watched("job")
    shared_daemon.spawn("job", "/usr/bin/python3", "-c", BUSY)
    command = shared_daemon.command("top", "-d", "0.3", "-o", "json")
    with subprocess.Popen(command, env=shared_daemon.env, stdout=subprocess.PIPE, text=True) as top:
        assert top.stdout
        looks = [json.loads(top.stdout.readline()) for _ in range(3)]
        top.terminate()
    assert [w["name"] for w in looks[0]["workloads"]] == ["job"]
    assert max(look["workloads"][0]["cores"] for look in looks) > 0.02
    assert looks[0]["time"] < looks[1]["time"] < looks[2]["time"]
