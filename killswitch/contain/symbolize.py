"""A short-lived helper process that names functions with bcc's symbolizer.

Run as a file by the distribution's Python, where Debian puts bcc (package python3-bpfcc): it imports nothing of ours. It
reads the workload's own ELF files, which a workload may have crafted: so it is a process of its own, with little memory and
time, and what it says is a claim and not a fact.

In:  {"PID": [address, …], …} as JSON on standard input.
Out: {"PID": [[name, module], …], …}; "" where there is no name.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys

MAX_MEMORY = 2 << 30
MAX_CPU_S = 10


def stand_back() -> None:
    """The daemon is of the real-time class, and so is what it starts."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.nice(10)


def main() -> int:
    stand_back()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    try:
        from bcc import SymbolCache
    except ImportError as e:
        print(f"bcc is not there: {e}; install python3-bpfcc", file=sys.stderr)
        return 3
    wanted: dict[str, list[int]] = json.load(sys.stdin)
    named: dict[str, list[list[str]]] = {}
    for pid, addresses in wanted.items():
        cache = SymbolCache(int(pid))
        rows = named[pid] = []
        for address in addresses:
            name, offset, module = cache.resolve(address, True)
            text = (name or b"").decode("utf-8", "backslashreplace")
            rows.append([f"{text}+{offset:#x}" if text else "", (module or b"").decode("utf-8", "backslashreplace")])
    json.dump(named, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
