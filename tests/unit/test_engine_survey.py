"""Programs that run already, judged as if they began now: when a workload is first watched, and after a reload."""

from __future__ import annotations

from killswitch.commands import Contain, Containment, Finding, KillProcess, Mode, RecordFinding
from killswitch.events import Exec
from tests.unit.detect.scenes import (
    CGROUP,
    HASHING,
    MINER,
    WORKLOAD,
    Scene,
    code,
    compiled,
    cpu,
    ex,
    findings,
    fork,
    kinds,
)

RUNNING = ex("/tmp/xmrig", pid=20)


def survey(scene: Scene, *events: Exec, found: list[Finding] | None = None) -> list[str]:
    """Kinds of the commands; what was found is added to ``found``, as an incident does."""
    found = [] if found is None else found
    out = [command for event in events for command in scene.engine.survey(event, found)]
    found += findings(out)
    return kinds(out)


def test_what_runs_already_is_judged_like_an_exec() -> None:
    scene = Scene()
    out = scene.engine.survey(RUNNING)
    assert kinds(out) == ["RecordFinding", "KillProcess", "Contain"]
    record, kill, contain = out
    assert isinstance(record, RecordFinding) and isinstance(kill, KillProcess) and isinstance(contain, Contain)
    assert (record.finding.rule, record.finding.pid, record.incident) == ("miner", 20, "inc-1")
    assert (kill.pid, kill.start_ticks, contain.desired) == (20, 1020, Containment(severed=True, frozen=True))
    assert scene.engine.survey(ex("/usr/bin/sleep", pid=21)) == []


def test_a_process_is_found_once_by_a_rule() -> None:
    scene, found = Scene(mode="monitor"), list[Finding]()
    assert survey(scene, RUNNING, found=found) == ["RecordFinding"]
    assert survey(scene, RUNNING, found=found) == []
    scene.engine.reload(compiled(MINER, HASHING, mode="monitor"))
    assert survey(scene, RUNNING, found=found) == []
    assert survey(scene, ex("/tmp/xmrig", pid=21), found=[]) == []  # another process: folded, and shown when it is due


def test_what_was_found_by_an_event_is_not_found_again() -> None:
    scene = Scene()
    found = findings(scene.play(RUNNING))
    assert survey(scene, RUNNING, found=found) == []
    reused = ex("/tmp/xmrig", pid=20, start_ticks=99)  # another process; the finding is folded
    assert survey(scene, reused, found=found) == ["KillProcess"]


def test_a_rule_that_has_changed_finds_it_again() -> None:
    scene, found = Scene(mode="monitor"), list[Finding]()
    assert survey(scene, RUNNING, found=found) == ["RecordFinding"]
    scene.engine.reload(compiled(MINER, mode="enforce"))
    out = scene.engine.survey(RUNNING, found)
    assert [c for c in kinds(out) if c != "RecordFinding"] == ["KillProcess", "Contain"]
    assert [f.mode for f in found] == [Mode.MONITOR]


def test_a_rule_that_is_new_judges_what_was_innocent() -> None:
    scene = Scene(HASHING)
    assert scene.play(RUNNING) == []
    scene.engine.reload(compiled(MINER, HASHING))
    assert survey(scene, RUNNING) == ["RecordFinding", "KillProcess", "Contain"]


def test_what_is_known_of_the_process_and_its_load_stays() -> None:
    """A reload every few seconds must not let a miner begin its ``for:`` anew."""
    scene = Scene(HASHING)
    scene.play(fork(19, 1), ex("/bin/bash", pid=19), fork(20, 19), ex("/tmp/x.sh", pid=20, executable=b"/usr/bin/dash"))
    before = scene.engine.workloads.asked_for(WORKLOAD)
    out = []
    for second in range(1, 14):
        out += scene.play(cpu(second, pid=20), code(second, pid=20))
        assert scene.engine.survey(ex("/usr/bin/dash", pid=20)) == []
    assert [f.rule for f in findings(out)] == ["hashing"]
    assert scene.engine.workloads.asked_for(WORKLOAD) == before
    assert before[20, 1020] == (b"/usr/bin/dash", b"/tmp/x.sh")


def test_who_was_not_known_is_known_afterwards() -> None:
    scene = Scene()
    assert scene.engine.survey(ex("/usr/bin/sleep", pid=30)) == []
    assert scene.engine.workloads.asked_for(WORKLOAD) == {(30, 1030): (b"/usr/bin/sleep", b"/usr/bin/sleep")}


def test_a_workload_that_nobody_told_us_of() -> None:
    scene = Scene(added=False)
    assert scene.engine.survey(RUNNING) == []
    assert scene.engine.workloads.asked_for(WORKLOAD) == {}
    scene.add(cgroup=CGROUP, policies=())
    assert scene.engine.survey(RUNNING) == []  # known, but no policy watches it
