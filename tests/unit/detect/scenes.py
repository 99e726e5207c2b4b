"""What scripts of events are written with: short makers of events, and an engine with policies given as YAML."""

from __future__ import annotations

from typing import Any

from killswitch.commands import Command, Finding, RecordFinding
from killswitch.engine import Engine
from killswitch.events import (
    CgroupMove,
    Connect,
    Cpu,
    Done,
    Event,
    Exec,
    Exit,
    Fork,
    Lost,
    Tick,
    Transport,
    WorkloadAdded,
)
from killswitch.machinecode import Code, CodeBlock
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_text

MS = 1_000_000
S = 1_000 * MS
WORKLOAD = 77
CGROUP = "/killswitch/job"

HEAD = """\
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: {name}, version: 1}}
workloads:
  - cgroup: /killswitch/**
mode: {mode}
rules:
"""

MINER = """\
  - id: miner
    title: Known miner executed
    level: critical
    on: exec
    match:
      name: {process.name: [xmrig, minerd]}
    condition: name
    response: [kill_process, sever, freeze, capture]
"""

HASHING = """\
  - id: hashing
    title: Sustained hashing load
    level: high
    on: cpu
    match:
      busy: {cpu.cores|gte: 0.5}
      hashing: {cpu.hashing|gte: 0.7}
    condition: busy and hashing
    for: 10s
    response: [sever, freeze, capture]
"""

PROBE = """\
  - id: probe
    title: Connection to the metadata service
    level: medium
    on: connect
    match:
      there: {destination.ip: 169.254.169.254}
    condition: there
    response: [alert]
"""


def compiled(*rules: str, mode: str = "enforce", name: str = "test") -> Compiled:
    text = HEAD.format(name=name, mode=mode) + "".join(rules)
    return compile_policies([load_text(text, f"{name}.yaml")])


class Scene:
    """An engine, and one watched workload unless told otherwise."""

    def __init__(self, *rules: str, mode: str = "enforce", added: bool = True) -> None:
        self.engine = Engine(compiled(*rules or (MINER, HASHING, PROBE), mode=mode))
        if added:
            self.add()

    def add(self, workload: int = WORKLOAD, cgroup: str = CGROUP, policies: tuple[int, ...] = (0,)) -> None:
        assert self.engine.handle(WorkloadAdded(0, workload, cgroup.rpartition("/")[2], cgroup, policies)) == []

    def play(self, *events: Event) -> list[Command]:
        return [command for event in events for command in self.engine.handle(event)]


def findings(commands: list[Command]) -> list[Finding]:
    return [c.finding for c in commands if isinstance(c, RecordFinding)]


def kinds(commands: list[Command]) -> list[str]:
    return [type(c).__name__ for c in commands]


def ex(path: str = "/usr/bin/true", *args: str, at: int = 0, pid: int = 10, **more: Any) -> Exec:
    argv = b"".join(a.encode("utf-8", "surrogateescape") + b"\0" for a in (args or (path,)))
    raw = path.encode("utf-8", "surrogateescape")
    fields: dict[str, Any] = {
        "time_ns": at,
        "workload": WORKLOAD,
        "cgroup_id": WORKLOAD,
        "pid": pid,
        "start_ticks": 1000 + pid,
        "ppid": 1,
        "parent_start_ticks": 0,
        "uid": 1000,
        "gid": 1000,
        "parent_name": b"bash",
        "executable": raw,
        "filename": raw,
        "argv": argv,
        "argv_total": len(argv),
        "inode": 5,
        "device": 1,
        "nlink": 1,
        "memfd": False,
        "predicates": 0,
        "generation": 0,
        "clause": -1,
        "done": Done.NOTHING,
        "verdict_ns": 0,
    }
    return Exec(**{**fields, **more})


def fork(pid: int, parent: int, *, at: int = 0, workload: int = WORKLOAD, start: int = 0) -> Fork:
    return Fork(at, workload, workload, pid, start or 1000 + pid, parent, 1000 + parent)


def gone(pid: int, *, at: int = 0, workload: int = WORKLOAD) -> Exit:
    return Exit(at, workload, workload, pid, 1000 + pid, 0)


def connect(ip: str, port: int = 80, *, at: int = 0, pid: int = 10, denied: bool = False) -> Connect:
    return Connect(
        at, WORKLOAD, WORKLOAD, pid, 1000 + pid, 0, b"curl", Transport.TCP, ip, port, "connect", denied
    )  # fmt: skip


def move(pid: int, to_workload: int, *, at: int = 0, to_path: str = "/elsewhere") -> CgroupMove:
    return CgroupMove(at, WORKLOAD, pid, 1000 + pid, WORKLOAD, 99, to_workload, to_path)


def cpu(at_s: float, *, pid: int = 10, cores: float = 1.0, hot: tuple[tuple[int, int], ...] = ((0x1000, 90),)) -> Cpu:
    return Cpu(int(at_s * S), WORKLOAD, pid, 1000 + pid, S, cores, 0.0, hot)


# rol r10d, 5; xor r10d, r9d; add r10d, r8d; rol r9d, 7; xor r9d, r8d; add r9d, r11d — and the same again
ARX = bytes.fromhex("41c1c2054531ca4501c241c1c1074531c14501d9") * 3
# mov rax, [rdi]; cmp rax, rsi; je +2; add rdi, 8; test rdi, rdi; jne -17 …
PLAIN = bytes.fromhex("488b074839f07402" + "4883c7084885ff75ef") * 3


def code(at_s: float, blob: bytes = ARX, *, pid: int = 10, read: int = 0, cpu_s: float = 10.0) -> Code:
    blocks = (CodeBlock(0x1000, 90, blob, "/tmp/x"),)
    return Code(int(at_s * S), WORKLOAD, pid, 1000 + pid, "x86_64", blocks, read, 10, int(cpu_s * S))


def lost(count: int, *, at: int = 0, reason: str = "ring full", workload: int = WORKLOAD) -> Lost:
    return Lost(at, workload, reason, count)


def tick(at_s: float) -> Tick:
    return Tick(int(at_s * S))
