"""A rule that hits everywhere at once does not stop everything: the kernel's verdicts and the daemon's, for real."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment, Mode
from killswitch.control.service import IncidentInfo
from tests.rig.daemon import Daemon

SEVERED = Containment(severed=True)
FREE = Containment()
POLICY = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {name: wrong, version: 1}
workloads: [{cgroup: /killswitch/**}]
mode: enforce
rules:
  - id: everyday-tool
    title: A rule that hits what everybody runs
    level: high
    on: exec
    match: {name: {process.name: everyday}}
    condition: name
    response: [kill_process, sever]
"""
MAKE = Callable[..., Daemon]


@pytest.fixture
def everyday(tmp_path: Path) -> Iterator[Path]:
    tool = tmp_path / "everyday"
    shutil.copy("/bin/true", tool)
    yield tool


@pytest.fixture
def few(make_daemon: MAKE) -> Daemon:
    """Two workloads may be hit; five are watched."""
    daemon = make_daemon(KILLSWITCH_BUDGET_CONTAINED="2", KILLSWITCH_BUDGET_SHARE="0%")
    daemon.write_policies({"wrong.yaml": POLICY})
    daemon.start()
    for n in range(5):
        daemon.watched(f"w{n}")
    return daemon


def desired(daemon: Daemon) -> list[Containment]:
    return [w.desired for w in sorted(daemon.client.workloads(), key=lambda w: w.name)]


def incident_of(daemon: Daemon, name: str) -> IncidentInfo:
    return daemon.wait_for(
        f"incident of {name}",
        lambda: next((i for i in daemon.client.incidents(open_only=True) if i.workload_name == name), None),
    )


def budget(daemon: Daemon) -> tuple[bool, str]:
    return next((h.ok, h.detail) for h in daemon.client.status().health if h.part == "budget")


def test_past_the_budget_rules_only_monitor_orders_go_on_and_a_release_makes_room(few: Daemon, everyday: Path) -> None:
    daemon = few
    assert budget(daemon) == (True, "0 of 2 automatic kills in 600 s are used")
    statuses = [daemon.spawn(f"w{n}", str(everyday)).wait(20) for n in range(5)]
    assert statuses == [-signal.SIGKILL] * 2 + [0] * 3, "the kernel holds back by itself"
    for n in range(5):
        incident_of(daemon, f"w{n}")
    assert desired(daemon) == [SEVERED, SEVERED, FREE, FREE, FREE]
    told = incident_of(daemon, "w4")
    assert told.level == "critical"
    assert {(f.rule, f.mode) for f in told.findings} == {
        ("everyday-tool", Mode.MONITOR),
        ("kill-withheld", Mode.ENFORCE),
    }
    ok, detail = budget(daemon)
    assert not ok and "rules only monitor" in detail and "w2, w3, w4" in detail
    assert "<2>automatic kills are withheld" in daemon.log()
    # An order is no automatic kill: it is neither counted nor limited, and rules go on with who is contained.
    assert daemon.client.sever("w3", "it is rogue").complete
    assert daemon.spawn("w3", str(everyday)).wait(20) == -signal.SIGKILL
    # What a release gives back is there for the next.
    daemon.client.release("w0", "the rule was wrong")
    assert daemon.spawn("w4", str(everyday)).wait(20) == -signal.SIGKILL
    daemon.wait_for("w4 severed", lambda: desired(daemon)[4] == SEVERED)
    assert daemon.spawn("w2", str(everyday)).wait(20) == 0
    # And an operator's word makes all of it whole.
    told = daemon.cli("forget", "budget", "--reason", "the rule is mended")
    assert (told.returncode, "2 were used" in told.stdout) == (0, True), told
    assert budget(daemon) == (True, "0 of 2 automatic kills in 600 s are used")
    assert daemon.spawn("w2", str(everyday)).wait(20) == -signal.SIGKILL


def test_the_account_outlives_the_daemon_and_verdicts_keep_to_it_without_one(few: Daemon, everyday: Path) -> None:
    daemon = few
    assert daemon.spawn("w0", str(everyday)).wait(20) == -signal.SIGKILL
    incident_of(daemon, "w0")
    daemon.kill9()
    assert [daemon.spawn(f"w{n}", str(everyday)).wait(20) for n in (1, 2, 3)] == [-signal.SIGKILL, 0, 0]
    daemon.start()
    assert budget(daemon)[1].startswith("2 of 2")
    assert desired(daemon) == [SEVERED, SEVERED, FREE, FREE, FREE]
    assert daemon.spawn("w4", str(everyday)).wait(20) == 0
    assert not incident_of(daemon, "w4").containment.severed
    daemon.end()
    daemon.remove_pins()  # as after a reboot: what the ledger has is all that there is
    daemon.start()
    assert budget(daemon)[1].startswith("2 of 2")
    assert daemon.spawn("w4", str(everyday)).wait(20) == 0


def test_a_released_workload_that_does_it_again_is_contained_again(few: Daemon, everyday: Path) -> None:
    daemon = few
    before = ""
    for _ in range(4):
        assert daemon.spawn("w0", str(everyday)).wait(20) == -signal.SIGKILL
        daemon.wait_for("severed", lambda: desired(daemon)[0] == SEVERED)
        incident = incident_of(daemon, "w0")
        assert (incident.after, incident.id != before) == (before, True)
        before = incident.id
        assert daemon.client.release("w0", "try again").complete
    assert budget(daemon)[0]
    assert f"after the release of {incident.after}" in daemon.cli("incidents", incident.id).stdout


def test_what_runs_in_a_released_workload_is_not_found_again_by_a_reload_or_a_restart(
    make_daemon: MAKE, tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.write_policies({"wrong.yaml": POLICY.replace("[kill_process, sever]", "[sever]")})
    daemon.start()
    tool = shutil.copy("/bin/sleep", tmp_path / "everyday")
    for name in ("w0", "w1"):
        daemon.watched(name)
        daemon.spawn(name, str(tool), "600")
        daemon.wait_for("severed", lambda name=name: daemon.workload(name).desired == SEVERED)  # type: ignore[misc,union-attr]
    released = incident_of(daemon, "w0").id
    assert daemon.client.release("w0", "we need that tool").complete
    daemon.client.reload_policies("new rules")
    assert [w.incident for w in daemon.client.workloads() if w.name == "w0"] == [""]
    daemon.restart()
    assert desired(daemon) == [FREE, SEVERED]
    assert daemon.client.incident(released).closed_unix
    # Another process is another matter.
    daemon.spawn("w0", str(tool), "600")
    daemon.wait_for("severed", lambda: desired(daemon) == [SEVERED, SEVERED])
    assert incident_of(daemon, "w0").after == released
