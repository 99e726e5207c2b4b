"""``make proof``: the long runs behind the promises, in one table: what was tried, how often, what came through, its limit.

Exit status 0 when every promise held, 1 when one did not.
"""

from __future__ import annotations

import argparse
import compileall
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from rich.console import Console

import killswitch
from benchmarks.proof import absence, crashes, execs, kills, storms, wire
from benchmarks.proof.figures import Figure, table

PROOFS = ("exec", "wire", "kills", "storms", "absence", "crashes")
COUNTS = {  # option -> (in full, with --quick, what is counted)
    "execs": (10_000, 500, "tries of each kind of forbidden program"),
    "flows": (1_000, 50, "of each kind of first bytes"),
    "kills": (1_000, 40, "kills of senders"),
    "freezes": (50, 5, "freezes of a storm of forks"),
    "processes": (1_000, 300, "processes in that storm"),
    "losses": (20, 2, "daemons stopped or killed for longer than the grace"),
    "restarts": (100, 5, "orderly restarts, every fifth an upgrade"),
    "crashes": (200, 10, "SIGKILLs at random moments"),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make proof PROOF_ARGS=…", description=__doc__)
    parser.add_argument("proofs", nargs="*", metavar="PROOF", help=f"only these: {', '.join(PROOFS)}")
    parser.add_argument("--quick", action="store_true", help="a few of each: shows that the proofs work, proves little")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the random moments of crashes")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    for name, (full, quick, what) in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default {full:,}, --quick {quick})")
    args = parser.parse_args()
    if unknown := set(args.proofs) - set(PROOFS):
        parser.error(f"no proof is called {', '.join(sorted(unknown))}: there are {', '.join(PROOFS)}")
    for name, (full, quick, _) in COUNTS.items():
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
        elif getattr(args, name) < 1:
            parser.error(f"--{name}: at least 1")
    return args


def main() -> int:
    args = arguments()
    console = Console(stderr=True, highlight=False)
    # As pip does when it installs the package: a start is not to be taken up with compiling Python.
    compileall.compile_dir(killswitch.__path__[0], quiet=2)
    todo: dict[str, Callable[[], Iterator[Figure]]] = {
        "exec": partial(execs.never_runs, args.execs),
        "wire": partial(wire.nothing_of_it_leaves, args.flows),
        "kills": partial(kills.nothing_leaves, args.kills),
        "storms": partial(storms.frozen, args.freezes, args.processes),
        "absence": partial(absence.severs, args.losses),
        "crashes": partial(crashes.survived, args.restarts, args.crashes, seed=args.seed),
    }
    found: list[Figure] = []
    for name in args.proofs or PROOFS:
        started = time.monotonic()
        for figure in todo[name]():
            console.print(f"  [dim]{figure.what}: {figure.figure}[/]")
            found.append(figure)
        console.print(f"[dim]{name}: {time.monotonic() - started:.0f} s[/]")
    if args.json:
        for figure in found:
            print(json.dumps(asdict(figure)))
    else:
        title = f"proofs on {platform.release()}, {platform.machine()}"
        Console(highlight=False, width=None if sys.stdout.isatty() else 150).print(table(found, title))
    return 0 if all(figure.held for figure in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
