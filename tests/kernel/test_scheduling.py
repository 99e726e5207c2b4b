"""Who goes first. In processes of their own: a class is inherited, and the test's own must stay as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from killswitch.kernel import scheduling

PRELUDE = """
import os, threading
from killswitch.errors import KernelError
from killswitch.kernel import scheduling

def now():
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, os.getpriority(os.PRIO_PROCESS, 0)

def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: (work(), found.append(now())))
    thread.start()
    thread.join()
    return found[0]
"""


def says(code: str, *prefix: str) -> list[str]:
    command = [*prefix, sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def real_time() -> None:
    before = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as e:
        pytest.skip(f"this kernel refuses the real-time class here: {e.strerror}")
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


@pytest.mark.usefixtures("real_time")
def test_threads_inherit_it_and_may_stand_back() -> None:
    first, inherited, behind = says(
        "scheduling.go_first(-10, 500_000); print(now()[:2])\n"
        "print(in_thread(lambda: None)[:2]); print(in_thread(scheduling.stand_back)[:2])"
    )
    assert first == inherited == str((os.SCHED_RR, scheduling.URGENT))
    assert behind == str((os.SCHED_RR, scheduling.BEHIND))


@pytest.mark.usefixtures("real_time")
def test_a_child_is_made_ordinary_again() -> None:
    (child,) = says(
        "scheduling.go_first(-10, 500_000)\n"
        "ends = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.read(ends[0], 1); print(now(), flush=True); os._exit(0)\n"
        "scheduling.ordinary(pid); os.write(ends[1], b'x'); os.waitpid(pid, 0)\n"
        "scheduling.ordinary(pid)  # it has ended: no error"
    )
    assert child == str((os.SCHED_OTHER, 0, 0))


LIMITED = ("prlimit", "--rtprio=0:0", "setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice")


def test_without_the_right_to_it_a_low_nice_value_is_kept() -> None:
    (found,) = says("print(scheduling.go_first(-10, 500_000), now())", "nice", "-n", "-12", *LIMITED)
    assert found == str(False) + " " + str((os.SCHED_OTHER, 0, -12))


def test_without_the_right_to_anything_it_says_so() -> None:
    (found,) = says(
        "try:\n    scheduling.go_first(-10, 500_000)\nexcept KernelError as e:\n    print(e)",
        "nice",
        "-n",
        "0",
        *LIMITED,
    )
    assert "set the nice value -10" in found
