"""Scripts of events, and the commands that have to come out of them: from a match to an answer."""

from __future__ import annotations

from killswitch.commands import (
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
    Done,
    Event,
    Released,
    Unattended,
)
from tests.unit.detect.scenes import (
    MINER,
    PROBE,
    WORKLOAD,
    S,
    Scene,
    code,
    connect,
    cpu,
    ex,
    findings,
    fork,
    gone,
    kinds,
    lost,
    tick,
)

BOTH = Containment(severed=True, frozen=True)


def test_what_no_rule_mentions_gives_nothing() -> None:
    scene = Scene()
    assert scene.play(fork(10, 1), ex("/usr/bin/cc"), connect("10.0.0.1"), cpu(1, cores=0.3), gone(10), tick(1)) == []


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
    scene.engine.workloads.adopt(WORKLOAD, BOTH, incident="inc-40", captured=True)
    out = scene.play(ex("/tmp/xmrig"))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-40"


def test_adopting_less_than_a_rule_asks_for_leaves_room_for_more() -> None:
    scene = Scene()
    scene.play(ex("/tmp/xmrig"))
    scene.engine.workloads.adopt(WORKLOAD, Containment(severed=True))  # thawed by hand
    out = scene.play(ex("/tmp/xmrig", pid=11, at=5 * S))
    assert [str(c.desired) for c in out if isinstance(c, Contain)] == ["severed+frozen"]


def test_open_incident_is_shared_by_orders_and_findings() -> None:
    scene = Scene()
    assert scene.engine.workloads.open_incident(WORKLOAD) == "inc-1"
    out = scene.play(ex("/tmp/xmrig"))
    assert isinstance(out[0], RecordFinding) and out[0].incident == "inc-1"
    assert scene.engine.workloads.open_incident(WORKLOAD) == "inc-1"


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


def test_what_the_kernel_severed_while_nobody_was_there_is_a_finding_and_an_order_only_if_it_is_to_be_kept() -> None:
    scene = Scene()
    [let_go] = scene.play(Unattended(1 * S, WORKLOAD, 10_000, keep=False))
    assert isinstance(let_go, RecordFinding)
    assert (let_go.finding.rule, let_go.finding.done_in_kernel) == ("unattended", (Response.SEVER,))
    assert "let go again" in let_go.finding.summary
    kept = scene.play(Unattended(100 * S, WORKLOAD, 10_000, keep=True))
    assert [c.desired for c in kept if isinstance(c, Contain)] == [Containment(severed=True)]


def test_what_was_only_said_again_is_counted_and_no_finding() -> None:
    scene = Scene()
    assert scene.play(lost(5_000, reason="sendmsg_suppressed")) == []
    assert scene.play(lost(1, reason="flow_ring_full")) != []


def hashing(at_s: int) -> list[Event]:
    return [cpu(at_s), code(at_s), tick(at_s)]


def test_what_was_measured_before_a_release_does_not_find_it_again() -> None:
    """A minute of hashing, then nothing: released, it is not cut off for what it did before."""
    rule = """\
  - id: account
    title: A minute of hashing
    level: high
    on: cpu
    match: {much: {cpu.hashing_seconds|gte: 20}}
    condition: much
    response: [sever]
"""
    scene = Scene(rule)
    out = [c for second in range(1, 90) for c in scene.play(*hashing(second))]
    assert "Contain" in kinds(out)
    scene.play(Released(90 * S, WORKLOAD))
    quiet = [c for n in range(91, 105) for c in scene.play(cpu(n, cores=0.02), tick(n))]
    assert "Contain" not in kinds(quiet), "an old account is no new finding"
    again = [c for second in range(105, 240) for c in scene.play(*hashing(second))]
    assert "Contain" in kinds(again), "and it goes on: found anew"
