"""Logging to stderr, one line a record, with the ``<N>`` priority prefix that the journal reads.

Bytes that a workload chose may be in any message: control characters are escaped here, in one place, so that no
workload can forge a line of the log or drive a terminal.
"""

from __future__ import annotations

import logging
import sys
import time

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def escape(text: str) -> str:
    """``text`` in one line of printable characters; what is not printable becomes ``\\xNN`` or ``\\uNNNN``."""
    if text.isprintable() and text.isascii():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def fields(**values: object) -> str:
    """``key=value`` pairs, a value with blanks or quotes in double quotes; empty values are left out."""
    parts = []
    for key, value in values.items():
        text = escape(str(value))
        if text == "" or value is None:
            continue
        if any(c in text for c in ' "='):
            text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        parts.append(f"{key}={text}")
    return " ".join(parts)


class _Formatter(logging.Formatter):
    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        lines = [escape(line) for line in message.split("\n")] if record.exc_info else [escape(message)]
        if self._journal:  # each line of a traceback needs its own prefix
            return "\n".join(f"<{_PRIORITY.get(record.levelno, 6)}>{line}" for line in lines)
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        return "\n".join(f"{stamp}.{int(record.msecs):03d} {record.levelname.lower():7} {line}" for line in lines)


def set_up(level: str) -> None:
    """Log from ``level`` on. On a terminal people read it: a time and a level; else the journal does: a priority."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(journal=not sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries
    logging.getLogger("killswitch").setLevel(level.upper())
