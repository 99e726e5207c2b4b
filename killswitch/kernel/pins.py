"""What is pinned where. One directory a generation, named by the hash of the object file that it was loaded from:

    pin_dir/<hash>/maps/<map>
                   programs/<program>
                   links/<tracing program>
                   cgroups/<cgroup id>/<cgroup program>
                   handed/<cgroup program>
                   outside/<cgroup program>

A generation is built in ``<hash>-new`` and renamed when it is complete, and to ``<hash>-old`` before its pins go: one that a
crash left half made, or half removed, is known by its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from killswitch.errors import KernelError
from killswitch.kernel import libbpf, refusal, syscalls

HALF_MADE, HALF_GONE = "-new", "-old"  # bpffs reserves dots in names
_NAME = re.compile(rf"[0-9a-f]{{16}}({HALF_MADE}|{HALF_GONE})?")


@dataclass(frozen=True, slots=True)
class Generation:
    path: Path

    @property
    def maps(self) -> Path:
        return self.path / "maps"

    @property
    def programs(self) -> Path:
        return self.path / "programs"

    @property
    def links(self) -> Path:
        return self.path / "links"

    @property
    def cgroups(self) -> Path:
        return self.path / "cgroups"

    @property
    def handed(self) -> Path:
        """Links on the root of the cgroup tree, for sockets that workloads were handed."""
        return self.path / "handed"

    @property
    def outside(self) -> Path:
        """Links on the root of the cgroup tree, for what leaves workloads."""
        return self.path / "outside"

    def cgroup(self, cgroup_id: int) -> Path:
        return self.cgroups / str(cgroup_id)

    @property
    def half_made(self) -> bool:
        """Or half removed: nothing of it counts any more."""
        return self.path.name.endswith((HALF_MADE, HALF_GONE))

    def create(self) -> None:
        for directory in (self.path, self.maps, self.programs, self.links, self.cgroups):
            make(directory)

    def completed(self) -> Generation:
        """Give it its final name: from now on it counts."""
        final = self.path.with_name(self.path.name.removesuffix(HALF_MADE))
        self.path.rename(final)
        return Generation(final)

    def remove_links(self) -> None:
        """Take the programs off the kernel's tracepoints; what is attached to cgroups stays."""
        for pin in entries(self.links):
            pin.unlink(missing_ok=True)

    def remove(self) -> None:
        """Detach and unpin everything, tracing first, maps last. Until all is detached it stays whole, by its name."""
        self.remove_links()
        for cgroup in entries(self.cgroups):
            detach_all(cgroup)
        detach_all(self.handed)
        detach_all(self.outside)
        path = self.path
        if not self.half_made and path.is_dir():
            path = path.rename(path.with_name(path.name + HALF_GONE))
        _remove_tree(path)


def name_of(obj: Path) -> str:
    """The generation's name: a hash of the object file. Raises KernelError when it cannot be read."""
    try:
        return hashlib.sha256(obj.read_bytes()).hexdigest()[:16]
    except OSError as e:
        raise syscalls.error(f"read the BPF object {obj}", e, refusal.REBUILD) from e


def generations(pin_dir: Path) -> list[Generation]:
    """What else lies there is not ours."""
    return [Generation(p) for p in sorted(entries(pin_dir)) if _NAME.fullmatch(p.name) and p.is_dir()]


def make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as e:
        raise syscalls.error(f"create {directory} on bpffs", e) from e


def entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def detach_all(directory: Path) -> None:
    """Detach the links pinned in a directory, here and now (letting go of a pin detaches only a little later)."""
    for pin in entries(directory):
        detach(pin)
    with contextlib.suppress(FileNotFoundError):
        directory.rmdir()


def detach(pin: Path) -> None:
    with contextlib.suppress(KernelError):  # gone with its cgroup, or a kernel that only detaches by unpinning
        fd = libbpf.obj_get(pin)
        try:
            libbpf.link_detach(fd)
        finally:
            os.close(fd)
    pin.unlink(missing_ok=True)


def _remove_tree(path: Path) -> None:
    for entry in entries(path):
        if entry.is_dir():
            _remove_tree(entry)
        else:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
