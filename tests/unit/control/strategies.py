"""Any value of any dataclass that goes over the wire or into the ledger, derived from the types of its fields."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from killswitch import commands, events
from killswitch.control import service
from killswitch.errors import Problem

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I32, I64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
TEXT = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=40).map(events.text))
UNIX = st.one_of(st.just(0.0), st.integers(10**15, 4 * 10**15).map(lambda us: us / 1e6))  # to a microsecond
MS = st.integers(0, 10**12).map(lambda ns: ns / 1e6)
REAL = st.floats(allow_nan=False)

SIGNED = {"time_ns", "verdict_ns", "window_ns", "span_ns", "began_ns", "last_ns", "started_ns", "finished_ns", "nice"}
NARROW = {
    "pid", "ppid", "uid", "gid", "nlink", "destination_port", "remote_port", "source_port", "line", "column", "version",
    "processes", "workloads", "contained", "open_incidents", "local_port", "packets", "holder_pid", "target_pid",
    "number", "moved_by",
}  # fmt: skip


def _integers(name: str) -> st.SearchStrategy[int]:
    if name == "predicates":
        return st.integers(0, 2**commands.PREDICATES - 1)
    if name in ("clause", "exit_code"):
        return I32
    if name == "cpu_ns":  # of a workload signed, of a process not
        return st.integers(0, 2**63 - 1)
    return I64 if name in SIGNED else U32 if name in NARROW else U64


def of(hint: Any, name: str = "") -> st.SearchStrategy[Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint == events.Event:
        return st.one_of([of(cls) for cls in args])
    if hint == events.Event | None:
        return st.none() | of(events.Event)
    if args and args[-1] is type(None):
        return st.none() | of(args[0])
    if hint is float:
        return MS if name == "armed_ms" else UNIX if name.endswith("_unix") else REAL
    if hint is int:
        return _integers(name)
    if hint is str:
        return TEXT
    if hint is bytes:
        return st.binary(max_size=64)
    if hint is bool:
        return st.booleans()
    if hint is events.Done:
        return st.integers(0, 3).map(events.Done)
    if dataclasses.is_dataclass(hint):
        return whole(typing.cast(type, hint))
    if origin is tuple and args[-1] is Ellipsis:
        if typing.get_origin(args[0]) is Mapping:
            keys = st.sampled_from(["id", "title", "level", "on", "tier", "why", "response", "for", "mode"])
            return st.lists(st.dictionaries(keys, TEXT), max_size=3).map(tuple)
        inner = U32 if name == "policies" and args[0] is int else of(args[0])
        return st.lists(inner, max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*(of(arg) for arg in args))
    if origin is Mapping:
        values = U64 if args[1] is int else st.one_of(TEXT, I64, REAL)
        return st.dictionaries(TEXT, values, max_size=4)
    return st.sampled_from(list(hint))  # an enum


def whole(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: of(hints[f.name], f.name) for f in dataclasses.fields(cls)})


def _one_item(item: service.StreamItem) -> service.StreamItem:
    """Exactly one of event, finding and receipt, as the stream has it."""
    if item.event is not None:
        return dataclasses.replace(item, finding=None, receipt=None)
    return dataclasses.replace(item, receipt=None) if item.finding is not None else item


EVENTS = of(events.Event)
OVER_THE_WIRE = st.one_of(
    EVENTS,
    whole(service.StreamItem).map(_one_item),
    *(
        whole(cls)
        for cls in (
            commands.Containment,
            commands.Finding,
            commands.Receipt,
            Problem,
            service.WorkloadInfo,
            service.IncidentInfo,
            service.OrderResult,
            service.Health,
            service.Status,
            service.CapabilityInfo,
            service.PolicyInfo,
            service.EventFilter,
        )
    ),
)
