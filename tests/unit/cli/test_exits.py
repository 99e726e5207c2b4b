"""Every error comes out as the exit code that the contract names, and as one clear message on stderr."""

from __future__ import annotations

import pytest

from killswitch import errors
from killswitch.cli.exits import Exit, code_of
from killswitch.cli.orders import exit_of
from killswitch.commands import Outcome, Receipt, Step
from killswitch.control.service import OrderResult
from killswitch.errors import Denied, KernelError, KillswitchError, Problem, Protected, TargetError
from tests.unit.cli.conftest import Call
from tests.unit.cli.house import House, receipts, workload


def test_every_error_class_has_its_exit_code() -> None:
    expected = {
        "KillswitchError": 1, "PolicyError": 1, "ConfigError": 1, "KernelError": 1, "NotSupported": 1, "Gone": 1,
        "TargetError": 1, "LedgerError": 1, "Protected": 4, "Denied": 4, "Unreachable": 3, "TimedOut": 6,
        "RequestError": 2,
    }  # fmt: skip
    made: dict[str, KillswitchError] = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, KillswitchError):
            made[name] = kind([Problem("f", 1, 1, "m")]) if name == "PolicyError" else kind.__new__(kind)
    assert {name: int(code_of(error)) for name, error in made.items()} == expected


@pytest.mark.parametrize(
    ("outcomes", "complete", "code"),
    [
        ([Outcome.DONE, Outcome.DONE], True, Exit.DONE),
        ([Outcome.DONE, Outcome.FAILED], False, Exit.PARTLY),
        ([Outcome.REFUSED, Outcome.DONE], False, Exit.PARTLY),
        ([Outcome.FAILED], False, Exit.FAILED),
        ([], False, Exit.FAILED),
        ([Outcome.DONE], False, Exit.PARTLY),  # every step says done, but the daemon did not see the whole
    ],
)
def test_exit_code_of_an_order(outcomes: list[Outcome], complete: bool, code: Exit) -> None:
    given = tuple(Receipt(Step.SEVER, o, 1, 0, 1) for o in outcomes)
    assert exit_of(OrderResult("o", workload(), "", given, complete)) is code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            TargetError("target 'x': no workload has this name"),
            1,
            "killswitch: target 'x': no workload has this name\n",
        ),
        (Protected("pid 1: is protected"), 4, "killswitch: pid 1: is protected\n"),
        (Denied("role view may not"), 4, "killswitch: role view may not\n"),
        (KernelError("freeze /x", 5), 1, "killswitch: freeze /x: Input/output error (EIO)\n"),
    ],
)
def test_what_the_daemon_refuses(house: House, call: Call, error: Exception, code: int, said: str) -> None:
    house.error = error
    result = call("kill", "agent-1", "--reason", "odd")
    assert result.exit_code == code
    assert result.stderr == said
    assert result.stdout == ""


def test_no_daemon(call: Call, tmp_path: object) -> None:
    result = call("status", KILLSWITCH_RUNTIME_DIR=str(tmp_path))
    assert result.exit_code == 3
    assert f"{tmp_path}/admin.sock" in result.stderr
    assert result.stdout == ""


def test_a_slow_daemon(house: House, call: Call) -> None:
    house.delay = 30
    result = call("--timeout", "0.2", "kill", "agent-1", "--reason", "odd")
    assert result.exit_code == 6
    assert result.stderr.startswith("killswitch: ")


def test_the_view_socket_may_look_but_not_act(house: House, call: Call, served: object) -> None:
    view = str(served.runtime / "view.sock")  # type: ignore[attr-defined]
    assert call("--socket", view, "workloads").exit_code == 0
    refused = call("kill", "agent-1", "--reason", "odd", KILLSWITCH_SOCKET=view)
    assert refused.exit_code == 4
    assert house.told == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["statu"],
        ["kill", "agent-1"],
        ["kill", "agent-1", "--reason", "  "],
        ["kill", "--reason", "x"],
        ["release", "agent-1", "--reason", "x", "--stage", "some"],
        ["workloads", "-o", "xml"],
        ["--timeout", "0", "status"],
        ["evidence", "inc-3", "tree.txt", "-d", "/nowhere"],
        ["run"],
        ["run", "--name", "a/b", "--", "true"],
        ["run", "--name", "17", "--", "true"],
        ["run", "--name", "host", "--", "true"],
        ["policy", "check"],
    ],
)
def test_usage(house: House, call: Call, arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert house.told == []


def test_a_mistyped_command_is_guessed(call: Call) -> None:
    assert "Did you mean 'status'?" in call("statu").stderr


def test_a_message_of_a_workload_cannot_steer_the_terminal(house: House, call: Call) -> None:
    house.error = TargetError("target '\x1b]0;owned\x07': none\nsecond line")
    assert call("workloads").stderr == "killswitch: target '\\e]0;owned\\x07': none\nsecond line\n"


def test_partly_done_says_which_step_and_what_state(house: House, call: Call) -> None:
    result_of = workload(desired=house.watched[0].desired)
    house.result = OrderResult("ord-1", result_of, "inc-3", receipts(failed=Step.FREEZE), False)
    result = call("kill", "agent-1", "--reason", "odd")
    assert result.exit_code == 5
    assert result.stderr == "killswitch: agent-1: the order was only partly done: freeze; it is free now\n"
    assert "still frozen 0 after 2 s" in result.stdout
