"""Figures as people say them."""

from __future__ import annotations

import itertools

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Two units at most: ``4.2s``, ``3m12s``, ``2h05m``, ``9d04h``. Below a second in ms or µs. Never negative."""
    seconds = max(0.0, seconds)
    if seconds == 0:
        return "0s"
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f}µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for (unit, size), (below, smaller) in itertools.pairwise(_UNITS):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{below}"
    return f"{whole}s"


def age(since_unix: float, now_unix: float) -> str:
    """How long ago, ``-`` when the moment is not known (0)."""
    return duration(float(int(max(0.0, now_unix - since_unix)))) if since_unix > 0 else "-"


def size(count: int) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"


def number(count: int) -> str:
    """``1,234,567``"""
    return f"{count:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """``1 process``, ``2 processes``"""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
