"""The self-test: it proves the switch on a canary, says so when the switch does not hold, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from killswitch.commands import FREE, Containment, Level, Outcome, Receipt, Step
from killswitch.control.client import Client
from killswitch.control.service import EventFilter
from killswitch.errors import KernelError, KillswitchError, Protected
from killswitch.events import Exec
from killswitch.kernel import cgroupfs
from killswitch.kernel.dataplane import DataPlane
from tests.rig.daemon import Daemon

STEPS = [
    Step.HOLD, Step.FLOW, Step.DETECT, Step.DETECT, Step.SEVER, Step.SILENCE, Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS,
    Step.SILENCE, Step.STILL, Step.THAW, Step.SILENCE, Step.RECONNECT, Step.FLOW, Step.CLEAN_UP,
]  # fmt: skip
KILLS_ALL = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: NAME, version: 1}
workloads:
  - cgroup: GLOB
mode: enforce
rules:
  - id: nothing-runs
    title: Whatever is executed
    level: critical
    on: exec
    match:
      anything: {process.executable|startswith: /}
    condition: anything
    response: [kill_process, sever, freeze]
"""


def use_alone(daemon: Daemon, name: str, glob: str) -> None:
    for file in daemon.policy_dir.iterdir():
        file.unlink()
    (daemon.policy_dir / "p.yaml").write_text(KILLS_ALL.replace("NAME", name).replace("GLOB", glob))


def canaries(daemon: Daemon) -> list[Path]:
    return list(daemon.cgroup_dir.parent.glob(f"{daemon.name}.proof-*"))


def in_order(receipts: tuple[Receipt, ...]) -> list[Receipt]:
    return sorted(receipts, key=lambda r: r.started_ns)


def pins_of_workloads(daemon: Daemon) -> list[str]:
    """Those of cgroups, by their ids: devices of the host come and go with whoever else runs there."""
    return sorted(p.name for p in daemon.pin_dir.rglob("*") if p.name.isdigit())


def nothing_left(daemon: Daemon) -> None:
    assert canaries(daemon) == []
    assert not [w for w in daemon.client.workloads() if ".proof-" in w.cgroup]
    pinned = pins_of_workloads(daemon)
    daemon.client.self_test("test")
    assert pins_of_workloads(daemon) == pinned


