"""The real daemon: a rogue program is caught, an operator cuts off by hand, and it is proven where it counts."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from killswitch.commands import Containment, Outcome, Receipt, Step
from killswitch.control.service import EventFilter
from killswitch.errors import KernelError, Protected, TargetError
from killswitch.kernel import cgroupfs
from tests.rig.build import program
from tests.rig.daemon import Daemon
from tests.rig.farside import Counter, Sink
from tests.rig.netns import FarSide

CUT_OFF = Containment(severed=True, frozen=True)
FREE = Containment()


def steps(receipts: Sequence[Receipt]) -> list[Step]:
    return [r.step for r in sorted(receipts, key=lambda r: r.started_ns)]


def frozen(daemon: Daemon, name: str) -> bool:
    """By the kernel's own word and by its clock, not by the daemon's."""
    path = daemon.cgroup_dir / name
    before = cgroupfs.cpu_usage_ns(path)
    time.sleep(0.1)
    return cgroupfs.is_frozen(path) and cgroupfs.cpu_usage_ns(path) == before


def test_status_tells_how_it_is(daemon: Daemon) -> None:
    status = daemon.client.status()
    assert daemon.process
    assert status.pid == daemon.process.pid
    assert 0 < status.armed_ms < 60_000
    assert not status.adopted
    assert "rogue-agent" in status.policies
    assert {h.part: h.ok for h in status.health} == dict.fromkeys(
        ("ring", "ledger", "control", "policy", "dataplane", "budget", "proof"), True
    )
    assert status.resident_bytes > 1 << 20


def test_forbidden_program_never_runs_and_its_workload_is_cut_off(daemon: Daemon, tmp_path: Path) -> None:
    rogue, trace = tmp_path / "xmrig", tmp_path / "trace"
    shutil.copy(program("tracer"), rogue)
    daemon.watched("agent")
    bystander = daemon.spawn("agent", "/bin/sleep", "60")
    rogue_process = daemon.spawn("agent", "/usr/bin/env", "-i", f"T={trace}", str(rogue))
    assert rogue_process.wait(20) == -9
    assert not trace.exists()
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    assert frozen(daemon, "agent")
    assert bystander.poll() is None
    (incident,) = daemon.client.incidents(open_only=True)
    assert incident.level == "critical"
    assert incident.cgroup == f"{daemon.cgroup_parent}/agent"
    finding = next(f for f in incident.findings if f.rule == "miner-binary")
    assert {str(r) for r in finding.done_in_kernel} == {"kill_process", "sever"}
    assert finding.verdict_ns > 0
    done = daemon.wait_for(
        "evidence kept",
        lambda: (i := daemon.client.incident(incident.id)) and Step.CAPTURE in steps(i.receipts) and i,
    )
    receipts = done.receipts  # type: ignore[attr-defined]
    assert [s for s in steps(receipts) if s is not Step.KILL_PROCESS][:3] == [
        Step.SEVER,
        Step.FREEZE,
        Step.DESTROY_SOCKETS,
    ]
    assert all(r.outcome is Outcome.DONE for r in receipts)
    files = {name for name, _ in daemon.client.evidence(incident.id)}
    assert files


def test_innocent_workload_stays_untouched(daemon: Daemon) -> None:
    daemon.watched("innocent")
    work = daemon.spawn(
        "innocent", "/bin/sh", "-c", "ls -R /usr/share/doc | sha256sum; grep -c xmrig /etc/passwd; exit 7"
    )
    assert work.wait(30) == 7
    w = daemon.workload("innocent")
    assert w
    assert (w.desired, w.observed, w.incident) == (FREE, FREE, "")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_no_packet_reaches_the_far_side_after_a_kill(daemon: Daemon, far: FarSide, family: int, kind: str) -> None:
    daemon.watched("talker")
    to = far.far4 if family == socket.AF_INET else far.far6
    with (
        Sink(far, family=family, kind=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sink,  # type: ignore[arg-type]
        Counter(far) as counter,
    ):
        daemon.spawn("talker", str(program("sender")), kind, to, str(sink.address[1]), "60", "500")
        counter.wait_for(20)
        result = daemon.client.kill("talker", "test")
        cut = time.time_ns()
        assert result.complete
        assert result.workload.observed == CUT_OFF
        assert steps(result.receipts)[:3] == [Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS]
        assert frozen(daemon, "talker")
        daemon.client.thaw("talker", "to see that it stays severed while it runs")
        assert not cgroupfs.is_frozen(daemon.cgroup_dir / "talker")
        time.sleep(0.5)
        assert counter.since(cut) == []


def test_released_in_stages(daemon: Daemon, far: FarSide) -> None:
    daemon.watched("talker")
    with Sink(far, kind=socket.SOCK_DGRAM) as sink, Counter(far) as counter:  # type: ignore[arg-type]
        daemon.spawn("talker", str(program("sender")), "udp", far.far4, str(sink.address[1]), "60", "500")
        counter.wait_for(5)
        killed = daemon.client.kill("talker", "test")
        assert daemon.client.release("talker", "look", stage="thaw").workload.observed == Containment(severed=True)
        assert daemon.client.incident(killed.incident).closed_unix == 0
        done = daemon.client.release("talker", "all is well", stage="all")
        assert done.complete
        assert done.workload.observed == FREE
        assert daemon.client.incident(killed.incident).closed_unix > 0
        since = time.time_ns()
        daemon.spawn("talker", str(program("sender")), "udp", far.far4, str(sink.address[1]), "60", "500")
        counter.wait_for(5, since=since)


def test_a_second_incident_is_another(daemon: Daemon) -> None:
    daemon.watched("agent")
    daemon.spawn("agent", "/bin/sleep", "60")
    first = daemon.client.kill("agent", "one")
    daemon.client.release("agent", "done")
    second = daemon.client.kill("agent", "two")
    assert first.incident != second.incident
    assert [i.id for i in daemon.client.incidents()] == [second.incident, first.incident]


def test_every_way_to_name_a_target(daemon: Daemon) -> None:
    info = daemon.watched("agent")
    child = daemon.spawn("agent", "/bin/sleep", "60")
    daemon.wait_for("in the cgroup", lambda: child.pid in cgroupfs.processes(daemon.cgroup_dir / "agent"))
    for target in ("agent", str(info.id), info.cgroup, str(daemon.cgroup_dir / "agent"), f"pid:{child.pid}"):
        assert daemon.client.freeze(target, "test").workload.observed == Containment(frozen=True)
        assert daemon.client.release(target, "test").workload.observed == FREE


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("agnet", TargetError, "did you mean agent"),
        ("/no/such/cgroup", TargetError, "there is none"),
        ("pid:999999999", TargetError, "ended"),
        ("pid:1", Protected, "root cgroup"),
        ("/", Protected, "root"),
        ("host", KernelError, "network namespace"),  # none is told to this daemon: see rig.daemon
        ("pid:x", TargetError, "pid:N"),
    ],
)
def test_targets_that_cannot_be(shared_daemon: Daemon, target: str, error: type[Exception], text: str) -> None:
    shared_daemon.watched("agent")
    with pytest.raises(error, match=text):
        shared_daemon.client.kill(target, "test")


def test_kill_of_an_unwatched_cgroup_watches_it_first(daemon: Daemon) -> None:
    other = Path(f"{daemon.cgroup_dir}-other")
    other.mkdir()
    try:
        result = daemon.client.kill(f"{daemon.cgroup_parent}-other", "test")
        assert result.complete
        assert result.workload.policies == ()
        assert cgroupfs.is_frozen(other)
        daemon.client.release(result.workload.name, "test")
        daemon.client.unwatch(result.workload.name)
    finally:
        other.rmdir()


def test_unwatch_is_refused_while_contained(daemon: Daemon) -> None:
    daemon.watched("agent")
    daemon.client.sever("agent", "test")
    with pytest.raises(TargetError, match="release it first"):
        daemon.client.unwatch("agent")
    daemon.client.release("agent", "test")
    daemon.client.unwatch("agent", remove=True)
    assert not (daemon.cgroup_dir / "agent").exists()
    assert daemon.workload("agent") is None


def test_terminate_leaves_no_process(daemon: Daemon) -> None:
    daemon.watched("agent")
    children = [daemon.spawn("agent", "/bin/sleep", "60") for _ in range(5)]
    daemon.wait_for("all inside", lambda: len(cgroupfs.processes(daemon.cgroup_dir / "agent")) == 5)
    result = daemon.client.kill("agent", "test", terminate=True)
    assert result.complete
    assert Step.TERMINATE in steps(result.receipts)
    assert [c.wait(5) for c in children] == [-9] * 5
    assert not cgroupfs.populated(daemon.cgroup_dir / "agent")


def clear_up(daemon: Daemon) -> None:
    """Remove the cgroup of ``agent`` and the one above it at a time that the daemon does not look: no place is left to hold."""
    assert daemon.process
    daemon.process.send_signal(signal.SIGSTOP)
    (daemon.cgroup_dir / "agent").rmdir()
    daemon.cgroup_dir.rmdir()
    daemon.process.send_signal(signal.SIGCONT)


def test_contained_cgroup_that_vanishes_is_contained_again_when_it_is_back(daemon: Daemon) -> None:
    daemon.watched("agent")
    killed = daemon.client.kill("agent", "test")
    clear_up(daemon)
    gone = daemon.wait_for("gone", lambda: (w := daemon.workload("agent")) and w.id == 0 and w)
    assert gone.desired == CUT_OFF  # type: ignore[attr-defined]
    assert daemon.client.incident(killed.incident).closed_unix == 0
    daemon.spawn("agent", "/bin/sleep", "60")
    daemon.wait_for("contained again", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    assert (w := daemon.workload("agent")) and w.incident == killed.incident
    daemon.client.release("agent", "test")
    cgroupfs.kill(daemon.cgroup_dir / "agent")
    daemon.wait_for("empty", lambda: not cgroupfs.populated(daemon.cgroup_dir / "agent"))
    (daemon.cgroup_dir / "agent").rmdir()
    daemon.wait_for("off the list", lambda: daemon.workload("agent") is None)


def test_absent_workload_can_be_released(daemon: Daemon) -> None:
    """Its parent is gone as well: there is no place to hold."""
    daemon.watched("agent")
    killed = daemon.client.kill("agent", "test")
    clear_up(daemon)
    daemon.wait_for("gone", lambda: (w := daemon.workload("agent")) and w.id == 0)
    daemon.client.release("agent", "test")
    assert daemon.workload("agent") is None
    assert daemon.client.incident(killed.incident).closed_unix > 0
    assert daemon.watched("agent").observed == FREE


def test_program_that_ran_before_it_was_watched_is_judged(daemon: Daemon, tmp_path: Path) -> None:
    rogue = tmp_path / "xmrig"
    shutil.copy("/bin/sleep", rogue)
    other = Path(f"{daemon.cgroup_dir}-early")
    other.mkdir()
    process = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {other}/cgroup.procs && exec {rogue} 60"])
    try:
        daemon.wait_for("it runs", lambda: Path(f"/proc/{process.pid}/comm").read_text() == "xmrig\n")
        for file in daemon.policy_dir.glob("*.yaml"):
            file.write_text(file.read_text().replace(f"{daemon.cgroup_parent}/**", f"{daemon.cgroup_parent}-*"))
        daemon.client.reload_policies("watch the others")
        assert process.wait(10) == -9
        daemon.wait_for("cut off", lambda: cgroupfs.is_frozen(other))
    finally:
        process.kill()
        process.wait()
        for w in daemon.client.workloads():
            if w.cgroup.endswith("-early"):
                daemon.client.release(w.cgroup, "test")
                daemon.client.unwatch(w.cgroup)
        other.rmdir()


def test_padding_hides_nothing(daemon: Daemon) -> None:
    """Arguments beyond the window that the kernel reads are judged as well."""
    daemon.watched("agent")
    padded = ["-oUser=" + "x" * 4200, "-R", "9000:localhost:22", "-oConnectTimeout=30", "127.0.0.1"]
    process = daemon.spawn("agent", "/usr/bin/ssh", "-oProxyCommand=sleep 30", *padded)
    assert process.wait(20) == -9
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    (incident,) = daemon.client.incidents()
    assert "reverse-ssh-tunnel" in {f.rule for f in incident.findings}


def test_an_order_is_served_during_an_event_flood(daemon: Daemon) -> None:
    daemon.watched("flooder")
    daemon.watched("victim")
    daemon.spawn("victim", "/bin/sleep", "60")
    flood = "while :; do /bin/true; done"
    for _ in range(4):
        daemon.spawn("flooder", "/bin/sh", "-c", flood)
    before = daemon.client.status().events
    daemon.wait_for("a flood", lambda: daemon.client.status().events > before + 2000, seconds=30)
    assert daemon.client.kill("victim", "test").workload.observed == CUT_OFF
    result = daemon.client.kill("flooder", "test", terminate=True)
    assert result.complete, result
    assert not cgroupfs.populated(daemon.cgroup_dir / "flooder")


def test_what_happens_is_streamed(daemon: Daemon) -> None:
    daemon.watched("agent")
    daemon.watched("other")
    stream = daemon.client.stream(EventFilter(workload="agent", kinds=("exec", "receipt")))
    daemon.spawn("other", "/bin/true")
    daemon.spawn("agent", "/bin/true")
    first = next(stream)
    assert first.event is not None
    assert first.event.executable.endswith(b"/true")  # type: ignore[union-attr]
    assert first.workload_name == "agent"
    daemon.client.freeze("agent", "test")
    receipt = next(item for item in stream if item.receipt)
    assert receipt.receipt
    assert receipt.receipt.step is Step.FREEZE


def test_self_test_proves_the_switch(shared_daemon: Daemon) -> None:
    before = {w.cgroup for w in shared_daemon.client.workloads()}
    result = shared_daemon.client.self_test("test")
    assert result.complete, result.receipts
    assert {Step.SEVER, Step.FREEZE, Step.THAW, Step.RECONNECT} <= set(steps(result.receipts))
    assert {w.cgroup for w in shared_daemon.client.workloads()} == before


def test_run_makes_a_workload_and_gives_its_exit_status(shared_daemon: Daemon) -> None:
    done = shared_daemon.cli("run", "--name", "job", "--", "/bin/sh", "-c", "cat /proc/self/cgroup; exit 3")
    assert done.returncode == 3, done.stderr
    assert f"0::{shared_daemon.cgroup_parent}/job" in done.stdout
