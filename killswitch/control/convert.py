"""protobuf <-> dataclass, for everything that ``service.py`` speaks of.

A message has its dataclass's fields by the same names, so the converters are derived from the two and checked against
each other when this module is imported: a field that only one side knows is an error at once, never a silent loss. What
differs by design (times, the proof of a receipt, the bit sets of an exec) is written out in ``_SPECIAL``.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from killswitch import commands, events, machinecode
from killswitch.control import service, wiretext
from killswitch.errors import KillswitchError, Problem
from killswitch.v1 import event_pb2, killswitch_service_pb2, types_pb2

T = TypeVar("T")
Put = Callable[[Any, Any], None]  # (message, value) -> None
Get = Callable[[Any], Any]  # message -> value


class NewerPeer(KillswitchError):
    """The other side sent a value that this release does not know."""


# --- one value ------------------------------------------------------------------------------------------------------


def _enum_numbers(cls: type[enum.StrEnum], wire: Any) -> tuple[dict[Any, int], dict[int, Any]]:
    prefix = "".join(f"_{c}" if c.isupper() else c for c in wire.name).lstrip("_").upper()
    to = {member: int(wire.values_by_name[f"{prefix}_{member.name}"].number) for member in cls}
    if len(to) != len(wire.values) - 1:
        raise TypeError(f"protos: enum {wire.name} and {cls.__name__} do not have the same members")
    return to, {number: member for member, number in to.items()}


def _enum_member(back: dict[int, Any], number: int, name: str) -> Any:
    try:
        return back[number]
    except KeyError:
        raise NewerPeer(
            f"control socket: {name} {number} is not known to this release; run the same release on both sides"
        ) from None


def _one(hint: Any, wire: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(to wire, from wire) of a single value; ``wire`` is the field's descriptor."""
    if hint is str:
        return wiretext.to_wire, wiretext.from_wire
    if hint in (int, float, bool, bytes):
        return hint, hint
    if typing.get_origin(hint) is types.UnionType and len(typing.get_args(hint)) == 2 and wire.enum_type is not None:
        put, get = _one(typing.get_args(hint)[0], wire)  # "X | None": what is not given is UNSPECIFIED
        return (lambda v: 0 if v is None else put(v)), (lambda number: get(number) if number else None)
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        to, back = _enum_numbers(hint, wire.enum_type)
        name = hint.__name__
        return to.__getitem__, lambda number: _enum_member(back, number, name)
    if dataclasses.is_dataclass(hint) or hint == events.Event:
        return to_wire, from_wire
    if hint == tuple[int, int]:
        return (lambda pair: event_pb2.HotAddress(address=pair[0], samples=pair[1])), (lambda m: (m.address, m.samples))
    raise TypeError(f"protos: no way to carry {hint!r} (field {wire.full_name})")


def _plain(name: str, hint: Any, wire: Any) -> tuple[Put, Get]:
    origin = typing.get_origin(hint)
    if origin is tuple and hint != tuple[int, int]:
        to, back = _one(typing.get_args(hint)[0], wire)
        return (
            lambda m, v: getattr(m, name).extend([to(x) for x in v]),
            lambda m: tuple(back(x) for x in getattr(m, name)),
        )
    if hint == Mapping[str, int]:
        return (
            lambda m, v: getattr(m, name).update({wiretext.to_wire(k): n for k, n in v.items()}),
            lambda m: {wiretext.from_wire(k): n for k, n in getattr(m, name).items()},
        )
    to, back = _one(hint, wire)
    if wire.message_type is not None:
        return (lambda m, v: getattr(m, name).CopyFrom(to(v))), (lambda m: back(getattr(m, name)))
    return (lambda m, v: setattr(m, name, to(v))), (lambda m: back(getattr(m, name)))


# --- what differs by design -----------------------------------------------------------------------------------------


def _timestamp(name: str) -> tuple[Put, Get]:
    """Seconds since 1970 as float, 0 = not known <-> Timestamp, unset. Exact to a nanosecond."""

    def put(m: Any, unix: float) -> None:
        if unix:
            seconds, nanos = divmod(round(unix * 1_000_000) * 1000, 1_000_000_000)
            getattr(m, name).seconds, getattr(m, name).nanos = seconds, nanos

    def get(m: Any) -> float:
        stamp = getattr(m, name)
        return stamp.seconds + stamp.nanos / 1e9 if m.HasField(name) else 0.0

    return put, get


def _counted(name: str) -> tuple[Put, Get]:
    """A count, -1 = not known <-> an optional number, unset."""

    def put(m: Any, count: int) -> None:
        if count >= 0:
            setattr(m, name, count)

    return put, lambda m: getattr(m, name) if m.HasField(name) else -1


