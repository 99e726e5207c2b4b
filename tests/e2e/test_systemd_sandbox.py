"""The real daemon, with no more than what ``killswitchd.service`` leaves it: it must still be able to pull the switch.

There may be no running systemd here, so its sandbox is made by hand from the unit's own settings: the capability
bounding set, no_new_privs, memory that is never writable and executable, and a file system that is read-only but for
what the unit names. The system call filter is checked the other way round: what the daemon calls is in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Step
from tests.e2e.test_systemd import SERVICE, settings
from tests.rig.daemon import Daemon

SHUT_IN = """
import ctypes, os, subprocess, sys
base, capabilities, command = sys.argv[1], sys.argv[2], sys.argv[3:]
subprocess.run(["mount", "--bind", base, base], check=True)
for line in open("/proc/self/mountinfo"):
    point, kind = line.split()[4], line.partition(" - ")[2].split()[0]
    if kind in ("cgroup2", "bpf") or point == base or point.startswith(("/dev", "/proc")):
        continue
    subprocess.run(["mount", "-o", "remount,bind,ro", point], check=point in ("/", "/sys"), stderr=subprocess.DEVNULL)
MDWE = 65
if ctypes.CDLL(None).prctl(MDWE, 1, 0, 0, 0) not in (0, -1):  # -1: kernels before 6.3
    raise SystemExit("prctl")
os.execvp("setpriv", ["setpriv", "--no-new-privs", f"--bounding-set=-all,{capabilities}", *command])
"""


SYS_RESOURCE = 24


def capabilities() -> list[str]:
    """Of those in the unit what there is here: a container may have no CAP_SYS_RESOURCE."""
    names = settings(SERVICE)["CapabilityBoundingSet"].split()
    ours = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    return [n for n in names if n != "CAP_SYS_RESOURCE" or ours >> SYS_RESOURCE & 1]


def bounding_set() -> str:
    return ",".join("+" + name.removeprefix("CAP_").lower() for name in capabilities())


# Of another user, with a connection to itself: to see and to end these, the daemon needs its capabilities.
TALKER = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname())
far, _ = listener.accept()
secret = open("/etc/hostname")
time.sleep(600)
"""


def pull_and_release(daemon: Daemon) -> None:
    """What an operator needs of it: watch, kill with whole evidence, release, reload, a clean audit."""
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    job = daemon.spawn("job", *nobody, "/usr/bin/python3", "-c", TALKER)

    def listens() -> bool:
        return any(w.processes for w in daemon.client.workloads()) and _sockets(job.pid) >= 3

    daemon.wait_for("the workload talks to itself", listens)
    result = daemon.client.kill("job", "sandbox test", wait_for_evidence=True)
    assert result.complete, result.receipts
    assert str(result.workload.observed) == "severed+frozen"
    proof = {r.step: r.proof for r in result.receipts}
    assert proof[Step.DESTROY_SOCKETS]["destroyed"] == 3
    files: dict[str, bytes] = {}
    for name, chunk in daemon.client.evidence(result.incident):
        files[name] = files.get(name, b"") + chunk
    assert json.loads(files["manifest.json"])["left_out"] == []
    [process] = json.loads(files["processes.json"])
    assert process["file"]["sha256"] == hashlib.sha256(Path("/usr/bin/python3").read_bytes()).hexdigest()
    [opened] = json.loads(files["files.json"])
    assert "/etc/hostname" in [f["leads_to"] for f in opened["files"]]
    assert daemon.client.release("job", "sandbox test").complete
    assert daemon.client.reload_policies("sandbox test")
    proof = daemon.client.self_test("sandbox test")
    assert proof.complete, proof.receipts
    assert daemon.client.verify_log()[0]
    assert not [h for h in daemon.client.status().health if not h.ok]
    assert job.poll() is None


def test_the_daemon_works_inside_its_sandbox(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    inside = ("unshare", "--mount", "--propagation", "slave", sys.executable, "-c", SHUT_IN, str(daemon.directory))
    daemon.prefix = (*inside, bounding_set())
    daemon.start()
    assert daemon.process
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert int(re.search(r"CapEff:\s*(\w+)", status)[1], 16).bit_count() == len(capabilities())  # type: ignore[index]
    pull_and_release(daemon)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_system_call_of_the_daemon_is_in_the_filter(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    trace = tmp_path / "trace"
    daemon.prefix = ("strace", "-D", "-f", "-qq", "-e", "trace=all", "-e", "verbose=none", "-o", str(trace))
    daemon.start(120)
    pull_and_release(daemon)
    assert daemon.stop() == 0
    called = set(
        re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", trace.read_text(errors="replace"), re.MULTILINE)
    )
    assert {"bpf", "execve", "openat"} <= called  # the trace is one
    assert called - allowed() == set()


def allowed() -> set[str]:
    """The unit's system call filter, its groups resolved as systemd has them."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, set[str]] = {}
    name = ""
    for line in listed.splitlines():
        if line.startswith(("@", "#")):
            name = line.strip()
            groups[name] = set()
        elif line.strip() and not line.strip().startswith("#"):
            groups[name].add(line.strip())

    def resolved(word: str) -> set[str]:
        return set().union(*map(resolved, groups[word])) if word.startswith("@") else {word}

    return set().union(*map(resolved, settings(SERVICE)["SystemCallFilter"].split())) | resolved("@default")


def _sockets(pid: int) -> int:
    try:
        return sum(str(fd.readlink()).startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0
