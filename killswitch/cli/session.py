"""One call of the command: which daemon, how long to wait, and the way to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from killswitch.cli import exits
from killswitch.errors import KillswitchError

if TYPE_CHECKING:
    from killswitch.control.client import Client

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Session:
    """``timeout`` in seconds; None: the default of each call."""

    socket: Path | None = None
    timeout: float | None = None

    def path(self) -> Path:
        """The socket: as asked for, else admin.sock where this user may open it, else view.sock."""
        if self.socket is not None:
            return self.socket
        runtime = Path(os.environ.get("KILLSWITCH_RUNTIME_DIR") or "/run/killswitch")
        admin, view = runtime / "admin.sock", runtime / "view.sock"
        return view if not os.access(admin, os.W_OK) and os.access(view, os.W_OK) else admin

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client. Raises Unreachable, Denied."""
        from killswitch.control.client import Client  # grpc costs 80 ms: only who talks to the daemon pays

        with Client(self.path(), timeout=self.timeout) as client:
            yield client


def command(body: Callable[Concatenate[Session, P], int | None]) -> Callable[P, None]:
    """Makes ``body(session, …)`` the body of a click command: it returns the exit code (None = 0); errors are said."""

    @wraps(body)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        context = click.get_current_context()
        session = context.find_object(Session) or Session()
        try:
            code = body(session, *args, **kwargs)
        except KillswitchError as error:
            code = exits.report(error)
        context.exit(int(code or 0))

    del wrapper.__wrapped__  # click must see this signature's names, not the session
    return wrapper


def complete_workload(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Shell completion of a target: the names of the watched workloads. Silent when the daemon does not answer."""
    from click.shell_completion import CompletionItem

    try:
        with _quick(ctx).client() as client:
            found = client.workloads()
    except KillswitchError:
        return []
    return [CompletionItem(w.name, help=f"{w.observed}, {w.cgroup}") for w in found if w.name.startswith(incomplete)]


def complete_incident(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Shell completion of an incident id."""
    from click.shell_completion import CompletionItem

    try:
        with _quick(ctx).client() as client:
            found = client.incidents(open_only=False, limit=50)
    except KillswitchError:
        return []
    return [CompletionItem(i.id, help=i.workload_name) for i in found if i.id.startswith(incomplete)]


def _quick(ctx: click.Context) -> Session:
    return Session((ctx.find_object(Session) or Session()).socket, timeout=1.0)
