"""The process that ``killswitch run`` starts: born waiting, let into its cgroup, then turned into CMD.

It is forked before anything of gRPC is loaded, whose threads do not survive a fork, and waits on a pipe until the
cgroup is there and watched. It moves *itself* in, gives up what CMD is not to have, and then calls exec: CMD's first
instruction is already judged, and already confined.

Terminal: it stays in our process group, so that what the terminal sends (Ctrl-C, Ctrl-Z, window size) reaches it
without us, and a shell with job control can make a group of its own and take the foreground. Only what was sent to us
alone is handed on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from killswitch.cli.confine import UNCONFINED, Confinement, apply
from killswitch.cli.pidspace import PidSpace
from killswitch.errors import KillswitchError

NOT_CONFINED = 125  # as timeout(1) and docker(1) have it: the tool failed, not CMD
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as shells and env(1) have it
_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)  # the kernel sends these to the whole foreground group
_LOOK_AGAIN = 0.5  # seconds between two looks at whether it is frozen
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class CannotRun(KillswitchError):
    """CMD cannot be started. ``status`` is the exit status that shells have for it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def find(command: str) -> str:
    """The path of the program. Raises CannotRun (127 not found, 126 there but not executable)."""
    if found := shutil.which(command):
        return found
    if "/" in command and Path(command).exists():
        why = "is a directory" if Path(command).is_dir() else "is not executable (chmod +x?)"
        raise CannotRun(f"{command}: {why}", NOT_EXECUTABLE)
    where = "no such file" if "/" in command else "no such command in PATH"
    raise CannotRun(f"{command}: {where}", NOT_FOUND)


class Child:
    """Forked by the constructor; then ``start`` and ``wait``, or ``abandon``."""

    def __init__(self, program: str, argv: Sequence[str], confinement: Confinement = UNCONFINED) -> None:
        """Raises CannotRun."""
        try:
            self._space = PidSpace() if confinement.own_pids else None
        except OSError as e:
            raise CannotRun(f"confine: make a pid namespace: {e.strerror}{_HINT}", NOT_CONFINED) from e
        self._go, go = os.pipe()[::-1]  # (write end, read end), close-on-exec as all of Python's
        failed, report = os.pipe()
        self._failed = failed
        with self._space.children() if self._space else contextlib.nullcontext():
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self._go)
                _become(program, argv, confinement, go, report)
        os.close(go)
        os.close(report)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})

    def start(self, cgroup: Path) -> None:
        """Into ``cgroup`` (a directory), and exec. Raises CannotRun."""
        os.write(self._go, os.fsencode(cgroup / "cgroup.procs"))
        os.close(self._go)
        with os.fdopen(self._failed, "rb") as pipe:
            report = pipe.read()  # ends with nothing when exec closes it
        if not report:
            return
        os.waitpid(self.pid, 0)
        self._leave()
        stage, code, detail = os.fsdecode(report).split("\0")
        raise _why(stage, int(code), detail, cgroup)

    def abandon(self) -> None:
        """It was not started, and never will be."""
        os.close(self._go)
        os.close(self._failed)
        os.waitpid(self.pid, 0)
        self._leave()

    def _leave(self) -> None:
        if self._space:
            self._space.close()
            self._space = None

    def wait(self, frozen: Callable[[], bool], changed: Callable[[bool], None]) -> int | None:
        """Its exit status (128+N for signal N). Signals that were sent to us alone are handed on.

        ``changed`` is told when it is seen to be frozen, and when it runs again. None when we were told to end while it
        is frozen: it hears nothing, so we leave and it stays.
        """
        was_frozen = False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._leave()
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            told = signal.sigtimedwait({*_FORWARDED, signal.SIGCHLD}, _LOOK_AGAIN)
            if (now_frozen := frozen()) != was_frozen:
                was_frozen = now_frozen
                changed(now_frozen)
            if told is None or told.si_signo == signal.SIGCHLD:
                continue
            if told.si_signo in _ENDING and now_frozen:
                return None
            if not (told.si_code > 0 and told.si_signo in _TERMINAL):
                os.kill(self.pid, told.si_signo)  # not yet waited for, so the pid is still its own


def _become(program: str, argv: Sequence[str], confinement: Confinement, go: int, report: int) -> NoReturn:
    """The child's whole life before exec: system calls and nothing else."""
    stage = "join"
    try:
        procs = os.read(go, 8192)
        if not procs:
            os._exit(0)
        fd = os.open(procs, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
        stage = "confine"
        apply(confinement)
        stage = "exec"
        for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored_by_python, signal.SIG_DFL)
        os.execv(program, list(argv))
    except OSError as e:
        detail = str(e.args[1]) if stage == "confine" else ""
        os.write(report, os.fsencode(f"{stage}\0{e.errno}\0{detail}"))
    except BaseException as e:
        os.write(report, os.fsencode(f"{stage}\0{errno.EINVAL}\0{type(e).__name__}"))
    os._exit(NOT_EXECUTABLE)


_HINT = (
    "; nothing was run. Where this host does not allow it (in a container, say), --unconfined runs CMD without"
    " taking anything away, and then root in it can leave the workload"
)


def _why(stage: str, code: int, detail: str, cgroup: Path) -> CannotRun:
    cause = os.strerror(code)
    if stage == "confine":
        return CannotRun(f"confine: {detail}: {cause}{_HINT}", NOT_CONFINED)
    if stage == "exec":
        hint = {
            errno.ENOEXEC: "; it is neither a program nor a script with a #! line",
            errno.ENOENT: "; its interpreter (the #! line, or the loader) is missing",
        }.get(code, "")
        return CannotRun(f"exec: {cause}{hint}", NOT_FOUND if code == errno.ENOENT else NOT_EXECUTABLE)
    hint = {errno.EACCES: "; run it as root", errno.EPERM: "; run it as root"}.get(code, "")
    return CannotRun(f"{cgroup}: cannot be joined: {cause}{hint}", 1)
