"""What each field is, for the author's sake: its type, its events, the modifiers that make sense."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.commands import Act, Evidence, Level


@dataclass(frozen=True, slots=True)
class FieldType:
    # opening: text whose end is not known yet
    # text, name (a basename), path, word (one of words), whole, decimal, boolean, ip, host, file (path of a file on disk)
    kind: str
    events: frozenset[str]
    many: bool = False
    words: tuple[str, ...] = ()
    limit: str = "count"  # of a number: count, port, share, kinds, acts, sum
    derived: str = ""  # cannot be given in a test's event: what to give instead

    @property
    def what(self) -> str:
        return {
            "whole": "a number",
            "decimal": "a number",
            "boolean": "true or false",
            "ip": "an IP address",
            "file": "a file",
            "word": "a word",
        }.get(self.kind, "text")


_TEXT = ("contains", "startswith", "endswith", "re", "all", "cased", "exists")
_NUMBER = ("gt", "gte", "lt", "lte", "exists")
_MODIFIERS = {
    "text": _TEXT,
    "opening": ("contains", "startswith", "re", "all", "cased"),
    "host": ("domain", "contains", "startswith", "endswith", "re", "all", "exists"),
    "name": _TEXT,
    "path": _TEXT,
    "whole": _NUMBER,
    "decimal": _NUMBER,
    "boolean": ("exists",),
    "ip": ("cidr", "exists"),
    "word": ("all", "exists"),
    "file": (),
}


def allowed_modifiers(name: str) -> tuple[str, ...]:
    return _MODIFIERS[FIELDS[name].kind]


_ALL = frozenset(
    {
        *("exec", "fork", "exit", "connect", "unanswered", "listen", "wire", "file", "flow", "signal", "denied"),
        *("cgroup_move", "cpu"),
    }
)


def _on(*events: str) -> frozenset[str]:
    return frozenset(events)


# As kernel.places has them: what a process that outlives its workload hangs on, and what containment does.
PLACES = (
    "cron", "authorized_keys", "ssh", "systemd", "profile", "preload", "boot", "sudoers", "pam", "udev", "autostart",
    "accounts", "cgroup", "killswitch",
)  # fmt: skip

# What is known of a process goes with each of its events; only an exec brings its file and its arguments' grammar.
FIELDS: dict[str, FieldType] = {
    "process.name": FieldType("name", _ALL),
    "process.executable": FieldType("path", _ALL),
    "process.args": FieldType("text", _ALL, many=True),
    "process.command_line": FieldType("text", _ALL),
    "process.args_truncated": FieldType("boolean", _ALL),
    "process.parent.name": FieldType("name", _ALL),
    "process.pid": FieldType("whole", _ALL),
    "user.id": FieldType("whole", _on("exec", "connect", "unanswered", "listen", "wire", "flow", "denied")),
    "group.id": FieldType("whole", _on("exec")),
    "file.inode_of": FieldType("file", _on("exec", "wire", "cpu"), many=True),
    "file.memfd": FieldType("boolean", _on("exec", "wire", "cpu", "flow")),
    "file.unlinked": FieldType("boolean", _on("exec", "wire", "cpu", "flow")),
    "process.listens": FieldType("boolean", _on("cpu")),
    "process.reads_program": FieldType("boolean", _on("flow")),
    "file.path": FieldType("path", _on("file")),
    "file.place": FieldType("word", _on("file"), words=PLACES),
    "file.content": FieldType("text", _on("file")),
    "signal.number": FieldType("whole", _on("signal")),
    "signal.to_daemon": FieldType("boolean", _on("signal", "denied")),
    "target.name": FieldType("name", _on("signal", "denied")),
    "target.pid": FieldType("whole", _on("signal", "denied")),
    "denied.severed": FieldType("boolean", _on("denied")),
    "ssh.forward": FieldType(
        "word",
        _on("exec"),
        many=True,
        words=("remote", "local", "dynamic", "tun", "stdio"),
        derived="it is read from the arguments: give process.executable: /usr/bin/ssh and process.args",
    ),
    # Found out after the program began, by reading files: see facts.Facts.
    "file.program": FieldType("name", _on("exec"), many=True),
    "file.hash.sha256": FieldType("text", _on("exec"), many=True),
    "ssh.config_unread": FieldType("boolean", _on("exec")),
    "process.config": FieldType("text", _on("exec"), many=True),
    "process.named_files": FieldType("text", _on("exec"), many=True),
    "process.env": FieldType("text", _on("exec"), many=True),
    "destination.ip": FieldType("ip", _on("connect", "unanswered", "flow")),
    "destination.port": FieldType("whole", _on("connect", "unanswered", "flow"), limit="port"),
    "source.ip": FieldType("ip", _on("listen")),
    "source.port": FieldType("whole", _on("listen"), limit="port"),
    "network.turns_inwards": FieldType("boolean", _on("connect")),
    "network.fanout.hosts": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.ports": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.endpoints": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.slow_hosts": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.slow_ports": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.unanswered_hosts": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.unanswered_ports": FieldType("whole", _on("connect", "unanswered")),
    "network.fanout.silent": FieldType("whole", _on("connect", "unanswered")),
    "wire.sent": FieldType("opening", _on("wire")),
    "wire.received": FieldType("opening", _on("wire")),
    "network.outside.flows": FieldType("whole", _on("cpu", "flow")),
    "network.outside.age": FieldType("decimal", _on("cpu", "flow")),
    "network.stdio": FieldType("word", _on("flow"), many=True, words=("stdin", "stdout", "stderr")),
    "network.piped": FieldType("boolean", _on("flow")),
    "network.answered": FieldType("whole", _on("flow")),
    "network.obeyed": FieldType("whole", _on("flow")),
    "network.obeyed_first": FieldType("whole", _on("flow")),
    "network.obeyed_share": FieldType("decimal", _on("flow"), limit="share"),
    "relay.exchanges": FieldType("whole", _on("flow")),
    "relay.bytes": FieldType("whole", _on("flow")),
    "relay.match": FieldType("decimal", _on("flow"), limit="share"),
    "relay.certainty": FieldType("decimal", _on("flow")),
    "remote.ip": FieldType("ip", _on("wire", "flow")),
    "remote.port": FieldType("whole", _on("wire", "flow"), limit="port"),
    "dns.question.name": FieldType("host", _on("wire")),
    "tls.client.server_name": FieldType("host", _on("wire")),
    "network.direction": FieldType("word", _on("wire"), words=("inbound", "outbound")),
    "network.transport": FieldType(
        "word", _on("connect", "unanswered", "listen", "wire", "flow"), words=("tcp", "udp", "icmp", "other")
    ),
    "event.action": FieldType(
        "word",
        _on("connect", "listen", "file", "signal", "denied"),
        words=(
            "connect",
            "sendmsg",
            "packet",
            "bind",
            "listen",
            "create",
            "write",
            "rename",
            "delete",
            "kill",
            "ptrace",
            *("exec", "socket", "send", "receive", "bpf", "pin", "cgroup_file", "kernel_code"),
        ),
    ),
    "cgroup.path": FieldType("path", _ALL),
    "cpu.cores": FieldType("decimal", _on("cpu")),
    "cpu.kernel_share": FieldType("decimal", _on("cpu"), limit="share"),
    "cpu.hashing": FieldType("decimal", _on("cpu"), limit="share"),
    "cpu.hashing_seconds": FieldType("decimal", _on("cpu")),
    "cpu.mixing": FieldType("decimal", _on("cpu"), limit="share"),
    "cpu.algorithm": FieldType("text", _on("cpu"), many=True),
    "cpu.jit": FieldType("decimal", _on("cpu"), limit="share"),
    "workload.cpu.cores": FieldType("decimal", _on("cpu")),
    "workload.cpu.hashing": FieldType("decimal", _on("cpu"), limit="share"),
    "workload.cpu.hashing_seconds": FieldType("decimal", _on("cpu")),
    "process.memory.huge_pages": FieldType("whole", _on("cpu")),
    "process.memory.executable_anonymous": FieldType("whole", _on("cpu")),
    "process.open_msr": FieldType("boolean", _on("cpu")),
    "process.threads": FieldType("whole", _on("cpu")),
    "process.nice": FieldType("whole", _on("cpu")),
    "finding.act": FieldType("word", _on("finding"), words=tuple(Act)),
    "finding.evidence": FieldType("word", _on("finding"), words=tuple(Evidence)),
    "finding.rule": FieldType("text", _on("finding")),
    "finding.policy": FieldType("text", _on("finding")),
    "finding.level": FieldType("word", _on("finding"), words=tuple(Level)),
    "finding.kinds": FieldType("whole", _on("finding"), limit="kinds"),
    "finding.rules": FieldType("whole", _on("finding"), limit="sum"),
    "finding.count": FieldType("whole", _on("finding"), limit="sum"),
    "finding.acts": FieldType("whole", _on("finding"), limit="acts"),
}
