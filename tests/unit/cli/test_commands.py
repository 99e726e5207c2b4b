"""What the commands ask of the daemon, and what they print."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from killswitch import __version__
from killswitch.cli.lazy import Entry
from killswitch.cli.main import cli
from killswitch.commands import FREE, Act, Evidence
from killswitch.control.service import Health, StreamItem
from killswitch.errors import Problem
from tests.unit.cli.conftest import Call
from tests.unit.cli.house import (
    HOSTILE,
    SEVERED_FROZEN,
    House,
    connect_event,
    exec_event,
    finding,
    incident,
    receipts,
    workload,
)

READING = [
    ["status"], ["workloads"], ["incidents"], ["incidents", "inc-3"], ["events"], ["events", "-f"],
    ["evidence", "inc-3"], ["doctor"], ["verify-log"], ["policy", "list"], ["policy", "explain"],
]  # fmt: skip
ORDERS = [
    ["kill", "agent-1", "--reason", "odd"], ["sever", "agent-1", "--reason", "odd"],
    ["freeze", "agent-1", "--reason", "odd"], ["thaw", "agent-1", "--reason", "odd"],
    ["terminate", "agent-1", "--reason", "odd"], ["release", "agent-1", "--reason", "odd"],
    ["watch", "/x/y"], ["unwatch", "agent-1"], ["policy", "reload"], ["selftest"],
]  # fmt: skip
STREAMS = (["events"], ["events", "-f"])


@pytest.fixture
def hostile(house: House) -> House:
    """Everything that a workload can choose is as bad as it can be."""
    bad = HOSTILE.decode("utf-8", "surrogateescape")
    house.watched = [workload("agent-1"), workload(bad, cgroup=bad, observed=SEVERED_FROZEN, desired=SEVERED_FROZEN)]
    found = finding(exec_event(HOSTILE, HOSTILE + b"\0"), summary=f"{bad} did it")
    house.known = [incident(workload_name=bad, cgroup=bad, reason=bad, findings=(found,))]
    house.files = [(bad, b"x")]
    house.items = [
        StreamItem(event=exec_event(HOSTILE, HOSTILE + b"\0"), workload_name=bad),
        StreamItem(event=connect_event(), workload_name=bad),
        StreamItem(finding=found, incident="inc-3", workload_name=bad),
        *(StreamItem(receipt=r, incident="inc-3", workload_name=bad) for r in receipts()),
    ]
    house.parts = (Health("ring", True, bad),)
    house.audit = (True, bad)
    return house


@pytest.mark.parametrize("arguments", READING + ORDERS, ids=" ".join)
def test_tables_are_plain_printable_text_when_piped(hostile: House, call: Call, arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout
    for line in result.stdout.splitlines():
        assert line.isprintable(), line
        assert line == line.rstrip()


@pytest.mark.parametrize("arguments", READING + ORDERS, ids=" ".join)
def test_json_is_json_and_can_be_looked_at(hostile: House, call: Call, arguments: list[str]) -> None:
    result = call(*arguments, "-o", "json")
    assert result.exit_code == 0, result.stderr
    documents = result.stdout.splitlines() if arguments in STREAMS else [result.stdout]
    assert all(isinstance(json.loads(d), dict | list) for d in documents)
    assert documents
    assert result.stdout.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.stdout)


@pytest.mark.parametrize("arguments", READING + ORDERS, ids=" ".join)
def test_yaml_says_the_same_as_json(hostile: House, call: Call, arguments: list[str]) -> None:
    as_yaml = list(yaml.safe_load_all(call(*arguments, "-o", "yaml").stdout))
    assert as_yaml
    if arguments not in STREAMS:
        assert _timeless(as_yaml[0]) == _timeless(json.loads(call(*arguments, "-o", "json").stdout))


def _timeless(value: object) -> object:
    """Without what the moment of the call decides."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("since_unix", "started_unix")}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def test_orders_carry_target_reason_and_options(house: House, call: Call) -> None:
    call("kill", "agent-1", "--reason", "looks odd", "--terminate", "--wait")
    call("release", "/killswitch/agent-1", "--reason", "was fine", "--stage", "thaw")
    call("watch", "/system.slice/a.service", "--name", "a")
    call("unwatch", "4711")
    (kill, order, more), (release, second, stage), (watch, third, named), (unwatch, fourth, removed) = house.told
    assert (kill, order.target, order.reason, order.wait_for_evidence, more) == (
        "kill", "agent-1", "looks odd", True, {"terminate": True},
    )  # fmt: skip
    assert (release, second.target, stage) == ("release", "/killswitch/agent-1", {"stage": "thaw"})
    assert (watch, third.target, named) == ("watch", "/system.slice/a.service", {"name": "a", "create": False})
    assert (unwatch, fourth.target, removed) == ("unwatch", "4711", {"remove": False})
    assert order.role == "admin"
    assert order.request_id != second.request_id


