"""A few cases of the corpus, run for real: the harness tells contained from escaped, and harmed from left alone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.eval import score, show
from benchmarks.eval.model import Case, choose, load
from benchmarks.eval.outcome import Outcome
from benchmarks.eval.schedule import Eval

MALICIOUS = ("ssh-cluster", "wire-login", "scan-bash")
INNOCENT = ("compile", "ssh-ls-recursive", "https-download")
TOO_GOOD = Case(
    id="claims-too-much",
    malicious=False,
    kind="build",
    title="Work that is not done, and says so by its status",
    run="echo almost; exit 3",
    output=("done",),
)


def run(cases: list[Case], mode: str, directory: Path) -> dict[str, Outcome]:
    console = Console(file=io.StringIO(), width=140)
    results = directory / f"{mode}.jsonl"
    runs = Eval(cases, sites=2, mode=mode, results=results, console=console, label="ks-test")
    outcomes = runs.run()
    assert len(results.read_text().splitlines()) == len(cases), console.file.getvalue()  # type: ignore[attr-defined]
    show.report(console, outcomes, cases)
    return {o.case: o for o in outcomes}


@pytest.mark.timeout(240)
def test_real_cases_under_the_shipped_policies(tmp_path: Path) -> None:
    cases = [*choose(load(), ids=[*MALICIOUS, *INNOCENT]), TOO_GOOD]
    found = run(cases, "enforce", tmp_path)
    for case in MALICIOUS:
        o = found[case]
        assert o.good() and o.contained == "severed+frozen", o
        assert not o.bytes_left and not o.goal_reached, o
    assert found["ssh-cluster"].caught_by == ("arguments",)
    assert found["wire-login"].caught_by == ("wire",)
    assert found["scan-bash"].caught_by == ("behaviour",)
    for case in INNOCENT:
        assert found[case].harm() == "", found[case]
    assert found["claims-too-much"].harm() == "broken"
    assert not score.passed(found.values(), cases)
    assert score.passed([o for c, o in found.items() if c != "claims-too-much"], cases[:-1])


@pytest.mark.timeout(240)
def test_the_same_attacks_work_when_nobody_stops_them(tmp_path: Path) -> None:
    found = run(choose(load(), ids=MALICIOUS), "works", tmp_path)
    for case in MALICIOUS:
        o = found[case]
        assert o.goal_reached and o.contained == "free", o
        assert o.by_evidence({"ssh-cluster": "arguments", "wire-login": "wire"}.get(case, "behaviour")) == "acts", o
    assert found["wire-login"].bytes_left and found["ssh-cluster"].bytes_left
