"""Predicates of exec and wire rules that the walk can judge, each with its bit; equal ones of all rules share one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from killswitch.commands import (
    BIT_DNS,
    BIT_MEMFD,
    BIT_OUTBOUND,
    BIT_TLS,
    BIT_TRUNCATED,
    BIT_UDP,
    BIT_UNLINKED,
    FIRST_FREE_BIT,
    MAX_INODES,
    MAX_STATES,
    PREDICATES,
    Grammar,
    KernelTables,
)
from killswitch.policy import binary, hostnames, ssh, walks
from killswitch.policy.automaton import Dfa, TableBuilder, TooBig, prune
from killswitch.policy.clauses import All, Bit, Const, Formula, Inverse, Opaque, Some
from killswitch.policy.fields import FIELDS
from killswitch.policy.model import And, Expr, Not, Or, Predicate

InodeOf = Callable[[str], tuple[int, int] | None]

_WALK_OF = {
    "process.name": "name",
    "process.executable": "path",
    "process.parent.name": "parent",
    "process.args": "args",
    "process.command_line": "args",
    "wire.sent": "sent",
    "wire.received": "received",
    hostnames.DNS: "host",  # and the server's name, which shares its bits: a flow has one of the two
    "remote.ip": "address",
    "remote.port": "port",
}
WIRE_FIELDS = ("wire.sent", "wire.received")
NAMES = {hostnames.DNS: 1 << BIT_DNS, hostnames.TLS: 1 << BIT_TLS}
_OF_FLOW = ("sent", "received", "host", "address", "port")
_FLOW_FLAGS = 1 << BIT_OUTBOUND | 1 << BIT_UDP | sum(NAMES.values())
# How many states each walk has room for, whatever the others need: with OpenSSH's grammar they fill the table.
_SHARES = {"parent": 2048, "name": 8192, "path": 4096, "sent": 2048, "received": 2048, "host": 6144, "args": 6656}
MAX_WALK = 16384  # states, however much is left: joining automata takes time by the states that come of it
_TEXT = {"args": "arguments", "sent": "flow", "received": "flow"}
_BINARY = {"address4": 384, "address6": 384, "port": 128}
_FLAGS = {"file.memfd": BIT_MEMFD, "file.unlinked": BIT_UNLINKED, "process.args_truncated": BIT_TRUNCATED}
NO_BIT = f"all {PREDICATES - FIRST_FREE_BIT} predicate bits are taken"

AFTERWARDS = "the rest of its rule is found out after the program began"


def predicates(expr: Expr) -> Iterable[Predicate]:
    match expr:
        case Not(part):
            yield from predicates(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from predicates(part)
        case Predicate():
            yield expr


@dataclass(slots=True)
class Atoms:
    """First ``add`` every condition, then ``build`` the tables, then ask for each one's ``formula``."""

    bits: dict[Predicate, int] = field(default_factory=dict)  # bit as a mask
    refused: dict[Predicate, str] = field(default_factory=dict)
    gate: int = 0
    args_bits: int = 0  # bits that the arguments decide
    ssh_bits: int = 0
    told: int = 0  # flags of a flow that some rule asks for by themselves
    ssh_means: dict[str, int] = field(default_factory=dict)  # each kind of forwarding -> the bits that it sets
    missing: list[str] = field(default_factory=list)  # files of ``file.inode_of`` that are not there
    _next: int = FIRST_FREE_BIT

    def add(self, conditions: Iterable[Expr], later: Iterable[Expr] = ()) -> None:
        """Give out bits, first to what only the walk can judge, then in the order given.

        ``later``: conditions that the daemon judges whatever happens. They take no room from what the kernel judges, but
        for what the walk alone can.
        """
        wanted = dict.fromkeys(atom for c in conditions for p in predicates(c) for atom in _atoms(p))
        for atom in (atom for c in later for p in predicates(c) for atom in _atoms(p)):
            if FIELDS[atom.field].kind == "derived":
                wanted.setdefault(atom)
        if any(atom.field == "ssh.forward" for atom in wanted):
            self.gate = self._bit()
        for atom in sorted(wanted, key=lambda a: FIELDS[a.field].kind != "derived"):
            if self._next < PREDICATES:
                self.bits[atom] = self._bit()
            elif FIELDS[atom.field].kind == "derived":
                raise ValueError(f"'{atom.field}' can be judged by predicate bits only, and {NO_BIT}")
            else:
                self.refused[atom] = NO_BIT

    def _bit(self) -> int:
        self._next += 1
        return 1 << self._next - 1

    def build(self, inode_of: InodeOf) -> KernelTables:
        """The tables, still without clauses. Raises ValueError when rules name more files than there is room for."""
        table = TableBuilder()
        grammars = self._grammars(table)
        fixed = {walk: self._binary(walk, table, limit) for walk, limit in _BINARY.items()}
        starts = {walk: self._walk(walk, table) for walk in _SHARES}
        return KernelTables(
            rows=table.rows,
            accepts=table.accepts,
            start_name=starts["name"],
            start_path=starts["path"],
            start_parent=starts["parent"],
            start_args=starts["args"],
            start_sent=starts["sent"],
            start_received=starts["received"],
            start_host=starts["host"],
            start_address4=fixed["address4"],
            start_address6=fixed["address6"],
            start_port=fixed["port"],
            wire_bits=self.wire_bits,
            told_bits=self.seen_bits,
            late_bits=self.args_bits | self.ssh_bits | 1 << BIT_TRUNCATED,
            grammars=grammars,
            clauses=(),
            inodes=self._inodes(inode_of),
        )

    def _walk(self, walk: str, table: TableBuilder) -> int:
        atoms = {bit: atom for atom, bit in self.bits.items() if _WALK_OF.get(atom.field) == walk}
        if walk == "name" and self.gate:
            atoms[self.gate] = Predicate("process.name", "match", ssh.NAMES)
        limit = self._room(walk, table)
        dfa, left_out = walks.build(atoms, text=_TEXT.get(walk, "token"), limit=limit)
        for bit, why in left_out.items():
            self.refused[atoms[bit]] = why
            self.bits.pop(atoms[bit], None)
        if walk == "args":
            self.args_bits |= sum(bit for bit in atoms if bit not in left_out)
        return table.add(dfa)

    @staticmethod
    def _room(walk: str, table: TableBuilder) -> int:
        """States that this walk may have: its share, and what those before it have left of theirs."""
        walks = list(_SHARES)
        kept = sum(_SHARES[later] for later in walks[walks.index(walk) + 1 :])
        return min(MAX_WALK, MAX_STATES - table.states - kept)

    def _binary(self, walk: str, table: TableBuilder, limit: int) -> int:
        field = "remote.port" if walk == "port" else "remote.ip"
        asked = {bit: atom for atom, bit in self.bits.items() if atom.field == field}
        while asked:
            wanted = {
                bit: binary.ports(atom) if walk == "port" else binary.addresses(atom, 4 if walk == "address4" else 6)
                for bit, atom in asked.items()
            }
            try:
                return table.add(binary.build(wanted, {"address4": 4, "address6": 16, "port": 2}[walk], limit))
            except TooBig as why:  # leave out the longest list, and try again
                longest = max(asked, key=lambda bit: len(wanted[bit]))
                atom = asked.pop(longest)
                self.refused[atom] = str(why)
                self.bits.pop(atom, None)
        return 0

    def _grammars(self, table: TableBuilder) -> tuple[Grammar, ...]:
        if not self.gate:
            return ()
        dfa, kinds = ssh.grammar()
        asking = [(atom, bit) for atom, bit in self.bits.items() if atom.field == "ssh.forward"]
        means = [sum(b for atom, b in asking if atom.op == "exists" or kind in atom.values) for kind in ssh.KINDS]
        own = [sum_bits(means[i] for i, kind in enumerate(kinds) if bits & kind) for bits in dfa.bits]
        self.ssh_bits = sum_bits(means)
        self.ssh_means = dict(zip(ssh.KINDS, means, strict=True))
        start = table.add(prune(Dfa(dfa.classes, dfa.rows, own, dfa.start)))
        return (Grammar(self.gate.bit_length() - 1, start),)

    def _inodes(self, inode_of: InodeOf) -> tuple[tuple[int, int, int], ...]:
        wanted: list[tuple[str, int]] = [(path, self.gate) for path in ssh.paths()] if self.gate else []
        for atom, bit in self.bits.items():
            if atom.field == "file.inode_of":
                wanted.extend((str(path), bit) for path in atom.values)
        found: dict[tuple[int, int], int] = {}
        for path, bit in wanted:
            file = inode_of(path)
            if file is not None:
                found[file] = found.get(file, 0) | bit
            elif bit != self.gate:
                self.missing.append(path)
        if len(found) > MAX_INODES:
            raise ValueError(f"the rules name {len(found)} files by 'file.inode_of': at most {MAX_INODES} fit")
        return tuple((device, inode, bits) for (device, inode), bits in found.items())

    @property
    def wire_bits(self) -> int:
        """Bits that a flow decides: its first bytes, its names, and where it goes."""
        return _FLOW_FLAGS | sum_bits(bit for atom, bit in self.bits.items() if _WALK_OF.get(atom.field) in _OF_FLOW)

    @property
    def seen_bits(self) -> int:
        """Those of them that say what was seen on the wire, and not only between whom."""
        text = (bit for atom, bit in self.bits.items() if _WALK_OF.get(atom.field) in ("sent", "received", "host"))
        return self.told | sum_bits(text)

    def formula(self, expr: Expr) -> Formula:
        match expr:
            case Not(part):
                return Inverse(self.formula(part))
            case And(parts):
                return All(tuple(map(self.formula, parts)))
            case Or(parts):
                return Some(tuple(map(self.formula, parts)))
        return self._leaf(expr)

    def _leaf(self, predicate: Predicate) -> Formula:
        flag = _FLAGS.get(predicate.field)
        if flag is not None:
            return _flag(predicate, 1 << flag)
        if predicate.field in _WORDS:
            return _word(predicate)
        if predicate.op == "exists" and predicate.field in ("remote.ip", "remote.port", *NAMES):
            name = NAMES.get(predicate.field, 0)
            held: Formula = Bit(name) if name else Const(True)
            self.told |= name
            return held if predicate.values[0] else Inverse(held)
        atoms = _atoms(predicate)
        if not atoms:
            return Opaque(predicate, f"{predicate.field} is not in what the kernel walks")
        named = NAMES.get(predicate.field, 0)
        for atom in atoms:
            if atom not in self.bits:
                why = Opaque(predicate, f"{predicate.field}{_suffix(predicate)}: {self.refused.get(atom, AFTERWARDS)}")
                self.told |= named
                return All((Bit(named), why)) if named else why
        bits = tuple(Bit(self.bits[atom]) for atom in atoms)
        if named:
            bits += (Bit(named),)
        found: Formula = bits[0] if len(bits) == 1 else All(bits)
        return Inverse(found) if predicate.op == "exists" and not predicate.values[0] else found


