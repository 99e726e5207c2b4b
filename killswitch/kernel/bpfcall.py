"""The bpf(2) and perf_event_open(2) system calls, bare: for programs of a handful of instructions that only probe.

Numbers are of ``linux/bpf.h`` and ``linux/perf_event.h``; they are ABI. Every descriptor is the caller's to close.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import syscalls

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_NR_PERF = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE, _LINK_UPDATE, _ENABLE_STATS = 0, 5, 17, 28, 29, 32
_TEST_RUN, _PROG_BY_ID, _OBJ_INFO, _QUERY = 10, 13, 15, 16
_MOST_AT_A_DEVICE = 64  # BPF_MPROG_MAX
_LINK_CGROUP, _LINK_TCX = 3, 11
_PERF_SET_BPF = 0x40042408
_LOG_BYTES = 16384


def mov(register: int, value: int) -> bytes:
    return struct.pack("=BBhi", 0xB7, register, 0, value)


def call(helper: int) -> bytes:
    return struct.pack("=BBhi", 0x85, 0, 0, helper)


EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


def allow(value: int = 1) -> bytes:
    """A program that says ``value`` and nothing else."""
    return mov(0, value) + EXIT


def _bpf(what: str, command: int, attribute: bytes, hint: str = "") -> int:
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    number = _NR_BPF.get(platform.machine())
    if number is None:
        raise syscalls.error(what, errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known here")
    result = syscalls.raw(number, command, ctypes.byref(buffer), len(attribute))
    if result < 0:
        raise syscalls.error(what, ctypes.get_errno(), hint)
    return result


def _answer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    number = _NR_BPF.get(platform.machine(), -1)
    syscalls.checked("try a BPF program", syscalls.raw(number, _TEST_RUN, ctypes.byref(buffer), len(buffer)))
    return int(struct.unpack_from("=i", buffer.raw, 4)[0])


def load(kind: int, code: bytes, *, expected: int = 0, btf_id: int = 0) -> int:
    """Load a program; its descriptor. Raises KernelError with the verifier's last word."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")

    def attribute(level: int) -> bytes:
        head = struct.pack(
            "=IIQQIIQII16sII",
            kind, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence),
            level, len(log) if level else 0, ctypes.addressof(log) if level else 0, 0, 0, b"ks_probe", 0, expected,
        )  # fmt: skip
        return head + struct.pack("=IIQIIQIII", 0, 0, 0, 0, 0, 0, 0, btf_id, 0) + bytes(4)

    try:
        return _bpf("load", _PROG_LOAD, attribute(0))
    except KernelError as first:
        try:  # again for the log: asking for it at once would fail programs whose log does not fit
            return _bpf("load", _PROG_LOAD, attribute(1))
        except KernelError:
            lines = [x for x in log.value.decode(errors="replace").splitlines() if x and not x.startswith("processed")]
            if lines:
                raise syscalls.error("load", first.code, f"the verifier says: {lines[-1]}") from first
            hint = (
                "the kernel refuses it whatever our privileges, or we lack CAP_BPF" if first.code == errno.EPERM else ""
            )
            raise syscalls.error("load", first.code, hint) from None


def create_map(kind: int, key: int, value: int, entries: int) -> int:
    return _bpf("create the map", _MAP_CREATE, struct.pack("=IIIIII", kind, key, value, entries, 0, 0) + bytes(48))


