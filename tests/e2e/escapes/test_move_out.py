"""Moving itself, a child or a thread into a cgroup that nobody watches, as full root: what leaves while cut off dies."""

from __future__ import annotations

from collections.abc import Callable
from errno import EPERM
from pathlib import Path
from signal import SIGKILL

from tests.e2e.conftest import Daemon
from tests.e2e.escapes.loose import Loose, judge_leaver
from tests.rig.farside import Counter
from tests.rig.netns import FarSide

SCRIPT = """
import signal
outside, target = sys.argv[1:]
def move(pid):
    with open(f"{outside}/cgroup.procs", "w") as file:
        file.write(str(pid))
def send():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (target, 4001))
def itself():
    move(0)
    while True:
        send()
def child():
    pid = os.fork()
    if pid == 0:
        while True:
            try:
                send()
            except OSError:
                pass
    try:
        move(pid)
        time.sleep(0.3)
    finally:
        os.kill(pid, 9)
def thread():
    started = threading.Thread(target=lambda: (time.sleep(0.05), send()))
    started.start()
    move(os.getpid())
    started.join()
    time.sleep(0.3)
ways = {"itself": itself, "child": child, "thread": thread}
send()
go()
for name, way in ways.items():
    pid = os.fork()
    if pid == 0:
        try:
            way()
        except OSError as e:
            os._exit(e.errno)
        os._exit(0)
    say(name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_move_out(
    loose: Callable[..., Loose], far: FarSide, counter: Counter, outside_cgroup: Path, shared_daemon: Daemon
) -> None:
    script = loose(SCRIPT, outside_cgroup, far.far4)
    script.ready()
    counter.wait_for(1)
    since = script.sever()
    script.go()
    said = script.results()
    assert {said["itself"], said["thread"]} <= {-SIGKILL, EPERM}, said  # an LSM refuses the move, where there is one
    judge_leaver(shared_daemon, "leavers_get_no_socket", outside_cgroup, counter, since)
