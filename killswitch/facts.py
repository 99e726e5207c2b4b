"""What was found out about a program by reading files, after it began."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.events import Exec


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a program after it began, by reading files. Only what some rule asks for is looked up."""

    programs: tuple[str, ...] = ()  # what its executable is by its content
    sha256: str = ""  # of its executable, in hexadecimal; "" = not known
    forwards: tuple[str, ...] = ()  # what it forwards as an OpenSSH client, its configuration files included
    config_unread: str = ""  # why an OpenSSH client's configuration is not known, "" = it is
    config: tuple[bytes, ...] = ()  # files that its arguments give as its configuration
    named_files: tuple[bytes, ...] = ()  # other files that its arguments name
    environment: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A program that began a moment ago, and what was found out about it since: no event of the kernel's, and so none of
    ``Event``. ``Engine.survey`` takes it, once after its ``Exec``."""

    workload: int
    exec: Exec
    facts: Facts
