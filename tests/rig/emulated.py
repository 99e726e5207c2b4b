"""Whether the tests run in an emulated machine (``tests/vm``), where a CPU is some twenty times slower."""

from __future__ import annotations

import os

EMULATED = bool(os.environ.get("KS_TEST_VM"))


def patience(seconds: float) -> float:
    """How long to wait before giving up on what must come: longer where every program is slow."""
    return seconds * 6 if EMULATED else seconds


def crowd(processes: int) -> int:
    """How many processes stand for a crowd of so many: fewer where they would do nothing but wait for a CPU."""
    return max(8, processes // 8) if EMULATED else processes
