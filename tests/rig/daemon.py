"""A real daemon of our own beside any other: its own places, its own policies, its own part of the cgroup tree."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig import clean_host

if TYPE_CHECKING:
    from killswitch.control.client import Client

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "killswitch" / "policies"
WATCHED = "/killswitch/**"  # the glob of the shipped policies that is replaced by the daemon's own parent


class DaemonFailed(Exception):
    """The daemon did not come up. ``str()`` has its log."""


class RealDaemon:
    """``with RealDaemon("ks-test") as daemon:`` is a running, armed daemon, and nothing of it afterwards.

    ``policies`` maps file names to YAML text, in which ``/killswitch/**`` is replaced by this daemon's own glob; None takes
    the shipped ones.
    """

    _made = 0

    def __init__(self, label: str = "ks-test", *, policies: Mapping[str, str] | None = None) -> None:
        RealDaemon._made += 1
        self.name = f"{label}-{os.getpid()}-{RealDaemon._made}"
        mount = clean_host.cgroup_root()
        if mount is None:
            raise DaemonFailed("there is no cgroup v2 mount on this host")
        self.cgroup_parent = f"/{self.name}"
        self.cgroup_dir = mount / self.name
        self.pin_dir = Path("/sys/fs/bpf", self.name)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.state_dir = self.directory / "state"
        self.runtime_dir = self.directory / "run"
        self.policy_dir = self.directory / "policies"
        self.log_file = self.directory / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_seconds = 0.0
        self.write_policies(policies or {f.name: f.read_text() for f in sorted(SHIPPED.glob("*.yaml"))})

    @property
    def env(self) -> dict[str, str]:
        """The environment of the daemon, and of a command line that talks to it."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith("KILLSWITCH_")}
        return ours | {
            "KILLSWITCH_RUNTIME_DIR": str(self.runtime_dir),
            "KILLSWITCH_STATE_DIR": str(self.state_dir),
            "KILLSWITCH_PIN_DIR": str(self.pin_dir),
            "KILLSWITCH_POLICY_DIRS": str(self.policy_dir),
            "KILLSWITCH_CGROUP_PARENT": self.cgroup_parent,
            "PYTHONPATH": str(ROOT),
        }

    @property
    def client(self) -> Client:
        from killswitch.control.client import Client

        return Client(self.runtime_dir / "admin.sock")

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def write_policies(self, policies: Mapping[str, str]) -> None:
        shutil.rmtree(self.policy_dir, ignore_errors=True)
        self.policy_dir.mkdir(parents=True)
        for name, text in policies.items():
            (self.policy_dir / name).write_text(text.replace(WATCHED, f"{self.cgroup_parent}/**"))

    def command(self, *args: str) -> list[str]:
        """The argv of the ``killswitch`` command; run it with ``env``."""
        return [sys.executable, "-m", "killswitch", *args]

    def cli(self, *args: str, timeout: float = 60, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            self.command(*args), env=self.env, capture_output=True, text=True, timeout=timeout, check=False, **options
        )

    def start(self, *, timeout: float = 30) -> None:
        """Start it and wait for READY=1, as systemd would. Raises DaemonFailed with its log."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self.log_file.open("ab") as log:
            address = self.directory / "notify"
            address.unlink(missing_ok=True)
            notify.bind(str(address))
            notify.settimeout(0.05)
            started = time.monotonic()
            self.process = subprocess.Popen(
                self.command("daemon"),
                env=self.env | {"NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            while time.monotonic() - started < timeout:
                try:
                    if b"READY=1" in notify.recv(4096).split(b"\n"):
                        self.ready_seconds = time.monotonic() - started
                        return
                except TimeoutError:
                    pass
                if self.process.poll() is not None:
                    raise DaemonFailed(f"the daemon ended with status {self.process.returncode}:\n{self.log}")
        self.end(signal.SIGKILL)
        raise DaemonFailed(f"the daemon was not ready after {timeout} s:\n{self.log}")

    def end(self, with_signal: int = signal.SIGTERM, *, timeout: float = 20) -> int:
        """End the process and return its status; what it had put in force stays in force."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.process = None
        return status

    def kill9(self) -> None:
        self.end(signal.SIGKILL)

    def restart(self, with_signal: int = signal.SIGTERM) -> None:
        self.end(with_signal)
        self.start()

    def remove(self) -> None:
        """End the daemon and take away everything of it: pins (and so every program), cgroups with their processes, files."""
        try:
            self.end(signal.SIGKILL)
        finally:
            if self.pin_dir.exists():
                shutil.rmtree(self.pin_dir)
            if self.cgroup_dir.exists():
                clean_host.remove_cgroup(self.cgroup_dir)
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RealDaemon:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
