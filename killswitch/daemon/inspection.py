"""What a program is and what its files say, found out after it began: by reading files, in a thread, at bounded cost.

The executable's content is looked at once for each (device, inode, size, times); an SSH client's configuration and files
that the arguments name are read each time. Nothing of a workload is ever run.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from killswitch.errors import Gone, KernelError
from killswitch.events import Exec
from killswitch.facts import Facts
from killswitch.kernel import processfiles, procfs, syscalls
from killswitch.kernel.processfiles import ProcessFiles
from killswitch.policy import configfiles, elf, fileglob, runners, sshargv, sshconfig
from killswitch.policy.compiled import Compiled
from killswitch.policy.fields import names, tokens
from killswitch.policy.programs import Recogniser
from killswitch.policy.ssh import CLIENT
from killswitch.policy.sshconfig import Person, Unreadable

MAX_SCAN = 64 << 20  # bytes of one executable that are looked at: a tenth of a second of CPU time
PACED = 8 << 20  # bytes after which half the time is left to others: whoever makes large programs shall not busy us
MAX_HASH = 1 << 30
CHUNK = 1 << 20
MAX_CONFIG = 64 << 10  # bytes of a configuration file
MAX_SSH_CONFIG = 1 << 20
MAX_ENVIRONMENT = 64 << 10
MAX_PASSWD = 4 << 20
REMEMBERED = 4096  # executables

Identity = tuple[int, int, int, int, int]  # device, inode, size, modified and changed (ns)


@dataclass(slots=True)
class _Known:
    programs: tuple[str, ...] | None = None
    sha256: str = ""


class Inspection:
    """May be asked from several threads: what is remembered is written whole, and at worst found out twice."""

    def __init__(self) -> None:
        self._known: OrderedDict[Identity, _Known] = OrderedDict()
        self._recogniser = Recogniser(())
        self._scanning = threading.Lock()  # one at a time: a flood of new programs busies one CPU at most
        self.scanned = 0  # executables whose content was looked at

    def at_once(
        self, event: Exec, file: syscalls.Known | None, compiled: Compiled, wants: frozenset[str]
    ) -> Facts | None:
        """The facts, when nothing has to be read for them: three system calls at most. None: ask ``facts``, in a thread.

        ``file``: the process's ``running_file``.
        """
        if "process.env" in wants or ("ssh.forward" in wants and compiled.is_client(event)):
            return None
        argv = tokens(event.argv)
        if runners.inner(names(event), argv) is not None:
            return None
        if wants & _CONFIG and any((*configfiles.named_in(argv), configfiles.beside(event.executable))):
            return None
        if not wants & _CONTENT and ("ssh.forward" not in wants or not compiled.recogniser):
            return Facts()
        try:
            found = _file_at_once(event, file)
        except OSError:
            return None
        if found is None:
            return Facts()
        known = self._memory(compiled.recogniser).get(_identity(found))
        if known is None or known.programs is None or ("file.hash.sha256" in wants and not known.sha256):
            return None
        if CLIENT in known.programs and "ssh.forward" in wants:
            return None
        return Facts(programs=known.programs, sha256=known.sha256)

    def facts(self, event: Exec, compiled: Compiled, wants: frozenset[str]) -> Facts:
        """Reads what is wanted; what is gone by now stays unsaid. Raises nothing for what a workload did."""
        argv = tokens(event.argv)
        start = runners.inner(names(event), argv)
        programs: tuple[str, ...] = ()
        sha256 = ""
        if wants & _CONTENT or "ssh.forward" in wants:
            for fd in self._executables(event, argv[start] if start is not None else None):
                known = self._look(fd, compiled.recogniser, hashed="file.hash.sha256" in wants)
                programs += known.programs or ()
                sha256 = known.sha256 or sha256
        forwards: tuple[str, ...] = ()
        unread = ""
        if wants & {"ssh.forward", "ssh.config_unread"} and (CLIENT in programs or compiled.is_client(event)):
            forwards, unread = _forwards(event, argv[start or 0 :])
        config, named = _configuration(event, argv[start or 0 :]) if wants & _CONFIG else ((), ())
        environment: tuple[bytes, ...] = ()
        if "process.env" in wants:
            environment = _or_nothing(lambda: processfiles.environment(event.pid, MAX_ENVIRONMENT))
        return Facts(tuple(dict.fromkeys(programs)), sha256, forwards, unread, config, named, environment)

    # --- the executable ----------------------------------------------------------------------------------------------

    def _memory(self, recogniser: Recogniser) -> OrderedDict[Identity, _Known]:
        if recogniser.programs != self._recogniser.programs:
            self._recogniser = recogniser
            self._known = OrderedDict()
        return self._known

    def _executables(self, event: Exec, inner: bytes | None) -> Iterator[int]:
        """Descriptors of the file that runs, and of the one that a runner runs."""
        fd = open_executable(event)
        if fd is not None:
            try:
                yield fd
            finally:
                os.close(fd)
        if inner is not None:
            try:
                with ProcessFiles(event.pid) as files, files.open(inner) as opened:
                    yield opened
            except KernelError:
                pass  # gone: then it is known by its name alone

    def _look(self, fd: int, recogniser: Recogniser, *, hashed: bool) -> _Known:
        memory = self._memory(recogniser)
        identity = _identity(os.fstat(fd))
        known = memory.get(identity) or _Known()
        try:
            if known.programs is None:
                with self._scanning:
                    # A program that starts itself anew, as git does, is asked about again while it is looked at.
                    known = memory.get(identity) or known
                    if known.programs is None:
                        known = memory[identity] = _Known(recognised(fd, recogniser), known.sha256)
                        self.scanned += 1
            if hashed and not known.sha256:
                known = _Known(known.programs, digest(fd))
        except OSError:
            return known  # the disk, or the file system, failed: not to be remembered
        memory[identity] = known
        while len(memory) > REMEMBERED:
            memory.popitem(last=False)
        return known


_CONTENT = frozenset({"file.program", "file.hash.sha256"})
_CONFIG = frozenset({"process.config", "process.named_files"})


def _identity(s: os.stat_result | syscalls.Known) -> Identity:
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def running_file(pid: int) -> syscalls.Known | None:
    """What the process runs now; None when it has ended."""
    try:
        return syscalls.stat_unasked(b"/proc/%d/exe" % pid)
    except OSError:
        return None


def _file_at_once(event: Exec, running: syscalls.Known | None) -> syscalls.Known | None:
    """The file that ``open_executable`` would open, None for none. Raises OSError where that is not known without a wait."""
    if running is not None and (running.st_ino == event.inode or _runs(event)):
        return running
    found = syscalls.stat_cached(event.executable)  # it has ended: most programs of a build or a script have by now
    return found if found.st_ino == event.inode else None


def open_executable(event: Exec) -> int | None:
    """The file that the process runs, as long as it is the event's; else the file at its path, if it is the same."""
    for path in (b"/proc/%d/exe" % event.pid, event.executable):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (OSError, ValueError):
            continue
        if os.fstat(fd).st_ino == event.inode or (path != event.executable and _runs(event)):
            return fd
        os.close(fd)
    return None


