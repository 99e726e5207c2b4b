"""A network namespace in which nobody but severed workloads lives is sealed: at its devices nothing is let out, whoever sends.

The kernel sends much for a workload that holds CAP_NET_ADMIN over its namespace, by no socket of its own: what comes out of a
tun device, a tunnel or a bridge, what rules of netfilter and tc copy, forward or answer. Where others live as well (the host's
own namespace above all) it is theirs, too, and stays as it is.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from killswitch.contain.model import Plane
from killswitch.contain.protected import contains
from killswitch.errors import Gone, KernelError, NotSupported
from killswitch.kernel import cgroupfs, netns, procfs
from killswitch.kernel.frames import SEAL, Frames


def seal(plane: Plane, path: Path, lives: Mapping[int, int]) -> tuple[int, list[str]]:
    """Seal which of these network namespaces (inode → a thread of the workload in it) are the workload's alone: (how many
    devices are sealed, what could not be done). Blocks as ``steps.guard`` does, and some 10 us for each process of the host when
    there is one that is not the host's."""
    devices, errors = 0, []
    for inode in _own_of([_cgroup(path)], set(lives) - _of_the_host()):
        try:
            attached = plane.guard_namespace(inode, lives[inode], SEAL)
        except (Gone, NotSupported):
            continue
        except KernelError as e:
            errors.append(str(e))
            continue
        devices += len(attached.devices)
        errors += attached.errors if plane.frames.links else ()  # where there are none, `doctor` has said so
    return devices, errors


def review(frames: Frames, sealed: frozenset[int], severed: Iterable[int]) -> None:
    """Let go of what is sealed and no longer lived in by these workloads (cgroup ids) alone. ``sealed`` is looked up before
    ``severed``: who is severed meanwhile has his seal put on later than both, and keeps it. Blocks some milliseconds when
    anything is sealed."""
    if not sealed:
        return
    paths = []
    for cgroup in severed:
        with contextlib.suppress(Gone):
            paths.append(_cgroup(cgroupfs.path_of(cgroup)))
    for inode in sealed - _own_of(paths, sealed):
        frames.unseal(inode)


def _own_of(workloads: list[str], namespaces: Set[int]) -> set[int]:
    """Those in which somebody lives, and nobody who is not in one of these cgroups. Of a stranger's process any thread tells."""
    living: defaultdict[int, list[int]] = defaultdict(list)
    if namespaces:
        for pid in procfs.pids():
            with contextlib.suppress(KernelError):
                living[procfs.namespace(pid, "net")].append(pid)
    return {n for n in namespaces if living[n] and all(_lies_in(pid, workloads) for pid in living[n])}


def _lies_in(pid: int, workloads: list[str]) -> bool:
    """Who has ended since is nobody's stranger."""
    try:
        cgroup = procfs.cgroup(pid)
    except Gone:
        return True
    return any(contains(w, cgroup) for w in workloads)


def _of_the_host() -> set[int]:
    found = {netns.own()}
    with contextlib.suppress(KernelError):
        found.add(procfs.namespace(1, "net"))
    return found


def _cgroup(path: Path) -> str:
    return "/" + str(path.relative_to(cgroupfs.find_mount()))
