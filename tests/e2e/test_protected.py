"""Globs as wide as can be, and operators that live under them: who is protected is neither killed, nor frozen, nor severed."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment, Outcome
from killswitch.errors import Protected
from killswitch.kernel import cgroupfs
from tests.rig.daemon import Daemon

FREE, SEVERED = Containment(), Containment(severed=True)
POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: wide, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: enforce
on_daemon_loss: sever_and_keep
daemon_grace: 3s
rules:
  - id: rogue
    title: A rule that hits operators' programs, too
    level: critical
    on: exec
    match: {name: {process.name: [rogue, sshd, sshd-session]}}
    condition: name
    response: [kill_process, sever]
"""


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    for name in ("sshd", "sshd-session", "rogue", "keeper"):
        shutil.copy("/bin/sleep", tmp_path / name)
    return tmp_path


def rogue_in(daemon: Daemon, cgroup: str, program: Path) -> int:
    return daemon.spawn(cgroup, str(program), "0").wait(20)


def desired(daemon: Daemon, cgroup: str) -> Containment | None:
    path = f"{daemon.cgroup_parent}/{cgroup}"
    return next((w.desired for w in daemon.client.workloads() if w.cgroup == path), None)


def refusals(daemon: Daemon, cgroup: str) -> list[str]:
    path = f"{daemon.cgroup_parent}/{cgroup}"
    found = [i for i in daemon.client.incidents() if i.cgroup == path]
    return [r.error for i in found for r in i.receipts if r.outcome is Outcome.REFUSED]


def test_operators_under_a_wide_glob_keep_their_way_in_and_the_rest_is_contained(
    make_daemon: Callable[..., Daemon], bin_dir: Path
) -> None:
    daemon = make_daemon()
    daemon.write_policies({"wide.yaml": POLICY})
    # As on a host: sshd is there first, in a cgroup of its own below a slice that a policy's glob covers whole.
    script = f"{bin_dir}/sshd-session 600 & echo $!; read x; {bin_dir}/sshd-session 0; echo $?; sleep 600"
    (bin_dir / "sshd").unlink()
    shutil.copy("/bin/bash", bin_dir / "sshd")
    sshd = daemon.spawn("slice/ops", str(bin_dir / "sshd"), "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sshd.stdout and sshd.stdin and sshd.stdout.readline()
    daemon.cgroup("slice/agent")
    daemon.start()
    for _ in range(2):  # and again, taken over by another daemon
        assert desired(daemon, "slice") is None, "too wide to be one workload"
        assert (desired(daemon, "slice/ops"), desired(daemon, "slice/agent")) == (FREE, FREE)
        # In the kernel, at once: what is forbidden is killed beside the operators, but nobody is severed there.
        assert rogue_in(daemon, "slice/ops", bin_dir / "rogue") == -signal.SIGKILL
        daemon.wait_for("refused", lambda: [e for e in refusals(daemon, "slice/ops") if "the operators' way in" in e])
        assert daemon.client.status().health[-1].ok
        daemon.restart(signal.SIGKILL)
    # A login: sshd runs its own helper, which a rule forbids by name.
    sshd.stdin.write(b"\n")
    sshd.stdin.flush()
    assert sshd.stdout.readline() == b"0\n"
    assert rogue_in(daemon, "slice/agent", bin_dir / "sshd-session") == -signal.SIGKILL, (
        "the name alone protects nobody"
    )
    daemon.wait_for("severed", lambda: desired(daemon, "slice/agent") == SEVERED)
    # Orders say what is the matter.
    for target in (f"pid:{sshd.pid}", f"{daemon.cgroup_parent}/slice", f"{daemon.cgroup_parent}/slice/ops"):
        with pytest.raises(Protected, match="the operators' way in"):
            daemon.client.kill(target, "by mistake")
    assert daemon.cli("kill", f"pid:{sshd.pid}", "--reason", "by mistake").returncode == 4
    # No daemon for longer than the grace: the agents are cut off, the operators are not.
    daemon.kill9()
    daemon.cgroup("slice/ops")
    path = daemon.cgroup_dir / "slice" / "ops"
    assert sshd.poll() is None and not cgroupfs.is_frozen(path)
    daemon.start()
    assert desired(daemon, "slice/ops") == FREE


def test_what_the_configuration_names_is_protected_whenever_it_appears(
    make_daemon: Callable[..., Daemon], bin_dir: Path
) -> None:
    daemon = make_daemon(KILLSWITCH_PROTECTED_PROGRAMS="keeper")
    daemon.env["KILLSWITCH_PROTECTED_CGROUPS"] = f"{daemon.cgroup_parent}/vault"
    daemon.write_policies({"wide.yaml": POLICY})
    keeper = daemon.spawn("backup", str(bin_dir / "keeper"), "600")
    daemon.start()
    daemon.watched("vault")
    for name in ("backup", "vault"):
        assert rogue_in(daemon, name, bin_dir / "rogue") == -signal.SIGKILL
        daemon.wait_for("refused", lambda name=name: refusals(daemon, name))  # type: ignore[misc]
        assert desired(daemon, name) == FREE
        with pytest.raises(Protected, match="by configuration"):
            daemon.client.sever(name, "by mistake")
    assert keeper.poll() is None
