"""From pytest's reports to promise × kernel and way out × kernel."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from tests.vm.matrix import Report, escapes, table
from tests.vm.promises import PROMISES

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.kernel.test_dataplane_sever" name="test_a" time="1"/>
<testcase classname="tests.e2e.escapes.test_raw_icmp" name="test_b[root]"/>
<testcase classname="tests.e2e.escapes.test_raw_icmp" name="test_b[user]"><failure message="1 packet&#10;more"/></testcase>
<testcase classname="tests.e2e.escapes.test_sctp" name="test_c"><skipped message="no SCTP"/></testcase>
<testcase classname="tests.vm.service.test_3_after_reboot" name="test_d"/>
</testsuite></testsuites>"""


def test_a_report_says_what_passed_failed_and_could_not_be_tried(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(JUNIT)
    report = Report()
    report.add(junit)
    assert report.counts["3 severed is severed"] == {"passed": 2, "failed": 1, "skipped": 1}
    assert report.counts["5 it survives"] == {"passed": 1}
    assert report.failed()
    assert [(outcome, why) for _, outcome, why in report.told] == [("failed", "1 packet"), ("skipped", "no SCTP")]
    console = Console(width=120, record=True, file=(tmp_path / "screen").open("w"))
    console.print(table({"6.1": report, "5.10": Report()}), escapes({"6.1": report}))
    said = console.export_text()
    assert "2/3 (1 cannot be here)" in said and "not run" in said
    assert "raw icmp" in said and "1/2" in said


def test_a_machine_that_died_is_no_success() -> None:
    assert Report().failed()
    report = Report({"1 first instruction": Counter(passed=3)})
    assert not report.failed()
    report.ended_badly = True
    assert report.failed()


def test_every_file_that_stands_for_a_promise_is_there() -> None:
    root = Path(__file__).parents[3]
    assert [file for files in PROMISES.values() for file in files if not (root / file).exists()] == []
