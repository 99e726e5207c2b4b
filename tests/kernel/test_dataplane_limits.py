"""Losses, priorities, wake-ups, CPU windows."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from killswitch.events import CgroupCreated, CgroupRemoved, Connect, Exec, Exit
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup

CONNECTS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[1])): s.connect(("127.0.0.1", 9))
"""


def connect(cgroup: Cgroup, times: int) -> None:
    done = cgroup.run(sys.executable, "-I", "-S", "-c", CONNECTS, str(times))
    assert done.returncode == 0, done.stderr


def drain_all(plane: DataPlane) -> list[object]:
    events: list[object] = []
    while batch := plane.drain(1000):
        events += batch
    return events


def test_what_is_more_than_is_read_is_counted(plane: DataPlane, watched: Cgroup) -> None:
    connect(watched, 30_000)
    events = drain_all(plane)
    told = sum(isinstance(e, Connect) for e in events)
    lost = {(x.workload, x.reason): x.count for x in plane.losses()}
    flows = lost[watched.id, "flows_flooded"]
    assert flows > 0
    # The process's exit came when the ring was full as well.
    assert told + flows == 30_000 + (not any(isinstance(e, Exit) for e in events))
    assert any(isinstance(e, Exec) for e in events), "execs have a ring of their own"
    assert plane.losses() == [], "told once"
    connect(watched, 10)
    assert sum(isinstance(e, Connect) for e in drain_all(plane)) == 10, "there is room again"


def test_losses_are_not_forgotten_and_not_repeated_by_a_restart(
    plane: DataPlane, watched: Cgroup, mount: Path, pin_dir: Path, bpf_object: Path
) -> None:
    connect(watched, 30_000)
    plane.close()
    again = DataPlane.open(pin_dir, cgroup_mount=mount, obj=bpf_object)
    assert [x.reason for x in again.losses()] == ["flows_flooded"]
    again.close()
    again = DataPlane.open(pin_dir, cgroup_mount=mount, obj=bpf_object)
    assert again.losses() == []
    again.close()


def test_execs_that_are_more_than_are_read_are_counted(plane: DataPlane, watched: Cgroup) -> None:
    loop = 'i=0; while [ $i -lt 1200 ]; do /bin/true "$0"; i=$((i+1)); done'
    watched.run("/bin/sh", "-c", loop, "x" * 5000)
    told = [e for e in drain_all(plane) if isinstance(e, Exec)]
    lost = {(x.workload, x.reason): x.count for x in plane.losses()}
    assert len(told) + lost[watched.id, "execs_flooded"] == 1201
    assert lost[watched.id, "execs_flooded"] > 0


def test_a_workload_that_floods_the_rings_crowds_out_nobody(
    plane: DataPlane, watched: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    """Nothing is read meanwhile, as if the daemon were stuck: what the others do afterwards is there all the same."""
    others = [make_cgroup() for _ in range(3)]
    for cgroup in others:
        plane.watch(cgroup.id, cgroup.path, 1)
    connect(watched, 60_000)
    watched.run("/bin/sh", "-c", 'i=0; while [ $i -lt 800 ]; do /bin/true "$0"; i=$((i+1)); done', "x" * 5000)
    for cgroup in others:
        connect(cgroup, 500)
        cgroup.run("/bin/sh", "-c", '/bin/true "$0"; /bin/true', "x" * 5000)
    events = drain_all(plane)
    for cgroup in others:
        assert sum(isinstance(e, Exec) and e.workload == cgroup.id for e in events) == 4
        assert sum(isinstance(e, Connect) and e.workload == cgroup.id for e in events) == 500
    lost = plane.losses()
    assert {x.workload for x in lost} == {watched.id}
    assert {x.reason for x in lost} == {"flows_flooded", "execs_flooded"}


def test_a_burst_that_is_read_in_time_loses_nothing(plane: DataPlane, watched: Cgroup) -> None:
    seen = 0
    for _ in range(40):
        connect(watched, 1500)
        seen += sum(isinstance(e, Connect) for e in drain_all(plane))
    assert seen == 60_000 and plane.losses() == []


def test_drain_is_bounded_and_execs_come_first(plane: DataPlane, watched: Cgroup) -> None:
    plane.drain(1000)
    connect(watched, 500)
    watched.run("/bin/true")
    first = plane.drain(4)
    assert len(first) == 4 and Connect not in map(type, first), "both processes, before the first's 500 connects"
    assert len(plane.drain(100)) == 100
    assert len(drain_all(plane)) > 390


def test_execs_wake_and_flows_wait_until_there_are_many(plane: DataPlane, watched: Cgroup) -> None:
    drain_all(plane)
    with_poll = select.epoll()
    with_poll.register(plane.fileno(), select.EPOLLIN)
    process = watched.popen(sys.executable, "-I", "-S", "-c", "input()\n" + CONNECTS, "100", stdin=-1)
    assert with_poll.poll(5), "an exec wakes"
    drain_all(plane)
    process.communicate(b"\n")
    woken, events = with_poll.poll(0.05), drain_all(plane)
    assert len(events) >= 100
    others = any(isinstance(e, CgroupCreated | CgroupRemoved) for e in events)  # somebody on this host made a cgroup
    assert not woken or others, "a hundred flows do not"
    connect(watched, 1)
    drain_all(plane)
    connect(watched, 6000)  # more than a quarter of the ring
    assert with_poll.poll(5)
    with_poll.close()


BUSY = """
import time
end = time.monotonic() + 60
while time.monotonic() < end:
    for n in range(100000): pass
"""


def test_cpu_window_of_a_busy_process(plane: DataPlane, watched: Cgroup) -> None:
    assert plane.sampler_error is None
    busy = watched.popen(sys.executable, "-I", "-S", "-c", BUSY)
    idle = watched.popen("/bin/sleep", "60")
    plane.cpu_window()
    used_before = cpu_seconds(busy.pid)
    started = time.monotonic()
    time.sleep(1.5)  # the window itself is what is measured
    (cpu,) = plane.cpu_window()
    used = (cpu_seconds(busy.pid) - used_before) / (time.monotonic() - started)
    assert (cpu.workload, cpu.pid) == (watched.id, busy.pid) and cpu.pid != idle.pid
    assert abs(cpu.cores - used) < 0.25 + 0.1 * used, "as /proc/PID/stat counts it"
    assert 1.4e9 < cpu.window_ns < 20e9
    assert 0 <= cpu.kernel_share < 0.5
    mappings = Path(f"/proc/{busy.pid}/maps").read_text().splitlines()
    maps = [line.split()[0].split("-") for line in mappings if " r-x" in line]
    ranges = [(int(a, 16), int(b, 16)) for a, b in maps]
    assert cpu.hot and all(any(a <= address < b for a, b in ranges) for address, _ in cpu.hot)
    assert [n for _, n in cpu.hot] == sorted((n for _, n in cpu.hot), reverse=True)
    for process in (busy, idle):
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_unwatched_processes_are_not_sampled(plane: DataPlane, watched: Cgroup) -> None:
    plane.cpu_window()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    assert plane.cpu_window() == []