@contextmanager
def meddling(daemon: Daemon, act: Callable[[Path], bool]) -> Iterator[None]:
    """Beside the daemon, as root: ``act`` on the canary's cgroup, over and over until it has done its harm (True)."""
    ended = threading.Event()

    def meddle() -> None:
        while not ended.is_set():
            for path in canaries(daemon):
                try:
                    if act(path):
                        return
                except (OSError, KernelError):
                    pass  # not there yet, or not any more
            time.sleep(0.002)

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_switch_is_proven_and_nobody_else_is_touched(shared_daemon: Daemon) -> None:
    daemon = shared_daemon
    daemon.watched("job")
    job = daemon.spawn("job", "/bin/sleep", "100")
    daemon.client.kill("job", "test")
    incidents = [i.id for i in daemon.client.incidents()]
    stream = daemon.client.stream()
    done = daemon.cli("selftest", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["complete"]
    assert [r["step"] for r in sorted(result["receipts"], key=lambda r: r["started_ns"])] == STEPS
    proof = [(r["step"], r["proof"]) for r in sorted(result["receipts"], key=lambda r: r["started_ns"])]
    for flow in (proof[1][1], proof[14][1]):
        assert min(flow[k] for k in ("tcp", "udp", "inbound_tcp", "inbound_udp")) > 0, flow
    assert proof[0][1]["capabilities"] == 0
    assert proof[0][1]["no_new_privs"] == 1
    assert proof[0][1]["tries"] > 0
    assert proof[0][1]["held"] > 0
    assert not any(proof[0][1][k] for k in ("tcp", "udp", "opened"))
    assert proof[2][1]["killed"] == 1
    assert proof[3][1]["bytes"] == 0
    silences = [p for step, p in proof if step == "silence"]
    for silence in silences:
        assert not any(silence[k] for k in ("tcp", "udp", "inbound_tcp", "opened")), silence
    assert silences[0]["dropped"] > 20  # the kernel stood in the way of sockets that were open
    assert silences[0]["tries"] > 20
    assert [i.id for i in daemon.client.incidents()] == incidents
    assert [w.name for w in daemon.client.workloads()] == ["job"]
    assert str(daemon.client.workloads()[0].observed) == "severed+frozen"
    assert job.poll() is None
    followed = []
    while not followed or followed[-1].receipt is None or followed[-1].receipt.step is not Step.CLEAN_UP:
        followed.append(next(stream))
    told = [item for item in followed if item.workload_name == "self-test"]
    assert all(item.receipt and not item.incident for item in told)  # it is labelled, and none of its events is shown
    assert not [item for item in followed if item.finding or isinstance(item.event, Exec)]
    nothing_left(daemon)
    assert daemon.client.verify_log()[0]


def test_the_canary_is_nobody_elses_to_contain(shared_daemon: Daemon) -> None:
    refused: list[KillswitchError] = []
    client = Client(shared_daemon.runtime_dir / "admin.sock")  # at hand: the canary is there for two seconds

    def order(path: Path) -> bool:
        try:
            client.kill(f"/{path.name}", "test")
        except KillswitchError as error:
            refused.append(error)
        return True

    with client, meddling(shared_daemon, order):
        assert shared_daemon.client.self_test("test").complete
    assert [type(error) for error in refused] == [Protected]  # exit status 4
    assert "self-test's own" in str(refused[0])


@pytest.mark.parametrize("glob", ["DIR/**", "DIR*"])
def test_operators_rules_do_not_judge_the_canary(make_daemon: Callable[..., Daemon], glob: str) -> None:
    daemon = make_daemon()
    use_alone(daemon, "mine", glob.replace("DIR", daemon.cgroup_parent))
    daemon.start()
    assert [p.name for p in daemon.client.policies()] == ["mine"]
    done = daemon.cli("selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The switch can halt" in done.stdout


def test_the_budget_of_automatic_kills_is_neither_asked_nor_used(make_daemon: Callable[..., Daemon]) -> None:
    """With none left, rules only monitor; the canary's own fire all the same, and leave the budget as it is."""
    daemon = make_daemon(KILLSWITCH_BUDGET_CONTAINED="0", KILLSWITCH_BUDGET_SHARE="0%").start()
    before = {h.part: h.detail for h in daemon.client.status().health}["budget"]
    for _ in range(2):
        result = daemon.client.self_test("test")
        assert result.complete, result.receipts
    assert {h.part: h.detail for h in daemon.client.status().health}["budget"] == before


def test_detection_that_cannot_be_tried_is_no_whole_proof(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    use_alone(daemon, "p0", f"{daemon.cgroup_parent}/**")
    text = (daemon.policy_dir / "p.yaml").read_text()
    for n in range(1, 64):  # as many as there may be
        one = text.replace("name: p0", f"name: p{n}").replace("id: nothing-runs", f"id: r{n}")
        (daemon.policy_dir / f"p{n}.yaml").write_text(one)
    daemon.start()
    done = daemon.cli("selftest", "-o", "json")
    assert done.returncode == 5, done.stdout + done.stderr
    refused = [r["step"] for r in json.loads(done.stdout)["receipts"] if r["outcome"] == "refused"]
    assert refused == ["detect", "detect"]
    assert "no room" in done.stderr


def test_a_cut_that_does_not_hold_is_told(shared_daemon: Daemon) -> None:
    """Somebody takes the canary's containment out of the kernel's map as soon as it is there."""

    def open_again(path: Path) -> bool:
        number = cgroupfs.cgroup_id(path)
        plane = DataPlane.open(shared_daemon.pin_dir, cgroup_mount=cgroupfs.find_mount())
        try:
            severed = plane.containment(number).severed
            if severed:
                plane.set_containment(number, FREE)
        finally:
            plane.close()
        return severed

    with meddling(shared_daemon, open_again):
        done = shared_daemon.cli("selftest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT PROVEN" in done.stdout
    assert "the severed canary was heard or reached" in done.stderr
    assert canaries(shared_daemon) == []
    assert shared_daemon.client.self_test("once more, left alone").complete


def test_a_freeze_that_does_not_hold_is_told(shared_daemon: Daemon) -> None:
    def thaw(path: Path) -> bool:
        frozen = "frozen 1" in (path / "cgroup.events").read_text()
        if frozen:
            (path / "cgroup.freeze").write_text("0")
        return frozen

    with meddling(shared_daemon, thaw):
        done = shared_daemon.cli("selftest", "-o", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    receipts = json.loads(done.stdout)["receipts"]
    failed = {r["step"] for r in receipts if r["outcome"] == "failed"}
    assert failed & {"freeze", "still"}, receipts
    assert canaries(shared_daemon) == []


def test_a_test_that_a_crash_cut_short_is_cleared_away(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()

    def crash(path: Path) -> bool:
        frozen = "frozen 1" in (path / "cgroup.events").read_text()
        if frozen:
            daemon.process.kill()  # type: ignore[union-attr]
        return frozen

    with meddling(daemon, crash):
        assert daemon.cli("selftest").returncode == 3
    assert len(canaries(daemon)) == 1
    daemon.kill9()
    daemon.start()
    assert canaries(daemon) == []
    assert daemon.client.workloads() == []
    assert daemon.client.incidents() == []
    result = daemon.client.self_test("test")
    assert [r.step for r in in_order(result.receipts)] == STEPS
    assert all(r.outcome is Outcome.DONE for r in result.receipts)
    assert result.workload.desired == Containment()


# --- on a timer ---------------------------------------------------------------------------------------------------------


def standing(daemon: Daemon) -> bool:
    return health_of(daemon, "killswitch.v1.Proof") == "SERVING"


def health_of(daemon: Daemon, name: str) -> str:
    with grpc.insecure_channel(f"unix:{daemon.runtime_dir / 'view.sock'}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def test_it_proves_itself_after_the_start_and_its_age_outlives_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(KILLSWITCH_SELFTEST_EVERY="1h").start()
    proof = daemon.wait_for("proven by itself", lambda: (p := daemon.client.status().proof).at_unix and p)
    assert proof.ok
    assert proof.stands
    assert proof.every_s == 3600
    assert 0 < proof.due_unix - time.time() < 1.2 * 3600
    assert standing(daemon)
    assert "again in" in daemon.cli("status").stdout
    assert canaries(daemon) == []
    daemon.end()
    daemon.env["KILLSWITCH_SELFTEST_EVERY"] = "off"
    daemon.start()
    assert daemon.client.status().proof.at_unix == pytest.approx(proof.at_unix, abs=0.001)
    assert standing(daemon)


def test_a_bad_proof_is_told_wherever_somebody_looks(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    assert not standing(daemon)  # nothing was proven yet
    assert health_of(daemon, "") == "SERVING"  # and nothing is known to be wrong
    assert daemon.client.self_test("test").complete
    assert standing(daemon)
    findings = daemon.client.stream(EventFilter(kinds=("finding",)))

    def thaw(path: Path) -> bool:
        frozen = "frozen 1" in (path / "cgroup.events").read_text()
        if frozen:
            (path / "cgroup.freeze").write_text("0")
        return frozen

    with meddling(daemon, thaw):
        assert not daemon.client.self_test("test").complete
    told = next(findings).finding
    assert told
    assert (told.policy, told.rule, told.level) == ("built-in", "not-proven", Level.CRITICAL)
    assert not standing(daemon)
    assert health_of(daemon, "proof") == health_of(daemon, "") == "NOT_SERVING"
    status = daemon.cli("status").stdout
    assert re.search(r"proof +FAILED \S+ ago: (freeze|still): .*; it last passed", status), status
    assert daemon.cli("doctor").returncode == 1
    assert "NOT PROVEN TO HALT" in daemon.log()
    daemon.restart(signal.SIGKILL)  # a bad proof is not forgotten by starting again
    assert not standing(daemon)
    assert daemon.client.status().proof.good_unix > 0
    assert daemon.client.self_test("test").complete
    assert standing(daemon)
    assert health_of(daemon, "") == "SERVING"
    assert daemon.client.verify_log()[0]


def test_policies_that_change_meanwhile_wait_for_the_proof(make_daemon: Callable[..., Daemon]) -> None:
    """What an index of a policy means changes with them, and the canary is under one."""
    daemon = make_daemon().start()
    reloaded: list[float] = []

    def reload(path: Path) -> bool:
        if "frozen 1" not in (path / "cgroup.events").read_text():
            return False
        for file in sorted(daemon.policy_dir.iterdir())[1:]:
            file.unlink()
        assert daemon.cli("policy", "reload").returncode == 0
        reloaded.append(time.time())
        return True

    with meddling(daemon, reload):
        result = daemon.client.self_test("test")
        ended = time.time()
        daemon.wait_for("reloaded", lambda: reloaded)
    assert result.complete, result.receipts
    assert reloaded[0] > ended - 0.5
    assert daemon.client.self_test("under the others").complete
