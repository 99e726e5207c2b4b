"""``make eval``: the corpus, run for real under the shipped policies. Exit status 0 only if every malicious case was stopped
and no innocent one was harmed.

  make eval EVAL_ARGS="--quick"                     a few of each
  make eval EVAL_ARGS="--only tunnel --case 'ssh-*'"  a class, or a label (malicious, innocent); cases by id
  make eval EVAL_ARGS="--monitor --only malicious"  do the attacks work when nobody stops them, and what finds them all
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.eval import score, show
from benchmarks.eval.model import Case, CorpusError, choose, load
from benchmarks.eval.outcome import Outcome
from benchmarks.eval.runner import Bench, run_case
from benchmarks.eval.site import Site
from killswitch.config import SHIPPED_POLICIES
from tests.rig.daemon import Daemon

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build/eval/results.jsonl"
VENV = ROOT / "build/eval/venv"


def policies(*, enforce: bool) -> dict[str, str]:
    texts = {f.name: f.read_text() for f in sorted(SHIPPED_POLICIES.glob("*.yaml"))}
    return texts if enforce else {n: t.replace("\nmode: enforce", "\nmode: monitor") for n, t in texts.items()}


def rule_kinds(texts: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Rule -> (evidence, act), as the policies say."""
    rules = [r for text in texts for r in yaml.safe_load(text).get("rules", ())]
    return {r["id"]: (str(r.get("evidence", "")), str(r.get("act", ""))) for r in rules}


class Eval:
    """Runs cases on several sites side by side. ``cores`` are shared out: a case that needs one waits for it."""

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        sites: int,
        enforce: bool,
        results: Path,
        console: Console,
        label: str = "ks-bench",
    ) -> None:
        self.cases, self.console, self.enforce, self.label = cases, console, enforce, label
        self.results_file = results
        self.outcomes: list[Outcome] = []
        self._sites = sites
        self._cores = max(1, os.cpu_count() or 1)
        self._free = self._cores
        self._turn = threading.Condition()
        self._waiting: list[Case] = sorted(cases, key=lambda c: -c.cores * c.seconds)
        self._failed: list[BaseException] = []

    def run(self) -> list[Outcome]:
        """Every case, in no fixed order. Raises what kept a site from being built."""
        directory = Path(tempfile.mkdtemp(prefix=f"{self.label}-{os.getpid()}-eval-"))
        directory.chmod(0o755)
        texts = policies(enforce=self.enforce)
        names = tuple(sorted({n for c in self.cases for n in c.names}))
        try:
            with ExitStack() as stack:
                daemon = stack.enter_context(Daemon(self.label, policies=texts))
                rules = rule_kinds(texts.values())
                threads = []
                for number in range(min(self._sites, len(self.cases))):
                    site = stack.enter_context(Site(self.label, directory, number, names))
                    bench = Bench(daemon, site, VENV / "bin", directory / f"cases{number}", rules, self.enforce)
                    threads.append(threading.Thread(target=self._work, args=(bench,)))
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if self._failed:
            raise self._failed[0]
        return self.outcomes

    def _work(self, bench: Bench) -> None:
        try:
            while case := self._next():
                started = time.monotonic()
                try:
                    outcome = run_case(bench, case)
                finally:
                    self._give_back(case)
                self._keep(case, outcome, time.monotonic() - started)
        except BaseException as error:
            self._failed.append(error)
            with self._turn:
                self._waiting.clear()
                self._turn.notify_all()

    def _next(self) -> Case | None:
        """The next case for which there are cores; one that needs more than there are gets all of them."""
        with self._turn:
            while self._waiting:
                for case in self._waiting:
                    if min(case.cores, self._cores) <= self._free:
                        self._waiting.remove(case)
                        self._free -= min(case.cores, self._cores)
                        return case
                self._turn.wait()
            return None

    def _give_back(self, case: Case) -> None:
        with self._turn:
            self._free += min(case.cores, self._cores)
            self._turn.notify_all()

    def _keep(self, case: Case, outcome: Outcome, seconds: float) -> None:
        mode = "enforce" if self.enforce else "monitor"
        outcome = Outcome.from_json({**outcome.as_json(), "seconds": round(seconds, 1), "mode": mode})
        with self._turn:
            self.outcomes.append(outcome)
            with self.results_file.open("a") as out:
                out.write(json.dumps(outcome.as_json()) + "\n")
            count = f"{len(self.outcomes)}/{len(self.cases)}"
            self.console.print(f"[dim]{count:>8}[/] {show.line(case, outcome)}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make eval EVAL_ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="CLASS", help="this class or label; may be repeated"
    )
    parser.add_argument(
        "--case", action="append", default=[], metavar="ID", help="this case, or a glob; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="the few cases that are marked quick")
    parser.add_argument("--monitor", action="store_true", help="policies in monitor mode: nothing is stopped")
    parser.add_argument("--sites", type=int, default=3, help="cases side by side (default 3)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the results file has, and score it as well"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="one JSON object a case is added here as it ends")
    parser.add_argument("--json", type=Path, metavar="FILE", help="and all of them into one file at the end")
    parser.add_argument("--list", action="store_true", help="say which cases there are, and end")
    parser.add_argument("--packages", choices=("debian", "pypi"), help="say what the chosen cases need, and end")
    args = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        cases = choose(load(), kinds=args.only, ids=args.case, quick=args.quick)
    except CorpusError as error:
        parser.error(str(error))
    if args.packages:
        print(" ".join(sorted({p for c in cases for p in getattr(c, args.packages)})))
        return 0
    if args.list:
        for case in cases:
            console.print(f"{case.label:9} {case.kind:12} {case.id:32} {case.title}", markup=False)
        return 0
    args.results.parent.mkdir(parents=True, exist_ok=True)
    kept = _resumed(args.results, cases, "monitor" if args.monitor else "enforce") if args.resume else []
    if not args.resume:
        args.results.unlink(missing_ok=True)
    done = {o.case for o in kept}
    runs = Eval(
        [c for c in cases if c.id not in done],
        sites=args.sites,
        enforce=not args.monitor,
        results=args.results,
        console=console,
    )
    outcomes = kept + (runs.run() if runs.cases else [])
    show.report(console, outcomes, cases)
    if args.json:
        args.json.write_text(json.dumps([o.as_json() for o in outcomes], indent=1) + "\n")
    if args.monitor:
        idle = [o.case for o in outcomes if o.malicious and not o.goal_reached]
        console.print(f"\nDo not work as they are written: {', '.join(idle) or 'none'}")
        return 1 if idle else 0
    return 0 if score.passed(outcomes, cases) else 1


def _resumed(file: Path, cases: Sequence[Case], mode: str) -> list[Outcome]:
    """The last outcome of each of these cases in that mode."""
    wanted = {c.id for c in cases}
    lines = file.read_text().splitlines() if file.exists() else []
    found = {o.case: o for line in lines if (o := Outcome.from_json(json.loads(line))).mode == mode}
    return [o for o in found.values() if o.case in wanted and not o.error]


if __name__ == "__main__":
    raise SystemExit(main())