def _milliseconds(name: str) -> tuple[Put, Get]:
    def put(m: Any, ms: float) -> None:
        getattr(m, name).FromNanoseconds(round(ms * 1e6))

    return put, lambda m: getattr(m, name).ToNanoseconds() / 1e6


def _put_predicates(m: Any, bits: int) -> None:
    m.predicates = bits.to_bytes((bits.bit_length() + 7) // 8, "little")


_DONE = {
    events.Done.KILLED: event_pb2.KERNEL_ACTION_KILLED,
    events.Done.SEVERED: event_pb2.KERNEL_ACTION_SEVERED,
    events.Done.DENIED: event_pb2.KERNEL_ACTION_DENIED,
}


def _put_done(m: Any, done: events.Done) -> None:
    m.done.extend([number for flag, number in _DONE.items() if flag in done])


def _get_done(m: Any) -> events.Done:
    done = events.Done.NOTHING
    for flag, number in _DONE.items():
        if number in m.done:
            done |= flag
    return done


def _put_proof(m: Any, proof: Mapping[str, str | int | float]) -> None:
    for key, value in proof.items():
        slot = m.proof[wiretext.to_wire(key)]
        if isinstance(value, float):
            slot.real = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            slot.integer = value
        else:  # text, and an integer too big for the wire: a receipt must get through
            slot.text = wiretext.to_wire(str(value))


def _get_proof(m: Any) -> dict[str, str | int | float]:
    return {
        wiretext.from_wire(key): wiretext.from_wire(v.text) if v.HasField("text") else getattr(v, v.WhichOneof("value"))
        for key, v in m.proof.items()
        if v.WhichOneof("value")
    }


_RULE_KEYS = ("id", "title", "level", "on", "tier", "why", "response")


def _put_rules(m: Any, rules: tuple[Mapping[str, str], ...]) -> None:
    for rule in rules:
        wire = m.rules.add()
        for key, value in rule.items():
            if key in _RULE_KEYS:
                setattr(wire, key, wiretext.to_wire(str(value)))
            else:
                wire.extra[wiretext.to_wire(key)] = wiretext.to_wire(str(value))


def _get_rules(m: Any) -> tuple[dict[str, str], ...]:
    return tuple(
        {key: wiretext.from_wire(getattr(rule, key)) for key in _RULE_KEYS if rule.HasField(key)}
        | {wiretext.from_wire(key): wiretext.from_wire(value) for key, value in rule.extra.items()}
        for rule in m.rules
    )


def _optional(name: str) -> tuple[Put, Get]:
    def put(m: Any, value: Any) -> None:
        if value is not None:
            getattr(m, name).CopyFrom(to_wire(value))

    return put, lambda m: from_wire(getattr(m, name)) if m.HasField(name) else None


_SPECIAL: dict[tuple[type, str], tuple[str, Put, Get]] = {  # (dataclass, field) -> name on the wire, put, get
    (service.WorkloadInfo, "since_unix"): ("since", *_timestamp("since")),
    (service.IncidentInfo, "opened_unix"): ("opened", *_timestamp("opened")),
    (service.IncidentInfo, "closed_unix"): ("closed", *_timestamp("closed")),
    (service.Status, "started_unix"): ("started", *_timestamp("started")),
    (service.WorkloadInfo, "cpu_ns"): ("cpu_ns", *_counted("cpu_ns")),
    (service.Proof, "at_unix"): ("at", *_timestamp("at")),
    (service.Proof, "good_unix"): ("passed", *_timestamp("passed")),
    (service.Proof, "due_unix"): ("due", *_timestamp("due")),
    (service.Status, "armed_ms"): ("armed_after", *_milliseconds("armed_after")),
    (service.PolicyInfo, "rules"): ("rules", _put_rules, _get_rules),
    (service.StreamItem, "event"): ("event", *_optional("event")),
    (service.StreamItem, "finding"): ("finding", *_optional("finding")),
    (service.StreamItem, "receipt"): ("receipt", *_optional("receipt")),
    (commands.Receipt, "proof"): ("proof", _put_proof, _get_proof),
    (events.Exec, "predicates"): (
        "predicates",
        _put_predicates,
        lambda m: int.from_bytes(m.predicates, "little"),
    ),
    (events.Exec, "done"): ("done", _put_done, _get_done),
    (events.Wire, "predicates"): ("predicates", _put_predicates, lambda m: int.from_bytes(m.predicates, "little")),
    (events.Wire, "done"): ("done", _put_done, _get_done),
}


# --- the pairs ------------------------------------------------------------------------------------------------------


def _derive(cls: type, message: type[Message]) -> list[tuple[str, Put, Get]]:
    hints = typing.get_type_hints(cls)
    descriptor: Any = message.DESCRIPTOR
    plan, wired = [], set()
    for f in dataclasses.fields(cls):
        special = _SPECIAL.get((cls, f.name))
        if special is not None:
            wire, put, get = special
        else:
            wire = f.name
            if wire not in descriptor.fields_by_name:
                raise TypeError(f"protos: {descriptor.full_name} has no field {wire}, which {cls.__name__} has")
            put, get = _plain(wire, hints[f.name], descriptor.fields_by_name[wire])
        wired.add(wire)
        plan.append((f.name, put, get))
    if extra := set(descriptor.fields_by_name) - wired:
        raise TypeError(f"protos: {descriptor.full_name} has fields that {cls.__name__} has not: {sorted(extra)}")
    return plan


_EVENTS: tuple[type, ...] = typing.get_args(events.Event)
_PAIRS: dict[type, type[Message]] = {
    **{cls: getattr(event_pb2, cls.__name__) for cls in _EVENTS},
    events.Burst: event_pb2.Burst,
    machinecode.CodeBlock: event_pb2.CodeBlock,
    machinecode.Source: event_pb2.Source,
    machinecode.Surroundings: event_pb2.Surroundings,
    commands.Containment: types_pb2.Containment,
    commands.Finding: types_pb2.Finding,
    commands.Receipt: types_pb2.Receipt,
    Problem: types_pb2.PolicyProblem,
    service.WorkloadInfo: types_pb2.Workload,
    service.IncidentInfo: types_pb2.Incident,
    service.OrderResult: types_pb2.OrderResult,
    service.Health: types_pb2.PartHealth,
    service.Proof: types_pb2.Proof,
    service.HostInfo: types_pb2.HostState,
    service.Holding: types_pb2.Holding,
    service.Status: types_pb2.Status,
    service.CapabilityInfo: types_pb2.Capability,
    service.PolicyInfo: types_pb2.Policy,
    service.StreamItem: killswitch_service_pb2.StreamEventsResponse,
    service.EventFilter: killswitch_service_pb2.StreamEventsRequest,
}
_KIND_OF = {cls: "".join(f"_{c}" if c.isupper() else c for c in cls.__name__).lstrip("_").lower() for cls in _EVENTS}


def to_wire(value: Any) -> Any:
    """The message for any dataclass of ``service.py`` or ``events.py``, and for Finding, Receipt and Containment.

    An event becomes an ``Event`` with its kind set. Raises TypeError for any other type.
    """
    cls = type(value)
    if cls not in _PLANS:
        raise TypeError(f"control: no message carries a {cls.__name__}")
    kind = _KIND_OF.get(cls)
    if kind is None:
        whole = inner = _PAIRS[cls]()
    else:
        whole = event_pb2.Event()
        inner = getattr(whole, kind)
        inner.SetInParent()  # an event whose fields are all zero is still that event
    for name, put, _ in _PLANS[cls]:
        put(inner, getattr(value, name))
    return whole


def from_wire(message: Any) -> Any:
    """Inverse of ``to_wire``. Raises NewerPeer for a kind or an enum value that this release does not know."""
    if isinstance(message, event_pb2.Event):
        kind = message.WhichOneof("kind")
        if kind is None:
            raise NewerPeer("control socket: an event of a kind that this release does not know; update this side")
        message = getattr(message, kind)
    cls = _CLASS_OF[type(message)]
    return cls(**{name: get(message) for name, _, get in _PLANS[cls]})


def decode(message: Any, into: type[T]) -> T:
    """``from_wire`` for a caller that knows what it expects. Raises TypeError when it is something else."""
    value = from_wire(message)
    if not isinstance(value, into):
        raise TypeError(f"control: expected {into.__name__}, not {type(value).__name__}")
    return value


def kind_of(event: events.Event) -> str:
    """The word for an event's kind: ``exec``, ``cgroup_move``, …; as ``EventFilter.kinds`` and the wire have it."""
    return _KIND_OF[type(event)]


_PLANS: Mapping[type, list[tuple[str, Put, Get]]] = types.MappingProxyType(
    {cls: _derive(cls, message) for cls, message in _PAIRS.items()}
)
_CLASS_OF: Mapping[type[Message], type] = types.MappingProxyType({message: cls for cls, message in _PAIRS.items()})
