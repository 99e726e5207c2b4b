"""``daemon``: the daemon in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from killswitch.cli.session import Session, command


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Its configuration.  [default: /etc/killswitch/config.yaml, if there is one]",
)
@command
def daemon(session: Session, config: Path | None) -> int:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    Containment outlives it: what it has put into the kernel stays in force until an operator releases it.
    """
    from killswitch.daemon import main

    return main(config)
