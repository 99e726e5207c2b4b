"""Events read back from what ``killswitch events -o json`` printed: each line a record, with an event or a finding in it.

What JSON does not hold is what rules do not ask for: the kernel's verdicts are left out, so that every event is judged
anew. Bytes that are no UTF-8 were printed as ``\\xNN``; the workload's own text of that form is taken for such a byte.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from killswitch import events
from killswitch.errors import TargetError
from killswitch.events import Done, Event, Exec, Wire

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
_KINDS: dict[str, type] = {
    "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("_"): cls
    for cls in typing.get_args(Event)
}


def read_events(lines: Iterable[str], file: str) -> Iterator[Event]:
    """The events, in the order of the lines; receipts and such are passed over.

    Raises TargetError for a line that is no record, with its number.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            given = record.get("event") or (record.get("finding") or {}).get("event")
            if given is not None:
                yield event_of(given)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TargetError(
                f"{file}:{number}: is no record of 'killswitch events -o json': {error!r}; print it so, a line a record"
            ) from error


def event_of(given: Mapping[str, Any]) -> Event:
    """The event in this mapping, as it was before it was judged. Raises ValueError, KeyError or TypeError."""
    cls = _KINDS[given["kind"]]
    fields = dict(given)
    if cls is Exec:
        argv = b"".join(_bytes(arg) + b"\0" for arg in fields["args"])
        fields |= {"argv": argv.decode("utf-8", "surrogateescape"), "predicates": 0}
        fields["argv_total"] = max(int(fields["argv_total"]), len(argv) + 1 if fields["args_truncated"] else len(argv))
    if cls in (Exec, Wire):
        fields |= {"predicates": 0, "generation": 0, "clause": -1, "done": []}
    hints = _hints(cls)
    event: Event = cls(**{name: read(fields[name]) for name, read in hints.items() if name in fields})
    return event


@cache
def _hints(cls: type) -> dict[str, Callable[[Any], Any]]:
    hints = typing.get_type_hints(cls)
    return {f.name: _reader(hints[f.name]) for f in dataclasses.fields(cls)}


def _reader(hint: Any) -> Callable[[Any], Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bytes:
        return _bytes
    if hint is Done:
        return lambda names: Done.NOTHING
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    if dataclasses.is_dataclass(hint):
        inner = _hints(typing.cast(type, hint))
        return lambda given: typing.cast(type, hint)(**{n: read(given[n]) for n, read in inner.items() if n in given})
    if origin is tuple and args[-1] is Ellipsis:
        each = _reader(args[0])
        return lambda given: tuple(map(each, given))
    if origin is tuple:
        readers = [_reader(arg) for arg in args]
        return lambda given: tuple(read(one) for read, one in zip(readers, given, strict=True))
    if hint in (int, float, bool, str):
        return lambda given: given
    if hint == Mapping[str, int]:
        return dict
    raise TypeError(f"{events.__name__}: no way to read a {hint!r} back")


def _bytes(text: str) -> bytes:
    return _ESCAPED.sub(lambda m: bytes([int(m[1], 16)]), text.encode("utf-8", "surrogateescape"))
