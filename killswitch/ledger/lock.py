"""One process a ledger: two writers would each believe their own audit chain."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from killswitch.errors import LedgerError


class Lock:
    """An flock(2) on ``<ledger>.lock``, which ends with the process however that dies. The file stays."""

    def __init__(self, ledger: Path) -> None:
        """Raises LedgerError when another process has it. ``problem`` tells when no lock could be made (read-only disk)."""
        path = ledger.with_name(f"{ledger.name}.lock")
        self.problem = ""
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                self.problem = f"{path}: no lock can be taken ({error.strerror})"
                return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise LedgerError(
                f"{ledger}: process {owner} has it open; stop that daemon, or give this one another state directory"
            ) from None
        with contextlib.suppress(OSError):  # a full or read-only disk: the lock holds without the pid
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
