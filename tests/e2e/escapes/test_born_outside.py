"""A child born into another cgroup (CLONE_INTO_CGROUP), as full root: no move, and no file of the cgroup written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge_leaver
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
outside, target = sys.argv[1:]
def send():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
def born():
    at = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    arguments = ctypes.create_string_buffer(struct.pack("=11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, at))
    pid = call("syscall", 435, arguments, 88)
    if pid == 0:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                send()
            except OSError:
                pass
        os._exit(0)
    time.sleep(0.2)
    try:
        os.kill(pid, 9)
    except OSError:
        pass
    return os.waitpid(pid, 0)[1]
send()
go()
attempt("born", born)
"""


def test_born_outside(
    loose: Callable[..., Loose], far: FarSide, counter: Counter, outside_cgroup: Path, shared_daemon: Daemon
) -> None:
    script = loose(SCRIPT, outside_cgroup, far.far4)
    script.ready()
    counter.wait_for(1)
    since = script.sever()
    script.go()
    script.process.communicate()
    judge_leaver(shared_daemon, "leavers_get_no_socket", outside_cgroup, counter, since)
