"""Attaching the data plane: tracing programs to the kernel's tracepoints, cgroup programs to watched cgroups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import abi, libbpf, pins, syscalls
from killswitch.kernel.maps import Map

TRACING = ("on_exec", "on_fork", "on_exit", "on_move", "on_birth", "on_mkdir", "on_rmdir", "on_signal")
SAMPLER = "on_sample"

# bpf_attach_type of <linux/bpf.h>. The first is attached before the slot is told (there is nowhere to put it earlier) and
# must be one that does no harm without it; the packet programs come last and are never without.
CGROUP: dict[str, int] = {
    "on_sock_create": 2,
    "on_connect4": 10,
    "on_connect6": 11,
    "on_sendmsg4": 14,
    "on_sendmsg6": 15,
    "on_bind4": 8,
    "on_bind6": 9,
    "on_sockops": 3,
    "on_setsockopt": 22,
    "on_ingress": 0,
    "on_egress": 1,
}

# On a watched cgroup as well, where the kernel runs them: see ``unixhooks``. A libbpf before 1.4 does not know their types.
UNIX: dict[str, int] = {"on_connect_unix": 49, "on_sendmsg_unix": 50}

# At the root of the tree: what leaves a severed workload gets no socket elsewhere; and, once devices are guarded, none whose
# frames go round them. The rest works without, where the kernel takes them not.
OUTSIDE: dict[str, int] = {"on_socket_outside": 2, "on_option_outside": 22}
OUTSIDE_FRAMES = "on_option_outside"

# At the root of the tree, while a workload that is cut off holds sockets which it did not make: see ``handed``.
HANDED: dict[str, int] = {"on_handed_setsockopt": 22, "on_handed_ingress": 0, "on_handed_egress": 1}


def attach_tracing(generation: pins.Generation) -> None:
    """Attach what is not attached yet, each pinned."""
    for name in TRACING:
        if not (generation.links / name).exists():
            attach_to_hook(generation, name)


def attach_outside(generation: pins.Generation, mount: Path, *, frames: bool) -> list[str]:
    """Attach to the root of the tree what is not there, each pinned; their names. Takes some 0.1 ms when there are none.
    ``frames``: also what is of use once devices are guarded; it stays once it was. Raises KernelError: somebody's programs there
    may suffer none beside them."""
    frames = frames or any((g.outside / OUTSIDE_FRAMES).exists() for g in pins.generations(generation.path.parent))
    wanted = [name for name in OUTSIDE if frames or name != OUTSIDE_FRAMES]
    lost = [name for name in wanted if not _holds(generation.outside / name)]
    if lost:
        attach_to_root(generation, generation.outside, {name: OUTSIDE[name] for name in lost}, mount)
    return lost


def attach_to_root(generation: pins.Generation, directory: Path, programs: Mapping[str, int], mount: Path) -> None:
    """Attach to the root of the cgroup tree, each pinned in this directory. Raises KernelError."""
    pins.make(directory)
    with contextlib.ExitStack() as stack:
        try:
            root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise syscalls.error(f"open {mount}", e) from e
        stack.callback(os.close, root)
        for name, kind in programs.items():
            program = stack.enter_context(opened(generation.programs / name))
            link = libbpf.link_cgroup(program, root, kind, f"{name} to the root of the cgroup tree")
            stack.callback(os.close, link)
            (directory / name).unlink(missing_ok=True)  # of a link that somebody has detached
            libbpf.obj_pin(link, directory / name)


def attach_to_hook(generation: pins.Generation, name: str) -> None:
    """Attach one to the tracepoint or LSM hook that it was loaded for, pinned."""
    with opened(generation.programs / name) as program:
        link = libbpf.raw_tracepoint(program, f"BPF program {name} to its hook")
        try:
            libbpf.obj_pin(link, generation.links / name)
        finally:
            os.close(link)


def attach_cgroup(generation: pins.Generation, storage: Map, cgroup_fd: int, cgroup_id: int, slot: int) -> None:
    """Attach to a cgroup what is not attached yet, each pinned, and tell the programs which workload it is.

    Raises KernelError, with what was attached here detached again, when one cannot be attached; what had been attached
    before stays (it may be what keeps a workload severed).
    """
    directory = generation.cgroup(cgroup_id)
    pins.make(directory)
    told = False
    made: list[Path] = []
    try:
        for name, kind in _wanted(generation).items():
            pin = directory / name
            if not pin.exists():
                with opened(generation.programs / name) as program:
                    link = libbpf.link_cgroup(program, cgroup_fd, kind, f"{name} to cgroup {cgroup_id}")
                    try:
                        libbpf.obj_pin(link, pin)
                        made.append(pin)
                    finally:
                        os.close(link)
            if not told:
                storage.put(cgroup_id.to_bytes(8, "little"), abi.CGROUP_SLOT.codec.pack(cgroup_id, slot))
                told = True
    except KernelError:
        for pin in made:
            pins.detach(pin)
        with contextlib.suppress(OSError):  # not empty
            directory.rmdir()
        raise


def detached(generation: pins.Generation, cgroup_id: int) -> list[Path]:
    """Which of a cgroup's programs hold nothing: their pins, which are gone, or are of links that somebody has detached."""
    directory = generation.cgroup(cgroup_id)
    return [pin for name in _wanted(generation) if not _holds(pin := directory / name)]


def _wanted(generation: pins.Generation) -> dict[str, int]:
    return {**CGROUP, **{name: at for name, at in UNIX.items() if (generation.programs / name).exists()}}


def _holds(pin: Path) -> bool:
    try:
        with opened(pin) as link:
            told = Path(f"/proc/self/fdinfo/{link}").read_text().split()
    except KernelError:
        return False
    return "cgroup_id:" not in told or told[told.index("cgroup_id:") + 1] != "0"


@contextlib.contextmanager
def opened(pin: Path) -> Iterator[int]:
    fd = libbpf.obj_get(pin)
    try:
        yield fd
    finally:
        os.close(fd)


def places(cgroup_path: Path) -> Iterator[tuple[int, int]]:
    """(pid, cgroup id) of every process in a cgroup and below it."""
    for directory, _, _ in os.walk(cgroup_path):
        with contextlib.suppress(OSError):  # it went while we looked
            cgroup_id = Path(directory).stat().st_ino
            for pid in Path(directory, "cgroup.procs").read_text().split():
                yield int(pid), cgroup_id
