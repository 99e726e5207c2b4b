"""What the engine makes of what LSM programs have refused, and of an exec that they could not."""

from __future__ import annotations

import dataclasses
from typing import Any

from killswitch.commands import FREE, Containment, Response
from killswitch.detect.summary import summarise
from killswitch.engine import Engine
from killswitch.events import Denied, Done
from tests.unit.detect.scenes import WORKLOAD, Scene, compiled, ex, findings, kinds

FORBIDDEN = """\
  - id: forbidden
    title: A program that is not to run
    level: high
    on: exec
    match:
      name: {process.name: forbidden}
    condition: name
    response: [deny]
"""
CAUGHT = FORBIDDEN.replace("[deny]", "[deny, sever]")
REACHED = """\
  - id: reached
    title: It reached out
    level: high
    on: denied
    match:
      what: {event.action: [ptrace, kill]}
      severed: {denied.severed: true}
    condition: what and not severed
    response: [alert]
"""


def denied(operation: str, *, pid: int = 10, **more: Any) -> Denied:
    event = Denied(
        5, WORKLOAD, WORKLOAD, pid, 1000 + pid, 1000, b"sh", operation, 0, 0, 0, b"/tmp/forbidden", False, False
    )
    return dataclasses.replace(event, **more)


def scene(*rules: str) -> tuple[Scene, int]:
    """With the generation that the tables in force have."""
    made = Scene(*rules)
    made.engine = Engine(dataclasses.replace(compiled(*rules), generation=4))
    made.add()
    return made, 4


def test_an_exec_that_was_denied_is_a_finding_of_its_rule_and_nobody_is_killed() -> None:
    made, generation = scene(FORBIDDEN, REACHED)
    out = made.play(ex("/bin/sh"), denied("exec", clause=0, generation=generation))
    assert kinds(out) == ["RecordFinding"]
    (found,) = findings(out)
    assert (found.rule, found.done_in_kernel, found.pid) == ("forbidden", (Response.DENY,), 10)
    assert found.summary == "bash(1) → sh(10) was refused to run /tmp/forbidden"
    process = made.engine.workloads[WORKLOAD].processes.get(10, 1010)
    assert process is not None and process.name == b"sh", "it is what it was"


def test_what_else_the_rule_asks_for_is_done() -> None:
    made, generation = scene(CAUGHT)
    out = made.play(denied("exec", clause=0, generation=generation))
    assert kinds(out) == ["RecordFinding", "Contain"]
    assert out[1].desired == Containment(severed=True)  # type: ignore[union-attr]


def test_denied_by_rules_that_are_gone() -> None:
    made, _ = scene(FORBIDDEN)
    (found,) = findings(made.play(denied("exec", clause=0, generation=3)))
    assert (found.policy, found.rule) == ("built-in", "earlier-policy")


def test_an_exec_that_could_not_be_denied_is_killed_and_the_finding_says_which_was_done() -> None:
    out = Scene(FORBIDDEN).play(ex("/tmp/forbidden"))
    assert kinds(out) == ["RecordFinding", "KillProcess"]
    out = Scene(FORBIDDEN).play(ex("/tmp/forbidden", done=Done.KILLED))
    assert kinds(out) == ["RecordFinding"]
    (found,) = findings(out)
    assert (found.responses, found.done_in_kernel) == ((Response.DENY,), (Response.KILL_PROCESS,))


def test_rules_about_what_was_refused() -> None:
    made, _ = scene(REACHED)
    assert made.play(denied("bpf"), denied("ptrace", severed=True)) == []
    (found,) = findings(made.play(denied("ptrace", target_pid=7, target_name=b"sshd")))
    assert found.rule == "reached" and found.summary == "sh(10) was refused to take over sshd(7), outside the workload"
    assert made.engine.workloads[WORKLOAD].containment == FREE


def test_each_is_told_in_words() -> None:
    told = {
        op: summarise(denied(op, number=17, target_name=b"x"), None)
        for op in (
            *(
                "exec",
                "socket",
                "connect",
                "send",
                "receive",
                "ptrace",
                "kill",
                "bpf",
                "pin",
                "cgroup_file",
                "kernel_code",
            ),
        )
    }
    assert len(set(told.values())) == len(told)
    assert told["socket"] == "sh(10) was refused a socket of family 17"
    severed = summarise(denied("kill", number=9, target_pid=7, to_daemon=True, severed=True), None)
    assert severed == "sh(10) was refused to send SIGKILL to this daemon: it is severed"
