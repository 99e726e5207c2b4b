"""What is wrong is said clearly, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.errors import PolicyError, TargetError
from tests.rig.daemon import ROOT, Daemon


def refused(daemon: Daemon, *arguments: str, **environment: str) -> tuple[int, str]:
    """(exit status, what it said) of a daemon that must not come up."""
    process = daemon.launch(*arguments, **environment)
    try:
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
    return status, daemon.log()


def test_second_daemon_on_the_same_state(daemon: Daemon) -> None:
    assert daemon.process
    status, text = refused(daemon)
    assert status == 1
    assert f"pid {daemon.process.pid} is already running there" in text
    assert daemon.client.status().pid == daemon.process.pid


@pytest.mark.parametrize("own", ["KILLSWITCH_RUNTIME_DIR", "KILLSWITCH_STATE_DIR"])
def test_second_daemon_on_the_same_pins(daemon: Daemon, own: str) -> None:
    others = {"KILLSWITCH_RUNTIME_DIR": f"{daemon.directory}/r2", "KILLSWITCH_STATE_DIR": f"{daemon.directory}/s2"}
    status, text = refused(daemon, **{k: v for k, v in others.items() if k != own})
    assert status == 1
    assert "is already running there" in text


def test_without_root(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    done = subprocess.run(
        [sys.executable, "-c", "from killswitch.daemon import main; raise SystemExit(main())"],
        user=65534, env={**daemon.env}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "must run as root" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bad_configuration(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    (daemon.directory / "config.yaml").write_text("log_levl: info\nreconcile_seconds: never\n")
    status, text = refused(daemon)
    assert status == 2
    assert f"{daemon.directory}/config.yaml:1:1: unknown setting 'log_levl' (did you mean log_level?)" in text
    assert f"{daemon.directory}/config.yaml:2:20: reconcile_seconds" in text
    assert not daemon.pin_dir.exists()


def test_missing_configuration_that_was_asked_for(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    status, text = refused(daemon, "--config", f"{daemon.directory}/absent.yaml")
    assert status == 2
    assert "no such file" in text


def test_places_that_cannot_be_made(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    (daemon.directory / "file").touch()
    status, text = refused(daemon, KILLSWITCH_STATE_DIR=f"{daemon.directory}/file/state")
    assert status == 2
    assert "cannot be made" in text
    assert "Traceback" not in text


BAD_POLICIES = {
    "not yaml": "rules: [",
    "empty": "",
    "a list": "- a\n",
    "unknown key": "apiVersion: killswitch/v1\nkind: Policy\nmetdata: {name: x}\n",
    "alias": "apiVersion: &a killswitch/v1\nkind: *a\n",
    "duplicate key": "kind: Policy\nkind: Policy\n",
    "tabs": "\tkind: Policy\n",
    "not text": "\x00\x01",
}


@pytest.mark.parametrize("text", BAD_POLICIES.values(), ids=BAD_POLICIES.keys())
def test_bad_policy_at_start(make_daemon: Callable[..., Daemon], text: str) -> None:
    daemon = make_daemon()
    (daemon.policy_dir / "zz-bad.yaml").write_text(text)
    status, said = refused(daemon)
    assert status == 2
    assert f"{daemon.policy_dir}/zz-bad.yaml:" in said
    assert "Traceback" not in said
    assert not daemon.pin_dir.exists()  # the data plane was loaded meanwhile, and is taken away again


def test_bad_policy_at_start_leaves_containment_in_force(daemon: Daemon) -> None:
    daemon.watched("agent")
    daemon.client.kill("agent", "test")
    daemon.stop()
    bad = daemon.policy_dir / "zz-bad.yaml"
    bad.write_text("rules: [")
    assert refused(daemon)[0] == 2
    bad.unlink()
    daemon.start()
    w = daemon.workload("agent")
    assert w
    assert str(w.observed) == "severed+frozen"


def test_bad_reload_keeps_the_old_policies_and_tells_all_problems(daemon: Daemon) -> None:
    before = daemon.client.policies()
    for name in ("zz-one.yaml", "zz-two.yaml"):
        (daemon.policy_dir / name).write_text("kind: Polcy\n")
    with pytest.raises(PolicyError) as e:
        daemon.client.reload_policies("test")
    files = {Path(p.file).name for p in e.value.problems}
    assert files == {"zz-one.yaml", "zz-two.yaml"}
    assert daemon.client.policies() == before
    health = {h.part: h for h in daemon.client.status().health}
    assert not health["policy"].ok
    assert "zz-one.yaml" in health["policy"].detail
    for name in ("zz-one.yaml", "zz-two.yaml"):
        (daemon.policy_dir / name).unlink()
    daemon.client.reload_policies("test")
    assert {h.part: h.ok for h in daemon.client.status().health}["policy"]


SECOND = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: second, version: 1}
workloads:
  - cgroup: PARENT/**
mode: monitor
rules:
  - id: seconds-own
    title: Only for this test
    level: low
    on: exec
    match:
      name: {process.name: ks-test-nothing}
    condition: name
    response: [alert]
"""


def test_hangup_reloads(daemon: Daemon) -> None:
    assert daemon.process
    (daemon.policy_dir / "second.yaml").write_text(SECOND.replace("PARENT", daemon.cgroup_parent))
    os.kill(daemon.process.pid, 1)
    daemon.wait_for("reloaded", lambda: "second" in daemon.client.status().policies)


def test_watch_of_a_cgroup_that_is_not_there(shared_daemon: Daemon) -> None:
    with pytest.raises(TargetError, match="there is none"):
        shared_daemon.client.watch(f"{shared_daemon.cgroup_parent}/absent")
    with pytest.raises(TargetError, match="absolute path"):
        shared_daemon.client.watch("relative")
    with pytest.raises(TargetError, match="absolute path"):
        shared_daemon.client.watch("/a/../b")


def test_exit_codes_of_the_command(shared_daemon: Daemon) -> None:
    shared_daemon.watched("agent")
    assert shared_daemon.cli("kill", "nobody", "--reason", "test").returncode == 1
    assert shared_daemon.cli("kill", "agent").returncode == 2
    assert shared_daemon.cli("status").returncode == 0
    absent = {**shared_daemon.env, "KILLSWITCH_RUNTIME_DIR": "/tmp/ks-test-nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "killswitch", "status"], env=absent, capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == 3
