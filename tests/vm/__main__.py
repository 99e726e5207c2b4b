"""``make test-vm``: the kernel and e2e tests on Debian's other kernels, and a matrix promise × kernel at the end."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from tests.vm.apt import AptError
from tests.vm.kernels import CACHE, KERNELS, fetch
from tests.vm.machine import Ran, run, run_stages
from tests.vm.matrix import Report, escapes, table
from tests.vm.promises import LOADS, PROMISES, QUICK
from tests.vm.root import project_image, root_image

PYTEST = (
    "export PYTHONDONTWRITEBYTECODE=1 COLUMNS=160 KS_TEST_VM={where}; uname -r; "
    # Interrupted, pytest still writes down what it has seen; -k: unless it hangs in the kernel.
    "timeout -s INT -k 60 {seconds:.0f} .venv/bin/python -m pytest -p no:cacheprovider -o junit_family=xunit1 "
    "--junit-xml=/mnt/junit-{part}.xml --timeout {timeout} --durations=12 {options} {tests}"
)
SLOWER = 6  # emulation against the machine itself: a test's own time limit is stretched by this
CI_SERVICE = "6.1"
LEFT_S = 90  # of a machine's time, for the boot and for the report
# A stage a boot: the tests, and how it ends.
SERVICE = (
    ("reboot", "tests/vm/service/test_1_unit.py tests/vm/service/test_2_before_reboot.py"),
    ("reset", "tests/vm/service/test_3_after_reboot.py"),
    ("end", "tests/vm/service/test_3_after_reboot.py tests/vm/service/test_4_released.py"),
)


def pytest_command(part: str, tests: str, seconds: float, *, where: str = "1", options: str = "") -> str:
    values = {"part": part, "tests": tests, "seconds": seconds, "where": where, "options": options}
    return PYTEST.format(**values, timeout=180 * SLOWER)


def service_stages(seconds: float) -> list[tuple[str, str]]:
    return [
        (end, pytest_command(f"service-{number}", tests, seconds, where="systemd", options="--exitfirst"))
        for number, (end, tests) in enumerate(SERVICE, 1)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument(
        "--kernel", action="append", choices=[k.name for k in KERNELS], help="only this one; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="only what hangs most on the kernel")
    parser.add_argument("--service", action="store_true", help="only the service under systemd, and the reboots")
    parser.add_argument(
        "--ci", action="store_true", help="the service on 6.1, and that the data plane loads on the others"
    )
    parser.add_argument("--minutes", type=float, default=60, help="for each machine (default: 60)")
    parser.add_argument("tests", nargs="*", help="files or pytest's arguments instead of the whole")
    asked = parser.parse_args()
    everything = [file for files in PROMISES.values() for file in files]
    tests = asked.tests or (QUICK if asked.quick else LOADS if asked.ci else everything)
    console = Console(soft_wrap=True)
    reports: dict[str, Report] = {}
    seconds = asked.minutes * 60
    with_service = asked.service or not (asked.quick or asked.tests)
    project = CACHE / f"project-{os.getpid()}.ext4"
    try:
        began = time.monotonic()
        with alone("images"):
            root = root_image()
            project_image(project, wheel=with_service)
            boots = {k.name: fetch(k) for k in KERNELS if not asked.kernel or k.name in asked.kernel}
        console.print(f"the guest's disks and kernels: {time.monotonic() - began:.0f} s")
        for name, boot in boots.items():
            report = reports[name] = Report()
            service = with_service and (not asked.ci or name == CI_SERVICE)
            with alone("machine"):  # two would take each other's CPUs, and reach their time limits
                if service:
                    console.print(f"[bold]{name}[/bold]: booting {boot.release} with systemd")
                    stages = service_stages(seconds - LEFT_S)
                    out = CACHE / f"out-{name}-service"
                    tell(console, name, report, run_stages(boot, root, project, stages, out, timeout_s=seconds))
                if not asked.service and not (asked.ci and service):
                    console.print(f"[bold]{name}[/bold]: booting {boot.release}")
                    command = pytest_command("tests", shlex.join(tests), seconds - LEFT_S)
                    out = CACHE / f"out-{name}"
                    tell(console, name, report, run(boot, root, project, command, out, timeout_s=seconds))
    except AptError as problem:
        print(f"test-vm: {problem}", file=sys.stderr)
        return 1
    finally:
        project.unlink(missing_ok=True)
    console.print(table(reports))
    if any(report.attempts for report in reports.values()):
        console.print(escapes(reports))
    return 1 if any(report.failed() for report in reports.values()) else 0


@contextmanager
def alone(what: str) -> Iterator[None]:
    """One run at a time; the next waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tell(console: Console, kernel: str, report: Report, ran: Ran) -> None:
    """What one machine has shown: into the report, and on the screen."""
    seen = len(report.told)
    for junit in sorted(ran.shared.glob("junit-*.xml")):
        report.add(junit)
    said = ran.output.rstrip().rpartition("\n")[2] if ran.output else "nothing was printed"
    console.print(f"{kernel}: {said}; {ran.seconds:.0f} s with the boot")
    for node, outcome, why in report.told[seen:]:
        console.print(f"  {outcome} {node}: {why[:200]}", markup=False, highlight=False)
    if ran.status != 0:
        report.ended_badly = True
    if ran.status is None:
        console.print(f"  the machine did not come to its end; its console: {ran.shared / 'console'}", markup=False)
        console.print("\n".join(ran.console.splitlines()[-15:]), markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
