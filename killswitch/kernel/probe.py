"""What this kernel can and cannot enforce, found out by trying; never by its version.

Each trial loads and attaches a program of two instructions, or makes the very call that is needed, on something of our
own, and undoes it. An answer is kept for the life of the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import KernelError, NotSupported
from killswitch.kernel import bpfcall, cgroupfs, libbpf, procfs, sockdiag, syscalls, uncovered
from killswitch.kernel.mounts import mounts

_KPROBE, _PERF_EVENT, _CGROUP_SKB, _CGROUP_SOCK, _SOCK_OPS, _RAW_TP, _SOCK_ADDR, _TRACING, _LSM = (
    2, 7, 8, 9, 13, 17, 18, 26, 29,
)  # fmt: skip
_AT_RAW_TP, _AT_FENTRY, _AT_LSM = 23, 24, 27  # expected attach types of tracing programs
_AT_SOCK_CREATE = 2
_RINGBUF, _CGROUP_STORAGE = 27, 19  # map types
_SEND_SIGNAL = 109  # helper
_CAPS = {"CAP_DAC_READ_SEARCH": 2, "CAP_KILL": 5, "CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21}
_CAPS |= {"CAP_PERFMON": 38, "CAP_BPF": 39}


@dataclass(frozen=True, slots=True)
class Capability:
    name: str
    promise: str  # what rests on it
    available: bool
    reason: str  # one line: why not, or what was done to find out


@dataclass(frozen=True, slots=True)
class Trial:
    name: str
    promise: str
    attempt: Callable[[], str]  # what was seen; raises KernelError or OSError when it cannot be done


_TRIALS: list[Trial] = []


def _trial(name: str, promise: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    def keep(attempt: Callable[[], str]) -> Callable[[], str]:
        _TRIALS.append(Trial(name, promise, attempt))
        return attempt

    return keep


@functools.cache
def capabilities() -> tuple[Capability, ...]:
    """Every trial's answer. Takes about a tenth of a second the first time; never raises."""
    return tuple(_attempt(t) for t in _TRIALS)


def _attempt(trial: Trial) -> Capability:
    try:
        return Capability(trial.name, trial.promise, True, trial.attempt())
    except (KernelError, OSError, AttributeError) as e:  # AttributeError: a libbpf without the function
        return Capability(trial.name, trial.promise, False, " ".join(str(e).split()))


