"""What a user would otherwise run to see execs: auditd with an execve rule, and bpftrace printing them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RULE = ("-F", "arch=b64", "-S", "execve")


class PeerMissing(Exception):
    """The peer cannot run here. ``str()`` says why; its row says so too."""


@contextmanager
def auditd() -> Iterator[None]:
    """auditd with a log of its own and the rule that every hardening guide gives for execs."""
    if subprocess.run(["auditctl", "-s"], capture_output=True, check=False).returncode:
        raise PeerMissing("the kernel's audit interface does not answer")
    with tempfile.TemporaryDirectory(prefix="ks-bench-audit-") as directory:
        home = Path(directory)
        (home / "auditd.conf").write_text(
            f"log_file = {home}/audit.log\nlog_format = RAW\nwrite_logs = yes\nflush = INCREMENTAL_ASYNC\nfreq = 50\n"
            "max_log_file = 64\nnum_logs = 2\nmax_log_file_action = ROTATE\nspace_left = 75\nspace_left_action = SYSLOG\n"
            "admin_space_left = 50\nadmin_space_left_action = SUSPEND\ndisk_full_action = SUSPEND\n"
            "disk_error_action = SUSPEND\nlocal_events = yes\n"
        )
        (home / "plugins.d").mkdir()
        # auditd wants its directory to be root's alone.
        for path in (home, home / "auditd.conf"):
            path.chmod(0o700 if path.is_dir() else 0o640)
        daemon = subprocess.Popen(["auditd", "-n", "-c", directory], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.7)
            if daemon.poll() is not None:
                said = daemon.stderr.read().decode() if daemon.stderr else ""
                raise PeerMissing(f"auditd ended: {said.strip()}")
            subprocess.run(["auditctl", "-b", "65536"], capture_output=True, check=True)
            subprocess.run(["auditctl", "-a", "always,exit", *RULE, "-k", "ks-bench"], capture_output=True, check=True)
            yield
        finally:
            subprocess.run(["auditctl", "-d", "always,exit", *RULE, "-k", "ks-bench"], capture_output=True, check=False)
            daemon.terminate()
            daemon.wait(10)
            subprocess.run(["auditctl", "-e", "0"], capture_output=True, check=False)


@contextmanager
def bpftrace() -> Iterator[None]:
    """bpftrace's own execsnoop, in one line, printing to a file."""
    if not shutil.which("bpftrace"):
        raise PeerMissing("bpftrace is not installed")
    tracefs = Path("/sys/kernel/tracing")
    mounted = not (tracefs / "events").exists()
    if mounted:
        subprocess.run(["mount", "-t", "tracefs", "tracefs", tracefs], check=True)
    try:
        with tempfile.TemporaryFile() as out:
            tracer = subprocess.Popen(
                [
                    "bpftrace",
                    "-e",
                    'BEGIN { printf("ready\\n"); } tracepoint:syscalls:sys_enter_execve '
                    '{ printf("%d %d %s ", elapsed, pid, comm); join(args->argv); }',
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                for _ in range(150):
                    time.sleep(0.1)
                    out.seek(0)
                    if b"ready" in (said := out.read(4096)):
                        break
                    if tracer.poll() is not None:
                        raise PeerMissing(f"bpftrace ended: {said.decode(errors='replace').strip()[-200:]}")
                else:
                    raise PeerMissing("bpftrace was not ready after 15 s")
                out.seek(0, 2)
                yield
            finally:
                tracer.terminate()
                tracer.wait(20)
    finally:
        if mounted:
            subprocess.run(["umount", tracefs], check=False)
