"""The LSM programs of the data plane: optional, each for itself. What a kernel refuses is left out, with its reason; nothing
rests on them.

They lie in the same object file as the rest and use the same maps, and are pinned beside the others. What is pinned already
is kept; what is not is tried again by each daemon that starts: a load of two instructions where the kernel has no BPF LSM.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import attach, bpfcall, libbpf, pins, syscalls

log = logging.getLogger("killswitch.dataplane")

PREFIX = "lsm_"
_LSM, _AT_LSM = 29, 27  # program type, expected attach type


@dataclass(frozen=True, slots=True)
class Hook:
    hook: str  # of the kernel
    does: str  # for people: what is denied


PROGRAMS: Mapping[str, Hook] = {
    "lsm_exec": Hook("bprm_creds_from_file", "execs that a rule denies by name, path or file"),
    "lsm_socket": Hook("socket_create", "severed: sockets of other families than unix and inet; guarded: AF_XDP"),
    "lsm_connect": Hook("socket_connect", "severed: connections over sockets made outside, or of other families"),
    "lsm_sendmsg": Hook("socket_sendmsg", "severed: sending to unix peers outside, over foreign sockets and other families"),
    "lsm_recvmsg": Hook("socket_recvmsg", "severed: receiving from those"),
    "lsm_unix_connect": Hook("unix_stream_connect", "severed: unix connections to and from the outside"),
    "lsm_unix_send": Hook("unix_may_send", "severed: unix datagrams to and from the outside"),
    "lsm_file_receive": Hook("file_receive", "severed: taking in sockets that were made outside, and devices"),
    "lsm_ptrace": Hook("ptrace_access_check", "guarded, severed: ptrace, memory and descriptors of processes outside"),
    "lsm_kill": Hook("task_kill", "guarded, severed: signals to processes outside"),
    "lsm_bpf": Hook("bpf", "guarded, severed: bpf()"),
    "lsm_umount": Hook("sb_umount", "guarded: unmounting bpffs, and with it what is pinned"),
    "lsm_inode": Hook("inode_permission", "guarded: files of cgroups outside and of its own containment, pins in bpffs"),
    "lsm_read_file": Hook("kernel_read_file", "guarded: loading kernel modules and kernels"),
    "lsm_load_data": Hook("kernel_load_data", "guarded: the same from memory"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strengthened:
    """A promise that is stronger where these programs are in force, and the rows of ``uncovered`` that go with that."""

    name: str
    promise: str
    programs: tuple[str, ...]
    covers: tuple[str, ...] = ()


_TRANSFER = ("lsm_sendmsg", "lsm_recvmsg")
STRENGTHENED = (
    Strengthened("lsm_exec", "first instruction: rules with `deny` refuse the exec (without: kill_process)", ("lsm_exec",)),
    Strengthened(
        "lsm_other_sockets", "severed is severed: sockets that are not inet, of whatever age",
        ("lsm_socket", "lsm_connect", *_TRANSFER), ("no_packet_sockets", "no_xdp_sockets", "no_vsock"),
    ),
    Strengthened(
        "lsm_unix_sockets", "severed is severed: no process outside is asked over a unix socket",
        ("lsm_unix_connect", "lsm_unix_send", *_TRANSFER), ("no_unix_helpers", "unix_connections"),
    ),
    Strengthened(
        "lsm_foreign_sockets", "severed is severed: sockets that somebody outside passes in after the cut",
        ("lsm_file_receive", "lsm_connect", *_TRANSFER), ("no_handed_sockets",),
    ),
    Strengthened(
        "lsm_processes", "tampering: no hand on processes outside, where policies guard them or once severed",
        ("lsm_ptrace", "lsm_kill"),
    ),
    Strengthened(
        "lsm_own_programs", "severed is severed: no BPF program of its own is loaded, attached or run",
        ("lsm_bpf",), ("no_own_programs",),
    ),
    Strengthened("lsm_cgroup_files", "frozen is frozen: no hand on the cgroup files that contain it", ("lsm_inode",)),
    Strengthened(
        "lsm_pins", "it survives: no bpf() and no hand on pins, where policies guard them or once severed",
        ("lsm_bpf", "lsm_inode", "lsm_umount"),
    ),
    Strengthened(
        "lsm_kernel_code", "tampering: no modules and no other kernel, where policies guard them or once severed",
        ("lsm_read_file", "lsm_load_data"),
    ),
    Strengthened(
        "lsm_tampering", "tampering: whichever way it takes, it is refused where policies guard or once severed, and seen",
        ("lsm_ptrace", "lsm_kill", "lsm_bpf", "lsm_unix_connect"), ("all_tampering_seen",),
    ),
)  # fmt: skip


def strengthened(left_out: Mapping[str, str]) -> tuple[tuple[Strengthened, str], ...]:
    """Each with why it is not so here; "" = it is."""
    return tuple((s, next((left_out[p] for p in s.programs if p in left_out), "")) for s in STRENGTHENED)


def told(left_out: Mapping[str, str]) -> str:
    """One line: how many are in force, and why the others are not."""
    count = f"{len(PROGRAMS) - len(left_out)} of {len(PROGRAMS)} programs"
    return f"{count}; {next(iter(left_out.values()))}" if left_out else count


def is_optional(program: str) -> bool:
    return program.startswith(PREFIX)


@functools.cache
def refusal() -> str:
    """Why this kernel has no BPF LSM, in one line; "" = it has."""
    try:
        hook = int(libbpf.lib().libbpf_find_vmlinux_btf_id(b"file_open", _AT_LSM))
        if hook <= 0:
            raise syscalls.error("find file_open in the kernel's BTF", -hook or 2, "this kernel has no such hook")
        program = bpfcall.load(_LSM, bpfcall.allow(0), expected=_AT_LSM, btf_id=hook)
        try:
            os.close(bpfcall.tracepoint(program))
        finally:
            os.close(program)
    except KernelError as e:
        why = f"no BPF LSM here: {' '.join(str(e).split())}"
        with contextlib.suppress(OSError):
            if "bpf" not in Path("/sys/kernel/security/lsm").read_text().strip().split(","):
                return f"{why}; boot with bpf added to lsm= on the kernel's command line"
        return why
    return ""


def arm(generation: pins.Generation, obj: Path) -> dict[str, str]:
    """Load, pin and attach what is not yet. Returns what is left out, and why; raises nothing that a kernel may say."""
    missing = [name for name in PROGRAMS if not (generation.links / name).exists()]
    if not missing:
        return {}
    if why := refusal():
        return dict.fromkeys(missing, why)
    left_out = _load(generation, obj, [name for name in missing if not (generation.programs / name).exists()])
    for name in missing:
        if name not in left_out:
            try:
                attach.attach_to_hook(generation, name)
            except KernelError as e:
                left_out[name] = " ".join(str(e).split())
    for name, why in left_out.items():
        log.warning("LSM program %s is left out: %s", name, why)
    return left_out


def _load(generation: pins.Generation, obj: Path, names: list[str]) -> dict[str, str]:
    """All at once, or where that fails each for itself, so that one that is refused takes none with it."""
    if not names:
        return {}
    maps = {pin.name: libbpf.obj_get(pin) for pin in pins.entries(generation.maps)}
    left_out: dict[str, str] = {}
    try:
        try:
            _load_some(generation, obj, frozenset(names), maps)
        except KernelError:
            for name in names:
                try:
                    _load_some(generation, obj, frozenset({name}), maps)
                except KernelError as e:
                    left_out[name] = " ".join(str(e).split())
    finally:
        for fd in maps.values():
            os.close(fd)
    return left_out


def _load_some(generation: pins.Generation, obj: Path, names: frozenset[str], maps: Mapping[str, int]) -> None:
    with libbpf.loaded(obj, wanted=names.__contains__, maps=maps) as loaded:
        for name, fd in loaded.programs():
            libbpf.obj_pin(fd, generation.programs / name)