def link(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attach by a link: to a cgroup, a device (by index), or (``target`` 0) where the program was loaded for. Closing it
    detaches."""
    return _bpf("attach", _LINK_CREATE, struct.pack("=IIII", program, target, attach_type, flags) + bytes(32))


def link_update(link_fd: int, program: int) -> None:
    """Put another program in the place of a link's, with no moment without one."""
    _bpf("replace a link's program", _LINK_UPDATE, struct.pack("=IIII", link_fd, program, 0, 0))


def link_device(link_fd: int) -> int:
    """The index of the device that a tcx link is attached to; 0 = it is gone, or this is no such link."""
    kind, device = struct.unpack_from("=I12xI", _link_info(link_fd))
    return int(device) if kind == _LINK_TCX else 0


def link_program(link_fd: int) -> int:
    """The id of the program that a link attaches."""
    return int(struct.unpack_from("=I", _link_info(link_fd), 8)[0])


def programs_at(device: int, attach_type: int) -> list[int]:
    """The ids of the programs at a device (tcx), in the order in which they are asked."""
    ids = (ctypes.c_uint * _MOST_AT_A_DEVICE)()
    head = struct.pack("=IIIIQII", device, attach_type, 0, 0, ctypes.addressof(ids), len(ids), 0)
    buffer = ctypes.create_string_buffer(head + bytes(32), len(head) + 32)
    number = _NR_BPF.get(platform.machine(), -1)
    syscalls.checked("ask who is at a device", syscalls.raw(number, _QUERY, ctypes.byref(buffer), len(buffer)))
    return list(ids)[: struct.unpack_from("=I", buffer.raw, 24)[0]]


def tag(program: int) -> bytes:
    """What the kernel calls a program's instructions by: equal for those that do the same."""
    return _info("describe a program", program)[8:16]


def tag_by_id(number: int) -> bytes:
    """The same of somebody's program. Raises Gone."""
    fd = _bpf("open a program", _PROG_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        return tag(fd)
    finally:
        os.close(fd)


def link_cgroup(link_fd: int) -> int:
    """The id of the cgroup that a link is attached to; 0 = it is gone, or this is no such link."""
    kind, cgroup = struct.unpack_from("=I12xQ", _link_info(link_fd))
    return int(cgroup) if kind == _LINK_CGROUP else 0


def _link_info(link_fd: int) -> bytes:
    return _info("describe a link", link_fd)


def _info(what: str, fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    _bpf(what, _OBJ_INFO, struct.pack("=IIQ", fd, len(buffer), ctypes.addressof(buffer)))
    return buffer.raw


def test_frame(program: int, frame: bytes, device: int) -> int:
    """What a program for frames answers to this one, as if it went over that device (an index in our network namespace).
    Nothing is sent."""
    text = ctypes.create_string_buffer(frame, len(frame))
    skb = ctypes.create_string_buffer(192)  # struct __sk_buff, of which only the index is set
    struct.pack_into("=I", skb, 40, device)
    attribute = struct.pack(
        "=IIIIQQIIIIQQ",
        program,
        0,
        len(frame),
        0,
        ctypes.addressof(text),
        0,
        1,
        0,
        len(skb),
        0,
        ctypes.addressof(skb),
        0,
    )
    buffer = ctypes.create_string_buffer(attribute + bytes(16), len(attribute) + 16)
    return _answer(buffer)


def tracepoint(program: int, name: str | None = None) -> int:
    """Attach to a raw tracepoint by its name, or (None) to the hook that the program was loaded for."""
    text = ctypes.create_string_buffer(name.encode()) if name else None
    attribute = struct.pack("=QII", ctypes.addressof(text) if text else 0, program, 0) + bytes(8)
    return _bpf("attach", _RAW_TRACEPOINT_OPEN, attribute)


def perf_event(kind: int, config: int, config1: int = 0) -> int:
    """A disabled perf event on the calling thread."""
    attribute = struct.pack("=IIQQQQQIIQQ", kind, 112, config, 10_000_000, 0, 0, 1, 0, 0, config1, 0) + bytes(40)
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    number = _NR_PERF.get(platform.machine())
    if number is None:
        raise syscalls.error("perf_event_open", errno.ENOSYS, f"its number on {platform.machine()} is not known here")
    return syscalls.checked("perf_event_open", syscalls.raw(number, ctypes.byref(buffer), 0, -1, -1, 8))


def set_bpf(event: int, program: int) -> None:
    try:
        fcntl.ioctl(event, _PERF_SET_BPF, program)
    except OSError as e:
        raise syscalls.error("attach to a perf event", e) from e


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """While this is entered, the kernel counts what programs cost (which itself costs some 20 ns a run)."""
    fd = _bpf("count what programs cost", _ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


def run_time(program: int) -> tuple[int, int]:
    """(nanoseconds, runs) of a program while ``statistics`` was entered, over all CPUs."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{program}").read_text().splitlines() if ":" in line
    )
    return int(fields.get("run_time_ns", 0)), int(fields.get("run_cnt", 0))
