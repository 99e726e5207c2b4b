"""The options of ``killswitch run`` that say what CMD keeps."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from killswitch.cli.capabilities import KEPT, TABLE, canonical
from killswitch.cli.child import NOT_CONFINED, CannotRun
from killswitch.cli.confine import UNCONFINED, Confinement, User, find_user, is_able
from killswitch.cli.exits import complain
from killswitch.cli.surroundings import Surroundings

_MAKES_DEVICES = {"CAP_MKNOD", "CAP_SYS_RAWIO"}


def _capabilities(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(canonical(name) for value in values for name in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _user(context: click.Context, parameter: click.Parameter, value: str | None) -> User | None:
    try:
        return None if value is None else find_user(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@dataclass(frozen=True, slots=True)
class Privileges:
    """As asked for on the command line."""

    cap_add: tuple[str, ...] = ()
    user: User | None = None
    allow_new_privs: bool = False
    host_pids: bool = False
    host_sockets: bool = False
    unconfined: bool = False

    def confinement(self, socket: Path) -> Confinement:
        """``socket``: the daemon's, as this command reaches it. Raises CannotRun, ConfigError."""
        if self.unconfined:
            if self != Privileges(unconfined=True):
                raise CannotRun("--unconfined takes nothing away: leave out the other options", 2)
            return UNCONFINED
        added = frozenset(TABLE[name].bit for name in self.cap_add)
        if os.geteuid() != 0:
            if self.user or self.cap_add:
                raise CannotRun("--user and --cap-add need root", NOT_CONFINED)
            return Confinement(no_new_privs=not self.allow_new_privs)
        if not is_able():
            raise CannotRun(
                "confine: it takes CAP_SYS_ADMIN and CAP_SETPCAP to take privileges away, and this root has not both; "
                "--unconfined runs CMD with what there is",
                NOT_CONFINED,
            )
        for name in self.cap_add:
            if not TABLE[name].kept:
                complain(f"CMD keeps {name}: {TABLE[name].why}", prefix="killswitch: warning: ")
        return Confinement(
            surroundings=self._surroundings(socket),
            own_pids=not self.host_pids,
            bounding=KEPT | added,
            added=added,
            user=self.user,
            no_new_privs=not self.allow_new_privs,
        )

    def _surroundings(self, socket: Path) -> Surroundings:
        from killswitch import config

        ours = config.load()
        sockets = (str(socket), str(socket.with_name("admin.sock")), str(socket.with_name("view.sock")))
        settings = os.environ.get("KILLSWITCH_CONFIG") or str(config.DEFAULT_FILE)
        return Surroundings(
            own_proc=not self.host_pids,
            hidden=(*sockets, str(ours.runtime_dir), str(ours.state_dir)),
            read_only=(*map(str, ours.policy_dirs), settings),
            host_sockets=self.host_sockets,
            devices=not _MAKES_DEVICES.isdisjoint(self.cap_add),
        )


_OPTIONS = (
    click.option(
        "--user", metavar="NAME|UID[:GID]", callback=_user, help="Run CMD as this user.  [default: who calls; root]"
    ),
    click.option(
        "--cap-add", metavar="CAP", multiple=True, callback=_capabilities,
        help="Let CMD keep this capability; again for more.",
    ),
    click.option("--allow-new-privs", is_flag=True, help="Let setuid programs (sudo) work; within what is left."),
    click.option("--host-pids", is_flag=True, help="Let CMD see, and as its user signal, the host's processes."),
    click.option("--host-sockets", is_flag=True, help="Let CMD reach D-Bus, systemd, docker and the like: a way out."),
    click.option("--unconfined", is_flag=True, help="Take nothing away: root in CMD can leave the workload."),
)  # fmt: skip


def privilege_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the function gets them as one ``privileges``."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        chosen = {name: kwargs.pop(name) for name in Privileges.__dataclass_fields__}
        return function(*args, privileges=Privileges(**chosen), **kwargs)

    del gathered.__wrapped__
    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
