"""What a daemon has in the kernel and on the disk, counted: what is still there after it should be gone is a leak."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from killswitch.kernel import libbpf

_ID = re.compile(r"^(map|prog|link)_id:\s*(\d+)$", re.MULTILINE)
Objects = frozenset[tuple[str, int]]  # (map, prog or link; id): the kernel gives an id out again only after 2^31 others


def pinned(pin_dir: Path) -> Objects:
    """Every BPF object that is pinned below ``pin_dir``."""
    return frozenset(found for pin in pin_dir.rglob("*") if pin.is_file() for found in _object(pin))


def _object(pin: Path) -> set[tuple[str, int]]:
    fd = libbpf.obj_get(pin)
    try:
        found = [(kind, int(number)) for kind, number in _ID.findall(Path(f"/proc/self/fdinfo/{fd}").read_text())]
    finally:
        os.close(fd)
    # A link's fdinfo names its program as well.
    return {o for o in found if o[0] == "link"} or set(found)


def present() -> dict[tuple[str, int], dict[str, object]]:
    """Every BPF object of the host, whoever made it, with what bpftool tells of it. Raises RuntimeError without bpftool."""
    tool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    found: dict[tuple[str, int], dict[str, object]] = {}
    for kind in ("map", "prog", "link"):
        done = subprocess.run([tool, "--json", kind, "show"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"bpftool {kind} show: {done.stdout.strip() or done.stderr.strip()}")
        for entry in json.loads(done.stdout or "[]"):
            found[kind, int(entry["id"])] = entry
    return found


def leaked(ever: Objects, pin_dir: Path) -> list[str]:
    """What of ours exists in the kernel and is pinned nowhere: of ``ever``, which were pinned once, or which uses what is
    pinned. Only while no daemon runs: a running one holds a few for itself."""
    now, there = pinned(pin_dir), present()
    ours = ever | now
    maps = {number for kind, number in ours if kind == "map"}
    programs = {number for kind, number in ours if kind == "prog"}
    left = {o for o in ours - now if o in there}
    for (kind, number), entry in there.items():
        used = entry.get("map_ids")
        if (kind == "prog" and isinstance(used, list) and maps & set(used)) or (
            kind == "link" and entry.get("prog_id") in programs
        ):
            left.add((kind, number))
    return [f"{kind} {number} ({there[kind, number].get('name', '')})" for kind, number in sorted(left - now)]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a daemon's process holds, read at the same point of its life as another's."""

    descriptors: int
    threads: int
    resident_kib: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return cls(len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0]))  # noqa: PTH208 - only how many
