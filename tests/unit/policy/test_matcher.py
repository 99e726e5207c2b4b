from __future__ import annotations

import dataclasses

import pytest

from killswitch.commands import BIT_TRUNCATED
from killswitch.events import CgroupMove, Connect, Cpu, Event, Exit, Fork, Listen, Transport
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.model import And, Expr, Not, Or
from tests.unit.policy.compiling import policy_of, rule_of, where
from tests.unit.policy.matcher_strategies import make_exec


def compiled(condition: Expr, on: str = "exec") -> Compiled:
    return compile_policies([policy_of(rule_of(condition, on=on))], inode_of=lambda path: None)


def connect(ip: str = "10.1.2.3", port: int = 3333, operation: str = "connect") -> Connect:
    return Connect(1, 1, 1, 5, 1, 1000, b"comm", Transport.TCP, ip, port, operation, False)


CPU = Cpu(1, 1, 5, 1, 10**9, 1.5, 0.25, ())


@pytest.mark.parametrize(
    ("on", "condition", "event", "expected"),
    [
        ("connect", where("destination.ip", "10.0.0.0/8", "fd00::/8", op="cidr"), connect(), True),
        ("connect", where("destination.ip", "10.0.0.0/8", op="cidr"), connect("11.1.1.1"), False),
        (
            "connect",
            where("destination.ip", "10.0.0.0/8", op="cidr"),
            connect("::ffff:10.1.2.3"),
            True,
        ),  # IPv4 after all
        ("connect", where("destination.ip", "fd00::/8", op="cidr"), connect("fd12::1"), True),
        ("connect", where("destination.ip", "10.0.0.0/8", op="cidr"), connect("no address"), False),
        ("connect", where("destination.ip", "2001:db8::1"), connect("2001:0db8:0::1"), True),
        ("connect", where("destination.port", 3333, 4444), connect(), True),
        ("connect", where("destination.port", 1024, op="lt"), connect(), False),
        ("connect", where("network.transport", "tcp"), connect(), True),
        ("connect", where("event.action", "sendmsg"), connect(), False),
        ("connect", where("user.id", 1000), connect(), True),
        ("connect", where("process.name", "xmrig"), connect(), False),
        ("connect", where("process.name", True, op="exists"), connect(), False),
        ("connect", where("process.name", False, op="exists"), connect(), True),
        (
            "listen",
            where("source.port", 22),
            Listen(1, 1, 1, 5, 1, 0, b"", Transport.TCP, "::", 22, "bind", False),
            True,
        ),
        (
            "listen",
            where("event.action", "bind"),
            Listen(1, 1, 1, 5, 1, 0, b"", Transport.TCP, "::", 1, "bind", False),
            True,
        ),
        ("fork", where("process.pid", 5), Fork(1, 1, 1, 5, 1, 1, 1), True),
        ("exit", where("process.pid", 6), Exit(1, 1, 1, 5, 1, 0), False),
        ("cgroup_move", where("cgroup.path", "/free*"), CgroupMove(1, 1, 5, 1, 1, 2, 0, "/free/there"), True),
        ("cpu", And((where("cpu.cores", 1.5, op="gte"), where("cpu.kernel_share", 0.25, op="lte"))), CPU, True),
        ("cpu", where("cpu.cores", 1.5, op="gt"), CPU, False),
        ("fork", where("process.pid", 5), Exit(1, 1, 1, 5, 1, 0), False),  # another kind of event
    ],
)
def test_other_events_than_exec(on: str, condition: Expr, event: Event, expected: bool) -> None:
    assert bool(compiled(condition, on).matches(event, 1)) is expected


def test_fields_that_the_event_does_not_hold_come_from_beside_it() -> None:
    hashing = compiled(where("cpu.hashing", 0.7, op="gte"), "cpu")
    assert not hashing.matches(CPU, 1)
    assert hashing.matches(CPU, 1, {"cpu.hashing": 0.71})
    named = compiled(Or((where("process.name", "ssh"), where("process.args", "-R"))), "connect")
    assert named.matches(connect(), 1, {"process.name": "SSH"})
    assert named.matches(connect(), 1, {"process.args": ("x", "-R")})
    assert not named.matches(connect(), 1, {"process.name": "bash", "process.args": ("x",)})
    inside = compiled(And((where("process.name", "x"), where("cgroup.path", "/a*"))))
    assert inside.matches(make_exec("/x"), 1, {"cgroup.path": "/a/b"})


def test_a_rule_of_another_policy_does_not_match() -> None:
    both = compile_policies([policy_of(rule_of(where("process.name", n)), name=n) for n in ("a", "b")])
    assert [r.policy.name for r in both.matches(make_exec("/b"), 0b11)] == ["b"]
    assert both.matches(make_exec("/b"), 0b01) == ()
    assert both.matches(make_exec("/b"), 0) == ()


