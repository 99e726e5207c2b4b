"""``make test-vm``: the kernel and e2e tests on Debian's other kernels, and a matrix promise × kernel at the end."""

from __future__ import annotations

import argparse
import shlex
import sys

from rich.console import Console

from tests.vm.apt import AptError
from tests.vm.kernels import CACHE, KERNELS, fetch
from tests.vm.machine import run
from tests.vm.matrix import Report, read, table
from tests.vm.promises import PROMISES, QUICK
from tests.vm.root import project_image, root_image

COMMAND = """
export PYTHONDONTWRITEBYTECODE=1 COLUMNS=160 KS_TEST_VM=1
uname -r
.venv/bin/python -m pytest -p no:cacheprovider -o junit_family=xunit1 --junit-xml=/mnt/junit.xml --timeout {timeout} {tests}
"""
SLOWER = 6  # emulation against the machine itself: a test's own time limit is stretched by this


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument(
        "--kernel", action="append", choices=[k.name for k in KERNELS], help="only this one; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="only what hangs most on the kernel")
    parser.add_argument("--minutes", type=float, default=60, help="for each kernel (default: 60)")
    parser.add_argument("tests", nargs="*", help="files or pytest's arguments instead of the whole")
    asked = parser.parse_args()
    tests = asked.tests or (QUICK if asked.quick else [file for files in PROMISES.values() for file in files])
    console = Console(soft_wrap=True)
    reports: dict[str, Report] = {}
    try:
        root, project = root_image(), project_image(CACHE / "project.ext4")
        for kernel in KERNELS:
            if asked.kernel and kernel.name not in asked.kernel:
                continue
            boot = fetch(kernel)
            console.print(f"[bold]{kernel.name}[/bold]: booting {boot.release}")
            command = COMMAND.format(timeout=180 * SLOWER, tests=shlex.join(tests))
            ran = run(boot, root, project, command, CACHE / f"out-{kernel.name}", timeout_s=asked.minutes * 60)
            report = reports[kernel.name] = read(ran.shared / "junit.xml")
            said = ran.output.rstrip().rpartition("\n")[2] if ran.output else "nothing was printed"
            console.print(f"{kernel.name}: {said}; {ran.seconds:.0f} s with the boot")
            for node, outcome, why in report.told:
                console.print(f"  {outcome} {node}: {why[:200]}", markup=False, highlight=False)
            if ran.status is None:
                console.print(
                    f"  the machine did not come to its end; its console: {ran.shared / 'console'}", markup=False
                )
                console.print("\n".join(ran.console.splitlines()[-15:]), markup=False, highlight=False)
    except AptError as problem:
        print(f"test-vm: {problem}", file=sys.stderr)
        return 1
    console.print(table(reports))
    return 1 if any(report.failed() for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
