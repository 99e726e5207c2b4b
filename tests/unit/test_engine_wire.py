"""What the engine makes of a flow's first bytes and names."""

from __future__ import annotations

import dataclasses

from killswitch.commands import Response
from killswitch.events import Done, Transport, Wire
from tests.unit.detect.scenes import WORKLOAD, Scene, ex, findings, kinds

BANNER = """\
  - id: banner
    title: SSH by another program
    level: high
    on: wire
    match:
      banner: {wire.sent|startswith: SSH-}
      ssh: {process.executable: /usr/bin/ssh}
    condition: banner and not ssh
    response: [deny, sever]
"""
POOL = """\
  - id: pool
    title: A pool's name
    level: medium
    on: wire
    match:
      question: {dns.question.name|domain: pool.example}
      server: {tls.client.server_name|domain: pool.example}
    condition: question or server
    response: [deny, alert]
"""
FLOW = Wire(
    9, WORKLOAD, WORKLOAD, 10, 1010, 0, b"x", Transport.TCP, "192.0.2.1", 22, "sent", b"SSH-2.0-x", b"", 0, False, 0, -1,
    Done.NOTHING, 0,
)  # fmt: skip


def test_the_program_of_a_flow_is_the_one_that_the_engine_knows() -> None:
    """Where the kernel did not know it: after a reload, or a program that ran before."""
    assert findings(Scene(BANNER).play(ex("/usr/bin/ssh"), FLOW)) == []
    (found,) = findings(Scene(BANNER).play(ex("/tmp/x"), FLOW))
    assert (found.rule, found.done_in_kernel) == ("banner", ())
    assert "x(10)" in found.summary and "192.0.2.1:22" in found.summary and "SSH-2.0-x" in found.summary


def test_what_the_kernel_did_is_not_done_again_but_recorded() -> None:
    denied = dataclasses.replace(FLOW, done=Done.DENIED | Done.SEVERED, verdict_ns=900)
    out = Scene(BANNER).play(ex("/tmp/x"), denied)
    assert kinds(out)[0] == "RecordFinding"
    (found,) = findings(out)
    assert set(found.done_in_kernel) == {Response.DENY, Response.SEVER} and found.verdict_ns == 900
    assert "tried to send" in found.summary


def test_what_was_done_by_tables_that_are_gone_is_told() -> None:
    scene = Scene(POOL)
    (found,) = findings(scene.play(ex("/tmp/x"), dataclasses.replace(FLOW, done=Done.DENIED)))
    assert (found.policy, found.rule) == ("built-in", "earlier-policy")


def test_a_finding_shows_the_name() -> None:
    asked = dataclasses.replace(
        FLOW,
        sent=b"\0\1",
        question=b"xmr.pool.example\x1b[2J",
        transport=Transport.UDP,
        remote_port=53,
        done=Done.DENIED,
    )
    (found,) = findings(Scene(POOL).play(ex("/tmp/x"), asked))
    # The name that is matched is the whole of it: what a workload adds makes it another.
    assert found.rule == "earlier-policy"
    assert "tried to ask 192.0.2.1:53 (udp) for the name xmr.pool.example\\x1b[2J" in found.summary
    named = dataclasses.replace(FLOW, sent=b"\x16\3\1", server_name=b"XMR.pool.example", remote_port=443)
    (found,) = findings(Scene(POOL).play(ex("/tmp/x"), named))
    assert found.rule == "pool" and "began TLS with 192.0.2.1:443, calling it XMR.pool.example" in found.summary


def test_an_event_of_nobody_s_workload_is_counted() -> None:
    scene = Scene(POOL, added=False)
    assert scene.play(FLOW) == [] and scene.engine.unclaimed == 1
