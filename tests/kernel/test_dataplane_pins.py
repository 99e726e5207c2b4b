"""What is pinned outlives the daemon: adoption, upgrades, crashes in between, cgroups that vanish."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import Containment
from killswitch.errors import Gone, KernelError
from killswitch.events import Exec, Fork
from killswitch.kernel import loader, pins
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.automata import FIRST, Automaton, clause, tables
from tests.kernel.cgroups import Cgroup

SEVERED = Containment(severed=True)
NO_TRUE = Automaton()
NO_TRUE_TABLES = tables(NO_TRUE, [clause(FIRST)], name=NO_TRUE.equals([b"true"], FIRST))
Open = Callable[..., DataPlane]


@pytest.fixture
def other_object(bpf_object: Path, tmp_path: Path) -> Path:
    """The same programs in a file with another hash: what an upgrade looks like."""
    other = tmp_path / "other.bpf.o"
    other.write_bytes(bpf_object.read_bytes() + b"\0")
    return other


@pytest.fixture
def open_plane(pin_dir: Path, mount: Path, bpf_object: Path) -> Iterator[Open]:
    opened: list[DataPlane] = []

    def open_(obj: Path = bpf_object) -> DataPlane:
        opened.append(DataPlane.open(pin_dir, cgroup_mount=mount, obj=obj))
        return opened[-1]

    yield open_
    for plane in opened:
        plane.close()
    if pin_dir.exists():
        open_().remove()


def can_make_socket(cgroup: Cgroup) -> bool:
    return cgroup.run(sys.executable, "-I", "-S", "-c", "import socket; socket.socket()").returncode == 0


def test_everything_stays_in_force_without_a_daemon(open_plane: Open, cgroup: Cgroup) -> None:
    plane = open_plane()
    assert not plane.adopted
    plane.watch(cgroup.id, cgroup.path, 0b101)
    plane.load_policy(NO_TRUE_TABLES, 7)
    plane.set_containment(cgroup.id, SEVERED)
    plane.close()

    assert not can_make_socket(cgroup)
    assert cgroup.run("/bin/true").returncode == -signal.SIGKILL

    plane = open_plane()
    assert plane.adopted and plane.policy_generation == 7
    (found,) = plane.workloads().values()
    assert (found.cgroup_id, found.policies, found.containment) == (cgroup.id, 0b101, SEVERED)
    names = [e.name for e in plane.drain(1000) if isinstance(e, Exec)]
    assert names[-1] == "true", "what happened meanwhile is told"
    plane.set_containment(cgroup.id, Containment())
    assert can_make_socket(cgroup)


def test_close_and_remove_may_be_called_again(open_plane: Open, pin_dir: Path) -> None:
    plane = open_plane()
    plane.close()
    plane.close()
    plane = open_plane()
    plane.remove()
    assert not pin_dir.exists()


def test_remove_takes_everything_away(open_plane: Open, pin_dir: Path, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.set_containment(cgroup.id, SEVERED)
    assert not can_make_socket(cgroup)
    plane.remove()
    assert not pin_dir.exists()
    assert can_make_socket(cgroup)


def test_containment_words(open_plane: Open, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    for word in ("severed", "frozen", "severed+frozen", "terminated", "free"):
        plane.set_containment(cgroup.id, Containment.parse(word))
        plane.close()
        plane = open_plane()
        assert str(plane.containment(cgroup.id)) == word


def test_unwatched_is_free_again_and_can_be_watched_again(open_plane: Open, cgroup: Cgroup) -> None:
    plane = open_plane()
    for _ in range(3):
        plane.watch(cgroup.id, cgroup.path, 0)
        assert plane.containment(cgroup.id) == Containment()
        assert plane.flows(cgroup.id).tx_dropped == 0
        plane.set_containment(cgroup.id, SEVERED)
        assert not can_make_socket(cgroup)
        plane.unwatch(cgroup.id)
        assert can_make_socket(cgroup)
        plane.unwatch(cgroup.id)
    assert plane.workloads() == {}
    for call in (plane.containment, plane.flows):
        with pytest.raises(Gone, match="not watched"):
            call(cgroup.id)


def test_watch_refuses_what_is_not_there(open_plane: Open, cgroup: Cgroup, make_cgroup: Callable[[], Cgroup]) -> None:
    plane, other = open_plane(), make_cgroup()
    with pytest.raises(Gone, match="another one"):
        plane.watch(other.id, cgroup.path, 0)
    with pytest.raises(Gone):
        plane.watch(1 << 60, cgroup.path / "absent", 0)
    deep = cgroup
    for n in range(16):
        deep = deep.child(str(n))
    with pytest.raises(KernelError, match="watch a parent"):
        plane.watch(deep.id, deep.path, 0)
    assert plane.workloads() == {}


def test_a_cgroup_that_vanished_meanwhile_is_no_longer_watched(open_plane: Open, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.close()
    cgroup.remove()
    assert open_plane().workloads() == {}


FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    try: s.send(b"leak")
    except OSError: pass
"""