def _runs(event: Exec) -> bool:
    """Asked where the inode that a file system shows is not the kernel's own (overlays): whether it has executed nothing else."""
    try:
        path = os.readlink(b"/proc/%d/exe" % event.pid).removesuffix(b" (deleted)")  # noqa: PTH115 - in bytes
    except OSError:
        return False
    return path == event.executable and procfs.same(event.pid, event.start_ticks)


def recognised(fd: int, recogniser: Recogniser) -> tuple[str, ...]:
    """What the ELF file is by its content; () for any other file, and for one that is none of the programs. Raises OSError."""
    if not recogniser:
        return ()
    parts = elf.spans(lambda offset, size: os.pread(fd, size, offset), MAX_SCAN)
    seen: set[int] = set()
    looked = 0
    for offset, size in parts or ():
        end = offset + size
        while offset < end:
            began = time.monotonic()
            chunk = os.pread(fd, min(CHUNK, end - offset), offset)
            seen |= recogniser.seen(chunk)
            looked += len(chunk)
            if looked > PACED:
                time.sleep(time.monotonic() - began)
            if len(chunk) < CHUNK:
                break
            offset += CHUNK - recogniser.overlap
    return recogniser.names(seen)


def digest(fd: int) -> str:
    """ "" for a file that is too long."""
    if os.fstat(fd).st_size > MAX_HASH:
        return ""
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(fd, CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()


# --- what the arguments name ------------------------------------------------------------------------------------------


class _AsSeen:
    """``sshconfig.Files`` of one process."""

    def __init__(self, files: ProcessFiles) -> None:
        self._files = files

    def read(self, path: bytes) -> bytes | None:
        try:
            return self._files.read(path, MAX_SSH_CONFIG)
        except Gone:
            return None
        except KernelError as e:
            raise Unreadable(str(e)) from e

    def matching(self, pattern: bytes) -> Sequence[bytes]:
        return fileglob.matching(pattern, self._files.names, self._files.exists)


def _forwards(event: Exec, argv: Sequence[bytes]) -> tuple[tuple[str, ...], str]:
    """What the client forwards, and why that is not known."""
    readings = sshargv.readings(argv)
    if not readings:
        return (), ""
    found: set[str] = set()
    unread = ""
    try:
        with ProcessFiles(event.pid) as files:
            seen = _AsSeen(files)
            person = _person(event, files)
            if not procfs.same(event.pid, event.start_ticks):
                raise Gone(f"process {event.pid}", 3, "it has ended")
            for reading in readings:
                judged = sshconfig.judge(reading, person, seen)
                found |= judged.forwards
                unread = judged.hidden or unread
    except Gone:
        return (), "the process had ended"
    except KernelError as e:
        return tuple(sorted(found)), str(e)
    return tuple(sorted(found)), unread


def _person(event: Exec, files: ProcessFiles) -> Person:
    """Whom the client takes itself for: the password file's word, not $HOME's, but for Include."""
    user = processfiles.own_user(event.pid)
    name, home = b"", b""
    try:
        for line in files.read(b"/etc/passwd", MAX_PASSWD).splitlines():
            parts = line.split(b":")
            if len(parts) > 5 and parts[2] == b"%d" % user:
                name, home = parts[0], parts[5]
                break
    except KernelError:
        pass  # without a password file the client ends at once
    variable = home
    for entry in _or_nothing(lambda: processfiles.environment(event.pid, MAX_ENVIRONMENT)):
        if entry.startswith(b"HOME="):
            variable = entry[5:]
            break
    return Person(name, home, variable)


def _configuration(event: Exec, argv: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    given, named = configfiles.named_in(argv)
    given += configfiles.beside(event.executable)
    if not given and not named:
        return (), ()
    try:
        with ProcessFiles(event.pid) as files:
            return tuple(_contents(files, given)), tuple(_contents(files, named))
    except KernelError:
        return (), ()


def _contents(files: ProcessFiles, paths: Sequence[bytes]) -> Iterator[bytes]:
    for path in paths:
        try:
            with files.open(path) as fd:
                content = processfiles.read_all(fd, MAX_CONFIG)
        except (KernelError, OSError):
            continue
        if content and b"\0" not in content[:512]:
            yield content


def _or_nothing(read: Callable[[], tuple[bytes, ...]]) -> tuple[bytes, ...]:
    try:
        return read()
    except KernelError:
        return ()
