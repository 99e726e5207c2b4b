"""What a workload may do to hide or to exhaust: floods, losses, padding, events in any order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from killswitch.commands import (
    FREE,
    Contain,
    KillProcess,
    Level,
    RecordFinding,
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


def test_a_fork_bomb_is_held_in_bounded_memory() -> None:
    scene = Scene()
    for pid in range(2, 60_000):
        scene.play(fork(pid, pid - 1), ex("/bin/x", "x" * 4000, pid=pid))
    assert len(scene.engine.workloads.asked_for(WORKLOAD)) <= 4096


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
