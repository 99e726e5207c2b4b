"""``make eval``: the corpus, run for real under the shipped policies. Exit status 0 only if every malicious case was stopped
and no innocent one was harmed.

  make eval EVAL_ARGS="--quick"                     a few of each
  make eval EVAL_ARGS="--only tunnel --case 'ssh-*'"  a class, or a label (malicious, innocent); cases by id
  make eval EVAL_ARGS="--works --only malicious"    do the attacks work when nobody stops them
  make eval EVAL_ARGS="--monitor --only malicious"  what would each kind of evidence have found by itself
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.eval import score, show
from benchmarks.eval.model import Case, CorpusError, choose, load
from benchmarks.eval.outcome import Outcome
from benchmarks.eval.schedule import Eval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build/eval/results.jsonl"


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
    parser.add_argument("--works", action="store_true", help="the same, each case only until it has attained its goal")
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
    mode = "works" if args.works else "monitor" if args.monitor else "enforce"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell has started us in the background
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    kept = _resumed(args.results, cases, mode) if args.resume else []
    if not args.resume:
        args.results.unlink(missing_ok=True)
    done = {o.case for o in kept}
    runs = Eval(
        [c for c in cases if c.id not in done],
        sites=args.sites,
        mode=mode,
        results=args.results,
        console=console,
    )
    try:
        outcomes = kept + (runs.run() if runs.cases else [])
    except KeyboardInterrupt:
        console.print(f"broken off after {len(runs.outcomes)} of {len(runs.cases)}; go on with --resume")
        return 130
    show.report(console, outcomes, cases)
    if args.json:
        args.json.write_text(json.dumps([o.as_json() for o in outcomes], indent=1) + "\n")
    if mode != "enforce":
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
