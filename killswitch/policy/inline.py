"""``tests:`` of a rule: an event written by its fields, made into a real one and put to the compiled policy.

Nothing here decides whether a rule matches: that is ``Compiled.matches``, the same judgement that the daemon uses.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from killswitch.errors import Problem
from killswitch.events import (
    CgroupMove,
    Connect,
    Cpu,
    Denied,
    Done,
    Event,
    Exec,
    Exit,
    File,
    Flow,
    Fork,
    Listen,
    Signal,
    Transport,
    Unanswered,
    Wire,
)
from killswitch.facts import Facts
from killswitch.policy.correlation import Memory, correlations
from killswitch.policy.fields import PROGRAM
from killswitch.policy.inode import os_inode
from killswitch.policy.model import FoundBefore, Policy, Rule
from killswitch.policy.sums import Source

if TYPE_CHECKING:
    from killswitch.policy.compiled import Compiled

WINDOW = 4096  # bytes of arguments that the kernel reads


def run_inline_tests(policies: Sequence[Policy], compiled: Compiled) -> list[Problem]:
    """Each test that does not come out as expected, with the place of the test."""
    problems = []
    index = {id(p): i for i, p in enumerate(compiled.policies)}
    for number, policy in enumerate(policies):
        bit = 1 << index.get(id(policy), number)
        for rule in policy.rules:
            for test in rule.tests:
                if rule.on == "finding":
                    matched = matches_at_last(policy, rule, test.findings, compiled)
                else:
                    event, extra = build_event(rule.on, test.event)
                    found = list(compiled.matches(event, bit, extra))
                    if isinstance(event, Exec):
                        found += compiled.later(event, bit, facts_of(extra), extra)
                    matched = any(m.rule is rule or m.rule.id == rule.id for m in found)
                if matched != test.match:
                    told = "matches" if matched else "does not match"
                    wanted = "match" if test.match else "no_match"
                    fields = ", ".join(f"{k}: {_shown(v)}" for k, v in test.event.items())
                    given = f"the last of {len(test.findings)} findings" if test.findings else f"{{{fields}}}"
                    message = f"test of rule '{rule.id}' fails: the rule {told} {given}, expected {wanted}"
                    problems.append(Problem(policy.file, test.line, test.column, message))
    return problems


def matches_at_last(policy: Policy, rule: Rule, series: Sequence[FoundBefore], compiled: Compiled) -> bool:
    """Whether the ``on: finding`` rule matches when the last of these is found."""
    judge = next(c for c in correlations(compiled) if (c.rule.policy.name, c.rule.rule.id) == (policy.name, rule.id))
    known = {(r.policy.name, r.rule.id): r.rule for r in compiled.rules}
    memory, now, matched = Memory(), 0, False
    for one in series:
        now += one.after_ns
        found = known.get((one.policy or policy.name, one.rule))
        source = Source(
            policy=one.policy or policy.name,
            rule=one.rule or f"{one.act} {one.evidence} {one.level}",  # a rule without a name is told by what it says
            act=one.act or (found.act if found else None) or "",
            evidence=one.evidence or (found.evidence if found else None) or "",
            level=one.level or (found.level if found else ""),
            mode=policy.mode,
        )
        memory.note(source, now)
        matched = bool(judge.judge(source, now, memory))
    return matched


def _shown(value: object) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)


def build_event(on: str, fields: Mapping[str, object]) -> tuple[Event, dict[str, object]]:
    """A whole event of kind ``on`` with these fields, and what of them an event does not carry (``extra``).

    What is not said is innocent: program /usr/bin/program of user 1000, called with its name alone.
    """
    given = dict(fields)
    event = _BUILDERS[on](given)
    return event, given


def facts_of(given: Mapping[str, object]) -> Facts:
    """What a test's event says that would be found out after the program began."""

    def texts(field: str) -> tuple[bytes, ...]:
        return tuple(str(v).encode("utf-8", "surrogateescape") for v in _many(given.get(field, ())))

    return Facts(
        programs=tuple(str(v) for v in _many(given.get("file.program", ()))),
        sha256="".join(str(v) for v in _many(given.get("file.hash.sha256", ()))[:1]),
        config_unread="not said" if given.get("ssh.config_unread") else "",
        config=texts("process.config"),
        named_files=texts("process.named_files"),
        environment=texts("process.env"),
    )


def _take_int(given: dict[str, object], key: str, default: int) -> int:
    value = given.pop(key, default)
    return int(str(value))


def _take_float(given: dict[str, object], key: str, default: float) -> float:
    return float(str(given.pop(key, default)))


def _take_bytes(given: dict[str, object], key: str, default: str) -> bytes:
    return str(given.pop(key, default)).encode("utf-8", "surrogateescape")


def _exec(given: dict[str, object]) -> Event:
    name = str(given.pop("process.name", ""))
    executable = str(given.pop("process.executable", "") or f"/usr/bin/{name or 'program'}")
    base = executable.rpartition("/")[2]
    filename = executable if name in ("", base) else f"/usr/bin/{name}"
    if "process.args" in given:
        args = [str(a) for a in _many(given.pop("process.args"))]
        given.pop("process.command_line", None)
    elif "process.command_line" in given:
        args = shlex.split(str(given.pop("process.command_line")))
    else:
        args = [name or base]
    argv = b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in args)
    truncated = bool(given.pop("process.args_truncated", False))
    inode, device = _file(given)
    return Exec(
        time_ns=1, workload=1, cgroup_id=1, pid=_take_int(given, "process.pid", 4242), start_ticks=1, ppid=1,
        parent_start_ticks=1, uid=_take_int(given, "user.id", 1000), gid=_take_int(given, "group.id", 1000),
        parent_name=_take_bytes(given, "process.parent.name", "bash"), executable=executable.encode(),
        filename=filename.encode(), argv=argv[:WINDOW], argv_total=max(len(argv), WINDOW + 1 if truncated else 0),
        inode=inode, device=device, nlink=0 if given.pop("file.unlinked", False) else 1,
        memfd=bool(given.pop("file.memfd", False)), predicates=0, generation=-1, clause=-1, done=Done.NOTHING, verdict_ns=0,
    )  # fmt: skip


