"""Text that a workload chose, made safe to show.

A process names itself, its arguments and its files; a terminal obeys what it is sent. So a workload could colour its
line green, move the cursor over the operator's table, or retitle the window. Nothing of a workload's reaches a
terminal but through here: what is not printable (control and ANSI sequences, C1 bytes, bidirectional overrides, line
separators, bytes that are not UTF-8) is shown as an escape that can be read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: the byte 0x80..0xff, which was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def printable(value: str | bytes) -> str:
    """``value`` with everything that a terminal could obey, or cannot show, as a backslash escape. Never raises."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def word(value: str | bytes) -> str:
    """One argument, quoted as a shell would want it back (``$'…'`` where it holds what is not printable)."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + printable(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def command_line(args: Iterable[str | bytes]) -> str:
    """Arguments as one line that could be pasted into a shell."""
    return " ".join(word(a) for a in args)


def wellformed(value: str) -> str:
    """``value`` as valid Unicode: a byte that was not UTF-8 becomes ``\\xNN``. JSON and YAML escape the rest."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return "".join(_escape(c) if 0xD800 <= ord(c) <= 0xDFFF else c for c in value)
    return value
