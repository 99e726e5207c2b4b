"""The terminal of a workload that was frozen: a shell in it owns the foreground and is deaf, so Ctrl-C reaches nobody.

While it is frozen we join its foreground process group, and see to it that Ctrl-C is a signal. The foreground itself is
not taken from it: what it was reading when it was frozen would fail, and a shell take that for the end of its input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from pathlib import Path


class Terminal:
    """The controlling terminal on our stdin. Where there is none, nothing here does anything."""

    def __init__(self, cgroup: str) -> None:
        """``cgroup``: the workload's, below the cgroup v2 root. Only a group inside it is ever joined."""
        self._cgroup = cgroup
        self._ours = os.getpgrp()
        self._mode: list[int | list[bytes | int]] | None = None

    def listen(self) -> None:
        """Get what the terminal sends. A shell whose background job we are is left alone."""
        with contextlib.suppress(OSError, termios.error):  # no terminal, not ours, or we lead the session
            group = os.tcgetpgrp(0)
            if group != self._ours:
                if not self._is_inside(group):
                    return
                os.setpgid(0, group)
            sys.stderr.flush()
            mode = termios.tcgetattr(0)
            self._mode = termios.tcgetattr(0)
            mode[1] |= termios.OPOST
            mode[3] |= termios.ISIG
            termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def leave(self) -> None:
        """Everything as it was before ``listen``."""
        with contextlib.suppress(OSError, termios.error):
            if self._mode is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, self._mode)
                self._mode = None
            if os.getpgrp() != self._ours:
                os.setpgid(0, self._ours)

    def _is_inside(self, pid: int) -> bool:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
        where = next((line[3:] for line in lines if line.startswith("0::")), "")
        return where == self._cgroup or where.startswith(self._cgroup + "/")


def is_foreground() -> bool:
    """Whether the terminal on our stdin, if there is one, is our process group's."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def take_back() -> None:
    """The foreground, from a process group that has ended: a shell in a pid namespace cannot name ours to hand it back."""
    with contextlib.suppress(OSError):
        group = os.tcgetpgrp(0)
        if group == os.getpgrp():
            return
        if group > 0:
            try:
                os.killpg(group, 0)
                return
            except ProcessLookupError:
                pass
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(0, os.getpgrp())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
