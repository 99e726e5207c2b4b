"""What an OpenSSH client would forward, by its configuration files: text in, forwardings out. Nothing is ever run.

It follows ``process_config_line`` and ``match_cfg_line`` of readconf.c, and the order of ssh.c: the command line, the user's
file (or that of ``-F`` alone), the host's; then once more where ``Match final`` or canonical names ask for it. The first
value of a setting wins, forwardings add up, ``ClearAllForwardings`` takes them all back. What cannot be known without
running something or asking a name server (``Match exec``, ``Match localnetwork``, a canonical name) may be true: its
block counts, and so does what stands after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from killswitch.policy.sshargv import Invocation
from killswitch.policy.sshline import fits, fits_list, keyword, next_word, words

MAX_DEPTH = 16  # READCONF_MAX_DEPTH
MAX_BYTES = 1 << 20  # of all files that are read: no configuration is as long
MAX_FILES = 256
MAX_WORK = 5_000_000  # bytes of names times bytes of patterns: half a second
SYSTEM_FILE = b"/etc/ssh/ssh_config"

NO, MAYBE, YES = 0, 1, 2


class Files(Protocol):
    """The client's own view of the files."""

    def read(self, path: bytes) -> bytes | None:
        """The file's content; None when it is not there. Raises Unreadable when it is there and its content cannot be known."""

    def matching(self, pattern: bytes) -> Sequence[bytes]:
        """The paths that a glob stands for, sorted; itself when it has no wildcard and is there."""


class Unreadable(Exception):
    """A file that the client reads, and we cannot: a pipe, too long, gone meanwhile. ``str()`` says which and why."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the client runs as."""

    name: bytes
    home: bytes  # of the password file: where the client looks for its own
    home_variable: bytes  # $HOME: what ``Include ~/…`` is relative to


@dataclass(frozen=True, slots=True)
class Judged:
    """What is forwarded. ``hidden`` says what could not be read, "" = all was."""

    forwards: frozenset[str]
    hidden: str = ""


def judge(invocation: Invocation, person: Person, files: Files) -> Judged:
    """What this client forwards. Never raises for what a file holds."""
    if not invocation.opens:
        return Judged(frozenset())
    reader = _Reader(invocation, person, files)
    try:
        reader.run()
    except Unreadable as why:
        return Judged(reader.forwards(), str(why))
    return Judged(reader.forwards())


@dataclass(slots=True)
class _Setting:
    """The values that the first one to be given may be; ``certain``: one of them is."""

    values: list[bytes] = field(default_factory=list)
    certain: bool = False

    def offer(self, value: bytes, active: int) -> None:
        if active and not self.certain and len(self.values) < 64:
            self.values.append(value)
            self.certain = active == YES

    def may_be(self, default: bytes) -> list[bytes]:
        return self.values if self.certain else [*self.values, default]


_SCALARS = (
    b"hostname",
    b"user",
    b"tunnel",
    b"clearallforwardings",
    b"canonicalizehostname",
    b"canonicaldomains",
    b"tag",
)
_FORWARDS = {b"remoteforward": "remote", b"localforward": "local", b"dynamicforward": "dynamic"}
_OFF = (b"no", b"false")


