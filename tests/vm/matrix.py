"""From pytest's reports of several kernels to one table: promise × kernel."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tests.vm.promises import PROMISES, SERVICE, promise_of

ESCAPES = "tests/e2e/escapes/"


@dataclass(slots=True)
class Report:
    """What came of one kernel's tests."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)  # promise -> passed, failed, skipped
    told: list[tuple[str, str, str]] = field(default_factory=list)  # (test, failed or skipped, why): not plain passing
    attempts: dict[str, Counter[str]] = field(default_factory=dict)  # way out (a file of tests/e2e/escapes) -> outcomes
    ended_badly: bool = False  # a machine did not come to its end, or a command failed

    def failed(self) -> bool:
        return self.ended_badly or any(count["failed"] for count in self.counts.values()) or not self.counts

    def add(self, junit: Path) -> None:
        """A JUnit file as pytest writes it."""
        for case in ET.parse(junit).getroot().iter("testcase"):
            file = case.get("classname", "").replace(".", "/") + ".py"
            node = f"{file}::{case.get('name')}"
            outcome, why = "passed", ""
            for child in case:
                if child.tag in ("failure", "error"):
                    outcome, why = "failed", (child.get("message") or "").partition("\n")[0]
                elif child.tag == "skipped":
                    outcome, why = "skipped", (child.get("message") or "").partition("\n")[0]
            self.counts.setdefault(promise_of(node) or "other", Counter())[outcome] += 1
            if file.startswith(ESCAPES):
                way = Path(file).stem.removeprefix("test_").replace("_", " ")
                self.attempts.setdefault(way, Counter())[outcome] += 1
            if outcome != "passed":
                self.told.append((node, outcome, why))


def table(reports: Mapping[str, Report]) -> Table:
    out = Table(title="Promise × kernel: tests passed", title_justify="left")
    out.add_column("promise")
    for kernel in reports:
        out.add_column(kernel, justify="right")
    rows = [*PROMISES, SERVICE, "other"]
    for promise in rows:
        if any(promise in report.counts for report in reports.values()):
            out.add_row(promise, *(_cell(report.counts.get(promise)) for report in reports.values()))
    return out


def escapes(reports: Mapping[str, Report]) -> Table:
    """Ways out that were tried × kernel; one that cannot be tried on a kernel, or is not claimed there, is a skip."""
    out = Table(title="Way out × kernel: attempts that came to nothing", title_justify="left")
    out.add_column("way out")
    for kernel in reports:
        out.add_column(kernel, justify="right")
    for way in sorted({way for report in reports.values() for way in report.attempts}):
        out.add_row(way, *(_cell(report.attempts.get(way)) for report in reports.values()))
    return out


def _cell(count: Counter[str] | None) -> Text:
    if count is None:
        return Text("not run", "dim")
    tried = count["passed"] + count["failed"]
    said = f"{count['passed']}/{tried}" + (f" ({count['skipped']} cannot be here)" if count["skipped"] else "")
    return Text(said, "red" if count["failed"] else "green")
