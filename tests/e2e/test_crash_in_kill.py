"""The daemon is killed at each step of a kill. The next one carries on from there: nothing stays half done, or unsaid."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from killswitch.commands import Containment, Step
from killswitch.errors import KillswitchError
from killswitch.kernel import cgroupfs
from tests.rig.build import program
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)
CROWD = 200  # so many processes take long enough for each step to be met
TRIES = 4


def killed_behind(daemon: Daemon, name: str, step: Step, *, terminate: bool = False) -> set[str]:
    """Order a kill and SIGKILL the daemon as soon as this step of it is done; the steps that were done by then."""
    before = len(daemon.log())
    client = daemon.client

    def order() -> None:
        with contextlib.suppress(KillswitchError):  # nobody is there to answer any more
            client.kill(name, "test", terminate=terminate)

    ordering = threading.Thread(target=order)
    ordering.start()
    end = time.monotonic() + 20
    while f"receipt step={step} " not in (said := daemon.log()[before:]):
        assert time.monotonic() < end, said
        time.sleep(0.0003)
    assert daemon.process
    daemon.process.kill()
    daemon.process.wait()
    ordering.join()
    daemon.kill9()
    said = daemon.log()[before:]
    return {str(s) for s in Step if f"receipt step={s} " in said}


def crowd(daemon: Daemon, name: str) -> subprocess.Popen[bytes]:
    daemon.watched(name)
    made = daemon.spawn(name, str(program("crowd")), str(CROWD), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdout
    assert made.stdout.readline() == b"ready\n"
    return made


def evidence_of(daemon: Daemon, incident: str) -> list[Path]:
    """The manifests of its captures that were finished."""
    return list((daemon.state_dir / "evidence" / incident).glob("**/manifest.json"))


@pytest.mark.parametrize("step", [Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS, Step.CAPTURE])
def test_a_kill_that_was_cut_short_is_carried_out(daemon: Daemon, step: Step) -> None:
    for number in range(TRIES):
        name = f"agent{number}"
        crowd(daemon, name)
        done = killed_behind(daemon, name, step)
        cut_short = Step.CAPTURE not in done
        daemon.start()
        w = daemon.workload(name)
        assert w
        assert (w.desired, w.observed) == (CUT_OFF, CUT_OFF), done
        assert cgroupfs.is_frozen(daemon.cgroup_dir / name)
        (manifest,) = daemon.wait_for("evidence", lambda i=w.incident: evidence_of(daemon, i))  # type: ignore[misc]
        assert json.loads(manifest.read_text())["processes"] == CROWD
        incident = daemon.wait_for(
            "its evidence is known",
            lambda i=w.incident: (x := daemon.client.incident(i)).evidence and x,  # type: ignore[misc]
        )
        assert incident.reason == "test" or step is Step.SEVER  # it may not have been on disk yet
        assert daemon.client.release(name, "test").complete
        assert daemon.client.verify_log()[0]
        if cut_short or step is Step.CAPTURE:
            return
    pytest.fail(f"in {TRIES} tries the kill was always over before the daemon was")


def test_what_is_to_be_terminated_leaves_its_evidence_first(daemon: Daemon) -> None:
    process = crowd(daemon, "agent")
    done = killed_behind(daemon, "agent", Step.FREEZE, terminate=True)
    assert Step.TERMINATE not in done
    daemon.start()
    assert process.wait(20) == -9
    (incident,) = daemon.client.incidents()
    (manifest,) = evidence_of(daemon, incident.id)
    assert json.loads(manifest.read_text())["processes"] == CROWD
    w = daemon.workload("agent")
    assert w
    assert w.observed.terminated