def test_a_kill_shows_state_receipts_and_where_to_look(house: House, call: Call) -> None:
    lines = call("kill", "agent-1", "--reason", "odd").stdout.splitlines()
    assert lines[0] == "agent-1 is severed+frozen"
    assert lines[1].split() == ["STEP", "OUTCOME", "AT", "TOOK", "PROOF"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["sever", "done"], ["freeze", "done"], ["destroy_sockets", "done"], ["capture", "done"],
    ]  # fmt: skip
    assert lines[3].split()[2:] == ["+1.5ms", "900µs", "cpu_usec_after=18223", "cpu_usec_before=18223", "frozen=1"]
    assert lines[6] == "Look at it: killswitch incidents inc-3"


def test_workloads_shows_contained_ones_first(house: House, call: Call) -> None:
    house.watched = [
        workload("a"),
        workload("b", desired=SEVERED_FROZEN, observed=FREE, incident="inc-9", dropped_packets=7),
    ]
    head, first, second = call("workloads").stdout.splitlines()
    assert head.split() == [
        "NAME",
        "STATE",
        "INCIDENT",
        "PROCS",
        "AGE",
        "DROPPED",
        "SENT",
        "RECEIVED",
        "POLICIES",
        "CGROUP",
    ]
    assert first.startswith("b     free (wanted: severed+frozen)  inc-9         3  2h01m")
    assert second.startswith("a     free")


def test_empty_states_say_what_to_do(house: House, call: Call) -> None:
    house.watched, house.known, house.files = [], [], []
    assert "killswitch run -- CMD" in call("workloads").stdout
    assert call("incidents").stdout.startswith("No incidents.")
    assert call("incidents", "--open").stdout == "No incident is open.\n"
    assert "killswitch events -f" in call("events").stdout
    assert call("evidence", "inc-1").stdout.startswith("No evidence of inc-1 was kept")
    assert json.loads(call("workloads", "-o", "json").stdout) == []


def test_incident_in_full(house: House, call: Call) -> None:
    out = call("incidents", "inc-3").stdout
    for said in ("inc-3  open", "agent-1 (id 4711)", "severed+frozen", "(1h01m ago)", "miner-binary",
                 "kill_process, sever", "killswitch evidence inc-3", "killswitch release agent-1", "rests on",
                 "mining by name"):  # fmt: skip
        assert said in out
    missing = call("incidents", "inc-99")
    assert missing.exit_code == 1
    assert "inc-99" in missing.stderr


def test_an_incident_says_which_kinds_of_evidence_it_rests_on(house: House, call: Call) -> None:
    name = finding()
    wire = replace(name, evidence=Evidence.WIRE)
    house.known = [incident(findings=(wire, name, name, replace(name, act=Act.TUNNEL, evidence=Evidence.WIRE)))]
    assert "mining by name and wire; tunnel by wire" in call("incidents", "inc-3").stdout
    house.known = [incident(findings=(replace(name, act=None, evidence=None),))]
    assert "no rule that says what it is evidence of" in call("incidents", "inc-3").stdout


def test_past_events_are_dated_by_their_incident_not_by_this_boots_clock(house: House, call: Call) -> None:
    opened = time.time() - 400 * 86400  # long before this boot
    house.known = [incident(opened_unix=opened)]
    rows = [json.loads(line) for line in call("events", "-o", "json").stdout.splitlines()]
    assert [r["kind"] for r in rows] == ["finding"] + ["receipt"] * 4
    assert rows[0]["time"] == pytest.approx(opened)
    assert rows[1]["time"] == pytest.approx(opened + 50e-6, abs=1e-5)
    assert rows[1]["receipt"]["step"] == "sever"
    assert rows[0]["incident"] == "inc-3"


def test_followed_events(house: House, call: Call) -> None:
    house.items = [
        StreamItem(event=exec_event(), workload_name="agent-1"),
        StreamItem(dropped=12),
        StreamItem(event=connect_event(), workload_name="agent-1"),
    ]
    result = call("events", "-f")
    first, second = result.stdout.splitlines()
    at = time.strftime("%H:%M")
    assert re.match(
        rf"({at}|\d\d:\d\d):\d\d\.\d{{3}}  agent-1          exec        pid 4242 uid 1000 /tmp/xmrig: ", first
    )
    assert first.endswith("xmrig -o pool:3333 killed before its first instruction")
    assert second.endswith("pid 4242 (ssh\\e[1m) connect tcp [2001:db8::1]:22 denied")
    assert result.stderr == "warning: 12 events were missed here: this reader is too slow\n"


