"""What is let out of a workload that is cut off makes no socket where it is by then, and dies, with no daemon to see to it."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from killswitch.commands import Containment
from killswitch.kernel import abi, attach, libbpf, probe, procfs
from killswitch.kernel.dataplane import DataPlane
from tests.kernel.cgroups import Cgroup
from tests.rig.build import program
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SEVERED = Containment(severed=True)

# Says for each line whether it gets a socket.
SOCKETS = """
import socket, sys
print("ready", flush=True)
for line in sys.stdin:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        print("made", flush=True)
    except PermissionError:
        print("denied", flush=True)
"""


@functools.cache
def kernel_kills() -> bool:
    return {c.name: c.available for c in probe.capabilities()}["stop_leavers"]


@pytest.fixture
def elsewhere(make_cgroup: Callable[[], Cgroup]) -> Cgroup:
    """A cgroup that nobody watches."""
    return make_cgroup()


class Leaver:
    """The program of that name, in its workload, that waits for its line."""

    def __init__(self, watched: Cgroup, elsewhere: Cgroup, how: str, what: str, far: FarSide, *, tries: int) -> None:
        command = (program("leaver"), elsewhere.path, str(tries), how, what, far.far4, far.far_device)
        enter = ("ip", "netns", "exec", far.name) if what in ("packet", "bypass") else ()
        self.process = watched.popen(*enter, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"

    def go(self) -> dict[str, int]:
        """How many of its tries made a socket, sent a datagram, had a child that ended by itself."""
        told = self.process.communicate(b"\n", timeout=120)[0].decode()
        return {word: int(number) for word, number in re.findall(r"(\w+) (\d+)", told)}


def tried(kills: int) -> int:
    """Where the kernel does not kill them, each child tries for a second."""
    return kills if kernel_kills() else 3


def test_free_it_may_send_from_there(watched: Cgroup, elsewhere: Cgroup, far: FarSide) -> None:
    """The other tests prove something."""
    assert Leaver(watched, elsewhere, "born", "udp", far, tries=1).go() == {"made": 1, "sent": 1, "lived": 1}


@pytest.mark.parametrize(("how", "what"), [("move", "udp"), ("born", "udp"), ("move", "fork")])
def test_let_out_while_severed_it_makes_no_socket_and_dies(
    plane: DataPlane, watched: Cgroup, elsewhere: Cgroup, far: FarSide, how: str, what: str
) -> None:
    """``move``: on another CPU it runs already, and goes on for as long as the signal takes."""
    leaver = Leaver(watched, elsewhere, how, what, far, tries=tried(5))
    with Counter(far) as counter:
        plane.set_containment(watched.id, SEVERED)
        since = time.time_ns()
        came_to = leaver.go()
        assert (came_to["made"], came_to["sent"], counter.since(since)) == (0, 0, [])
    if kernel_kills():
        assert came_to["lived"] == 0
        assert [x for x in plane.losses() if x.reason == "kill_failed"] == []


def test_the_record_of_who_left_goes_with_it(
    plane: DataPlane, watched: Cgroup, elsewhere: Cgroup, far: FarSide
) -> None:
    leaver = Leaver(watched, elsewhere, "move", "udp", far, tries=tried(3))
    plane.set_containment(watched.id, SEVERED)
    leaver.go()
    assert list(plane._loaded.maps["processes"].items()) == []


def test_what_an_operator_moves_out_may_make_sockets_again(
    plane: DataPlane, watched: Cgroup, elsewhere: Cgroup
) -> None:
    process = watched.popen(sys.executable, "-c", SOCKETS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    said = []
    plane.set_containment(watched.id, SEVERED)
    for after in (lambda: (elsewhere.path / "cgroup.procs").write_text(str(process.pid)), lambda: 0):
        process.stdin.write(b"\n")
        process.stdin.flush()
        said.append(process.stdout.readline())
        after()
    process.communicate()
    assert said == [b"denied\n", b"made\n"]


def test_who_has_got_the_number_of_one_that_was_on_record_is_let_alone(
    plane: DataPlane, watched: Cgroup, elsewhere: Cgroup
) -> None:
    """The record is of a process, not of its number: here it says that another left, who began a moment before."""
    process = elsewhere.popen(sys.executable, "-c", SOCKETS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    plane.set_containment(watched.id, SEVERED)
    said = []
    began = procfs.start_ticks(process.pid)
    for start_ticks in (began - 1, began):
        slot = plane._slots.slot(watched.id)
        place = abi.PROCESS_PLACE.codec.pack(elsewhere.id, watched.id, slot, 1, start_ticks)
        plane._loaded.maps["processes"].put(process.pid.to_bytes(4, "little"), place)
        process.stdin.write(b"\n")
        process.stdin.flush()
        said.append(process.stdout.readline())
    process.communicate()
    assert said == [b"made\n", b"denied\n"]


def test_programs_at_the_root_that_somebody_detached_are_put_back(plane: DataPlane) -> None:
    assert plane.keep_outside() == []
    with attach.opened(plane._loaded.generation.outside / "on_socket_outside") as link:
        libbpf.link_detach(link)
    assert plane.keep_outside() == ["on_socket_outside"]
    assert plane.keep_outside() == []
