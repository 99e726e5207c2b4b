"""Weak evidence adds up, under the real daemon with the shipped policies: one kind alerts, two that agree cut off."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.control.service import IncidentInfo
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)
FREE = Containment()


@pytest.fixture
def ambiguous(tmp_path: Path) -> Path:
    """A program with a name that miners share with others: weak evidence, by name."""
    path = tmp_path / "t-rex"
    shutil.copy("/bin/sleep", path)
    return path


def show_name(daemon: Daemon, program: Path) -> None:
    daemon.spawn("agent", str(program), "60")


def show_argument(daemon: Daemon) -> None:
    """Weak evidence, by arguments."""
    daemon.spawn("agent", "/bin/sh", "-c", "sleep 60", "stratum+tcp://pool.invalid:3333")


def findings(daemon: Daemon) -> list[str]:
    return [f.rule for i in daemon.client.incidents() for f in i.findings]


def incident_with(daemon: Daemon, rule: str) -> IncidentInfo:
    found = daemon.wait_for(
        f"{rule} is found",
        lambda: next((i for i in daemon.client.incidents() if rule in {f.rule for f in i.findings}), None),
    )
    assert isinstance(found, IncidentInfo)
    return found


def is_cut_off(daemon: Daemon) -> bool:
    workload = daemon.workload("agent")
    return bool(workload and workload.observed == CUT_OFF)


def test_one_kind_alerts_and_the_second_cuts_off(daemon: Daemon, ambiguous: Path) -> None:
    daemon.watched("agent")
    show_argument(daemon)
    show_argument(daemon)
    incident_with(daemon, "miner-argument")
    workload = daemon.workload("agent")
    assert workload and workload.observed == workload.desired == FREE
    assert "mining-two-kinds" not in findings(daemon)
    show_name(daemon, ambiguous)
    daemon.wait_for("cut off", lambda: is_cut_off(daemon))
    incident = incident_with(daemon, "mining-two-kinds")
    (summed,) = [f for f in incident.findings if f.rule == "mining-two-kinds"]
    assert summed.summary.startswith("mining by arguments and name")
    assert "stratum+tcp://pool.invalid:3333" in summed.summary and "t-rex" in summed.summary
    shown = daemon.cli("incidents", incident.id).stdout
    assert "rests on" in shown and "mining by arguments and name" in shown


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_found_before_a_restart_counts_again(daemon: Daemon, ambiguous: Path, how: signal.Signals) -> None:
    daemon.watched("agent")
    show_argument(daemon)
    incident_with(daemon, "miner-argument")
    daemon.restart(how)
    workload = daemon.workload("agent")
    assert workload and workload.desired == FREE
    show_name(daemon, ambiguous)
    daemon.wait_for("cut off", lambda: is_cut_off(daemon))


def test_a_release_begins_afresh(daemon: Daemon, ambiguous: Path) -> None:
    daemon.watched("agent")
    show_argument(daemon)
    incident_with(daemon, "miner-argument")
    daemon.cli("release", "agent", "--reason", "looked at it")
    show_name(daemon, ambiguous)
    incident_with(daemon, "miner-ambiguous-name")
    workload = daemon.workload("agent")
    assert workload and workload.desired == FREE
    assert "mining-two-kinds" not in findings(daemon)
