"""``for:`` durations: 20s, 5m, 1h500ms."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
_PART = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(ns|us|ms|s|m|h)")
MAX_NS = 7 * 24 * _UNITS["h"]


def parse_duration(text: str) -> int:
    """Nanoseconds, more than 0 and at most seven days. Raises ValueError with a sentence for the author."""
    whole, units, position = 0, 0, 0
    found: list[str] = []
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            unit = " (a number needs its unit: s, ms, m or h)" if re.fullmatch(r"[\d.]+", text[position:]) else ""
            raise ValueError(f"'{text}' is not a duration, as in 20s, 5m or 1h500ms{unit}")
        number, dot, fraction = part[1].partition(".")
        unit_ns = _UNITS[part[2]]
        whole += int(number) * unit_ns + (int(fraction) * unit_ns // 10 ** len(fraction) if dot else 0)
        found.append(part[2])
        units += 1
        position = part.end()
    if len(set(found)) != units or [*sorted(found, key=_UNITS.__getitem__, reverse=True)] != found:
        raise ValueError(f"'{text}' must name each unit once, the longest first")
    if not 0 < whole <= MAX_NS:
        raise ValueError(f"'{text}' must be more than 0 and at most seven days")
    return whole
