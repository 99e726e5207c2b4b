"""Scripts of events, and the commands that have to come out of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.commands import (
    FREE,
    Act,
    Contain,
    Containment,
    Evidence,
    KillProcess,
    Level,
    Mode,
    RecordFinding,
    Response,
)
from killswitch.events import (
    CgroupCreated,
    CgroupRemoved,
    Done,
    Event,
    Exec,
    Exit,
    Fork,
    Released,
    Tick,
    WorkloadAdded,
    WorkloadRemoved,
)
from tests.unit.detect.scenes import (
    CGROUP,
    HASHING,
    MINER,
    PROBE,
    WORKLOAD,
    S,
    Scene,
    compiled,
    connect,
    cpu,
    ex,
    findings,
    fork,
    gone,
    kinds,
    lost,
    move,
    tick,
)

BOTH = Containment(severed=True, frozen=True)


def test_what_no_rule_mentions_gives_nothing() -> None:
    scene = Scene()
    assert scene.play(fork(10, 1), ex("/usr/bin/cc"), connect("10.0.0.1"), cpu(1), gone(10), tick(1)) == []


def test_a_match_is_recorded_then_killed_then_contained() -> None:
    out = Scene().play(ex("/tmp/xmrig", "xmrig", "-o", "pool:3333", at=5 * S))
    assert kinds(out) == ["RecordFinding", "KillProcess", "Contain"]
    record, kill, contain = out
    assert isinstance(record, RecordFinding)
    assert isinstance(kill, KillProcess)
    assert isinstance(contain, Contain)
    assert record.incident == kill.incident == contain.incident == "inc-1"
    found = record.finding
    assert (found.policy, found.rule, found.level, found.mode) == ("test", "miner", Level.CRITICAL, Mode.ENFORCE)
    assert (found.workload, found.pid, found.start_ticks) == (WORKLOAD, 10, 1010)
    assert found.done_in_kernel == ()
    assert (kill.pid, kill.start_ticks, kill.workload) == (10, 1010, WORKLOAD)
    assert (contain.desired, contain.capture, contain.workload) == (BOTH, True, WORKLOAD)
    assert "xmrig" in contain.reason and "test/miner" in contain.reason


def test_a_finding_says_what_it_is_evidence_of() -> None:
    signed = MINER.replace("    level: critical\n", "    level: critical\n    act: mining\n    evidence: name\n")
    (found,) = findings(Scene(signed).play(ex("/tmp/xmrig")))
    assert (found.act, found.evidence) == (Act.MINING, Evidence.NAME)
    (silent,) = findings(Scene().play(ex("/tmp/xmrig")))
    assert (silent.act, silent.evidence) == (None, None)


def test_what_the_kernel_has_killed_is_not_killed_again_but_contained() -> None:
    out = Scene().play(ex("/tmp/xmrig", done=Done.KILLED | Done.SEVERED, verdict_ns=900))
    assert kinds(out) == ["RecordFinding", "Contain"]
    (found,) = findings(out)
    assert found.done_in_kernel == (Response.KILL_PROCESS, Response.SEVER)
    assert found.verdict_ns == 900


def test_monitor_mode_says_it_and_does_nothing() -> None:
    out = Scene(mode="monitor").play(ex("/tmp/xmrig"))
    assert kinds(out) == ["RecordFinding"]
    (found,) = findings(out)
    assert found.mode is Mode.MONITOR
    assert Response.KILL_PROCESS in found.responses  # what would have been done


def test_a_policy_that_does_not_watch_the_workload_does_not_judge_it() -> None:
    scene = Scene(added=False)
    scene.add(policies=())
    assert scene.play(ex("/tmp/xmrig")) == []


def test_events_of_a_workload_that_nobody_announced_are_counted() -> None:
    scene = Scene(added=False)
    assert scene.play(ex("/tmp/xmrig"), fork(1, 2), cpu(1)) == []
    assert scene.engine.unclaimed == 3


def test_every_new_process_is_killed_but_the_workload_is_contained_once() -> None:
    scene = Scene()
    out = scene.play(*(ex("/tmp/xmrig", pid=pid, at=pid * S // 1000) for pid in range(100, 600)))
    assert sorted(c.pid for c in out if isinstance(c, KillProcess)) == list(range(100, 600))
    assert kinds(out).count("Contain") == 1
    assert kinds(out).count("RecordFinding") == 1  # all within a second; the rest is folded
    (rest,) = findings(scene.play(tick(2)))
    assert "and 498 more like it" in rest.summary


def test_later_findings_join_the_incident_and_another_workload_has_its_own() -> None:
    scene = Scene()
    scene.add(workload=78, cgroup="/killswitch/other")
    out = scene.play(
        ex("/tmp/xmrig"),
        connect("169.254.169.254", at=2 * S),
        ex("/tmp/xmrig", pid=20, workload=78, at=3 * S),
    )
    incidents = [(c.finding.rule, c.incident) for c in out if isinstance(c, RecordFinding)]
    assert incidents == [("miner", "inc-1"), ("probe", "inc-1"), ("miner", "inc-2")]


def test_alert_only_contains_nothing() -> None:
    assert kinds(Scene().play(connect("169.254.169.254"))) == ["RecordFinding"]


def test_containment_is_asked_again_only_for_more() -> None:
    sever = MINER.replace("id: miner", "id: a").replace("[xmrig, minerd]", "aaa")
    sever = sever.replace("[kill_process, sever, freeze, capture]", "[sever]")
    freeze = sever.replace("id: a", "id: b").replace("aaa", "bbb").replace("[sever]", "[sever, freeze]")
    scene = Scene(sever, freeze)
    out = scene.play(*(ex(f"/tmp/{n}", pid=20 + i, at=i * 5 * S) for i, n in enumerate(["aaa", "aaa", "bbb", "aaa"])))
    desired = [str(c.desired) for c in out if isinstance(c, Contain)]
    assert desired == ["severed", "severed+frozen"]


def test_after_release_a_new_match_opens_a_new_incident_and_contains_again() -> None:
    scene = Scene()
    scene.play(ex("/tmp/xmrig"))
    assert scene.play(Released(3 * S, WORKLOAD)) == []
    out = scene.play(ex("/tmp/xmrig", pid=11, at=3 * S))
    assert kinds(out) == ["RecordFinding", "KillProcess", "Contain"]
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-2"


def test_what_other_hands_have_contained_is_not_contained_again() -> None:
    scene = Scene()
    scene.engine.adopt(WORKLOAD, BOTH, incident="inc-40", captured=True)
    out = scene.play(ex("/tmp/xmrig"))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-40"


def test_adopting_less_than_a_rule_asks_for_leaves_room_for_more() -> None:
    scene = Scene()
    scene.play(ex("/tmp/xmrig"))
    scene.engine.adopt(WORKLOAD, Containment(severed=True))  # thawed by hand
    out = scene.play(ex("/tmp/xmrig", pid=11, at=5 * S))
    assert [str(c.desired) for c in out if isinstance(c, Contain)] == ["severed+frozen"]


def test_open_incident_is_shared_by_orders_and_findings() -> None:
    scene = Scene()
    assert scene.engine.open_incident(WORKLOAD) == "inc-1"
    out = scene.play(ex("/tmp/xmrig"))
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-1"
    assert scene.engine.open_incident(WORKLOAD) == "inc-1"


def test_two_rules_on_one_event_give_two_findings_and_one_answer() -> None:
    second = MINER.replace("id: miner", "id: tmp").replace(
        "{process.name: [xmrig, minerd]}", "{process.executable: /tmp/*}"
    )
    out = Scene(MINER, second).play(ex("/tmp/xmrig"))
    assert kinds(out) == ["RecordFinding", "RecordFinding", "KillProcess", "Contain"]


def test_terminate_is_passed_on() -> None:
    rule = MINER.replace("freeze, capture", "terminate")
    out = Scene(rule).play(ex("/tmp/xmrig"))
    assert [c.desired for c in out if isinstance(c, Contain)] == [Containment(severed=True, terminated=True)]


# --- leaving the cgroup -----------------------------------------------------------------------------------------------


def test_leaving_a_free_workload_is_a_finding_only() -> None:
    out = Scene().play(ex("/usr/bin/sleep"), move(10, 0))
    assert kinds(out) == ["RecordFinding"]
    (found,) = findings(out)
    assert (found.policy, found.rule, found.level) == ("built-in", "left-cgroup", Level.HIGH)
    assert "/elsewhere" in found.summary and "sleep(10)" in found.summary


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
def test_leaving_a_contained_workload_is_death_whatever_the_mode(mode: str) -> None:
    scene = Scene(mode=mode)
    scene.engine.adopt(WORKLOAD, BOTH)
    out = scene.play(ex("/usr/bin/sleep"), move(10, 0))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    assert isinstance(out[1], KillProcess) and (out[1].pid, out[1].start_ticks) == (10, 1010)
    assert findings(out)[0].mode is Mode.ENFORCE


def test_moving_within_the_workload_or_into_it_is_nothing() -> None:
    scene = Scene()
    scene.engine.adopt(WORKLOAD, BOTH)
    assert scene.play(move(10, WORKLOAD)) == []


def test_moving_to_another_workload_takes_the_process_along() -> None:
    scene = Scene()
    scene.add(workload=78, cgroup="/killswitch/other")
    out = scene.play(ex("/usr/bin/sleep"), move(10, 78))
    assert [f.rule for f in findings(out)] == ["left-cgroup"]
    assert list(scene.engine.asked_for(78).values()) == [(b"/usr/bin/sleep", b"/usr/bin/sleep")]
    assert scene.engine.asked_for(WORKLOAD) == {}


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_are_findings_with_reason_and_count() -> None:
    (found,) = findings(Scene().play(lost(123)))
    assert (found.policy, found.rule, found.level) == ("built-in", "events-lost", Level.MEDIUM)
    assert "123 events" in found.summary and "ring full" in found.summary


def test_losses_are_folded_by_reason_and_no_count_is_lost() -> None:
    scene = Scene()
    out = scene.play(*(lost(10, at=i * S // 10) for i in range(10)), lost(7, reason="samples"))
    assert [f.summary.split(":")[0] for f in findings(out)] == [
        "10 events were lost (ring full)",
        "7 events were lost (samples)",
    ]
    (rest,) = findings(scene.play(tick(5)))
    assert "and 80 more" in rest.summary


def test_losses_of_nobody_in_particular_belong_to_no_incident() -> None:
    out = Scene().play(lost(3, workload=0))
    assert [c.incident for c in out if isinstance(c, RecordFinding)] == [""]


# --- the data plane and reloads -----------------------------------------------------------------------------------------


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
    assert scene.engine.asked_for(WORKLOAD) == {}
    assert scene.play(ex("/tmp/xmrig", pid=12), WorkloadRemoved(2, WORKLOAD)) == []


def test_the_cgroup_path_of_the_workload_reaches_rules() -> None:
    rule = MINER.replace("name: {process.name: [xmrig, minerd]}", "name: {cgroup.path: '/killswitch/j*'}")
    assert kinds(Scene(rule).play(ex("/usr/bin/true"))) == ["RecordFinding", "KillProcess", "Contain"]


# --- command lines longer than the window -------------------------------------------------------------------------------

LONG = """\
  - id: coin
    title: Mining arguments
    level: critical
    on: exec
    match:
      coin: {process.args: --coin}
    condition: coin
    response: [kill_process]
