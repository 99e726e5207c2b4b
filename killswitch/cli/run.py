"""``run -- CMD``: a command as a new watched workload."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import human
from killswitch.cli.child import CannotRun, Child, find
from killswitch.cli.exits import Exit, complain
from killswitch.cli.privileges import Privileges, privilege_options
from killswitch.cli.session import Session, command
from killswitch.cli.terminal import Terminal, is_foreground, take_back
from killswitch.errors import KillswitchError, TargetError

if TYPE_CHECKING:
    from killswitch.control.client import Client
    from killswitch.control.service import WorkloadInfo

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.@-]{0,62}[A-Za-z0-9_])?")
_SETTLE = 1.0  # seconds that stragglers get to end


def _check_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not _NAME.fullmatch(value) or value.isdigit() or value == "host" or value.startswith("cgroup."):
        raise click.BadParameter(
            f"{value!r}: use up to 64 letters, digits, '-', '_', '.' and '@', not digits alone, and not 'host'"
        )
    return value


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--name", callback=_check_name, help="What to call it.  [default: CMD and a random suffix]")
@click.option(
    "--parent",
    metavar="CGROUP",
    help="Make its cgroup below this one; a policy has to watch it.  [env: KILLSWITCH_CGROUP_PARENT; "
    "default: the configuration's, /killswitch]",
)
@privilege_options
@click.argument("cmd", metavar="-- CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@command
def run(session: Session, name: str | None, parent: str | None, privileges: Privileges, cmd: tuple[str, ...]) -> int:
    """Run CMD as a new watched workload.

    CMD is watched, and judged, from its first instruction. The exit status is CMD's (128+N when signal N ended it, 127
    when there is no such command, 126 when it cannot be executed, 125 when it could not be confined).

    CMD has no_new_privs, none of the capabilities that defeat containment, processes of its own only to signal, and
    cannot write the cgroup tree or reach the daemon: the options give single things back.

    When it ends, its cgroup goes; but a workload that was contained is kept, and so is one that left processes behind.
    If it is frozen while it runs, that is said; Ctrl-C then returns 5, and the workload stays as it is.
    """
    had_terminal = is_foreground()
    suffix = os.urandom(3).hex()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(cmd[0]).name).strip("-")[:40] or "cmd"
    directory = f"{name or plain}-{suffix}"
    try:
        program = find(cmd[0])
        cgroup = f"{(parent or _default_parent()).rstrip('/')}/{directory}"
        child = Child(program, cmd, privileges.confinement(session.path()))  # before gRPC is loaded: see there
        try:
            with session.client() as client:
                info = client.watch(cgroup, f"run: {cmd[0]}", name=name or directory, create=True)
        except BaseException:
            child.abandon()
            raise
        _warn_unjudged(info)
        try:
            child.start(Path(info.path))
        except CannotRun:
            _clean_up(session, info)
            raise
    except CannotRun as error:
        complain(str(error))
        return error.status
    status = child.wait(lambda: _frozen(Path(info.path)), _Frozen(info))
    if had_terminal and status is not None:
        take_back()
    if status is None:
        complain(
            f"left {info.name} as it is: frozen.\n"
            f"  look at it: killswitch workloads\n"
            f"  let it go:  killswitch release {info.name} --reason TEXT\n"
            f"  end it:     killswitch terminate {info.name} --reason TEXT"
        )
        return Exit.PARTLY
    _clean_up(session, info)
    return status


def _default_parent() -> str:
    """Where the daemon's configuration has them. Raises ConfigError."""
    from killswitch import config

    return os.environ.get("KILLSWITCH_CGROUP_PARENT") or config.load().cgroup_parent


def _warn_unjudged(info: WorkloadInfo) -> None:
    if not info.policies:
        complain(
            f"no policy watches {info.cgroup}: {info.name} is seen, but not judged", prefix="killswitch: warning: "
        )


def _frozen(cgroup: Path) -> bool:
    """As the kernel says it: so it is known with no daemon, too."""
    try:
        return "frozen 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


class _Frozen:
    """Tells whoever sits before CMD why it does not answer any more, and hears Ctrl-C meanwhile."""

    def __init__(self, info: WorkloadInfo) -> None:
        self._name = info.name
        self._terminal = Terminal(info.cgroup)

    def __call__(self, frozen: bool) -> None:
        if frozen:
            self._terminal.listen()
            complain(f"{self._name} was frozen and cannot hear you; Ctrl-C leaves it so (killswitch workloads)")
        else:
            complain(f"{self._name} runs again")
            self._terminal.leave()


def _clean_up(session: Session, info: WorkloadInfo) -> None:
    """Take the cgroup away, unless it is contained or still has processes; say on stderr why it stays, and what was found.

    The daemon judges all that the kernel saw of the workload before it lets go of it: nothing is missed by being quick.
    """
    refused = None
    try:
        with session.client() as client:
            if not _stragglers_gone(client, info):
                return  # somebody else has let go of it
            try:
                now: WorkloadInfo | None = client.unwatch(str(info.id), "run: the command has ended", remove=True)
            except TargetError as error:
                now, refused = _of(client, info), error
    except KillswitchError as error:
        complain(f"workload {info.name} could not be cleaned up, and may stay at {info.cgroup}: {error}")
        return
    if now is None:
        return
    contained = str(now.desired) != "free" or str(now.observed) != "free"
    if now.incident:
        done = "was contained" if contained else "was reported"
        complain(f"workload {info.name} {done}: incident {now.incident} (killswitch incidents {now.incident})")
    if refused and contained and not now.incident:
        complain(f"workload {info.name} is {now.observed}, and stays watched")
    elif refused and now.processes and not contained:
        left = human.plural(now.processes, "process", "processes")
        complain(f"workload {info.name} has {left} left, and stays watched (killswitch workloads)")
    elif refused and not contained:
        complain(str(refused))


def _stragglers_gone(client: Client, info: WorkloadInfo) -> bool:
    """Give what CMD left behind a moment to end; False when the workload is not watched any more."""
    end = time.monotonic() + _SETTLE
    while True:
        now = _of(client, info)
        if now is None:
            return False
        if not now.processes or str(now.observed) != "free" or time.monotonic() > end:
            return True
        time.sleep(0.02)


def _of(client: Client, info: WorkloadInfo) -> WorkloadInfo | None:
    return next((w for w in client.workloads() if w.id == info.id), None)
