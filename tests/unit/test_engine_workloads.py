"""Workloads come, go, are left by their processes, and their policies change under them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.commands import (
    Contain,
    Containment,
    KillProcess,
    Level,
    Mode,
    RecordFinding,
    Response,
)
from killswitch.events import (
    Done,
    WorkloadAdded,
    WorkloadRemoved,
)
from tests.unit.detect.scenes import (
    CGROUP,
    MINER,
    PROBE,
    WORKLOAD,
    S,
    Scene,
    compiled,
    connect,
    ex,
    findings,
    fork,
    kinds,
    move,
)

BOTH = Containment(severed=True, frozen=True)


def test_leaving_a_free_workload_is_a_finding_only() -> None:
    out = Scene().play(ex("/usr/bin/sleep"), move(10, 0))
    assert kinds(out) == ["RecordFinding"]
    (found,) = findings(out)
    assert (found.policy, found.rule, found.level) == ("built-in", "left-cgroup", Level.HIGH)
    assert "/elsewhere" in found.summary and "sleep(10)" in found.summary


def test_what_an_operator_moves_is_no_escape_unless_it_is_contained() -> None:
    scene = Scene()
    scene.play(ex("/usr/bin/sleep"))
    (found,) = findings(scene.play(replace(move(10, 0), moved_by=4242)))
    assert (found.rule, found.level) == ("moved-out", Level.LOW) and "process 4242 moved it" in found.summary
    scene.play(ex("/usr/bin/sleep"))
    (asked,) = findings(scene.play(replace(move(10, 0), moved_by=1)))
    assert asked.rule == "left-cgroup", "a service manager may have been asked to by the workload"
    scene = Scene()
    scene.engine.workloads.adopt(WORKLOAD, BOTH)
    out = scene.play(ex("/usr/bin/sleep"), replace(move(10, 0), moved_by=4242))
    assert kinds(out) == ["RecordFinding", "KillProcess"] and findings(out)[0].rule == "left-cgroup"


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_leaving_a_contained_workload_is_death_whatever_the_mode(mode: str) -> None:
    scene = Scene(mode=mode)
    scene.engine.workloads.adopt(WORKLOAD, BOTH)
    out = scene.play(ex("/usr/bin/sleep"), move(10, 0))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    assert isinstance(out[1], KillProcess) and (out[1].pid, out[1].start_ticks) == (10, 1010)
    assert findings(out)[0].mode is Mode.ENFORCE


def test_moving_within_the_workload_or_into_it_is_nothing() -> None:
    scene = Scene()
    scene.engine.workloads.adopt(WORKLOAD, BOTH)
    assert scene.play(move(10, WORKLOAD)) == []


def test_moving_to_another_workload_takes_the_process_along() -> None:
    scene = Scene()
    scene.add(workload=78, cgroup="/killswitch/other")
    out = scene.play(ex("/usr/bin/sleep"), move(10, 78))
    assert [f.rule for f in findings(out)] == ["left-cgroup"]
    assert list(scene.engine.workloads.asked_for(78).values()) == [(b"/usr/bin/sleep", b"/usr/bin/sleep")]
    assert scene.engine.workloads.asked_for(WORKLOAD) == {}


def test_a_kill_by_rules_that_are_not_loaded_any_more_is_not_silent() -> None:
    scene = Scene()
    scene.engine.reload(compiled(PROBE))
    out = scene.play(ex("/tmp/xmrig", done=Done.KILLED | Done.SEVERED))
    assert [f.rule for f in findings(out)] == ["earlier-policy"]
    assert findings(out)[0].done_in_kernel == (Response.KILL_PROCESS, Response.SEVER)
    assert [str(c.desired) for c in out if isinstance(c, Contain)] == ["severed"]


def test_reload_keeps_processes_incidents_and_containment_and_judges_anew() -> None:
    scene = Scene(PROBE)
    scene.play(fork(10, 1), ex("/usr/bin/bash", pid=10), fork(11, 10), connect("169.254.169.254", pid=11))
    scene.engine.reload(compiled(MINER, PROBE))
    out = scene.play(ex("/tmp/xmrig", pid=11, at=2 * S))
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-1"
    assert "bash(10) → xmrig(11)" in out[0].finding.summary


def test_reload_keeps_policies_given_by_hand_by_name() -> None:
    scene = Scene(added=False)
    scene.add(cgroup="/not/matched", policies=(0,))
    scene.engine.reload(compiled(MINER))
    assert kinds(scene.play(ex("/tmp/xmrig")))[0] == "RecordFinding"
    scene.engine.reload(compiled(MINER, name="other"))
    assert scene.play(ex("/tmp/xmrig", pid=11, at=9 * S)) == []


def test_a_second_workload_added_updates_its_policies() -> None:
    scene = Scene()
    scene.play(WorkloadAdded(1, WORKLOAD, "job", CGROUP, ()))
    assert scene.play(ex("/tmp/xmrig")) == []


def test_removing_a_workload_lets_go_of_all_and_shows_what_was_folded() -> None:
    scene = Scene()
    scene.play(ex("/tmp/xmrig"), ex("/tmp/xmrig", pid=11))
    out = scene.play(WorkloadRemoved(1, WORKLOAD))
    assert [f.pid for f in findings(out)] == [11]
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-1"
    assert scene.engine.workloads.asked_for(WORKLOAD) == {}
    assert scene.play(ex("/tmp/xmrig", pid=12), WorkloadRemoved(2, WORKLOAD)) == []


def test_the_cgroup_path_of_the_workload_reaches_rules() -> None:
    rule = MINER.replace("name: {process.name: [xmrig, minerd]}", "name: {cgroup.path: '/killswitch/j*'}")
    assert kinds(Scene(rule).play(ex("/usr/bin/true"))) == ["RecordFinding", "KillProcess", "Contain"]
