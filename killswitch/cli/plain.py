"""Dataclasses as what JSON and YAML can say."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Set
from typing import Any

from killswitch import events, machinecode
from killswitch.cli.escape import wellformed
from killswitch.commands import Containment


def plain(value: Any) -> Any:
    """``value`` out of dicts, lists, str, int, float, bool and None.

    A dataclass is a dict of its fields, ``Containment`` its word, an enum its value (a set of flags: its names), bytes
    are text (bytes that are not UTF-8 read ``\\xNN``). An event gets its ``kind``; the
    arguments of an exec are a list, and its predicates a hexadecimal figure (they are up to 256 bits).
    """
    if isinstance(value, enum.Flag):
        return [str(m.name).lower() for m in type(value) if m.value and m in value]
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, bytes):
        return wellformed(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, str):
        return wellformed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no NaN
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Containment):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(plain(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | Set):
        return [plain(v) for v in value]
    return wellformed(str(value))


def _fields(value: Any) -> dict[str, Any]:
    out = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if type(value).__module__ in (events.__name__, machinecode.__name__):
        kind = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(value).__name__).lstrip("_")
        out = {"kind": kind} | out
    if isinstance(value, events.Exec):
        del out["argv"]
        out |= {"args": plain(value.args), "args_truncated": value.truncated, "predicates": f"{value.predicates:#x}"}
    return out
