"""When this process gets a CPU.

On a host whose every CPU is wanted by others, an ordinary process waits some 10 ms at times, and now and then 50, at
whatever nice value: longer than a kill may take. One of a real-time class is served within a fraction of a millisecond.
The kernel keeps a share of each CPU for ordinary processes all the same (``kernel.sched_rt_runtime_us``, since 6.12 the
fair server). Where the class is refused, what is left is a low nice value: of the process; of its session, because with
autogroups (the default of many kernels) the former counts inside the session only; and a short slice, because who wakes
up otherwise waits for the slice of who runs (Linux 6.12 and later).

Threads and processes that are started later inherit all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from pathlib import Path

from killswitch.kernel import syscalls

URGENT, BEHIND = 2, 1  # real-time priorities: above every ordinary process, below the kernel's own threads

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}


class _SchedAttr(ctypes.Structure):
    """``struct sched_attr``, its first version (48 bytes)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),  # 0 = SCHED_OTHER
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),  # of SCHED_OTHER: the slice, 0.1 to 100 ms; ignored before 6.12
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def go_first(nice: int, slice_ns: int) -> bool:
    """Let the calling thread, and what it starts later, run before others. Whether in the real-time class.

    ``nice`` and ``slice_ns`` are for when that is refused; raises KernelError when ``nice`` is refused too.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(URGENT))
        return True
    now = os.getpriority(os.PRIO_PROCESS, 0)
    if now > nice:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as e:
            raise syscalls.error(f"set the nice value {nice}", e) from e
    with contextlib.suppress(OSError):  # no autogroups; or CAP_SYS_NICE is missing, and the service's cgroup weighs
        if os.getsid(0) == os.getpid():
            Path("/proc/self/autogroup").write_text(str(nice))
    number = _SCHED_SETATTR.get(platform.machine())
    attr = _SchedAttr(size=ctypes.sizeof(_SchedAttr), nice=min(now, nice), runtime=slice_ns)
    if number is None or syscalls.raw(number, 0, ctypes.byref(attr), 0) == 0:
        return False
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
        raise syscalls.error("ask for a short slice", ctypes.get_errno())
    return False


def stand_back() -> None:
    """In a thread with much to do: let our other threads run first. Still before other processes, because whoever waits
    for a CPU with the interpreter's lock in hand holds up everybody."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(BEHIND))


def ordinary(pid: int) -> None:
    """Take back what a child has inherited: it is nobody's kill switch."""
    _leave_class(pid, 0)


def awaited(pid: int, nice: int) -> None:
    """The same of a child that somebody waits for, and which leads a session of its own: before other ordinary processes, as far
    as we may say so. Not in the real-time class: what is there for long makes the kernel keep all of it off for 50 ms."""
    _leave_class(pid, nice)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def _leave_class(pid: int, nice: int) -> None:
    with contextlib.suppress(OSError):  # it has ended; or CAP_SYS_NICE is missing, and it stays as nice as we are
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, nice)
