"""Exit codes, and what every error comes out as."""

from __future__ import annotations

import enum
import sys

from killswitch.cli.escape import printable
from killswitch.errors import Denied, KillswitchError, Protected, RequestError, TimedOut, Unreachable


class Exit(enum.IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2  # click's own
    UNREACHABLE = 3
    DENIED = 4
    PARTLY = 5
    TIMED_OUT = 6


_CODES: tuple[tuple[type[KillswitchError], Exit], ...] = (
    (Unreachable, Exit.UNREACHABLE),
    (Denied, Exit.DENIED),
    (Protected, Exit.DENIED),
    (TimedOut, Exit.TIMED_OUT),
    (RequestError, Exit.USAGE),
)


def code_of(error: KillswitchError) -> Exit:
    """The exit code for an error; FAILED for what has none of its own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def complain(message: str, *, prefix: str = "killswitch: ") -> None:
    """One message to stderr. Its lines are kept, whatever else could steer a terminal is escaped."""
    lines = [printable(line) for line in message.split("\n")]
    print(prefix + "\n".join(lines), file=sys.stderr, flush=True)


def report(error: KillswitchError) -> Exit:
    """Say what went wrong on stderr; the exit code to leave with."""
    complain(str(error) or type(error).__name__)
    return code_of(error)
