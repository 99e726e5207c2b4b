"""Whether the tests run in an emulated machine (``tests/vm``), where a CPU is some twenty times slower."""

from __future__ import annotations

import os

import pytest

EMULATED = bool(os.environ.get("KS_TEST_VM"))

# For a test that does to the whole host what must not be done to the machine that it runs on.
only_in_vm = pytest.mark.skipif(not EMULATED, reason="runs only in a virtual machine of its own: make test-vm")


def crowd(processes: int) -> int:
    """How many processes stand for a crowd of so many: fewer where they would do nothing but wait for a CPU."""
    return max(8, processes // 8) if EMULATED else processes
