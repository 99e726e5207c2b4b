"""The real daemon as a process of its own, with places of its own, and everything it made removed again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.config import SHIPPED_POLICIES
from killswitch.control.client import Client
from killswitch.control.service import WorkloadInfo
from killswitch.kernel import cgroupfs
from killswitch.kernel.mounts import ensure_bpffs
from tests.rig import clean_host
from tests.rig.netns import FarSide

ROOT = Path(__file__).parents[2]
SHIPPED_GLOB = "/killswitch/**"


class Daemon:
    """A daemon that can be started, killed and started again on the same state.

    ``env`` makes any ``killswitch`` command talk to it. ``policies`` are files below ``policy_dir``: the shipped ones with
    their workload glob replaced, until a test writes others and starts or reloads.
    """

    made = 0

    def __init__(self, **settings: str) -> None:
        Daemon.made += 1
        self.name = f"ks-test-{os.getpid()}-d{Daemon.made}"
        self.base = Path("/tmp", self.name)
        self.state_dir = self.base / "state"
        self.runtime_dir = self.base / "run"
        self.policy_dir = self.base / "policies"
        self.pin_dir = Path("/sys/fs/bpf", self.name)
        self.cgroup_parent = f"/{self.name}"
        self.cgroup_dir = cgroupfs.find_mount() / self.name
        self.log_file = self.base / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        for directory in (self.base, self.policy_dir, self.cgroup_dir):
            directory.mkdir()
        (self.base / "config.yaml").write_text("# all by environment\n")
        for shipped in SHIPPED_POLICIES.glob("*.yaml"):
            (self.policy_dir / shipped.name).write_text(self.localised(shipped.read_text()))
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "KILLSWITCH_CONFIG": str(self.base / "config.yaml"),
            "KILLSWITCH_RUNTIME_DIR": str(self.runtime_dir),
            "KILLSWITCH_STATE_DIR": str(self.state_dir),
            "KILLSWITCH_PIN_DIR": str(self.pin_dir),
            "KILLSWITCH_POLICY_DIR": str(self.policy_dir),
            "KILLSWITCH_CGROUP_PARENT": self.cgroup_parent,
            "KILLSWITCH_LOG_LEVEL": "debug",
            **settings,
        }

    def localised(self, policy: str) -> str:
        """A policy's text with the shipped workload glob replaced by one for this daemon's workloads."""
        assert SHIPPED_GLOB in policy
        return policy.replace(SHIPPED_GLOB, f"{self.cgroup_parent}/**")

    # --- the daemon's life ---

    def launch(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a daemon process on these places without waiting for it."""
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "killswitch", "daemon", *arguments],
                env={**self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def start(self, seconds: float = 30.0) -> Daemon:
        """Start it and wait for its ``READY=1``."""
        assert self.process is None
        address = self.base / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            listener.settimeout(0.2)
            self.process = self.launch(NOTIFY_SOCKET=str(address))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in listener.recv(4096):
                        return self
                if self.process.poll() is not None:
                    raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
        raise AssertionError(f"the daemon is not ready after {seconds} s:\n{self.log()}")

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        return self._end(signal.SIGTERM)

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> int:
        assert self.process is not None
        if self._client:
            self._client.close()
            self._client = None
        self.process.send_signal(sign)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not end on {sign.name}:\n{self.log()}") from None
        finally:
            self.process = None

    def restart(self) -> Daemon:
        if self.process:
            self.stop()
        return self.start()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # --- talking to it ---

    @property
    def client(self) -> Client:
        """Connected to the admin socket; a new one for each life of the daemon."""
        if self._client is None:
            self._client = Client(self.runtime_dir / "admin.sock")
        return self._client

    def cli(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "killswitch", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
        )

    # --- workloads ---

    def cgroup(self, name: str) -> Path:
        """Make a cgroup below this daemon's parent: the daemon sees it and watches it by its policies' glob."""
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
        found = self.wait_for(f"{name} watched", lambda: self.workload(name))
        assert isinstance(found, WorkloadInfo)
        return found

    def wait_for(self, what: str, condition: Callable[[], object], seconds: float = 15.0) -> object:
        """Poll until ``condition`` is true (returned); AssertionError with the daemon's log when it never is."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not seen in {seconds} s: {what}\n{self.log()[-6000:]}")
            time.sleep(0.02)

    def tidy(self) -> None:
        """Release, end and remove every workload; the daemon goes on."""
        for w in self.client.workloads():
            if str(w.desired) != "free":
                self.client.release(w.cgroup, "end of the test")
        self._end_children()
        for path in self.cgroup_dir.iterdir():
            if path.is_dir():
                clean_host.remove_cgroup(path)
        self.wait_for("all gone", lambda: not self.client.workloads())

    def clean(self) -> None:
        with contextlib.ExitStack() as stack:  # each step runs though another fails
            stack.callback(shutil.rmtree, self.base, ignore_errors=True)
            stack.callback(self._remove_pins)
            stack.callback(self._end_children)
            stack.callback(self._remove_cgroups)
            if self.process:
                stack.callback(self.kill9)
            if self.log_file.exists() and os.environ.get("KS_TEST_LOGS"):
                shutil.copy(self.log_file, Path(os.environ["KS_TEST_LOGS"], f"{self.name}.log"))

    def _remove_cgroups(self) -> None:
        if self.cgroup_dir.is_dir():
            clean_host.remove_cgroup(self.cgroup_dir)

    def _end_children(self) -> None:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait(10)
        self._children.clear()

    def _remove_pins(self) -> None:
        if self.pin_dir.is_dir():
            shutil.rmtree(self.pin_dir)


@pytest.fixture(scope="session", autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests run the real daemon: run them as root (sudo make test)")
    ensure_bpffs(Path("/sys/fs/bpf"))


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are not started yet: ``make_daemon(KILLSWITCH_…="…")``."""
    made: list[Daemon] = []

    def make(**settings: str) -> Daemon:
        made.append(Daemon(**settings))
        return made[-1]

    yield make
    with contextlib.ExitStack() as stack:
        for daemon in made:
            stack.callback(daemon.clean)


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A started daemon of the test's own."""
    return make_daemon().start()


@pytest.fixture(scope="session")
def session_daemon() -> Iterator[Daemon]:
    shared = Daemon()
    try:
        yield shared.start()
    finally:
        shared.clean()


@pytest.fixture
def shared_daemon(session_daemon: Daemon) -> Iterator[Daemon]:
    """One started daemon for many tests. Each finds it without workloads, and need not tidy up what it made."""
    yield session_daemon
    session_daemon.tidy()


@pytest.fixture
def far() -> Iterator[FarSide]:
    """A network namespace at the end of a veth pair."""
    with FarSide() as side:
        yield side
