"""Text that a workload chose, as valid UTF-8 and back without loss.

Inside, bytes that are not UTF-8 are lone surrogates (``surrogateescape``); a protobuf ``string`` must not hold those.
So byte 0x80+n travels as the private character U+EF80+n, and a real character of U+EF80..U+EFFF as its own three UTF-8
bytes, each so written (the scheme is MirBSD's OPTU). Whoever reads the stream in another language sees a plain string.
"""

from __future__ import annotations

_RAW = 0xDC00  # surrogateescape's: byte b is U+DC00 + b
_WIRE = 0xEF00  # ours: byte b is U+EF00 + b

_TO_WIRE = {_RAW + b: _WIRE + b for b in range(0x80, 0x100)} | {
    _WIRE + b: "".join(chr(_WIRE + byte) for byte in chr(_WIRE + b).encode()) for b in range(0x80, 0x100)
}
_FROM_WIRE = {_WIRE + b: _RAW + b for b in range(0x80, 0x100)}


def to_wire(value: str) -> str:
    """Valid UTF-8 for any string that ``events.text`` can give. Other lone surrogates (nobody's bytes) become "?"."""
    if value.isascii():
        return value
    return value.translate(_TO_WIRE).encode("utf-8", "replace").decode()


def from_wire(value: str) -> str:
    """Inverse of ``to_wire``."""
    if value.isascii():
        return value
    return value.translate(_FROM_WIRE).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
