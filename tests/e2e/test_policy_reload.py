"""A reload judges what runs already, in the workloads that were watched before and in those that are from now on."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.control.service import IncidentInfo
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)

POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: test, version: 1}}
workloads:
  - cgroup: /killswitch/**
mode: {mode}
rules:
  - id: by-name
    title: A program by its name
    level: high
    on: exec
    match:
      name: {{process.name: {name}}}
    condition: name
    response: {response}
"""
KILL = "[kill_process, sever, freeze, capture]"


@pytest.fixture
def rogue(tmp_path: Path) -> Path:
    path = tmp_path / "ks-test-rogue"
    shutil.copy("/bin/sleep", path)
    return path


def reload(daemon: Daemon, *, mode: str = "enforce", name: str = "ks-test-rogue", response: str = KILL) -> None:
    daemon.write_policies({"test.yaml": POLICY.format(mode=mode, name=name, response=response)})
    daemon.client.reload_policies("test")


def run_rogue(daemon: Daemon, path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """It runs, and the daemon has seen it begin (nothing of it is in the rings any more)."""
    before = daemon.client.status().events
    process = daemon.spawn("agent", str(path), *(arguments or ("100",)))
    daemon.wait_for("it runs", lambda: Path(f"/proc/{process.pid}/comm").read_text().startswith("ks-test-rogue"))
    daemon.wait_for("seen", lambda: daemon.client.status().events > before)
    return process


def found(daemon: Daemon) -> list[tuple[str, str, int]]:
    """(rule, mode, pid) of all findings, oldest first."""
    incidents: list[IncidentInfo] = sorted(daemon.client.incidents(), key=lambda i: i.opened_unix)
    return [(f.rule, str(f.mode), f.pid) for i in incidents for f in daemon.client.incident(i.id).findings]


def test_a_new_rule_stops_what_runs_already(daemon: Daemon, rogue: Path) -> None:
    daemon.watched("agent")
    process = run_rogue(daemon, rogue)
    bystander = daemon.spawn("agent", "/bin/sleep", "100")
    assert found(daemon) == []
    reload(daemon)
    # All of it is judged when the reload is answered: nobody has to wait for the finding.
    assert found(daemon) == [("by-name", "enforce", process.pid)]
    assert process.wait(20) == -9
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    assert bystander.poll() is None


def test_what_was_found_is_not_found_again(daemon: Daemon, rogue: Path) -> None:
    daemon.watched("agent")
    process = run_rogue(daemon, rogue)
    for _ in range(3):
        reload(daemon, mode="monitor")
    assert found(daemon) == [("by-name", "monitor", process.pid)]
    later = run_rogue(daemon, rogue)
    both = [("by-name", "monitor", process.pid), ("by-name", "monitor", later.pid)]
    daemon.wait_for("the second", lambda: found(daemon) == both)
    reload(daemon, mode="monitor")
    daemon.client.sever("agent", "so that it is taken up again")
    daemon.restart()
    assert found(daemon) == both
    assert process.poll() is None
    reload(daemon)  # now it is to be done, which is news
    assert process.wait(20) == later.wait(20) == -9
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)


def test_a_script_is_known_by_the_name_that_was_asked_for(daemon: Daemon, tmp_path: Path) -> None:
    script = tmp_path / "ks-test-rogue.sh"
    script.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    script.chmod(0o755)
    daemon.watched("agent")
    process = run_rogue(daemon, script)
    reload(daemon, name="ks-test-rogue.sh")
    assert process.wait(20) == -9


def test_long_command_lines_are_judged_whole(daemon: Daemon, rogue: Path) -> None:
    daemon.watched("agent")
    many = ["0"] * 50_000  # far more than the kernel's window; sleep(1) takes their sum
    process = run_rogue(daemon, rogue, "100", *many, "0.0001")
    rule = POLICY.format(mode="enforce", name="unused", response=KILL).replace(
        "{process.name: unused}", '{process.args: "0.0001"}'
    )
    daemon.write_policies({"test.yaml": rule})
    daemon.client.reload_policies("test")
    assert process.wait(20) == -9


def test_a_workload_that_is_watched_from_now_on(make_daemon: Callable[..., Daemon], rogue: Path) -> None:
    daemon = make_daemon()
    daemon.write_policies({"test.yaml": POLICY.format(mode="enforce", name="ks-test-rogue", response=KILL)})
    policy = daemon.policy_dir / "test.yaml"
    policy.write_text(policy.read_text().replace("/**", "/other-*/**"))
    daemon.start()
    process = daemon.spawn("agent", str(rogue), "100")
    daemon.wait_for("it runs", lambda: Path(f"/proc/{process.pid}/comm").read_text().startswith("ks-test-rogue"))
    assert daemon.workload("agent") is None
    reload(daemon)
    assert found(daemon) == [("by-name", "enforce", process.pid)]
    assert process.wait(20) == -9


def test_a_policy_more_opens_no_gap(daemon: Daemon, rogue: Path, tmp_path: Path) -> None:
    """One whose file comes first gives all others new numbers; what was forbidden before and after is so all the time."""
    first = POLICY.format(mode="enforce", name="ks-test-nobody", response="[kill_process]")
    other = first.replace("name: test", "name: more").replace("id: by-name", "id: by-another-name")
    policies = {"test.yaml": POLICY.format(mode="enforce", name="ks-test-rogue", response="[kill_process]")}
    daemon.write_policies(policies)
    daemon.client.reload_policies("test")
    daemon.watched("agent")
    ended: list[int] = []
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            ended.append(daemon.spawn("agent", str(rogue), "0").wait(30))

    running = threading.Thread(target=run)
    running.start()
    try:
        for number in range(4):
            daemon.write_policies(policies if number % 2 else {"a.yaml": other, **policies})
            daemon.client.reload_policies("test")
        assert len(daemon.client.policies()) == 1
    finally:
        done.set()
        running.join()
    assert set(ended) == {-9}, "each was killed before it could end"
