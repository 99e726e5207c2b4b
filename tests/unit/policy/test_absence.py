"""What policies say of the daemon's absence."""

from __future__ import annotations

import pytest

from killswitch.errors import PolicyError
from killswitch.policy.absence import Absence, absence
from killswitch.policy.load import load_text
from killswitch.policy.model import Hold, Policy

TEXT = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: {name}, version: 1}}
workloads: [{{cgroup: /x}}]
mode: {mode}
{more}
rules:
  - {{id: {name}, title: r, level: low, on: exec, match: {{a: {{process.name: x}}}}, condition: a, response: [alert]}}
"""


def policy(more: str = "", *, mode: str = "enforce", name: str = "p") -> Policy:
    return load_text(TEXT.format(more=more, mode=mode, name=name), f"{name}.yaml")


def test_nothing_said_is_allowed_for_ever_and_held_for_a_while() -> None:
    assert absence([policy(), policy("on_daemon_loss: allow")]) == Absence(0, False, Hold.MATCHED, 10_000)
    assert absence([policy("hold: off")]) == absence([]) == Absence()


def test_the_strictest_of_several_severs() -> None:
    long = policy("on_daemon_loss: sever_and_keep\ndaemon_grace: 1m30s")
    short = policy("on_daemon_loss: sever\ndaemon_grace: 4s")
    assert absence([long]) == Absence(90_000, True, Hold.MATCHED)
    assert absence([long, short, policy()]) == Absence(4_000, True, Hold.MATCHED)
    assert absence([policy("on_daemon_loss: sever\nhold: off")]) == Absence(10_000, False)


def test_the_strictest_of_several_holds() -> None:
    off, all_ = policy("hold: off\non_daemon_loss: sever"), policy("hold: all\ndaemon_grace: 5s")
    assert absence([off, policy("daemon_grace: 7s"), all_]) == Absence(10_000, False, Hold.ALL, 7_000)
    assert absence([all_, policy("on_daemon_loss: hold")]) == Absence(0, False, Hold.ALL, 0)
    assert absence([all_, policy("on_daemon_loss: hold\nhold: matched")]) == Absence(0, False, Hold.ALL, 0)
    assert absence([all_, policy("on_daemon_loss: sever")]).lapse_ms == 0


def test_a_policy_that_monitors_severs_and_holds_nobody() -> None:
    assert absence([policy("on_daemon_loss: sever\nhold: all", mode="monitor")]) == Absence()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("on_daemon_loss: freeze", "is not a word for on_daemon_loss"),
        ("hold: some", "is not a word for hold"),
        ("on_daemon_loss: hold\nhold: off", "no sense with 'hold: off'"),
        ("on_daemon_loss: hold\ndaemon_grace: 10s", "no sense with 'on_daemon_loss: hold'"),
        ("hold: off\ndaemon_grace: 10s", "no sense without 'on_daemon_loss' or 'hold'"),
        ("on_daemon_loss: sever\ndaemon_grace: 1s", "must be from 3s to 24h"),
        ("on_daemon_loss: sever\ndaemon_grace: 48h", "must be from 3s to 24h"),
        ("on_daemon_loss: sever\ndaemon_grace: 10", "must be a duration"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(more: str, words: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(more)
    [problem] = refused.value.problems
    assert words in f"{problem.message} {problem.hint}"
    assert problem.line in (6, 6 + more.count("\n"))
