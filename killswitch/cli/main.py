"""The command ``killswitch``: its global options and the list of its commands."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import click

from killswitch import __version__
from killswitch.cli.exits import Exit
from killswitch.cli.lazy import Entry, LazyGroup
from killswitch.cli.session import Session

_RUN, _LOOK, _ACT, _RULES, _DAEMON = "Workloads", "Look", "Act", "Rules", "Daemon"


def _entries() -> dict[str, Entry]:
    def at(module: str, attribute: str, section: str, text: str) -> Entry:
        return Entry(f"killswitch.cli.{module}", attribute, text, section)

    return {
        "run": at("run", "run", _RUN, "Run CMD as a new watched workload."),
        "watch": at("watching", "watch", _RUN, "Watch a running cgroup."),
        "unwatch": at("watching", "unwatch", _RUN, "Stop watching a workload."),
        "status": at("status", "status", _LOOK, "How the daemon is."),
        "top": at("top", "top", _LOOK, "The watched workloads, live."),
        "workloads": at("watching", "workloads", _LOOK, "What is watched, and how it is contained."),
        "incidents": at("incidents", "incidents", _LOOK, "What was found and done; one incident in full."),
        "events": at("events", "events", _LOOK, "What happened; -f follows what happens."),
        "evidence": at("evidence", "evidence", _LOOK, "What was captured of an incident."),
        "doctor": at("status", "doctor", _LOOK, "What this kernel can and cannot enforce."),
        "selftest": at("selftest", "selftest", _LOOK, "Prove on a canary that the switch can still halt."),
        "metrics": at("metrics", "metrics", _LOOK, "The daemon's figures, for Prometheus."),
        "verify-log": at("status", "verify_log", _LOOK, "Check the audit's hash chain."),
        "kill": at("orders", "kill", _ACT, "Sever and freeze, and keep evidence."),
        "sever": at("orders", "sever", _ACT, "Cut off the network."),
        "freeze": at("orders", "freeze", _ACT, "Stop every process."),
        "thaw": at("orders", "thaw", _ACT, "Let a frozen workload run again."),
        "terminate": at("orders", "terminate", _ACT, "Kill every process."),
        "release": at("orders", "release", _ACT, "Take containment back, in stages."),
        "forget": at("forget", "forget", _ACT, "Clear the budget of automatic kills, or the programs of an incident."),
        "policy": at("policy", "policy", _RULES, "Check, test, list, explain, reload, replay and diff policies."),
        "daemon": at("daemon", "daemon", _DAEMON, "Run the daemon in the foreground."),
    }


@click.group(
    cls=LazyGroup,
    entries=_entries(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="TARGET is a workload's name or id, a cgroup path, or pid:N. "
    "Exit status: 0 done, 1 failed, 2 usage, 3 daemon unreachable, 4 denied, 5 partly done, 6 timed out.",
)
@click.version_option(__version__, prog_name="killswitch", message="%(prog)s %(version)s")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="KILLSWITCH_SOCKET",
    help="The daemon's socket.  [env: KILLSWITCH_SOCKET; default: admin.sock, or else view.sock, "
    "in KILLSWITCH_RUNTIME_DIR or /run/killswitch]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait at most so long for the answer.  [default: 10 to look, 30 to act, 300 for evidence]",
)
@click.pass_context
def cli(context: click.Context, socket: Path | None, timeout: float | None) -> None:
    """The host-level kill switch for AI agents.

    Watches workloads from inside the kernel, and cuts them off: network severed, processes frozen, evidence kept.
    """
    context.obj = Session(socket, timeout)


def main() -> None:
    """Entry point of the console script. Never returns."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # nobody has replaced it
            with contextlib.suppress(ValueError):  # it is closed
                stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="killswitch", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(file=sys.stderr)  # the shell's prompt goes on a line of its own
        code = 130
    except BrokenPipeError:
        # Who read our answer has gone. Nothing more can be said, and the interpreter's own flush must not try.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.FAILED
    sys.exit(int(code or 0))
