"""A real daemon of our own beside any other: its own places, its own policies, its own part of the cgroup tree."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from killswitch.config import SHIPPED_POLICIES
from killswitch.control.client import Client
from killswitch.control.service import WorkloadInfo
from killswitch.errors import KillswitchError
from tests.rig import clean_host
from tests.rig.emulated import EMULATED, patience

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
VIRTUAL = "killswitch-vm"  # what tests/vm calls the machine that goes away with its tests
WATCHED = "/killswitch/**"  # the glob of the shipped policies that is replaced by one for the daemon's own workloads


def in_virtual_machine() -> bool:
    """Whether this is a machine of ``tests.vm``: the only kind that may be cut off whole."""
    return bool(os.environ.get("KS_TEST_VM")) and socket.gethostname() == VIRTUAL


class DaemonFailed(Exception):
    """The daemon did not do what it had to. ``str()`` has its log."""


class Daemon:
    """A daemon that can be started, killed and started again on the same state; ``with`` starts it and removes all of it.

    ``label`` starts the names of what it makes (``ks-test``, ``ks-demo``, ``ks-bench``). ``policies`` maps file names to YAML
    text, in which ``/killswitch/**`` is replaced by its own workloads' glob; None takes the shipped ones. ``settings`` are
    environment variables that win over the others. ``prefix`` is what its process is started by (``setpriv …``): it has
    to *become* the daemon, so that a signal to it is one to the daemon.
    """

    _made = 0

    def __init__(self, label: str = "ks-test", *, policies: Mapping[str, str] | None = None, **settings: str) -> None:
        Daemon._made += 1
        self.name = f"{label}-{os.getpid()}-d{Daemon._made}"
        mount = clean_host.cgroup_root()
        if mount is None:
            raise DaemonFailed("there is no cgroup v2 mount on this host")
        self.cgroup_parent = f"/{self.name}"
        self.cgroup_dir = mount / self.name
        self.pin_dir = Path("/sys/fs/bpf", self.name)
        self.directory = Path("/tmp", self.name)  # short: a unix socket's path has at most 107 bytes
        self.state_dir = Path(settings.get("KILLSWITCH_STATE_DIR", self.directory / "state"))
        self.runtime_dir = self.directory / "run"
        self.policy_dir = self.directory / "policies"
        self.config_file = self.directory / "config.yaml"
        self.log_file = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: tuple[str, ...] = ()
        self.ready_seconds = 0.0  # from the start of its process to READY=1
        self._client: Client | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        # Also of any ``killswitch`` command that is to talk to it. Nothing of the host's own daemon leaks in.
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("KILLSWITCH_")},
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "KILLSWITCH_CONFIG": str(self.config_file),
            "KILLSWITCH_RUNTIME_DIR": str(self.runtime_dir),
            "KILLSWITCH_STATE_DIR": str(self.state_dir),
            "KILLSWITCH_PIN_DIR": str(self.pin_dir),
            "KILLSWITCH_POLICY_DIRS": str(self.policy_dir),
            "KILLSWITCH_SELFTEST_EVERY": "off",  # a test asks for it
            "KILLSWITCH_CGROUP_PARENT": self.cgroup_parent,
            # "The host" is never the machine: its own cgroup, and a namespace that is not there unless a test says which.
            "KILLSWITCH_HOST_CGROUP": self.cgroup_parent,
            "KILLSWITCH_HOST_NETNS": f"/run/netns/{self.name}-nowhere",
            "KILLSWITCH_BUDGET_SHARE": "100%",  # rogues by the dozen are what it is for: who tests the budget sets one
            **settings,
        }
        own_netns = not self.env["KILLSWITCH_HOST_NETNS"].startswith("/run/netns/ks-")
        if (self.env["KILLSWITCH_HOST_CGROUP"] == "/" or own_netns) and not in_virtual_machine():
            raise DaemonFailed(
                "this daemon could cut the machine itself off: leave host_cgroup and host_netns to a test's own"
            )
        self.directory.mkdir()
        self.cgroup_dir.mkdir()
        self.config_file.write_text("# all by environment\n")
        self.write_policies(policies or {f.name: f.read_text() for f in sorted(SHIPPED_POLICIES.glob("*.yaml"))})

    def localised(self, policy: str) -> str:
        """A policy's text with the shipped workload glob replaced by one for this daemon's workloads."""
        if WATCHED not in policy:
            raise ValueError(f"the policy watches no {WATCHED}: it would watch nothing of this daemon's")
        return policy.replace(WATCHED, f"{self.cgroup_parent}/**")

    def write_policies(self, policies: Mapping[str, str]) -> None:
        """In place of those that are there; a daemon that runs has to be told to reload them."""
        shutil.rmtree(self.policy_dir, ignore_errors=True)
        self.policy_dir.mkdir()
        for name, text in policies.items():
            (self.policy_dir / name).write_text(self.localised(text))

    # --- the daemon's life ------------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        """The argv of the ``killswitch`` command; run it with ``env``."""
        return [sys.executable, "-m", "killswitch", *arguments]

    def launch(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a daemon process on these places without waiting for it."""
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [*self.prefix, *self.command("daemon", *arguments)],
                env={**self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for whoever runs this: it has still to clean up
            )

    def start(self, seconds: float = 60.0) -> Daemon:
        """Start it and wait for READY=1, as systemd would. Raises DaemonFailed."""
        assert self.process is None
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            address = self.directory / "notify"
            address.unlink(missing_ok=True)
            notify.bind(str(address))
            notify.settimeout(0.05)
            started = time.monotonic()
            self.process = self.launch(NOTIFY_SOCKET=str(address))
            while time.monotonic() - started < patience(seconds):
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096).split(b"\n"):
                        self.ready_seconds = time.monotonic() - started
                        return self
                if self.process.poll() is not None:
                    status, self.process = self.process.returncode, None
                    raise DaemonFailed(f"the daemon ended with status {status}:\n{self.log()}")
        self.kill9()
        raise DaemonFailed(f"the daemon was not ready after {seconds} s:\n{self.log()}")

    def end(self, with_signal: signal.Signals = signal.SIGTERM, *, seconds: float = 30.0) -> int:
        """End its process, if it runs, and return the status; what it had put in force stays in force."""
        if self._client:
            self._client.close()
            self._client = None
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(with_signal)
        try:
            return process.wait(patience(seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DaemonFailed(f"the daemon did not end on {with_signal.name}:\n{self.log()}") from None

    def stop(self) -> int:
        return self.end(signal.SIGTERM)

    def kill9(self) -> None:
        self.end(signal.SIGKILL)

    def restart(self, with_signal: signal.Signals = signal.SIGTERM) -> Daemon:
        self.end(with_signal)
        return self.start()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # --- talking to it ----------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """Connected to the admin socket; a new one for each life of the daemon."""
        if self._client is None:
            self._client = Client(self.runtime_dir / "admin.sock", timeout=patience(30) if EMULATED else None)
        return self._client

    def cli(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=patience(seconds),
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    def wait_for(self, what: str, condition: Callable[[], T | None], seconds: float = 20.0) -> T:
        """Poll until ``condition`` is true (returned); DaemonFailed with the log when it never is."""
        end = time.monotonic() + patience(seconds)
        while not (found := condition()):
            if time.monotonic() > end:
                raise DaemonFailed(f"not seen in {seconds} s: {what}\n{self.log()[-6000:]}")
            time.sleep(0.02)
        return found

    # --- workloads --------------------------------------------------------------------------------------------------

    def cgroup(self, name: str) -> Path:
        """Make a cgroup below this daemon's parent: it sees it, and watches it by its policies' glob."""
        path = self.cgroup_dir / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def spawn(self, name: str, *command: str, **options: object) -> subprocess.Popen[bytes]:
        """Run a command in the workload ``name``: it is in the cgroup before it becomes ``command``."""
        procs = self.cgroup(name) / "cgroup.procs"
        child = subprocess.Popen(
            ["/bin/sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh", *command],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},  # type: ignore[call-overload]
        )
        self._children.append(child)
        return child

    def workload(self, name: str) -> WorkloadInfo | None:
        """The workload as the daemon tells of it; None = not watched."""
        return next((w for w in self.client.workloads() if w.name == name), None)

    def watched(self, name: str) -> WorkloadInfo:
        """Make the cgroup and wait until the daemon has discovered it."""
        self.cgroup(name)
        return self.wait_for(f"{name} watched", lambda: self.workload(name))

    # --- the end ----------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Release, end and remove every workload; the daemon goes on."""
        self._release_all()
        self._end_children()
        # What was found a moment ago may be contained after its release. It is kept as contained though it is gone, and its place
        # is held: until it is released again.
        self.wait_for("all gone", self._nothing_is_left)

    def _nothing_is_left(self) -> bool:
        for path in self.cgroup_dir.iterdir():
            if path.is_dir():
                with contextlib.suppress(OSError):  # the daemon has removed a place that it held
                    clean_host.remove_cgroup(path)
        return self._release_all() == 0

    def _release_all(self) -> int:
        """How many workloads there were."""
        found = self.client.workloads()
        for w in found:
            if str(w.desired) != "free":
                with contextlib.suppress(KillswitchError):  # gone in between
                    self.client.release(w.cgroup, "end of the test")
        return len(found)

    def remove(self) -> None:
        """End it and take away everything of it: pins (and so every program), cgroups with their processes, files."""
        with contextlib.ExitStack() as stack:  # from below; each step runs though another fails
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            stack.callback(self.remove_pins)
            stack.callback(self._end_children)
            stack.callback(clean_host.remove_cgroup, self.cgroup_dir)
            stack.callback(self.kill9)
            if (keep := os.environ.get("KS_TEST_LOGS")) and self.log_file.exists():
                shutil.copy(self.log_file, Path(keep, f"{self.name}.log"))

    def remove_pins(self) -> None:
        """What a reboot does to them."""
        if self.pin_dir.is_dir():
            shutil.rmtree(self.pin_dir)

    def _end_children(self) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait(10)
        self._children.clear()

    def __enter__(self) -> Daemon:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, *_: object) -> None:
        self.remove()