def _file(given: dict[str, object]) -> tuple[int, int]:
    """(inode, device) of the file named by ``file.inode_of``; none of this host's otherwise."""
    for path in _many(given.pop("file.inode_of", ())):
        found = os_inode(str(path))
        if found:
            return found[1], found[0]
    return 0, 0


def _comm(given: Mapping[str, object]) -> bytes:
    """The thread's name; ``process.name`` itself is not in the event, and stays in what is given beside it."""
    return str(given.get("process.name", "program")).encode("utf-8", "surrogateescape")[:15]


def _many(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _fork(given: dict[str, object]) -> Event:
    return Fork(1, 1, 1, _take_int(given, "process.pid", 4242), 1, 1, 1)


def _exit(given: dict[str, object]) -> Event:
    return Exit(1, 1, 1, _take_int(given, "process.pid", 4242), 1, 0)


def _connect(given: dict[str, object]) -> Event:
    return Connect(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000),
        _comm(given), Transport(str(given.pop("network.transport", "tcp"))),
        str(given.pop("destination.ip", "192.0.2.1")), _take_int(given, "destination.port", 443),
        str(given.pop("event.action", "connect")), False,
    )  # fmt: skip


def _unanswered(given: dict[str, object]) -> Event:
    return Unanswered(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000),
        _comm(given), Transport(str(given.pop("network.transport", "tcp"))),
        str(given.pop("destination.ip", "192.0.2.1")), _take_int(given, "destination.port", 443),
    )  # fmt: skip


def _listen(given: dict[str, object]) -> Event:
    return Listen(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000),
        _comm(given), Transport(str(given.pop("network.transport", "tcp"))),
        str(given.pop("source.ip", "192.0.2.1")), _take_int(given, "source.port", 8080),
        str(given.pop("event.action", "listen")), False,
    )  # fmt: skip


def _wire(given: dict[str, object]) -> Event:
    """What is said of the process and its file is its program, as the kernel would have seen it when it began."""
    program = {k: given.pop(k) for k in list(given) if k.startswith(("process.", "file.")) and k != "process.pid"}
    given[PROGRAM] = _exec(program)
    sent, received = _take_bytes(given, "wire.sent", ""), _take_bytes(given, "wire.received", "")
    question, server = _take_bytes(given, "dns.question.name", ""), _take_bytes(given, "tls.client.server_name", "")
    return Wire(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000), b"program",
        Transport(str(given.pop("network.transport", "udp" if question else "tcp"))),
        str(given.pop("remote.ip", "192.0.2.1")), _take_int(given, "remote.port", 443),
        "received" if received and not sent else "sent", sent, received, 0, False, -1, -1, Done.NOTHING, 0, question, server,
        given.pop("network.direction", "outbound") == "outbound",
    )  # fmt: skip


def _changed(given: dict[str, object]) -> Event:
    return File(
        1, 1, _take_int(given, "process.pid", 4242), 1, _take_bytes(given, "file.path", "/etc/cron.d/x"),
        str(given.pop("file.place", "cron")), str(given.pop("event.action", "write")),
        _take_bytes(given, "file.content", ""),
    )  # fmt: skip


def _flow(given: dict[str, object]) -> Event:
    return Flow(
        1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000), _comm(given), 1,
        Transport(str(given.pop("network.transport", "tcp"))), "192.0.2.9", 40000,
        str(given.pop("remote.ip", "192.0.2.1")), _take_int(given, "remote.port", 443), 1, 1, 0, 0, False, 0, (), 4242, 1,
        tuple(str(name) for name in _many(given.pop("network.stdio", ()))),
    )  # fmt: skip


def _signal(given: dict[str, object]) -> Event:
    return Signal(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "signal.number", 15),
        _take_int(given, "target.pid", 1), 1, _take_bytes(given, "target.name", "program"),
        str(given.pop("event.action", "kill")), bool(given.pop("signal.to_daemon", False)),
    )  # fmt: skip


def _denied(given: dict[str, object]) -> Event:
    return Denied(
        1, 1, 1, _take_int(given, "process.pid", 4242), 1, _take_int(given, "user.id", 1000), _comm(given),
        str(given.pop("event.action", "ptrace")), 0, _take_int(given, "target.pid", 1), 1,
        _take_bytes(given, "target.name", "program"), bool(given.pop("denied.severed", False)),
        bool(given.pop("signal.to_daemon", False)),
    )  # fmt: skip


def _cgroup_move(given: dict[str, object]) -> Event:
    return CgroupMove(
        1, 1, _take_int(given, "process.pid", 4242), 1, 1, 2, 0, str(given.pop("cgroup.path", "/elsewhere"))
    )


def _cpu(given: dict[str, object]) -> Event:
    cores, share = _take_float(given, "cpu.cores", 0.0), _take_float(given, "cpu.kernel_share", 0.0)
    return Cpu(1, 1, _take_int(given, "process.pid", 4242), 1, 1_000_000_000, cores, share, ())


_BUILDERS = {
    "exec": _exec, "fork": _fork, "exit": _exit, "connect": _connect, "unanswered": _unanswered, "listen": _listen, "wire": _wire,
    "file": _changed, "flow": _flow, "signal": _signal, "denied": _denied, "cgroup_move": _cgroup_move, "cpu": _cpu,
}  # fmt: skip