def test_upgrade_opens_no_gap(
    open_plane: Open, pin_dir: Path, bpf_object: Path, other_object: Path, cgroup: Cgroup
) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 1)
    plane.load_policy(NO_TRUE_TABLES, 3)
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    port = far.getsockname()[1]
    flood = cgroup.popen(sys.executable, "-I", "-S", "-c", FLOOD, str(port), stdout=subprocess.PIPE)
    assert flood.stdout and flood.stdout.readline() == b"ready\n"
    far.settimeout(5)
    assert far.recv(10) == b"leak"
    plane.set_containment(cgroup.id, SEVERED)
    far.setblocking(False)
    while True:  # what had already arrived
        try:
            far.recv(10)
        except BlockingIOError:
            break
    for obj in (other_object, bpf_object, other_object):
        plane.close()
        plane = open_plane(obj)
        assert not plane.adopted
        assert [p.name for p in pin_dir.iterdir()] == [pins.name_of(obj)]
        assert plane.containment(cgroup.id) == SEVERED
        assert plane.policy_generation == 3
        assert cgroup.run("/bin/true").returncode == -signal.SIGKILL
    with pytest.raises(BlockingIOError):
        far.recv(10)
    assert plane.flows(cgroup.id).tx_dropped > 0, "it has been trying all the time"
    flood.kill()
    flood.wait()
    far.close()


