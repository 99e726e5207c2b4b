"""One daemon a state: a second one would undo what the first does."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from killswitch.errors import KillswitchError


class Locked(KillswitchError):
    """Another daemon holds this place. ``pid`` is its pid, 0 when the kernel does not show it to us."""

    def __init__(self, place: Path, pid: int) -> None:
        self.pid = pid
        who = f"the daemon with pid {pid}" if pid else "another daemon"
        super().__init__(
            f"{place}: {who} is already running there; stop it first, or give this one places of its own "
            "(KILLSWITCH_RUNTIME_DIR, KILLSWITCH_STATE_DIR, KILLSWITCH_PIN_DIR)"
        )


class Lock:
    """An flock(2) on the directory itself: it needs no file, so a full disk cannot refuse it, and bpffs allows it too.

    The kernel drops it when its holder dies, however it dies, so no stale lock can be left.
    """

    def __init__(self, directory: Path) -> None:
        """Raises Locked; OSError when the directory cannot be opened."""
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            inode = os.fstat(self._fd).st_ino
            os.close(self._fd)
            raise Locked(directory, _holder(inode)) from None

    def release(self) -> None:
        os.close(self._fd)


def _holder(inode: int) -> int:
    """The pid that holds an flock on the inode, by ``/proc/locks``; 0 when that does not tell."""
    for line in Path("/proc/locks").read_text().splitlines():
        # "7: FLOCK  ADVISORY  WRITE 4711 00:1b:123 0 EOF". The device is left out: some file systems show another
        # one there than stat does.
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and fields[4].isdigit():
            return int(fields[4])
    return 0
