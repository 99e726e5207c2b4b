"""Runs one case on a site under a daemon, and tells what came of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.eval.model import SHARED, Case
from benchmarks.eval.outcome import Found, Outcome
from benchmarks.eval.site import ENDS_WITH_US, GATEWAY4, NEAR4, PLACES, PLACES6, Site
from killswitch.commands import FREE, Finding, Response, Step
from killswitch.control.service import IncidentInfo, WorkloadInfo
from tests.rig import clean_host
from tests.rig.build import PROGRAMS, program
from tests.rig.daemon import Daemon

SETUP_SECONDS = 240.0
FAR_SECONDS = 30.0  # that its own server at the far side gets to be ready
AFTER_CUT = 1.0  # s that a contained workload is looked at still: nothing may leave any more
PATIENCE = 3  # times as long a load is followed that has not had the CPU time that it is after
AFTER_END = 1.0  # s in which what the kernel saw last is judged
OUTPUT_KEPT = 4000  # bytes of what it printed
# Where work and attacks write on a machine: a case gets empty ones of its own.
PRIVATE = (
    "/var/spool",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/systemd/system",
    "/etc/profile.d",
    "/etc/ssh/ssh_config.d",
)
# Variables by which programs are told whose certificates to trust; CA is for scripts.
TRUST = (
    "CA",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
)

# What every script begins with.
PRELUDE = """set -eu
until_listens() {  # ADDRESS PORT
  for _ in $(seq 300); do (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return; sleep 0.1; done
  echo "nothing listens on $1:$2" >&2; return 1
}
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a case runs on. ``rules`` maps the id of a rule to its (evidence, act)."""

    daemon: Daemon
    site: Site
    python: Path  # directory of the interpreter that has the corpus's PyPI packages
    directory: Path
    rules: dict[str, tuple[str, str]]
    mode: str  # see Eval
    stop: threading.Event  # set: end what runs


def run_case(bench: Bench, case: Case) -> Outcome:
    """Never raises for what the case does: a harness that fails says so in ``Outcome.error``."""
    home = bench.directory / case.id
    try:
        return _Run(bench, case, home).go()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Outcome(case.id, case.malicious, case.kind, error=f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(home, ignore_errors=True)


class _Run:
    def __init__(self, bench: Bench, case: Case, directory: Path) -> None:
        self.bench, self.case, self.directory = bench, case, directory
        self.home = directory / "home"
        self.cgroup_name = case.id

    def go(self) -> Outcome:
        self._place_files()
        self.bench.site.reset(dict(self.case.names))
        if self.case.setup:
            self._set_up()
        with self._far_script(), self._workload() as (process, info):
            return self._follow(process, info)

    # --- before -----------------------------------------------------------------------------------------------------

    def _place_files(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        for name in ("id_ed25519", "id_ed25519.pub", "known_hosts"):
            shutil.copy(self.bench.site.ssh_directory / name, ssh / name)
        (ssh / "id_ed25519").chmod(0o600)
        for name in self.case.standins:
            shutil.copy(program(name), self.directory / name)
        for name in self.case.shared:
            shutil.copy(SHARED / name, self.directory / name)
        for path, text in self.case.files.items():
            target = self.directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o755 if text.startswith("#!") else 0o600 if path.startswith("home/.ssh") else 0o644)
        private = self.directory / ".private"
        for place in PRIVATE:
            (private / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (private / "var/spool/cron/crontabs").mkdir(parents=True, exist_ok=True)
        (private / "resolv.conf").write_text(f"nameserver {GATEWAY4}\noptions timeout:1 attempts:2\n")
        (private / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{NEAR4} workload\n")
        for name, script in (("run.sh", self.case.run), ("setup.sh", self.case.setup), ("far.sh", self.case.far)):
            (private / name).write_text(f"{PRELUDE}{script}\n")

    def environment(self) -> dict[str, str]:
        authority = str(self.bench.site.directory / "ca.pem")
        return {
            "PATH": f"{self.bench.python}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "USER": "root",
            "LOGNAME": "root",
            "LANG": "C.UTF-8",
            "WORK": str(self.directory),
            "SOURCES": str(PROGRAMS),
            "WEBROOT": str(self.bench.site.web_directory),
            "NETNS": self.bench.site.near,
            **dict.fromkeys(TRUST, authority),
            **PLACES,
            **PLACES6,
        }

    def _inside(self, *command: str, near: bool = True) -> list[str]:
        """``command`` in the site's network, at this or at the far end, with a home and system directories of its own."""
        private = self.directory / ".private"
        binds = [(self.home, "/root"), (private / "resolv.conf", "/etc/resolv.conf"), (private / "hosts", "/etc/hosts")]
        binds += [(private / place.lstrip("/"), place) for place in PRIVATE if Path(place).is_dir()]
        mounts = " && ".join(f"mount --bind {shlex.quote(str(a))} {b}" for a, b in binds)
        script = f'{mounts} && cd {shlex.quote(str(self.directory))} && exec "$@"'
        namespace = ["nsenter", f"--net=/run/netns/{self.bench.site.near if near else self.bench.site.far}"]
        return [*namespace, "unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", *command]

    def _set_up(self) -> None:
        done = subprocess.run(
            self._inside("/bin/bash", str(self.directory / ".private/setup.sh")),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SETUP_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"setup ended with {done.returncode}: {(done.stdout + done.stderr)[-600:].strip()}")

    @contextlib.contextmanager
    def _far_script(self) -> Iterator[None]:
        """The case's own server at the far side, from when it has made ``$WORK/far.ready`` to the end of the case."""
        if not self.case.far:
            yield
            return
        log, ready = self.directory / ".private/far.log", self.directory / "far.ready"
        command = self._inside("/bin/bash", str(self.directory / ".private/far.sh"), near=False)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*ENDS_WITH_US, *command],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            end = time.monotonic() + FAR_SECONDS
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"far made no far.ready: {log.read_text(errors='replace')[-600:].strip()}")
                time.sleep(0.02)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    # --- the workload -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _workload(self) -> Iterator[tuple[subprocess.Popen[bytes], WorkloadInfo]]:
        """The script, started inside a new watched workload; all of it is gone afterwards, whatever state it was in."""
        daemon, script = self.bench.daemon, str(self.directory / ".private/run.sh")
        environment, name = self.environment(), self.cgroup_name
        if self.case.start == "run":
            environment |= {k: v for k, v in daemon.env.items() if k.startswith("KILLSWITCH_") or k == "PYTHONPATH"}
            command = self._inside(*daemon.command("run", "--name", name, "--", "/bin/bash", script))
        else:
            cgroup = daemon.cgroup_dir / name
            daemon.client.watch(f"{daemon.cgroup_parent}/{name}", "a case of the corpus", name=name, create=True)
            joined = 'echo $$ >"$0" && exec "$@"'
            command = self._inside("/bin/sh", "-c", joined, f"{cgroup}/cgroup.procs", "/bin/bash", script)
            # The mount namespace shows the cgroup tree as it is: that is how it gets in.
        with (self.directory / ".private/output").open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield process, self._wait_watched(process)
        finally:
            self._end(process)

    def _wait_watched(self, process: subprocess.Popen[bytes]) -> WorkloadInfo:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if found := self._find():
                return found
            if process.poll() is not None:
                raise RuntimeError(f"it ended with {process.returncode} before it was watched: {self._output()[-400:]}")
            time.sleep(0.05)
        raise RuntimeError("the daemon does not see the workload after 30 s")

    def _find(self) -> WorkloadInfo | None:
        return next((w for w in self.bench.daemon.client.workloads() if w.name == self.cgroup_name), None)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        client = self.bench.daemon.client
        found = self._find()
        if found is not None and found.desired != FREE:
            client.release(str(found.id), "the case is over", stage="all")
        path = Path(found.path) if found else self.bench.daemon.cgroup_dir / self.cgroup_name
        with contextlib.suppress(FileNotFoundError):  # ``killswitch run`` takes its cgroup away itself
            clean_host.remove_cgroup(path)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    # --- following it -----------------------------------------------------------------------------------------------

    def _follow(self, process: subprocess.Popen[bytes], info: WorkloadInfo) -> Outcome:
        started_ns, started = time.monotonic_ns(), time.monotonic()
        contained, cpu = FREE, 0.0
        cut_at: float | None = None
        ended_at: float | None = None
        while True:
            now = time.monotonic()
            now_info = next((w for w in self.bench.daemon.client.workloads() if w.id == info.id), None)
            cpu = max(cpu, _cpu_seconds(Path(info.path)))
            if now_info is not None:
                contained = contained | now_info.observed
                info = now_info
            if contained != FREE and cut_at is None:
                cut_at = now
            if process.poll() is not None and ended_at is None:
                ended_at = now
            if cut_at is not None and now - cut_at > AFTER_CUT:
                break
            if (
                ended_at is not None
                and now - ended_at > AFTER_END
                and not (self.case.malicious and self._lives_on(info))
            ):
                break
            # On a busy machine a load gets its CPU time later; what it is after is CPU time, not time.
            starved = cpu < int(self.case.goal.get("cpu", 0))
            if now - started > self.case.seconds * (PATIENCE if starved else 1) or self.bench.stop.wait(0.1):
                break
            if self.bench.mode == "works" and self._attained(self.bench.site.report(), cpu):
                break
        report = self.bench.site.report()
        incidents = [i for i in self.bench.daemon.client.incidents(limit=500) if i.workload == info.id]
        cut_ns = min((r.finished_ns for i in incidents for r in i.receipts if r.step is Step.SEVER), default=0)
        return self._outcome(process.poll(), str(contained), cpu, started_ns, cut_ns, incidents, report)

    def _lives_on(self, info: WorkloadInfo) -> bool:
        """Its script has ended, and what it has left in the background goes on."""
        try:
            return bool((Path(info.path) / "cgroup.procs").read_text().split())
        except OSError:
            return False

    def _outcome(
        self,
        status: int | None,
        contained: str,
        cpu: float,
        started_ns: int,
        cut_ns: int,
        incidents: list[IncidentInfo],
        report: dict[str, Any],
    ) -> Outcome:
        found = tuple(self._found(f, started_ns) for i in incidents for f in i.findings)
        flows = [flow for flow in report["flows"] if not _is_resolver(flow)]
        offset = time.time_ns() - time.monotonic_ns()
        output = self._output()
        starved = cpu < int(
            self.case.goal.get("cpu", 0)
        )  # nothing was shown: neither that it escapes nor that it is found
        return Outcome(
            case=self.case.id,
            malicious=self.case.malicious,
            kind=self.case.kind,
            contained=contained,
            status=status,
            goal_reached=self._attained(report, cpu),
            bytes_left=sum(f[3] for f in flows),
            packets_left=sum(f[4] for f in flows),
            bytes_after_cut=sum(f[3] for f in flows if f[6] > cut_ns + offset) if cut_ns else 0,
            found=found,
            cpu_seconds=round(cpu, 1),
            output_missing=tuple(o for o in self.case.output if o not in output),
            output=output[-OUTPUT_KEPT:],
            questions=tuple(report["questions"][:20]),
            lost_frames=report["lost"],
            error=f"starved: had {cpu:.1f} s of CPU" if contained == "free" and starved else "",
        )

    def _found(self, finding: Finding, started_ns: int) -> Found:
        evidence, act = self.bench.rules.get(finding.rule, ("", ""))
        acting = [str(r) for r in finding.responses if r not in (Response.ALERT, Response.CAPTURE)]
        return Found(
            rule=finding.rule,
            level=str(finding.level),
            evidence=evidence,
            act=act,
            responses=tuple(acting),
            after_s=max(0.0, (finding.event.time_ns - started_ns) / 1e9),
            verdict_us=finding.verdict_ns / 1000,
            summary=finding.summary[:300],
        )

    def _attained(self, report: dict[str, Any], cpu: float) -> bool:
        """Whether the case has reached what it is after: all that its goal names."""
        counted: dict[str, float] = {
            **{k: report[k] for k in ("logins", "shares", "shells", "relayed", "received")},
            "questions": len(report["questions"]),
            "reached": len({tuple(f[:3]) for f in report["flows"] if not _is_resolver(f)}),
            "cpu": cpu,
        }
        for key, wanted in self.case.goal.items():
            if key == "output":
                reached = str(wanted) in self._output()
            elif key == "listens":
                reached = int(wanted) in report["listened"]
            else:
                reached = counted[key] >= int(wanted)
            if not reached:
                return False
        return bool(self.case.goal)

    def _output(self) -> str:
        return (self.directory / ".private/output").read_bytes()[-(1 << 20) :].decode(errors="replace")


def _cpu_seconds(cgroup: Path) -> float:
    try:
        return int((cgroup / "cpu.stat").read_text().split()[1]) / 1e6  # usage_usec
    except OSError:
        return 0.0


def _is_resolver(flow: list[Any]) -> bool:
    return flow[0] in (GATEWAY4, "fd44::1") and flow[2] == 53
