"""No silent pass: where everything was set up (``make test``), a test that finds something missing fails."""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

import tests.rig  # noqa: F401 (it sets up gRPC, before a test loads it)

# A crowded machine makes neither an example nor its making wrong: nothing here fails for being slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

MISSING = re.compile(r"not installed|apt install|needs root", re.IGNORECASE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip because of a missing program is a failure under KS_TEST_COMPLETE; what this *kernel* lacks is not."""
    report = yield
    if os.environ.get("KS_TEST_COMPLETE") and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if MISSING.search(reason):
            report.outcome, report.longrepr = "failed", f"{reason} (set-up is to install it: .ci/apt lab)"
    return report
