"""Names for hot addresses, by the helper process ``symbolize``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

HELPER = Path(__file__).with_name("symbolize.py")
SYSTEM_PYTHON = Path("/usr/bin/python3")  # where Debian's python3-bpfcc can be imported
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Named:
    pid: int
    address: int
    samples: int
    function: str  # "name+0x1f", "" = unknown
    module: str


def name(
    hot: tuple[tuple[int, int, int], ...], timeout_s: float = TIMEOUT_S, python: Path = SYSTEM_PYTHON
) -> tuple[list[Named], str]:
    """(hot addresses, named where that can be; why they are not, "" when they are). Never raises. Hottest first."""
    hot = tuple(sorted(hot, key=lambda h: -h[2]))
    wanted: dict[str, list[int]] = defaultdict(list)
    for pid, address, _ in hot:
        if address not in wanted[str(pid)]:
            wanted[str(pid)].append(address)
    answers, problem = _ask(wanted, timeout_s, python)
    names = {(int(pid), a): row for pid, rows in answers.items() for a, row in zip(wanted[pid], rows, strict=True)}
    return [Named(p, a, n, *names.get((p, a), ("", ""))) for p, a, n in hot], problem


def _ask(wanted: dict[str, list[int]], timeout_s: float, python: Path) -> tuple[dict[str, list[tuple[str, str]]], str]:
    program = python if python.exists() else Path(sys.executable)
    try:
        ran = subprocess.run(
            [program, "-I", HELPER],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": "/usr/bin:/bin", "DEBUGINFOD_URLS": ""},
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return {}, f"functions are not named: {e}"
    if ran.returncode:
        last = ran.stderr.strip().rpartition("\n")[2] or f"it ended with status {ran.returncode}"
        return {}, f"functions are not named: {last}"
    try:
        answers = {p: [(str(r[0]), str(r[1])) for r in rows] for p, rows in json.loads(ran.stdout).items()}
        if {p: len(rows) for p, rows in answers.items()} == {p: len(a) for p, a in wanted.items()}:
            return answers, ""
    except (ValueError, LookupError, AttributeError, TypeError):
        pass  # it has read what a workload wrote, and may have been led astray
    return {}, "functions are not named: the symbolizer's answer cannot be read"
