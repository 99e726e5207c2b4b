"""Records as canonical JSON, and back without loss: findings with their events, receipts, and the ledger's own records.

``bytes`` become text with surrogateescape (JSON writes what is not UTF-8 as ``\\udcXX``), so that a row can be read with
any SQLite shell. An event is tagged with its class. Keys are sorted and nothing is indented: the digest of a record is
the digest of its JSON.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from killswitch import events
from killswitch.errors import LedgerError

T = TypeVar("T")
_Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]  # to JSON's types, from JSON's types

_EVENTS: dict[str, type] = {cls.__name__: cls for cls in typing.get_args(events.Event)}


def dumps(value: Any) -> str:
    """ASCII only. ``value``: a dataclass instance, or what JSON itself can carry."""
    plain = _codec(type(value))[0](value) if dataclasses.is_dataclass(value) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def loads(text: str, cls: type[T]) -> T:
    """Raises LedgerError when the text is no ``cls``. A field that it lacks takes its default, where it has one."""
    try:
        value = _codec(cls)[1](json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"ledger: a record is no {cls.__name__}: {error!r}; verify-log tells which row") from error
    assert isinstance(value, cls)
    return value


def _codec(hint: Any) -> _Codec:
    return _derived(hint)


@cache
def _derived(hint: Any) -> _Codec:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint == events.Event:
        return _event_codec()
    if hint is bytes:
        return events.text, lambda text: text.encode("utf-8", "surrogateescape")
    if hint in (int, str, float, bool):
        return _same, hint
    if origin is types.UnionType and len(args) == 2 and args[1] is type(None):
        to_one, back_one = _codec(args[0])
        return (
            lambda v: None if v is None else to_one(v),
            lambda v: None if v is None else back_one(v),
        )
    if isinstance(hint, type) and issubclass(hint, enum.IntFlag):
        return int, hint
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return (lambda member: member.value), hint
    if dataclasses.is_dataclass(hint):
        return _dataclass_codec(typing.cast(type, hint))
    if origin is tuple and args[-1] is Ellipsis:
        to, back = _codec(args[0])
        return (lambda v: [to(x) for x in v]), (lambda v: tuple(back(x) for x in v))
    if origin is tuple:
        codecs = [_codec(arg) for arg in args]
        return (
            lambda v: [to(x) for (to, _), x in zip(codecs, v, strict=True)],
            lambda v: tuple(back(x) for (_, back), x in zip(codecs, v, strict=True)),
        )
    if origin is Mapping:
        return dict, dict
    raise TypeError(f"ledger: no way to keep a {hint!r}")


def _same(value: Any) -> Any:
    return value


def _dataclass_codec(cls: type) -> _Codec:
    hints = typing.get_type_hints(cls)
    codecs = {f.name: _codec(hints[f.name]) for f in dataclasses.fields(cls)}
    needed = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def to(value: Any) -> dict[str, Any]:
        return {name: put(getattr(value, name)) for name, (put, _) in codecs.items()}

    def back(plain: dict[str, Any]) -> Any:
        return cls(**{name: get(plain[name]) for name, (_, get) in codecs.items() if name in plain or name in needed})

    return to, back


def _event_codec() -> _Codec:
    def to(event: Any) -> dict[str, Any]:
        plain: dict[str, Any] = _codec(type(event))[0](event)
        return {"type": type(event).__name__, **plain}

    return to, lambda plain: _codec(_EVENTS[plain["type"]])[1](plain)
