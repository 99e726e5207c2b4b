"""The executable of an incident, under another name in another workload; and what must not be taken for it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from killswitch.commands import Containment
from tests.e2e.test_disguised_tools import built, rules
from tests.rig.daemon import Daemon

CUT_OFF, FREE = Containment(severed=True, frozen=True), Containment()


@pytest.fixture
def rogue(daemon: Daemon, tmp_path: Path) -> Path:
    """A program that was caught in the workload ``first``, and is looked for since."""
    (tmp_path / "own").mkdir()
    program = built(tmp_path / "own", "thing", f"words of {daemon.name} alone")
    caught = shutil.copy(program, tmp_path / "xmrig")
    daemon.watched("first")
    assert daemon.spawn("first", str(caught)).wait(20) == -signal.SIGKILL
    daemon.wait_for("marked", lambda: "is the incident's continuation" in daemon.log())
    return program


def test_it_is_the_incidents_continuation_elsewhere_whatever_it_is_called_and_also_after_a_restart(
    daemon: Daemon, rogue: Path, tmp_path: Path
) -> None:
    daemon.restart(signal.SIGKILL)
    for n, name in enumerate(("nightly-build", "sort")):
        workload = f"other{n}"
        daemon.watched(workload)
        daemon.spawn(workload, str(shutil.copy(rogue, tmp_path / name)))
        daemon.wait_for("cut off", lambda w=workload: daemon.workload(w).observed == CUT_OFF)  # type: ignore[misc,union-attr]
        assert rules(daemon, workload) == {"continuation"}
    assert daemon.cli("forget", "inc-77", "--reason", "x").returncode != 0
    assert "1 program is no longer looked for" in daemon.client.forget("inc-1", "it was our own")
    daemon.watched("third")
    third = daemon.spawn("third", str(rogue))
    daemon.wait_for("runs", lambda: daemon.workload("third").processes)  # type: ignore[union-attr]
    daemon.client.unwatch("third", "all of it is judged by then")
    assert third.poll() is None and not rules(daemon, "third")
    told = next(f.summary for i in daemon.client.incidents() for f in i.findings if f.rule == "continuation")
    assert "the program of inc-1" in told and "rogue-agent/miner-binary" in told


def test_a_release_says_that_it_is_innocent(daemon: Daemon, rogue: Path, tmp_path: Path) -> None:
    assert daemon.client.release("first", "our own benchmark").complete
    daemon.watched("other")
    running = daemon.spawn("other", str(rogue))
    neighbour = daemon.spawn("other", str(built(tmp_path, "another", "something else")))
    daemon.wait_for("seen", lambda: daemon.client.status().events > 5)
    daemon.client.unwatch("other", "all of it is judged by then")
    assert (running.poll(), neighbour.poll()) == (None, None) and not rules(daemon, "other")


def test_what_belongs_to_everybody_is_nobodys_continuation(daemon: Daemon, rogue: Path, tmp_path: Path) -> None:
    """Copies of a shell and of a tool that ran elsewhere are caught by their names: the same content goes on elsewhere."""
    tool = built(tmp_path, "team-tool", f"a tool that everybody of {daemon.name} has")
    daemon.watched("elsewhere")
    daemon.spawn("elsewhere", str(tool))
    daemon.wait_for("seen", lambda: daemon.workload("elsewhere").processes)  # type: ignore[union-attr]
    for n, content in enumerate(("/bin/bash", "/bin/sleep", tool)):
        daemon.watched(f"named{n}")
        caught = Path(shutil.copy(content, tmp_path / "xmrig"))
        assert daemon.spawn(f"named{n}", str(caught), "-c", "sleep 60").wait(20) == -signal.SIGKILL
        daemon.wait_for("found", lambda n=n: rules(daemon, f"named{n}"))  # type: ignore[misc]
    daemon.watched("other")
    work = [
        daemon.spawn("other", "/bin/bash", "-c", "sleep 30; exit 0"),
        daemon.spawn("other", str(shutil.copy("/bin/bash", tmp_path / "my-shell")), "-c", "while :; do sleep 1; done"),
        daemon.spawn("other", str(shutil.copy(tool, tmp_path / "renamed-tool"))),
    ]
    daemon.watched("control")  # what comes after them is compared
    daemon.spawn("control", str(shutil.copy(rogue, tmp_path / "late")))
    daemon.wait_for("cut off", lambda: daemon.workload("control").observed == CUT_OFF)  # type: ignore[union-attr]
    assert all(child.poll() is None for child in work)
    assert daemon.workload("other").desired == FREE  # type: ignore[union-attr]
    assert not rules(daemon, "other")
