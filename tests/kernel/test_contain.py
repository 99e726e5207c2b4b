"""The kill transaction on the real kernel, with the real data plane."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment, KillProcess, Outcome, Receipt, Step
from killswitch.contain import steps
from killswitch.contain.protected import Protected
from killswitch.contain.switch import Switch
from killswitch.errors import Gone
from killswitch.kernel import cgroupfs, procfs
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import FORKING, SLEEPER, SPINNER, actor, ref

CUT = Containment(severed=True, frozen=True)
ENDED = Containment(terminated=True)


@pytest.fixture
def switch(plane: DataPlane, tmp_path: Path) -> Switch:
    return Switch(plane, tmp_path / "evidence", protected=Protected())


def outcomes(receipts: list[Receipt]) -> list[tuple[Step, Outcome]]:
    return [(r.step, r.outcome) for r in receipts]


def done(*which: Step) -> list[tuple[Step, Outcome]]:
    return [(s, Outcome.DONE) for s in which]


async def kill(switch: Switch, cgroup: Cgroup, desired: Containment = CUT, capture: bool = False) -> list[Receipt]:
    return await switch.contain(ref(cgroup), desired, capture=capture, incident="inc-1", wait_for_capture=capture)


# --- the whole of it --------------------------------------------------------------------------------------------------


def test_kill_of_200_forking_processes_in_order_with_proof(switch: Switch, watched: Cgroup) -> None:
    seen: list[Step] = []

    async def scene() -> None:
        desired = CUT | ENDED
        receipts = await switch.contain(
            ref(watched), desired, capture=True, incident="inc-1", on_receipt=lambda r: seen.append(r.step)
        )
        assert outcomes(receipts) == done(
            Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS, Step.CAPTURE, Step.TERMINATE
        ), receipts
        assert seen == [r.step for r in receipts]
        sever, freeze, sockets, capture, terminate = receipts
        assert sever.proof["containment"] == "terminated" and sever.proof["tx_dropped"] == 0
        assert freeze.proof["frozen"] == 1 and freeze.proof["cpu_ns"] == 0 and float(freeze.proof["window_ms"]) > 0
        assert freeze.proof["processes"] == capture.proof["processes"] == terminate.proof["processes"]
        assert int(freeze.proof["processes"]) >= 200
        assert (sockets.proof["remaining"], terminate.proof["populated"]) == (0, 0)
        assert all(a.finished_ns <= b.started_ns for a, b in itertools.pairwise(receipts))
        assert switch.observe(ref(watched)) == Containment(True, True, True)
        await switch.aclose()

    with actor(watched, FORKING, "200"):
        asyncio.run(scene())


def test_release_gives_everything_back(switch: Switch, plane: DataPlane, watched: Cgroup) -> None:
    async def scene(pid: int) -> None:
        await kill(switch, watched)
        assert switch.observe(ref(watched)) == CUT
        receipts = await switch.release(ref(watched), "all")
        assert outcomes(receipts) == done(Step.RECONNECT, Step.THAW)
        assert switch.observe(ref(watched)) == plane.containment(watched.id) == FREE
        used = cgroupfs.cpu_usage_ns(watched.path)
        while cgroupfs.cpu_usage_ns(watched.path) < used + 1_000_000:
            await asyncio.sleep(0.01)

    with actor(watched, SPINNER) as a:
        asyncio.run(asyncio.wait_for(scene(a.pid), 20))


@pytest.mark.parametrize(
    ("stage", "left"), [("thaw", Containment(severed=True)), ("network", Containment(frozen=True))]
)
def test_release_by_stages(stage: str, left: Containment, switch: Switch, plane: DataPlane, watched: Cgroup) -> None:
    async def scene() -> None:
        await kill(switch, watched)
        await switch.release(ref(watched), stage)
        assert switch.observe(ref(watched)) == plane.containment(watched.id) == left
        await switch.release(ref(watched), "all")
        assert switch.observe(ref(watched)) == FREE

    with actor(watched, SLEEPER):
        asyncio.run(scene())


def test_a_severed_workload_reaches_nobody_and_its_connections_have_ended(switch: Switch, watched: Cgroup) -> None:
    code = """
import socket, sys
far = ("127.0.0.1", int(sys.argv[1]))
open_before = socket.create_connection(far)
print("ready", flush=True)
sys.stdin.readline()
def attempt(act):
    try:
        print(act())
    except OSError as e:
        print(type(e).__name__)
