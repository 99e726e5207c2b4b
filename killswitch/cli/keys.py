"""Single keys from the terminal on stdin, without waiting for Enter."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator


@contextlib.contextmanager
def listening() -> Iterator[bool]:
    """Keys come at once and are not shown, until the end of the block. False: there is no terminal on stdin."""
    try:
        before = termios.tcgetattr(0)
    except (termios.error, OSError):
        yield False
        return
    try:
        tty.setcbreak(0, termios.TCSADRAIN)  # Ctrl-C stays a signal
        yield True
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def pause(seconds: float, *, keys: bool) -> str:
    """Wait; "" when the time is over, else the key that was pressed before."""
    if not keys:
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(0, 1).decode("latin-1") if ready else ""