class _Reader:
    def __init__(self, invocation: Invocation, person: Person, files: Files) -> None:
        self.asked = invocation
        self.person = person
        self.files = files
        self.found: set[str] = set()
        self.settings = {name: _Setting() for name in _SCALARS}
        self.hosts = [invocation.host]
        self.final = False
        self.wants_final = False
        self.left = MAX_BYTES
        self.work = MAX_WORK
        self.opened = 0

    def run(self) -> None:
        for letter, value in self.asked.settings:
            if letter == "o":
                self._line(value, [YES], (b"", False, YES), 0, command_line=True)
            elif letter == "w":
                self.settings[b"tunnel"].offer(b"yes", YES)
            else:
                self.found.add({"R": "remote", "L": "local", "D": "dynamic", "W": "stdio"}[letter])
        if self.asked.user is not None:
            self.settings[b"user"].offer(self.asked.user, YES)
        if self.asked.tag is not None:
            self.settings[b"tag"].offer(self.asked.tag, YES)
        self._files()
        canonical = any(v.lower() not in _OFF for v in self.settings[b"canonicalizehostname"].values)
        if self.wants_final or canonical:
            self.hosts = self._names()
            if canonical:
                domains = [d for v in self.settings[b"canonicaldomains"].values for d in v.split()]
                self.hosts += [b".".join((name, d.lower())) for name in self.hosts for d in domains[:64]]
            self.final = True
            self._files()

    def forwards(self) -> frozenset[str]:
        found = set(self.found)
        if any(v.lower() not in _OFF for v in self.settings[b"tunnel"].values):
            found.add("tun")
        # -W clears the others unless it is told not to (fill_default_options).
        cleared = self.settings[b"clearallforwardings"].may_be(b"yes" if "stdio" in found else b"no")
        if all(v.lower() not in _OFF for v in cleared):
            found &= {"stdio"}
        return frozenset(found)

    def _names(self) -> list[bytes]:
        """What ``HostName`` makes of the host as typed."""
        typed = self.asked.host
        given = self.settings[b"hostname"].may_be(b"%h")
        names = [_expand(value, typed).lower() for value in given]
        return list(dict.fromkeys(names))

    # --- files -------------------------------------------------------------------------------------------------------

    def _files(self) -> None:
        if self.asked.config is not None:
            if self.asked.config.lower() != b"none":
                self._file(self.asked.config, True, [YES], YES, 0)
            return
        self._file(self.person.home + b"/.ssh/config", True, [YES], YES, 0)
        self._file(SYSTEM_FILE, False, [YES], YES, 0)

    def _file(self, path: bytes, of_user: bool, active: list[int], ceiling: int, depth: int) -> None:
        """``active[0]``: whether lines count now. ``ceiling``: how sure a block in here can be; NO = its blocks never count."""
        if depth > MAX_DEPTH:
            return
        self.opened += 1
        if self.opened > MAX_FILES:
            raise Unreadable(f"more than {MAX_FILES} configuration files")
        content = self.files.read(path)
        if content is None:
            return
        self.left -= len(content)
        if self.left < 0:
            raise Unreadable(f"configuration files of more than {MAX_BYTES} bytes")
        for line in content.split(b"\n"):
            self._line(line, active, (path, of_user, ceiling), depth)

    def _line(
        self,
        line: bytes,
        active: list[int],
        where: tuple[bytes, bool, int],
        depth: int,
        *,
        command_line: bool = False,
    ) -> None:
        parsed = keyword(line)
        if parsed is None:
            return
        word, rest = parsed
        _, of_user, ceiling = where
        arguments = words(rest)
        if arguments is None:
            return
        if word == b"match" and not command_line:
            active[0] = min(self._match(rest), ceiling)
        elif word == b"host" and not command_line:
            active[0] = min(self._host(arguments), ceiling)
        elif word == b"include" and not command_line:
            for pattern in arguments:
                self._include(pattern, of_user, active, depth)
        elif word in _FORWARDS and active[0] and arguments:
            self.found.add(_FORWARDS[word])
        elif word in self.settings and arguments:
            value = b" ".join(arguments) if word == b"canonicaldomains" else arguments[0]
            self.settings[word].offer(value, active[0])

    def _include(self, pattern: bytes, of_user: bool, active: list[int], depth: int) -> None:
        if pattern[:1] == b"~":
            if not of_user:
                return  # refused there
            name, _, tail = pattern[1:].partition(b"/")
            if name:
                raise Unreadable("an Include of another user's folder")
            pattern = self.person.home_variable + b"/" + tail
        elif pattern[:1] != b"/":
            pattern = (self.person.home_variable + b"/.ssh/" if of_user else b"/etc/ssh/") + pattern
        outside = active[0]
        for path in self.files.matching(pattern):
            self._file(path, of_user, active, outside, depth + 1)
            active[0] = outside  # a block in what is included does not reach into what includes it

    # --- blocks ------------------------------------------------------------------------------------------------------

    def _host(self, patterns: Sequence[bytes]) -> int:
        self._spend(self.hosts, sum(map(len, patterns)))
        return _sure(_listed(host, patterns) for host in self.hosts)

    def _spend(self, names: Sequence[bytes], patterns: int) -> None:
        self.work -= sum(map(len, names)) * patterns
        if self.work < 0:
            raise Unreadable("patterns that take too long to compare")

    def _match(self, rest: bytes | None) -> int:
        """A ``Match`` line: NO when one criterion fails for sure, YES when all hold for sure."""
        result = YES
        while True:
            criterion, rest = next_word(rest)
            if not criterion or criterion[:1] == b"#":
                return result
            negated = criterion[:1] == b"!"
            name = criterion[negated:].lower()
            if name == b"all":
                return min(result, NO if negated else YES)
            if name in (b"final", b"canonical"):
                self.wants_final |= name == b"final"
                holds = YES if self.final else NO
            else:
                argument, rest = next_word(rest)
                if not argument or argument[:1] == b"#":
                    return NO  # the client refuses the file
                holds = self._criterion(name, argument)
            result = min(result, YES - holds if negated else holds)

    def _criterion(self, name: bytes, argument: bytes) -> int:
        match name:
            case b"host":
                texts = [host.lower() for host in self._host_names()]
            case b"originalhost":
                texts = [self.asked.host.lower()]
            case b"user":
                texts = self.settings[b"user"].may_be(self.person.name)
            case b"localuser":
                texts = [self.person.name]
            case b"tagged":
                texts = self.settings[b"tag"].may_be(b"")
            case _:
                return MAYBE  # exec, localnetwork, and what a later version brings
        self._spend(texts, len(argument))
        return _sure(fits_list(text, argument, lower=name in (b"host", b"originalhost")) for text in texts)

    def _host_names(self) -> list[bytes]:
        if self.final:
            return self.hosts
        return [_expand(value, self.asked.host) for value in self.settings[b"hostname"].may_be(b"%h")]


def _sure(outcomes: Iterable[bool]) -> int:
    seen = set(outcomes)
    return YES if seen == {True} else NO if seen == {False} else MAYBE


def _listed(host: bytes, patterns: Sequence[bytes]) -> bool:
    found = False
    for pattern in patterns:
        negated = pattern[:1] == b"!"
        if fits(host, pattern[negated:]):
            if negated:
                return False
            found = True
    return found


def _expand(value: bytes, host: bytes) -> bytes:
    """``%h`` and ``%%``; anything else makes the client end."""
    return b"%".join(part.replace(b"%h", host) for part in value.split(b"%%"))
