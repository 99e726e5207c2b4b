"""The whole evaluation: one daemon, several sites, each with a thread that takes one case after another."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.eval import show
from benchmarks.eval.model import Case
from benchmarks.eval.outcome import Outcome
from benchmarks.eval.runner import Bench, run_case
from benchmarks.eval.site import Site
from killswitch.config import SHIPPED_POLICIES
from tests.rig.daemon import Daemon

ROOT = Path(__file__).parents[2]
VENV = ROOT / "build/eval/venv"


def policies(*, enforce: bool) -> dict[str, str]:
    texts = {f.name: f.read_text() for f in sorted(SHIPPED_POLICIES.glob("*.yaml"))}
    return texts if enforce else {n: t.replace("\nmode: enforce", "\nmode: monitor") for n, t in texts.items()}


def rule_kinds(texts: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Rule -> (evidence, act), as the policies say."""
    rules = [r for text in texts for r in yaml.safe_load(text).get("rules", ())]
    return {r["id"]: (str(r.get("evidence", "")), str(r.get("act", ""))) for r in rules}


class Eval:
    """Runs cases on several sites side by side. CPUs are shared out: a case that keeps one busy waits for it.

    ``mode``: ``enforce``, ``monitor`` (nothing is stopped), or ``works`` (the same, and only until the goal is reached).
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        sites: int,
        mode: str,
        results: Path,
        console: Console,
        label: str = "ks-bench",
    ) -> None:
        self.cases, self.console, self.mode, self.label = cases, console, mode, label
        self.results_file = results
        self.outcomes: list[Outcome] = []
        self._sites = sites
        self._cores = max(1, os.cpu_count() or 1)
        self._free = self._cores
        self._turn = threading.Condition()
        self._waiting: list[Case] = sorted(cases, key=lambda c: -c.cores * c.seconds)
        self._failed: list[BaseException] = []
        self._stop = threading.Event()

    def run(self) -> list[Outcome]:
        """Every case, in no fixed order. Raises what kept a site from being built."""
        directory = Path(tempfile.mkdtemp(prefix=f"{self.label}-{os.getpid()}-eval-"))
        directory.chmod(0o755)
        texts = policies(enforce=self.mode == "enforce")
        names = tuple(sorted({n for c in self.cases for n in c.names}))
        try:
            with ExitStack() as stack:
                daemon = stack.enter_context(Daemon(self.label, policies=texts))
                rules = rule_kinds(texts.values())
                threads = []
                for number in range(min(self._sites, len(self.cases))):
                    site = stack.enter_context(Site(self.label, directory, number, names))
                    bench = Bench(
                        daemon, site, VENV / "bin", directory / f"cases{number}", rules, self.mode, self._stop
                    )
                    threads.append(threading.Thread(target=self._work, args=(bench,)))
                for thread in threads:
                    thread.start()
                try:
                    for thread in threads:
                        thread.join()
                except BaseException:  # Ctrl-C: the cases that run are ended and taken away before their sites are
                    self._give_up()
                    for thread in threads:
                        thread.join()
                    raise
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
                if not self._stop.is_set():
                    self._keep(case, outcome, time.monotonic() - started)
        except BaseException as error:
            self._failed.append(error)
            self._give_up()

    def _give_up(self) -> None:
        self._stop.set()
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
        outcome = Outcome.from_json({**outcome.as_json(), "seconds": round(seconds, 1), "mode": self.mode})
        with self._turn:
            self.outcomes.append(outcome)
            with self.results_file.open("a") as out:
                out.write(json.dumps(outcome.as_json()) + "\n")
            count = f"{len(self.outcomes)}/{len(self.cases)}"
            self.console.print(f"[dim]{count:>8}[/] {show.line(case, outcome)}")
