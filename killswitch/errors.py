"""Every error that killswitch raises on purpose.

    KillswitchError
     ├── PolicyError          a policy file is wrong: all its problems, each with file, line and column
     ├── ConfigError          the daemon's own configuration is wrong
     ├── KernelError          the kernel refused a call: which, on what, and why
     │    ├── NotSupported    this kernel cannot do it
     │    └── Gone            the process or cgroup is no longer there
     ├── TargetError          no such workload, cgroup or process; or more than one
     ├── Protected            the target must never be contained (pid 1, the daemon, the operators' way in)
     ├── LedgerError          the ledger cannot be read or written
     ├── RequestError         a request to the daemon is wrong in itself: which field, and what it must be
     ├── Denied               this role, or this user, may not do that
     ├── TimedOut             no answer in time; what was ordered goes on
     └── Unreachable          the daemon does not answer

A message names the place, the cause and the mend, in that order.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass


class KillswitchError(Exception):
    """Base of all. ``str()`` is a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file."""

    file: str
    line: int  # from 1
    column: int  # from 1
    message: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{tail}"


class PolicyError(KillswitchError):
    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


class ConfigError(KillswitchError):
    pass


class KernelError(KillswitchError):
    """A call into the kernel failed. ``code`` is the errno."""

    def __init__(self, what: str, code: int, hint: str = "") -> None:
        self.code = code
        name = errno.errorcode.get(code, str(code))
        super().__init__(f"{what}: {os.strerror(code)} ({name})" + (f"; {hint}" if hint else ""))


class NotSupported(KernelError):
    pass


class Gone(KernelError):
    pass


class TargetError(KillswitchError):
    pass


class Protected(KillswitchError):
    pass


class LedgerError(KillswitchError):
    pass


class Unreachable(KillswitchError):
    pass


class RequestError(KillswitchError):
    pass


class Denied(KillswitchError):
    pass


class TimedOut(KillswitchError):
    pass
