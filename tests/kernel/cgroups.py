"""Cgroups for tests: processes are started in them, and go with them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


class Cgroup:
    """A cgroup v2 of a test; what runs in it is killed with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.id = path.stat().st_ino

    def child(self, name: str) -> Cgroup:
        return Cgroup(self.path / name)

    def popen(self, *command: str | Path, **options: object) -> subprocess.Popen[bytes]:
        """Start a command that is in this cgroup before its program begins."""
        procs = os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)  # here: the child may be nobody by then
        try:
            return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
                [str(c) for c in command], preexec_fn=lambda: os.write(procs, b"0"), **options
            )
        finally:
            os.close(procs)

    def run(self, *command: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        with self.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
            out, err = process.communicate(timeout=60)
            return subprocess.CompletedProcess(command, process.returncode, out, err)

    def pids(self) -> list[int]:
        return [
            int(p)
            for d in [self.path, *self.path.rglob("*/")]
            if d.is_dir()
            for p in (d / "cgroup.procs").read_text().split()
        ]

    def remove(self) -> None:
        if not self.path.exists():
            return
        with contextlib.suppress(OSError):
            (self.path / "cgroup.freeze").write_text("0")
        deadline = time.monotonic() + 5
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.path} does not become empty: {pids}")
            time.sleep(0.005)
        for directory in sorted((d for d in self.path.rglob("*/") if d.is_dir()), reverse=True):
            directory.rmdir()
        while True:
            try:
                return self.path.rmdir()
            except OSError:  # the kernel is still burying its last process
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
