"""Compiles the stand-ins on demand, once for each version of their source."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
BUILT = Path(__file__).parents[2] / "build" / "rig"
FLAGS = {
    "nothing": ["-nostdlib", "-static", "-ffreestanding", "-O2"],
    "tracer": ["-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", "-O2"],
    "burner": ["-O2", "-static", "-pthread"],
    "miner": ["-O2", "-static", "-pthread", "-Wno-unused-result"],
    "hashes": ["-O2", "-pthread"],
    "memoryhard": ["-O2", "-pthread"],
    "randomx": ["-O2", "-pthread"],
    "sender": ["-O2", "-Wno-unused-result"],
}


def program(name: str, *extra: str) -> Path:
    """The compiled stand-in ``tests/rig/programs/<name>.c``. Raises RuntimeError with the compiler's words.

    ``extra``: options for this variant of it, behind its own (``-O0``, ``-march=native``).
    """
    source = PROGRAMS / f"{name}.c"
    flags = [*FLAGS.get(name, ["-O2", "-static"]), *extra]
    headers = b"".join(h.read_bytes() for h in sorted(PROGRAMS.glob("*.h")))
    key = hashlib.sha256(source.read_bytes() + headers + repr(flags).encode()).hexdigest()[:16]
    target = BUILT / key / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["gcc", *flags, "-o", target, source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"gcc {source.name}: {done.stderr}")
    return target