def test_an_exec_in_json_has_its_arguments_as_a_list(house: House, call: Call) -> None:
    house.items = [StreamItem(event=exec_event(argv=b"ssh\0-R\0\xff\0"), workload_name="agent-1")]
    event = json.loads(call("events", "-f", "-o", "json").stdout)["event"]
    assert event["kind"] == "exec"
    assert event["args"] == ["ssh", "-R", "\\xff"]
    assert event["done"] == ["killed"]
    assert event["predicates"] == hex(1 << 200)


def test_kinds_and_workload_select_past_events(house: House, call: Call) -> None:
    assert len(call("events", "-k", "finding").stdout.splitlines()) == 1
    assert len(call("events", "-k", "receipt", "-k", "finding").stdout.splitlines()) == 5
    assert "Nothing was found" in call("events", "-w", "another").stdout


def test_doctor_fails_when_a_part_is_not_well(house: House, call: Call) -> None:
    house.parts = (Health("ring", True, ""), Health("ledger", False, "disk full: 12 writes wait"))
    result = call("doctor")
    assert result.exit_code == 1
    assert result.stderr == "killswitch: not well: ledger\n"
    assert "disk full: 12 writes wait" in result.stdout
    assert "CONFIG_BPF_LSM" in result.stdout
    assert "armed, but not well" in call("status").stdout


def test_a_broken_audit_fails(house: House, call: Call) -> None:
    house.audit = (False, "line 17 was changed")
    result = call("verify-log", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"ok": False, "detail": "line 17 was changed"}
    assert "line 17 was changed" in result.stderr


def test_evidence_is_listed_printed_and_saved(house: House, call: Call, tmp_path: Path) -> None:
    assert json.loads(call("evidence", "inc-3", "-o", "json").stdout) == [
        {"file": "tree.txt", "bytes": 11}, {"file": "sockets.json", "bytes": 2},
    ]  # fmt: skip
    assert call("evidence", "inc-3", "tree.txt").stdout == "1 init\n2 x\n"
    assert call("evidence", "inc-3", "nothing").exit_code == 1
    assert call("evidence", "inc-3", "-d", str(tmp_path / "new")).exit_code == 0
    assert (tmp_path / "new/tree.txt").read_text() == "1 init\n2 x\n"
    assert (tmp_path / "new/tree.txt").stat().st_mode & 0o777 == 0o600
    again = call("evidence", "inc-3", "-d", str(tmp_path / "new"))
    assert again.exit_code == 1
    assert "File exists" in again.stderr


@pytest.mark.parametrize("name", ["../outside", "/tmp/ks-test-outside", "a/../../outside", ""])
def test_evidence_never_leaves_its_directory(house: House, call: Call, tmp_path: Path, name: str) -> None:
    house.files = [(name, b"x")]
    result = call("evidence", "inc-3", "-d", str(tmp_path / "in"))
    assert result.exit_code == 1
    assert "would lie outside" in result.stderr
    assert list(tmp_path.rglob("*")) == []


def test_evidence_does_not_follow_a_link(house: House, call: Call, tmp_path: Path) -> None:
    house.files = [("tree.txt", b"x")]
    (tmp_path / "tree.txt").symlink_to(tmp_path / "victim")
    assert call("evidence", "inc-3", "-d", str(tmp_path)).exit_code == 1
    assert not (tmp_path / "victim").exists()


def test_policy_explain(house: House, call: Call) -> None:
    out = call("policy", "explain", "sustained-hashing", "--tier").stdout
    assert "looks at more than one event" in out
    assert "miner-binary" not in out
    wrong = call("policy", "explain", "sustained-hashin")
    assert wrong.exit_code == 1
    assert "did you mean sustained-hashing" in wrong.stderr


def test_policy_check_live_asks_the_daemon(house: House, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("kind: Policy\n")
    assert call("policy", "check", "--live", str(file)).stdout == "1 file: no problems\n"
    house.problems = [Problem(str(file), 1, 7, "unknown kind", "did you mean Policy?")]
    result = call("policy", "check", "--live", str(file))
    assert result.exit_code == 1
    assert result.stderr == f"{file}:1:7: unknown kind (did you mean Policy?)\n"


def test_version(call: Call) -> None:
    assert call("--version").stdout == f"killswitch {__version__}\n"


def test_the_command_list_says_what_the_commands_say() -> None:
    entries: dict[str, Entry] = cli.entries  # type: ignore[attr-defined]
    for name, entry in entries.items():
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.name == name
        said = (command.help or "").splitlines()[0]
        assert said.split()[0].rstrip(".,:;") == entry.help.split()[0].rstrip(".,:;"), name