@contextlib.contextmanager
def _held(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _own_cgroup() -> Iterator[Path]:
    path = cgroupfs.find_mount() / f"ks-probe-{os.getpid()}"
    cgroupfs.create(path)
    try:
        yield path
    finally:
        cgroupfs.remove(path)


def _btf_id(name: str, attach_type: int) -> int:
    found = int(libbpf.lib().libbpf_find_vmlinux_btf_id(name.encode(), attach_type))
    if found <= 0:
        raise syscalls.error(f"find {name} in the kernel's BTF", -found or 2, "this kernel has no such hook")
    return found


def _at_btf_hook(kind: int, hook: str, attach_type: int, code: bytes) -> str:
    with (
        _held(bpfcall.load(kind, code, expected=attach_type, btf_id=_btf_id(hook, attach_type))) as program,
        _held(bpfcall.tracepoint(program)),
    ):
        return f"attached to {hook}"


def _at_cgroup(kind: int, attach_types: dict[str, int]) -> str:
    with _own_cgroup() as path, _held(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as cgroup:
        for attach_type in attach_types.values():
            expected = 0 if kind == _SOCK_OPS else attach_type
            with (
                _held(bpfcall.load(kind, bpfcall.allow(), expected=expected)) as program,
                _held(bpfcall.link(program, cgroup, attach_type)),
            ):
                pass
    return f"attached to a cgroup: {', '.join(attach_types)}"


# --- the trials, in the order of the promises that rest on them -------------------------------------------------------


@_trial("capabilities", "everything: the kernel lets us do what the rest needs")
def _privileges() -> str:
    status = procfs.read_bytes(os.getpid(), "status")
    effective = int(next(x for x in status.splitlines() if x.startswith(b"CapEff:")).split()[1], 16)
    missing = [name for name, bit in _CAPS.items() if not effective >> bit & 1]
    if missing:
        raise KernelError("capabilities", 1, f"missing: {', '.join(missing)}; run as root, see the systemd unit")
    return "all are there"


@_trial("btf", "one object for all kernels: the kernel describes its own types")
def _btf() -> str:
    return f"/sys/kernel/btf/vmlinux, {Path('/sys/kernel/btf/vmlinux').stat().st_size} bytes"


@_trial("bpffs", "containment survives the daemon: programs and maps are pinned")
def _bpffs() -> str:
    found = mounts("bpf")
    if not found:
        raise NotSupported("bpffs", 19, "not mounted: mount -t bpf bpf /sys/fs/bpf (the daemon does so when it starts)")
    return f"mounted at {', '.join(str(m.point) for m in found)}"


@_trial("tp_btf", "first instruction: execs are judged before they run; forks, exits, cgroup moves are seen")
def _tp_btf() -> str:
    return _at_btf_hook(_TRACING, "sched_process_exec", _AT_RAW_TP, bpfcall.allow(0))


@_trial("bpf_send_signal", "first instruction: the kernel itself kills what a rule forbids")
def _send_signal() -> str:
    code = bpfcall.mov(1, 0) + bpfcall.call(_SEND_SIGNAL) + bpfcall.allow(0)
    hook = _btf_id("sched_process_exec", _AT_RAW_TP)
    with _held(bpfcall.load(_TRACING, code, expected=_AT_RAW_TP, btf_id=hook)):  # loaded, never attached
        return "the verifier takes it in a tracing program"


@_trial(
    "stop_leavers", "severed is severed: what leaves a workload that is cut off is killed by the kernel itself, at once"
)
def _stop_leavers() -> str:
    try:
        _btf_id("bpf_send_signal_task", _AT_FENTRY)
    except KernelError as e:
        hint = (
            "who moves itself or another is killed at once, a child that it lets out milliseconds later, by the daemon; "
            "until then it makes no inet socket"
        )
        raise NotSupported("kill whatever left, in the kernel", e.code, hint) from e
    return "the kernel has bpf_send_signal_task"


@_trial(
    "leavers_get_no_socket", "severed is severed: what leaves a workload that is cut off makes no inet socket elsewhere"
)
def _leavers_get_no_socket() -> str:
    root = os.open(cgroupfs.find_mount(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with (
            _held(bpfcall.load(_CGROUP_SOCK, bpfcall.allow(), expected=_AT_SOCK_CREATE)) as program,
            _held(bpfcall.link(program, root, _AT_SOCK_CREATE)),
        ):
            pass
    finally:
        os.close(root)
    return "attached to the root of the cgroup tree: sock_create"


@_trial("cgroup_skb", "severed is severed: packets are dropped both ways, of sockets old and new")
def _cgroup_skb() -> str:
    return _at_cgroup(_CGROUP_SKB, {"ingress": 0, "egress": 1})


@_trial("cgroup_sock_addr", "severed is severed: connect, sendmsg and bind are denied")
def _cgroup_sock_addr() -> str:
    hooks = {"bind4": 8, "bind6": 9, "connect4": 10, "connect6": 11, "sendmsg4": 14, "sendmsg6": 15}
    return _at_cgroup(_SOCK_ADDR, hooks)


@_trial("cgroup_sock_create", "severed is severed: no new inet socket is made")
def _cgroup_sock_create() -> str:
    return _at_cgroup(_CGROUP_SOCK, {"sock_create": 2})


@_trial("sockops", "no packet before judgement: a connection that is held goes on within milliseconds")
def _sockops() -> str:
    return _at_cgroup(_SOCK_OPS, {"sock_ops": 3})


@_trial("sock_diag_destroy", "severed is severed: open connections end, and do not come back with a release")
def _sock_diag() -> str:
    with socket.create_server(("127.0.0.1", 0)) as ours, sockdiag.Diag() as diag:
        inode = os.fstat(ours.fileno()).st_ino
        _, failed, remaining = sockdiag.destroy_matching(diag, lambda s: s.inode == inode, rounds=1)
        if failed or remaining:
            raise syscalls.error("destroy a socket of our own", failed[0][1] if failed else 95)
        missing = f"; not listed: {', '.join(sorted(diag.missing))}" if diag.missing else ""
    return f"destroyed a listening socket of our own{missing}"


@_trial("cgroup_freeze", "frozen is frozen")
def _freeze() -> str:
    with _own_cgroup() as path:
        cgroupfs.freeze(path, True)
        if not cgroupfs.is_frozen(path):
            raise NotSupported("freeze an empty cgroup", 95, "cgroup.events does not show it as frozen")
        cgroupfs.freeze(path, False)
        cgroupfs.cpu_usage_ns(path)
    return "froze a cgroup and read its CPU time"


@_trial("cgroup_kill", "terminate cannot be outrun by fork (without it: freeze, then signal each)")
def _kill() -> str:
    with _own_cgroup() as path:
        (path / "cgroup.kill").write_text("1")
    return "wrote cgroup.kill of an empty cgroup"


@_trial("pidfd", "not the wrong one: a signal cannot hit a process that has got a dead one's number")
def _pidfd() -> str:
    with _held(os.pidfd_open(os.getpid())) as fd:
        signal.pidfd_send_signal(fd, 0)
        select.poll().register(fd, select.POLLIN)
    return "opened, signalled and polled ourselves"


@_trial("pidfd_getfd", "severed is severed: sockets that sock_diag cannot destroy are shut down")
def _getfd() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, _held(os.pidfd_open(os.getpid())) as fd:
        os.close(syscalls.pidfd_getfd(fd, ours.fileno()))
    return "duplicated a descriptor of our own"


@_trial("perf_event", "sustained hashing: CPU use is sampled with the software clock")
def _perf() -> str:
    with _held(bpfcall.perf_event(1, 0)) as event, _held(bpfcall.load(_PERF_EVENT, bpfcall.allow(0))) as program:
        bpfcall.set_bpf(event, program)
    return "attached to a software clock"


@_trial("ringbuf", "events reach the daemon in batches, and what is lost is counted")
def _ringbuf() -> str:
    with _held(bpfcall.create_map(_RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE"))):
        return "made a ring buffer"


@_trial("cgroup_storage", "optional: state kept with a cgroup in the kernel")
def _storage() -> str:
    with _held(bpfcall.create_map(_CGROUP_STORAGE, 16, 8, 0)):
        return "made a cgroup storage map"


@_trial("fanotify", "persistence: writes to cron, units, logins' keys and the like are seen, with who did it")
def _fanotify() -> str:
    from killswitch.kernel import fanotify

    group = fanotify.Group()
    try:
        with _held(os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as etc:
            fanotify.node_of(etc)
            group.mark(etc, fanotify.CHANGES | fanotify.ON_CHILD)
    finally:
        group.close()
    return "marked /etc, for files made, written and renamed in it"


@_trial("raw_tp", "optional: tracepoints on kernels without BTF")
def _raw_tp() -> str:
    with (
        _held(bpfcall.load(_RAW_TP, bpfcall.allow(0))) as program,
        _held(bpfcall.tracepoint(program, "sched_process_exec")),
    ):
        return "attached to sched_process_exec"


@_trial("lsm", "optional, makes promises stronger: deny an exec, AF_UNIX and packet sockets outright")
def _lsm() -> str:
    active = Path("/sys/kernel/security/lsm")
    try:
        return _at_btf_hook(_LSM, "bprm_check_security", _AT_LSM, bpfcall.allow(0))
    except KernelError as e:
        with contextlib.suppress(OSError):
            if "bpf" not in active.read_text().split(","):
                raise syscalls.error(
                    "BPF LSM", e.code, "boot with bpf added to lsm= on the kernel's command line"
                ) from e
        raise


@_trial("fentry", "optional: kernel functions traced at no cost")
def _fentry() -> str:
    return _at_btf_hook(_TRACING, "bpf_fentry_test1", _AT_FENTRY, bpfcall.allow(0))


@_trial("kprobe", "optional: not needed by any promise")
def _kprobe() -> str:
    try:
        kind = int(Path("/sys/bus/event_source/devices/kprobe/type").read_text())
    except OSError as e:
        raise NotSupported("kprobe", 95, "this kernel offers no kprobe events") from e
    name = ctypes.create_string_buffer(b"kernel_clone")
    with (
        _held(bpfcall.perf_event(kind, 0, ctypes.addressof(name))) as event,
        _held(bpfcall.load(_KPROBE, bpfcall.allow(0))) as program,
    ):
        bpfcall.set_bpf(event, program)
    return "attached to kernel_clone"


_TRIALS += [Trial(*t) for t in uncovered.TRIALS]
