"""What rests on LSM programs, and what it comes to where the kernel has none: said in every place, never less in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from killswitch.commands import Finding, Response
from killswitch.events import Denied
from killswitch.kernel import lsm
from tests.rig.daemon import Daemon

POLICY = """
apiVersion: killswitch/v1
kind: Policy
metadata: {name: test, version: 1}
workloads:
  - cgroup: /killswitch/**
mode: enforce
guard: [bpf, ptrace]
rules:
  - id: forbidden
    title: A program that is not to run
    level: high
    on: exec
    match: {name: {process.name: nproc}}
    condition: name
    response: [deny]
  - id: forbidden-asked
    title: A program that is not to run so
    level: high
    on: exec
    match: {name: {process.name: arch}, asked: {process.args: --version}}
    condition: name and asked
    response: [deny]
  - id: reached-out
    title: It reached out, and was refused
    level: high
    on: denied
    match: {what: {event.action: [bpf, ptrace]}}
    condition: what
    response: [alert]
"""


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    made = make_daemon()
    made.write_policies({"test.yaml": POLICY})
    yield made.start()


def able(daemon: Daemon) -> dict[str, str]:
    """Of the rows about LSM: why not, "" = it is so here."""
    return {c.name: "" if c.available else c.reason for c in daemon.client.capabilities() if c.name.startswith("lsm_")}


def findings(daemon: Daemon) -> list[Finding]:
    return [f for i in daemon.client.incidents() for f in daemon.client.incident(i.id).findings]


def inside(daemon: Daemon, code: str, *arguments: str) -> str:
    child = daemon.spawn("agent", sys.executable, "-I", "-c", code, *arguments, stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=60)
    return str(said).strip()


RUN = """
import subprocess, sys
try:
    print("ended with", subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode)
except PermissionError:
    print("refused")
"""


def test_deny_is_an_error_to_the_caller_or_the_end_of_the_program(daemon: Daemon) -> None:
    why_not = able(daemon)["lsm_exec"]
    daemon.watched("agent")
    assert inside(daemon, RUN, "nproc") == ("ended with -9" if why_not else "refused")
    assert inside(daemon, RUN, "arch", "--version") == "ended with -9", "arguments are known too late to refuse it"
    assert inside(daemon, RUN, "arch") == "ended with 0"
    found = daemon.wait_for("both are told", lambda: len(f := findings(daemon)) >= 2 and {x.rule: x for x in f})
    assert found["forbidden"].done_in_kernel == ((Response.KILL_PROCESS,) if why_not else (Response.DENY,))
    assert found["forbidden-asked"].done_in_kernel == (Response.KILL_PROCESS,)
    warned = [line for line in daemon.log().splitlines() if "deny kill instead" in line]
    assert len(warned) == bool(why_not) and all(why_not in line for line in warned)
    (policy,) = (h for h in daemon.client.status().health if h.part == "policy")
    assert policy.ok and ("kills instead" in policy.detail) == bool(why_not)


def test_doctor_and_status_tell_what_is_stronger_here(daemon: Daemon) -> None:
    rows = able(daemon)
    assert set(rows) == {s.name for s in lsm.STRENGTHENED}
    lacking = {c.name for c in daemon.client.capabilities() if not c.available}
    for promise in lsm.STRENGTHENED:
        if not rows[promise.name]:
            assert lacking.isdisjoint(promise.covers)
    if why := lsm.refusal():
        assert set(rows.values()) == {why}
        assert {"no_unix_helpers", "all_tampering_seen"} <= lacking
        assert daemon.client.status().lsm == f"0 of {len(lsm.PROGRAMS)} programs; {why}"
    said = json.loads(daemon.cli("status", "-o", "json").stdout)
    assert said["lsm"] == daemon.client.status().lsm
    assert "lsm_exec" in daemon.cli("doctor").stdout


REACH = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(321, 0, bytes(120), 120)
print(ctypes.get_errno() == 1)
print(libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) < 0)
"""


def test_what_policies_guard_is_refused_and_told(daemon: Daemon) -> None:
    if why := able(daemon)["lsm_tampering"]:
        pytest.skip(why)
    daemon.watched("agent")
    with subprocess.Popen(["/bin/sleep", "100"]) as outside:
        try:
            assert inside(daemon, REACH, str(outside.pid)).split() == ["True", "True"]
        finally:
            outside.kill()
    found = daemon.wait_for("both are told", lambda: len(f := findings(daemon)) >= 2 and f)
    events = [f.event for f in found if isinstance(f.event, Denied)]
    assert {e.operation for e in events} == {"bpf", "ptrace"}
    assert {f.done_in_kernel for f in found} == {()}
    daemon.write_policies({"test.yaml": POLICY.replace("guard: [bpf, ptrace]", "guard: [ptrace]")})
    daemon.client.reload_policies("test")
    assert inside(daemon, REACH, "1").split()[0] == "False"