attempt(lambda: open_before.recv(1))
attempt(lambda: socket.create_connection(far, timeout=1))
"""
    with socket.create_server(("127.0.0.1", 0)) as far, actor(watched, code, str(far.getsockname()[1])) as a:
        accepted, _ = far.accept()
        with accepted:
            [sever, sockets] = asyncio.run(kill(switch, watched, Containment(severed=True)))
            assert (sever.step, sockets.step) == (Step.SEVER, Step.DESTROY_SOCKETS)
            assert sockets.proof["destroyed"] == 1
            first, second = a.says().split()
            assert first == "ConnectionAbortedError"
            assert second in ("PermissionError", "TimeoutError", "ConnectionRefusedError")
            ready, _, _ = select.select([far, accepted], [], [], 0.2)
            assert ready == []  # no connection came, and not even the reset of the one that was cut left the host


# --- when things go wrong ---------------------------------------------------------------------------------------------


def test_without_a_data_plane_the_rest_is_done(switch: Switch, plane: DataPlane, cgroup: Cgroup) -> None:
    """It was never watched, so it cannot be severed: said so, and frozen and its sockets destroyed all the same."""
    with actor(cgroup, SPINNER):
        receipts = asyncio.run(kill(switch, cgroup))
        assert outcomes(receipts) == [(Step.SEVER, Outcome.FAILED), *done(Step.FREEZE, Step.DESTROY_SOCKETS)]
        assert "not watched" in receipts[0].error
        assert switch.observe(ref(cgroup)) == Containment(frozen=True)


def test_a_cgroup_that_vanished(switch: Switch, plane: DataPlane, watched: Cgroup) -> None:
    watched.path.rmdir()
    receipts = asyncio.run(kill(switch, watched, CUT | ENDED, capture=True))
    by_step = {r.step: r for r in receipts}
    assert by_step[Step.FREEZE].outcome is by_step[Step.CAPTURE].outcome is Outcome.FAILED
    assert "removed" in by_step[Step.FREEZE].error
    assert by_step[Step.TERMINATE].proof == {"populated": 0, "removed": 1}
    with pytest.raises(Gone):
        switch.observe(ref(watched))


def test_a_receipt_that_nobody_takes_delays_nothing(switch: Switch, watched: Cgroup) -> None:
    def broken(_: Receipt) -> None:
        raise RuntimeError("the ledger is on fire")

    async def scene() -> list[Receipt]:
        return await switch.contain(ref(watched), CUT, capture=False, incident="inc-1", on_receipt=broken)

    with actor(watched, SLEEPER):
        assert outcomes(asyncio.run(scene())) == done(Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS)


def test_cpu_time_that_moves_is_no_proof(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "FLAT_WINDOW_S", 0.2)  # so long that the spinner gets a CPU on a busy host too
    with actor(cgroup, SPINNER):
        assert asyncio.run(steps.cpu_flat(cgroup.path)) is None
        cgroupfs.freeze(cgroup.path, True)
        asyncio.run(cgroupfs.wait_frozen(cgroup.path, 5))
        assert asyncio.run(steps.cpu_flat(cgroup.path)) is not None


def test_a_parent_that_is_frozen_is_named_when_thawing_fails(
    switch: Switch, watched: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("killswitch.contain.switch.THAW_S", 0.05)
    below = watched.child("below")
    with actor(below, SLEEPER):
        cgroupfs.freeze(watched.path, True)
        assert asyncio.run(cgroupfs.wait_frozen(below.path, 5))
        [receipt] = asyncio.run(switch.release(ref(below), "thaw"))
        assert receipt.outcome is Outcome.FAILED and "a cgroup above it is" in receipt.error


# --- orders beside each other -----------------------------------------------------------------------------------------


def test_going_away_does_not_cancel_a_kill(switch: Switch, watched: Cgroup) -> None:
    receipts: list[Receipt] = []

    async def scene() -> None:
        order = asyncio.create_task(
            switch.contain(ref(watched), CUT | ENDED, capture=True, incident="inc-1", on_receipt=receipts.append)
        )
        await asyncio.sleep(0)
        order.cancel()
        with pytest.raises(asyncio.CancelledError):
            await order
        await switch.aclose()

    with actor(watched, FORKING, "20"):
        asyncio.run(scene())
        assert outcomes(receipts)[-1] == (Step.TERMINATE, Outcome.DONE) and len(receipts) == 5


def test_severing_never_waits_for_an_order_under_way(switch: Switch, plane: DataPlane, watched: Cgroup) -> None:
    async def scene() -> None:
        freezing = asyncio.create_task(kill(switch, watched, Containment(frozen=True)))
        await asyncio.sleep(0)
        assert not plane.containment(watched.id).severed
        severing = asyncio.create_task(kill(switch, watched, Containment(severed=True)))
        await asyncio.sleep(0)
        assert plane.containment(watched.id).severed and not freezing.done()
        await asyncio.gather(freezing, severing)
        assert switch.observe(ref(watched)) == CUT

    with actor(watched, SPINNER):
        asyncio.run(scene())


def test_a_release_during_a_kill_waits_for_it(switch: Switch, watched: Cgroup) -> None:
    async def scene() -> None:
        order: list[Step] = []
        killing = asyncio.create_task(
            switch.contain(ref(watched), CUT, capture=True, incident="inc-1", on_receipt=lambda r: order.append(r.step))
        )
        await asyncio.sleep(0)
        releasing = asyncio.create_task(switch.release(ref(watched), "all", lambda r: order.append(r.step)))
        await asyncio.gather(killing, releasing)
        assert order == [
            Step.SEVER, Step.FREEZE, Step.DESTROY_SOCKETS, Step.CAPTURE, Step.RECONNECT, Step.THAW
        ]  # fmt: skip
        assert switch.observe(ref(watched)) == FREE

    with actor(watched, FORKING, "20"):
        asyncio.run(scene())


def test_a_release_does_not_undo_a_kill_that_came_after_it(switch: Switch, watched: Cgroup) -> None:
    async def scene() -> None:
        first = asyncio.create_task(kill(switch, watched))
        await asyncio.sleep(0)
        releasing = asyncio.create_task(switch.release(ref(watched), "all"))
        await asyncio.sleep(0)
        again = asyncio.create_task(kill(switch, watched))
        receipts = await releasing
        await asyncio.gather(first, again)
        assert switch.observe(ref(watched)) == CUT
        assert outcomes(receipts) == [(Step.RECONNECT, Outcome.REFUSED)]
        assert "a later order" in receipts[0].error

    with actor(watched, FORKING, "20"):
        asyncio.run(scene())


def test_many_orders_at_once_end_with_what_the_last_one_wanted(switch: Switch, watched: Cgroup) -> None:
    async def scene() -> None:
        for last_is_kill in (True, False) * 5:
            orders: list[asyncio.Task[list[Receipt]]] = []
            for n in range(6):
                work = kill(switch, watched) if (n % 2 == 0) is last_is_kill else switch.release(ref(watched), "all")
                orders.append(asyncio.create_task(work))
                await asyncio.sleep(0.001 * (n % 3))
            last = kill(switch, watched) if last_is_kill else switch.release(ref(watched), "all")
            await asyncio.gather(*orders, last)
            assert switch.observe(ref(watched)) == (CUT if last_is_kill else FREE)

    with actor(watched, FORKING, "10"):
        asyncio.run(scene())


# --- level-triggered --------------------------------------------------------------------------------------------------


def test_what_somebody_undid_is_repaired(switch: Switch, plane: DataPlane, watched: Cgroup) -> None:
    async def scene() -> None:
        await kill(switch, watched)
        assert await switch.reconcile({watched.id: CUT}) == []
        cgroupfs.freeze(watched.path, False)
        assert await cgroupfs.wait_thawed(watched.path, 5)
        assert outcomes(await switch.reconcile({watched.id: CUT})) == done(Step.FREEZE)
        plane.set_containment(watched.id, FREE)
        repaired = await switch.reconcile({watched.id: CUT})
        assert outcomes(repaired) == done(Step.SEVER, Step.DESTROY_SOCKETS)
        assert switch.observe(ref(watched)) == CUT
        assert await switch.reconcile({watched.id: CUT}) == []

    with actor(watched, SPINNER):
        asyncio.run(scene())


def test_what_was_terminated_and_lives_again_is_terminated_again(switch: Switch, watched: Cgroup) -> None:
    async def scene() -> None:
        await kill(switch, watched, ENDED)
        assert await switch.reconcile({watched.id: ENDED}) == []
        with actor(watched, SLEEPER):
            assert outcomes(await switch.reconcile({watched.id: ENDED})) == done(Step.TERMINATE)

    asyncio.run(scene())


def test_repair_does_not_undo_a_release_that_comes_in_meanwhile(
    switch: Switch, plane: DataPlane, make_cgroup: Callable[[], Cgroup]
) -> None:
    first, second = make_cgroup(), make_cgroup()
    for c in (first, second):
        plane.watch(c.id, c.path, 1)

    async def scene() -> None:
        await kill(switch, second)
        repairing = asyncio.create_task(switch.reconcile({first.id: CUT, second.id: CUT}))  # first takes a while
        await asyncio.sleep(0)
        await switch.release(ref(second), "all")
        await repairing
        assert switch.observe(ref(second)) == FREE

    with actor(first, SPINNER), actor(second, SLEEPER):
        asyncio.run(scene())


def test_what_is_gone_needs_no_repair(switch: Switch, watched: Cgroup) -> None:
    watched.path.rmdir()
    assert asyncio.run(switch.reconcile({watched.id: CUT})) == []


# --- one process ------------------------------------------------------------------------------------------------------


def order_to_kill(pid: int, ticks: int) -> KillProcess:
    return KillProcess(workload=1, incident="inc-1", pid=pid, start_ticks=ticks, reason="test")


def test_kill_process_ends_exactly_that_process(switch: Switch, cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a:
        ticks = procfs.start_ticks(a.pid)
        other = asyncio.run(switch.kill_process(order_to_kill(a.pid, ticks - 1)))
        assert other.proof["already"] == 1 and a.process.poll() is None
        cgroupfs.freeze(cgroup.path, True)
        receipt = asyncio.run(switch.kill_process(order_to_kill(a.pid, ticks)))
        assert (receipt.outcome, receipt.proof) == (Outcome.DONE, {"pid": a.pid, "exited": 1})
        assert a.process.wait(5) == -9


def test_the_daemon_its_parent_and_pid_1_are_never_killed(switch: Switch) -> None:
    for pid in (os.getpid(), os.getppid(), 1):
        receipt = asyncio.run(switch.kill_process(order_to_kill(pid, procfs.start_ticks(pid))))
        assert receipt.outcome is Outcome.REFUSED and "never killed" in receipt.error
