"""Recorded events put to other policies: read back as they were printed, and judged anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from killswitch.cli.main import cli
from killswitch.cli.plain import plain
from killswitch.cli.recorded import event_of, read_events
from killswitch.errors import TargetError
from killswitch.events import Cpu, Done, Event, Exec
from tests.unit.cli.house import finding
from tests.unit.control.strategies import EVENTS
from tests.unit.detect.scenes import HEAD, MINER, MS, S, code, connect, cpu, ex, fork, gone, move

HASHING = """\
  - id: hashing
    title: Hashing
    level: high
    on: cpu
    match:
      hashing: {cpu.hashing|gte: 0.7}
    condition: hashing
    for: 10s
    response: [sever]
"""


def recorded(*events: Event) -> str:
    return "".join(json.dumps(plain({"time": 1.0, "kind": "x", "event": event})) + "\n" for event in events)


@pytest.mark.parametrize(
    "event", [ex("/tmp/x", "x", "a b", "ü"), fork(2, 1), gone(2), connect("10.0.0.1"), move(3, 0), code(1.0), cpu(2)]
)
def test_what_was_printed_is_read_back(event: Event) -> None:
    (back,) = read_events(recorded(event).splitlines(), "f")
    if isinstance(event, Cpu | Exec):
        assert type(back) is type(event) and plain(back) == plain(event)
    else:
        assert back == event


def test_the_kernels_verdict_is_left_out() -> None:
    judged = replace(ex("/tmp/x"), done=Done.KILLED, generation=7, predicates=5, clause=3)
    (back,) = read_events(recorded(judged).splitlines(), "f")
    assert isinstance(back, Exec)
    assert (back.done, back.generation, back.predicates, back.clause) == (Done.NOTHING, 0, 0, -1)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_every_event_is_read_back_as_one_of_its_kind(event: Event) -> None:
    given_back = event_of(json.loads(json.dumps(plain(event))))
    assert type(given_back) is type(event)
    assert getattr(given_back, "time_ns", None) == getattr(event, "time_ns", None)


@pytest.mark.parametrize("line", ["{", "[]", '{"event": {"kind": "nothing"}}', '{"event": {"kind": "fork"}}', "3"])
def test_what_is_no_record_is_told_with_its_line(line: str) -> None:
    with pytest.raises(TargetError, match="f:2: is no record of"):
        list(read_events(["", line], "f"))


def test_receipts_are_passed_over_and_findings_bring_their_event() -> None:
    lines = ['{"kind": "receipt", "receipt": {}}', json.dumps(plain({"finding": finding()}))]
    (back,) = read_events(lines, "f")
    assert isinstance(back, Exec) and back.executable == b"/tmp/xmrig"


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(HEAD.format(name="test", mode="monitor") + MINER)
    new.write_text(HEAD.format(name="test", mode="enforce") + MINER.replace("minerd", "data-sync") + HASHING)
    return old, new


def events() -> tuple[Event, ...]:
    burning = [*(cpu(n) for n in range(1, 40)), *(code(n) for n in range(4, 40, 4))]
    return (
        ex("/tmp/xmrig", at=0),
        ex("/tmp/minerd", pid=11, at=5 * S),
        ex("/tmp/data-sync", pid=12, at=9 * S),
        *sorted(burning, key=lambda e: e.time_ns),
    )


def call(*arguments: str, given: str) -> object:
    result = CliRunner().invoke(cli, ["policy", *arguments], input=given)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_replay_says_what_would_have_been_found(policies: tuple[Path, Path]) -> None:
    found = call("replay", str(policies[1]), "-o", "json", given=recorded(*events()))
    assert isinstance(found, list)
    assert [f["rule"] for f in found] == ["miner", "miner", "hashing"]
    assert found[2]["time_ns"] > 10 * S - MS


def test_diff_says_what_is_found_no_more_and_what_is_new(policies: tuple[Path, Path]) -> None:
    old, new = map(str, policies)
    found = call("diff", old, new, "-o", "json", given=recorded(*events()))
    assert found == [
        {"workload": 77, "rule": "hashing", "before": 0, "after": 1, "does_before": "", "does_after": "sever"},
        {
            "workload": 77, "rule": "miner", "before": 2, "after": 2, "does_before": "alert",
            "does_after": "kill_process sever freeze capture",
        },
    ]  # fmt: skip
    result = CliRunner().invoke(cli, ["policy", "diff", old, old], input=recorded(*events()))
    assert result.output.startswith("No difference in ")


def test_replay_of_a_policy_that_is_wrong(policies: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(policies[0].read_text().replace("level: critical", "level: grave"))
    result = CliRunner().invoke(cli, ["policy", "replay", str(wrong)], input="")
    assert result.exit_code == 1
    assert "'grave' is not a level" in result.stderr