def test_upgrade_tells_what_nobody_had_read(open_plane: Open, other_object: Path, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.drain(1000)
    plane.close()
    cgroup.run("/bin/true")
    lost = open_plane(other_object).losses()
    assert [x.reason for x in lost] == ["upgrade", "upgrade"]
    execs, flows = (x.count for x in lost)
    assert execs >= 2 and flows == 1, "its move and its exec (and cgroups that others made); its exit"


def test_upgrade_keeps_knowing_where_processes_are(
    open_plane: Open, other_object: Path, cgroup: Cgroup, make_cgroup: Callable[[], Cgroup]
) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    process = cgroup.popen("/bin/sleep", "60")
    plane.close()
    plane = open_plane(other_object)
    (make_cgroup().path / "cgroup.procs").write_text(str(process.pid))
    moves = [e for e in plane.drain(100) if getattr(e, "from_cgroup", 0) == cgroup.id]
    assert len(moves) == 1
    process.kill()
    process.wait()


def test_upgrade_goes_on_counting_what_is_open(open_plane: Open, other_object: Path, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.sendall(c.recv(9))"
        talker = cgroup.popen(sys.executable, "-I", "-S", "-c", code, str(listener.getsockname()[1]))
        near, _ = listener.accept()
        with near:
            near.settimeout(20)
            plane.close()
            plane = open_plane(other_object)
            near.sendall(b"typed")
            assert near.recv(9) == b"typed"
            assert talker.wait(20) == 0
            (flow,) = plane.traffic()
    assert (flow.pid, flow.sent_bytes, flow.received_bytes) == (talker.pid, 5, 5)


def test_half_made_generation_is_cleaned_away(
    open_plane: Open, pin_dir: Path, bpf_object: Path, other_object: Path, cgroup: Cgroup
) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.set_containment(cgroup.id, SEVERED)
    plane.close()
    half = pins.Generation(pin_dir / (pins.name_of(other_object) + pins.HALF_MADE))
    loader.load(other_object, half).close()  # and then it crashed
    plane = open_plane()
    assert plane.adopted and [p.name for p in pin_dir.iterdir()] == [pins.name_of(bpf_object)]
    assert not can_make_socket(cgroup)


def test_half_removed_generation_is_cleaned_away(
    open_plane: Open, pin_dir: Path, other_object: Path, cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short as the old one's pins went: what is left of it does not keep the next start from coming up."""
    first = open_plane()
    first.watch(cgroup.id, cgroup.path, 0)
    first.set_containment(cgroup.id, Containment(severed=True))
    first.close()

    def cut_short(path: Path) -> None:
        (path / "maps" / "workloads").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(pins, "_remove_tree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            open_plane(other_object)
    assert len([g for g in pins.generations(pin_dir) if g.half_made]) == 1
    plane = open_plane(other_object)
    assert plane.containment(cgroup.id) == Containment(severed=True)
    assert [g.path.name for g in pins.generations(pin_dir)] == [pins.name_of(other_object)]


def test_crash_between_new_and_old_merges_containment(
    open_plane: Open, pin_dir: Path, bpf_object: Path, other_object: Path, cgroup: Cgroup, mount: Path
) -> None:
    """Both generations are complete: the stricter containment wins, one generation remains, events come once."""
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.close()
    second = loader.load(other_object, pins.Generation(pin_dir / (pins.name_of(other_object) + pins.HALF_MADE)))
    second.generation.completed()
    second.close()
    plane = open_plane(bpf_object)  # carries on from the first
    plane.set_containment(cgroup.id, SEVERED)
    plane.close()
    assert [p.name for p in pin_dir.iterdir()] == [pins.name_of(bpf_object)]
    plane = open_plane(other_object)
    assert plane.containment(cgroup.id) == SEVERED
    plane.drain(1000)
    cgroup.run("/bin/sh", "-c", "/bin/true; exit 0")
    events = plane.drain(1000)
    assert len([e for e in events if isinstance(e, Fork)]) == 1


def test_links_that_are_missing_are_attached_again(open_plane: Open, pin_dir: Path, cgroup: Cgroup) -> None:
    """A crash while a cgroup was being watched leaves it attached in part."""
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.set_containment(cgroup.id, SEVERED)
    plane.close()
    (generation,) = pins.generations(pin_dir)
    for name in ("on_sock_create", "on_egress"):
        pins.detach(generation.cgroup(cgroup.id) / name)
    assert not can_make_socket(cgroup), "the program at the root of the tree knows whose process it is"
    pins.detach_all(generation.outside)
    assert can_make_socket(cgroup)
    open_plane()
    assert not can_make_socket(cgroup)


def test_what_maps_say_of_a_workload_is_put_back(open_plane: Open, cgroup: Cgroup) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 1)
    assert plane.reattach(cgroup.id, cgroup.path) == []
    key, maps = cgroup.id.to_bytes(8, "little"), plane._loaded.maps
    before = {name: maps[name].get(key) for name in ("workload_by_cgroup", "cgroup_slot")}
    maps["workload_by_cgroup"].delete(key)
    maps["cgroup_slot"].put(key, bytes(maps["cgroup_slot"].value_size))
    assert plane.reattach(cgroup.id, cgroup.path) == ["workload_by_cgroup", "cgroup_slot"]
    assert {name: maps[name].get(key) for name in before} == before
    assert None not in before.values()
    assert plane.reattach(cgroup.id, cgroup.path) == []


def test_load_error_says_what_the_kernel_said(pin_dir: Path, mount: Path, tmp_path: Path, bpf_object: Path) -> None:
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(bpf_object.read_bytes().replace(b"tp_btf/sched_process_exec\0", b"tp_btf/sched_process_exeX\0"))
    with pytest.raises(
        KernelError,
        match=r"load the BPF program on_exec of .*: failed to find kernel BTF type ID of 'sched_process_exeX'",
    ):
        DataPlane.open(pin_dir, cgroup_mount=mount, obj=broken)
    assert list(pin_dir.iterdir()) == [], "nothing half made is left"
    with pytest.raises(KernelError, match="make bpf"):
        DataPlane.open(pin_dir, cgroup_mount=mount, obj=tmp_path / "absent.o")


def test_a_failed_upgrade_leaves_the_old_one_in_force(
    open_plane: Open, cgroup: Cgroup, tmp_path: Path, bpf_object: Path
) -> None:
    plane = open_plane()
    plane.watch(cgroup.id, cgroup.path, 0)
    plane.set_containment(cgroup.id, SEVERED)
    plane.close()
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(bpf_object.read_bytes()[:5000])
    with pytest.raises(KernelError):
        open_plane(broken)
    assert not can_make_socket(cgroup)
    assert open_plane().adopted