_WORDS = {
    "network.direction": {"outbound": (1 << BIT_OUTBOUND, True), "inbound": (1 << BIT_OUTBOUND, False)},
    "network.transport": {"udp": (1 << BIT_UDP, True), "tcp": (1 << BIT_UDP, False)},
}


def _word(predicate: Predicate) -> Formula:
    if predicate.op == "exists":
        return Const(bool(predicate.values[0]))
    known = [_WORDS[predicate.field].get(str(value)) for value in predicate.values]
    parts: list[Formula] = [Const(False) if k is None else Bit(k[0]) if k[1] else Inverse(Bit(k[0])) for k in known]
    return All(tuple(parts)) if predicate.all else Some(tuple(parts))


def sum_bits(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _suffix(predicate: Predicate) -> str:
    return "" if predicate.op == "match" else f"|{predicate.op}"


def _flag(predicate: Predicate, mask: int) -> Formula:
    if predicate.op == "exists":
        return Const(bool(predicate.values[0]))
    if predicate.op != "match":
        raise ValueError(f"'{predicate.field}' is true or false and cannot be compared by '{predicate.op}'")
    return Some(tuple(Bit(mask) if wanted else Inverse(Bit(mask)) for wanted in predicate.values))


def _atoms(predicate: Predicate) -> tuple[Predicate, ...]:
    """The predicates that need one bit each: all of them hold when it does. () = not one for the walk."""
    if predicate.field in (*NAMES, *_WORDS, "remote.ip", "remote.port") and predicate.op == "exists":
        return ()
    if predicate.field == hostnames.TLS:
        predicate = dataclasses.replace(predicate, field=hostnames.DNS)
    if predicate.field not in _WALK_OF and FIELDS[predicate.field].kind != "derived":
        return ()
    if predicate.op == "exists":
        return (dataclasses.replace(predicate, values=(True,), all=False, cased=False),)
    values = tuple(dict.fromkeys(predicate.values))
    if predicate.all and len(values) > 1:
        return tuple(dataclasses.replace(predicate, values=(value,), all=False) for value in values)
    return (dataclasses.replace(predicate, values=tuple(sorted(values, key=str)), all=False),)
