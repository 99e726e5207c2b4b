"""``python -m tests.e2e.escapes``: every attempt, and a table of what was seen on this kernel; ``--document`` writes the page.

Other arguments are pytest's.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict

import pytest

from tests.e2e.escapes import ways

COLUMNS = ("run root", "run user", "watched root", "watched user")
WORDS = ("FAILED", "named", "held", "not tried")  # the first that applies to any of its tests


class Table:
    """Listens to pytest: file -> column -> what was seen."""

    def __init__(self) -> None:
        self._columns: dict[str, str] = {}
        self.seen: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            names = getattr(item, "fixturenames", ())
            ground = "watched" if "loose" in names or "make_daemon" in names else "run"
            user = "user" if "nobody" in item.name else "root"
            self._columns[item.nodeid] = f"{ground} {user}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        word = "not tried" if report.skipped else "held" if report.passed else "FAILED"
        if hasattr(report, "wasxfail"):
            word = "named"
        file = report.nodeid.split("::")[0].rpartition("/")[2].removeprefix("test_").removesuffix(".py")
        self.seen[file][self._columns[report.nodeid]].add(word)

    def lines(self) -> list[str]:
        head = f"{'way out':<22}" + "".join(f"{c:<14}" for c in COLUMNS)
        rows = [
            f"{f:<22}" + "".join(f"{self._word(c, columns):<14}" for c in COLUMNS)
            for f, columns in sorted(self.seen.items())
        ]
        tried = [word for columns in self.seen.values() for c in columns for word in [self._word(c, columns)]]
        total = ", ".join(f"{tried.count(word)} {word}" for word in WORDS)
        return ["", f"Attempts on {os.uname().release}", head, *rows, "", f"{len(self.seen)} ways out: {total}"]

    @staticmethod
    def _word(column: str, columns: dict[str, set[str]]) -> str:
        return next((word for word in WORDS if word in columns.get(column, ())), "")


def main(arguments: list[str]) -> int:
    if arguments == ["--document"]:
        ways.DOCUMENT.write_text(ways.document())
        return 0
    table = Table()
    status = pytest.main(["-q", "-p", "no:cacheprovider", str(ways.HERE), *arguments], plugins=[table])
    print("\n".join(table.lines()))
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
