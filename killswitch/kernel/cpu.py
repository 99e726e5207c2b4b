"""CPU use of watched processes: a software clock on each CPU samples what runs, in-kernel maps count, windows come out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import time
from collections import defaultdict
from pathlib import Path

from killswitch.events import Cpu
from killswitch.kernel import abi, syscalls
from killswitch.kernel.maps import Map

HERTZ = 99  # not 100: must not run in step with what it samples
HOTTEST = 256  # addresses a process and window: unrolled code must not drown in the small loops around it

MACHINE = platform.machine()

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_TYPE_SOFTWARE, _COUNT_SW_CPU_CLOCK = 1, 0
_DISABLED, _FREQ = 1 << 0, 1 << 10
_FLAG_FD_CLOEXEC = 8
_IOC_ENABLE, _IOC_DISABLE, _IOC_SET_BPF = 0x2400, 0x2401, 0x40042408
_libc = ctypes.CDLL(None, use_errno=True)


class _PerfEventAttr(ctypes.Structure):
    """``struct perf_event_attr``, its first version (64 bytes)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_freq", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
    )


class Sampler:
    """Samples only while it is enabled, and only while this process lives: perf events cannot be pinned to any use."""

    def __init__(self, program_fd: int) -> None:
        self._fds: list[int] = []
        try:
            for cpu in _online_cpus():
                fd = _open_clock(cpu)
                self._fds.append(fd)
                try:
                    fcntl.ioctl(fd, _IOC_SET_BPF, program_fd)
                except OSError as e:
                    raise syscalls.error(f"attach the CPU sampler on CPU {cpu}", e) from e
        except BaseException:
            self.close()
            raise

    def enable(self, on: bool) -> None:
        for fd in self._fds:
            fcntl.ioctl(fd, _IOC_ENABLE if on else _IOC_DISABLE, 0)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _online_cpus() -> list[int]:
    numbers: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text().strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _open_clock(cpu: int) -> int:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise syscalls.error(f"sample the CPU on {platform.machine()}", errno.EOPNOTSUPP)
    attr = _PerfEventAttr(
        type=_TYPE_SOFTWARE, size=ctypes.sizeof(_PerfEventAttr), config=_COUNT_SW_CPU_CLOCK, sample_freq=HERTZ,
        flags=_DISABLED | _FREQ,
    )  # fmt: skip
    fd = _libc.syscall(number, ctypes.byref(attr), -1, cpu, -1, _FLAG_FD_CLOEXEC)
    return syscalls.checked(f"perf_event_open of the software clock on CPU {cpu}", fd)


class Windows:
    """Takes the samples out of the kernel's maps, one window after the other."""

    def __init__(self, samples: Map, hot: Map) -> None:
        self._samples, self._hot = samples, hot
        self._since = time.monotonic_ns()

    def restart(self) -> None:
        """Forget what was sampled so far (an adopted data plane: nobody knows how long that window was)."""
        self._samples.take_all()
        self._hot.take_all()
        self._since = time.monotonic_ns()

    def take(self) -> list[Cpu]:
        """One ``Cpu`` for each process that was seen running since the last call, busiest first."""
        counted = self._samples.take_all()
        addresses: dict[tuple[int, int], list[tuple[int, int, bytes]]] = defaultdict(list)
        hot_key, hot_value = abi.HOT_KEY.codec.unpack, abi.HOT_VALUE.codec.unpack
        for key, value in self._hot.take_all():
            start, address, pid = hot_key(key)
            met, length, code = hot_value(value)
            addresses[pid, start].append((address, met, code[:length]))
        now = time.monotonic_ns()
        window, self._since = max(now - self._since, 1), now
        found = []
        for key, value in counted:
            start, pid = abi.CPU_KEY.codec.unpack(key)
            workload, samples, in_kernel, program, read, written = abi.CPU_VALUE.codec.unpack(value)
            hot = sorted(addresses[pid, start], key=lambda a: (-a[1], a[0]))[:HOTTEST]
            cores = samples * 1e9 / HERTZ / window
            where, codes = tuple((a, n) for a, n, _ in hot), tuple(c for _, _, c in hot)
            share = in_kernel / samples
            found.append(
                Cpu(now, workload, pid, start, window, cores, share, where, codes, program, read, written, MACHINE)
            )
        return sorted(found, key=lambda c: -c.cores)
