from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.errors import Gone, KernelError, NotSupported
from killswitch.kernel import cgroupfs
from tests.kernel.cgroups import Cgroup
from tests.kernel.scene import FORKING, SLEEPER, SPINNER, actor
from tests.rig.emulated import crowd


def test_an_id_leads_to_its_directory_and_back(cgroup: Cgroup) -> None:
    deep = cgroup.path / "a" / "b"
    number = cgroupfs.create(deep)
    assert number == cgroupfs.cgroup_id(deep)
    assert cgroupfs.path_of(number) == deep
    assert cgroupfs._search(cgroupfs.find_mount(), number) == deep  # as it is found without CAP_DAC_READ_SEARCH
    assert cgroupfs.from_root(cgroupfs.below_root(deep)) == deep
    assert cgroupfs.subtree_ids(cgroup.path) == {cgroup.id, cgroupfs.cgroup_id(deep.parent), number}


def test_the_root_is_called_slash() -> None:
    assert cgroupfs.below_root(cgroupfs.find_mount()) == "/"
    assert cgroupfs.from_root("/") == cgroupfs.find_mount()


def test_a_cgroup_made_anew_at_the_same_path_is_another(cgroup: Cgroup) -> None:
    path = cgroup.path / "again"
    first = cgroupfs.create(path)
    cgroupfs.remove(path)
    second = cgroupfs.create(path)
    assert first != second
    with pytest.raises(Gone):
        cgroupfs.path_of(first)


@pytest.mark.parametrize(
    "act",
    [
        cgroupfs.events,
        cgroupfs.cgroup_id,
        cgroupfs.processes,
        cgroupfs.cpu_usage_ns,
        cgroupfs.kill,
        lambda p: cgroupfs.freeze(p, True),
        lambda p: cgroupfs.move(p, os.getpid()),
        lambda p: asyncio.run(cgroupfs.wait_frozen(p, 1)),
    ],
)
def test_a_vanished_cgroup_is_gone_and_the_message_names_it(act: Callable[[Path], object], cgroup: Cgroup) -> None:
    cgroup.path.rmdir()
    with pytest.raises(Gone, match=cgroup.path.name):
        act(cgroup.path)


def test_the_root_can_be_neither_frozen_nor_killed(mount: Path) -> None:
    with pytest.raises(NotSupported, match=r"cgroup\.freeze"):
        cgroupfs.freeze(mount, True)
    with pytest.raises(NotSupported, match=r"cgroup\.kill"):
        cgroupfs.kill(mount)


def test_a_mount_that_is_none_is_refused() -> None:
    with pytest.raises(KernelError, match="cgroup v2 is not mounted there"):
        cgroupfs.use_mount(Path("/tmp"))


def test_200_forking_processes_are_frozen_and_thawed(cgroup: Cgroup) -> None:
    many = crowd(200)

    async def freeze() -> None:
        cgroupfs.freeze(cgroup.path, True)
        assert await cgroupfs.wait_frozen(cgroup.path, 60)
        await asyncio.sleep(0.05)  # what the other CPU used last is booked a moment later
        before = cgroupfs.processes(cgroup.path)
        used = cgroupfs.cpu_usage_ns(cgroup.path)
        await asyncio.sleep(0.05)
        assert cgroupfs.cpu_usage_ns(cgroup.path) == used
        assert cgroupfs.processes(cgroup.path) == before and len(before) >= many
        cgroupfs.freeze(cgroup.path, False)
        assert await cgroupfs.wait_thawed(cgroup.path, 60)

    with actor(cgroup, FORKING, str(many)):
        for _ in range(5):
            asyncio.run(freeze())


def test_waiting_wakes_up_when_it_happens(cgroup: Cgroup) -> None:
    async def scene() -> bool:
        waiting = asyncio.create_task(cgroupfs.wait_frozen(cgroup.path, 30))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        cgroupfs.freeze(cgroup.path, True)
        return await asyncio.wait_for(waiting, 10)

    with actor(cgroup, SPINNER):
        assert asyncio.run(scene())


def test_waiting_for_what_does_not_come_ends(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER):
        assert asyncio.run(cgroupfs.wait_frozen(cgroup.path, 0.05)) is False
        assert asyncio.run(cgroupfs.wait_empty(cgroup.path, 0.05)) is False


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("has_kill", [True, False], ids=["cgroup.kill", "signals"])
def test_kill_leaves_nobody(frozen: bool, has_kill: bool, cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_kill and not (cgroup.path / "cgroup.kill").exists():
        pytest.skip("this kernel has no cgroup.kill (before 5.14)")
    if not has_kill:  # a kernel before 5.14 has no such file
        write = cgroupfs._write

        def old_kernel(path: Path, name: str, value: str) -> None:
            if name == "cgroup.kill":
                raise NotSupported("write cgroup.kill", 38)
            write(path, name, value)

        monkeypatch.setattr(cgroupfs, "_write", old_kernel)
    with actor(cgroup, FORKING, "50") as a:
        cgroupfs.freeze(cgroup.path, frozen)
        assert cgroupfs.kill(cgroup.path) == ("cgroup.kill" if has_kill else "signals")
        assert asyncio.run(cgroupfs.wait_empty(cgroup.path, 10))
        assert cgroupfs.processes(cgroup.path) == [] and not cgroupfs.populated(cgroup.path)
        assert a.process.wait(10) == -9


def test_removing_waits_for_the_dying_and_refuses_the_living(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER):
        with pytest.raises(KernelError, match="processes still live there"):
            cgroupfs.remove(cgroup.path, timeout_s=0.05)
        cgroupfs.kill(cgroup.path)
        cgroupfs.remove(cgroup.path, timeout_s=10)
        assert not cgroup.path.exists()
        cgroupfs.remove(cgroup.path)  # again is no error


def test_processes_of_cgroups_below_count(cgroup: Cgroup) -> None:
    below = cgroup.child("below")
    with actor(below, SLEEPER) as a:
        assert cgroupfs.processes(cgroup.path) == [a.pid]
        assert cgroupfs.processes(cgroup.path, recursive=False) == []
        cgroupfs.move(cgroup.path, a.pid)
        assert cgroupfs.processes(cgroup.path, recursive=False) == [a.pid]


def test_moving_a_process_that_has_ended_is_gone(cgroup: Cgroup) -> None:
    with actor(cgroup, SLEEPER) as a:
        a.process.kill()
        a.process.wait()
        with pytest.raises(Gone):
            cgroupfs.move(cgroup.path, a.pid)


def test_cpu_time_counts_what_runs(cgroup: Cgroup) -> None:
    with actor(cgroup, SPINNER):
        before = cgroupfs.cpu_usage_ns(cgroup.path)
        deadline = time.monotonic() + 10
        while cgroupfs.cpu_usage_ns(cgroup.path) < before + 20_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