def test_the_kernels_predicates_are_trusted_only_if_they_are_of_these_tables() -> None:
    made = dataclasses.replace(compiled(where("process.name", "xmrig")), generation=7)
    bit = made.tables.clauses[0].mask
    lie = make_exec("/bin/true", predicates=bit, generation=7)
    assert made.matches(lie, 1)
    assert not made.matches(dataclasses.replace(lie, generation=6), 1)
    assert not made.matches(dataclasses.replace(lie, argv_total=9999), 1)
    unloaded = dataclasses.replace(made, generation=0)
    assert not unloaded.matches(dataclasses.replace(lie, generation=0), 1)


PADDING = "p" * 5000


@pytest.mark.parametrize(
    "condition",
    [
        where("process.args", "--coin"),
        where("process.command_line", "p --coin", op="contains"),
        where("process.args", "coi(?=n)", op="re"),
        where("ssh.forward", "remote"),
        Not(where("process.args", "--innocent")),
    ],
)
def test_padding_hides_nothing(condition: Expr) -> None:
    made = compiled(condition)
    args = ("ssh", PADDING, "--coin") if "ssh" not in str(condition) else ("ssh", "-l", PADDING, "-R", "9000", "h")
    whole = b"".join(a.encode() + b"\0" for a in args)
    cut = make_exec("/usr/bin/ssh", args)
    assert len(cut.argv) == 4096
    assert cut.truncated
    assert made.wants_full_argv(cut, 1)
    assert [r.rule.id for r in made.undecided(cut, 1)] == ["r"]
    assert made.matches(cut, 1, {"process.command_line_bytes": whole})
    if not isinstance(condition, Not):
        assert not made.matches(cut, 1)


def test_arguments_read_later_cannot_take_back_what_the_kernel_saw() -> None:
    made = compiled(where("process.args", "--coin"))
    cut = make_exec("/x", ("x", "--coin", PADDING))
    rewritten = {"process.command_line_bytes": b"innocent\0" * 1000}
    assert made.matches(cut, 1, rewritten)
    assert made.matches(cut, 1, {"process.command_line_bytes": b""})


def test_the_whole_command_line_is_wanted_only_where_it_matters() -> None:
    by_args = compiled(And((where("process.name", "xmrig"), where("process.args", "--coin"))))
    assert by_args.wants_full_argv(make_exec("/xmrig", ("x", PADDING)), 1)
    assert not by_args.wants_full_argv(make_exec("/gcc", ("x", PADDING)), 1)  # already ruled out
    assert not by_args.wants_full_argv(make_exec("/xmrig", ("x", "y")), 1)  # nothing is missing
    assert not by_args.wants_full_argv(make_exec("/xmrig", ("x", PADDING)), 0)  # no rule asks
    assert not compiled(where("process.name", "xmrig")).wants_full_argv(make_exec("/xmrig", ("x", PADDING)), 1)
    ssh = compiled(where("ssh.forward", "remote"))
    assert not ssh.wants_full_argv(make_exec("/gcc", ("gcc", PADDING)), 1)  # not the client


def test_that_arguments_were_cut_is_a_fact_by_itself() -> None:
    made = compiled(where("process.args_truncated", True))
    cut = make_exec("/x", ("x", PADDING))
    assert made.predicates(cut) >> BIT_TRUNCATED & 1
    assert made.matches(cut, 1)
    assert made.matches(cut, 1, {"process.command_line_bytes": b"x\0" + PADDING.encode() + b"\0"})
    assert not made.matches(make_exec("/x"), 1)


def test_a_memfds_name_may_hold_a_slash() -> None:
    made = compiled(where("process.name", "xmrig"))
    assert made.matches(make_exec("/memfd:a/xmrig", memfd=True), 1)


def test_the_script_that_was_asked_for_counts_as_well_as_what_runs_it() -> None:
    made = compiled(where("process.name", "miner.sh"))
    assert made.matches(make_exec("/usr/bin/dash", filename="./miner.sh"), 1)


@pytest.mark.parametrize(
    ("globs", "cgroup", "root"),
    [
        (("/killswitch/**",), "/killswitch/a/b", "/killswitch/a"),
        (("/killswitch/**",), "/killswitch", None),
        (("/agents.slice/*.service",), "/agents.slice/x.service/sub", "/agents.slice/x.service"),
        (("/agents.slice/*.service",), "/agents.slice/x.scope", None),
        (("/a/b", "/a"), "/a/b", "/a"),
        (("/a",), "/", None),
    ],
)
def test_a_workload_is_the_outermost_watched_cgroup(globs: tuple[str, ...], cgroup: str, root: str | None) -> None:
    made = compile_policies([policy_of(workloads=globs), policy_of(name="other", workloads=("/else",))])
    assert made.root_of(cgroup) == root
    assert made.policies_for(cgroup) == ((0,) if made.policies_for(cgroup) else ())
    if root:
        assert made.policies_for(root) == (0,)