"""


def padded(window: bytes, whole: bytes) -> Exec:
    return ex("/tmp/x", argv=window, argv_total=len(whole))


def test_a_command_line_that_was_read_whole_is_judged_by_the_whole() -> None:
    whole = b"x\0" + b"a" * 5000 + b"\0--coin\0"
    out = Scene(LONG).play(padded(whole, whole))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    assert findings(out)[0].rule == "coin"
    innocent = b"x\0" + b"a" * 5000 + b"\0"
    assert Scene(LONG).play(padded(innocent, innocent)) == []


def test_a_command_line_that_cannot_be_read_whole_is_a_finding() -> None:
    whole = b"x\0" + b"a" * 5000 + b"\0--coin\0"
    (found,) = findings(Scene(LONG).play(padded(whole[:4096], whole)))
    assert (found.policy, found.rule) == ("built-in", "undecided")
    assert "test/coin" in found.summary


def test_a_long_command_line_that_no_rule_cares_about_is_left_alone() -> None:
    whole = b"x\0" + b"a" * 5000 + b"\0"
    scene = Scene(MINER)
    assert scene.play(padded(whole[:4096], whole)) == []


# --- memory and hostile input -------------------------------------------------------------------------------------------


def test_a_fork_bomb_is_held_in_bounded_memory() -> None:
    scene = Scene()
    for pid in range(2, 60_000):
        scene.play(fork(pid, pid - 1), ex("/bin/x", "x" * 4000, pid=pid))
    assert len(scene.engine.asked_for(WORKLOAD)) <= 4096


def test_fields_of_the_process_reach_rules_on_its_connections() -> None:
    rule = PROBE.replace("there: {destination.ip: 169.254.169.254}", "there: {process.name: curl}")
    scene = Scene(rule)
    scene.play(ex("/usr/bin/wget", pid=10), ex("/usr/bin/curl", pid=11))
    out = scene.play(connect("1.2.3.4", pid=10), connect("1.2.3.4", pid=11), connect("1.2.3.4", pid=12))
    assert [f.pid for f in findings(out)] == [11]


SCAN = PROBE.replace("there: {destination.ip: 169.254.169.254}", "there: {network.fanout.ports|gte: 5}")


def test_a_scan_is_counted_over_the_processes_of_a_workload() -> None:
    scene = Scene(SCAN)
    out = [scene.play(connect("10.0.0.1", 8000 + n, at=n, pid=100 + n)) for n in range(5)]
    assert [len(findings(o)) for o in out] == [0, 0, 0, 0, 1]


def test_a_scan_that_an_operator_has_released_is_counted_afresh() -> None:
    scene = Scene(SCAN)
    scene.play(*(connect("10.0.0.1", 8000 + n, at=n) for n in range(5)), Released(9, WORKLOAD))
    assert not findings(scene.play(connect("10.0.0.1", 9000, at=10)))


def test_talking_to_one_service_or_to_the_outside_is_no_scan() -> None:
    scene = Scene(SCAN)
    many = [connect("10.0.0.1", 443, at=n) for n in range(50)] + [connect("8.8.8.8", n, at=99) for n in range(1, 50)]
    assert not findings(scene.play(*many))


raw = st.binary(max_size=40).map(lambda b: b.replace(b"\0", b""))
pids = st.integers(1, 6)
times = st.integers(0, 10**12)
execs = st.builds(
    lambda at, pid, path, args, total, done: replace(
        ex(at=at, pid=pid),
        executable=path,
        filename=path,
        argv=b"".join(a + b"\0" for a in args),
        argv_total=total,
        done=done,
    ),
    times,
    pids,
    raw | st.just(b"/tmp/xmrig"),
    st.lists(raw, max_size=4),
    st.integers(0, 10_000),
    st.sampled_from([Done.NOTHING, Done.KILLED, Done.KILLED | Done.SEVERED]),
)
anything = st.one_of(
    execs,
    st.builds(lambda at, a, b: fork(a, b, at=at), times, pids, pids),
    st.builds(lambda at, a: gone(a, at=at), times, pids),
    st.builds(lambda at, p, c: replace(cpu(1, pid=p, cores=c), time_ns=at), times, pids, st.floats(0, 64)),
    st.builds(lambda at, p, w: move(p, w, at=at), times, pids, st.sampled_from([0, WORKLOAD, 78])),
    st.builds(lambda at, n, w: lost(n, at=at, workload=w), times, st.integers(1, 9), st.sampled_from([0, WORKLOAD])),
    st.builds(lambda at, p: connect("169.254.169.254", at=at, pid=p), times, pids),
    st.builds(Tick, times),
    st.builds(Released, times, st.just(WORKLOAD)),
    st.builds(WorkloadRemoved, times, st.just(WORKLOAD)),
    st.builds(WorkloadAdded, times, st.just(WORKLOAD), st.just("job"), st.just(CGROUP), st.just((0,))),
    st.builds(CgroupCreated, times, st.just(5), st.just("/killswitch/job/x")),
    st.builds(CgroupRemoved, times, st.just(5), st.just("/killswitch/job/x")),
)


@given(st.lists(anything, max_size=40))
def test_no_script_of_events_breaks_it(events: list[Event]) -> None:
    """Whatever a workload does, in whatever order it is heard: no exception, findings before responses, one line each,
    no process killed that the kernel has killed, no containment asked for twice."""
    scene = Scene(MINER, HASHING, PROBE)
    contained = FREE
    for event in events:
        out = scene.play(event)
        order = [("RecordFinding", "KillProcess", "Contain", "ReadCode").index(k) for k in kinds(out)]
        assert order == sorted(order)
        assert all(f.summary.isprintable() for f in findings(out))
        if isinstance(event, Released | WorkloadRemoved):
            contained = FREE
        for command in out:
            if isinstance(command, Contain):
                assert contained | command.desired != contained or command.capture
                contained |= command.desired
            if isinstance(command, KillProcess):
                assert not (isinstance(event, Exec) and Done.KILLED in event.done)
                assert not isinstance(event, Fork | Exit)
