"""The daemon: wires all other parts together, and nothing else does."""

from __future__ import annotations

from pathlib import Path


def main(config_file: Path | None = None) -> int:
    """Run the daemon in the foreground until it is told to stop; its exit status. ``config_file`` None: the default one."""
    import os
    import sys

    from killswitch.config import load
    from killswitch.daemon import log, process
    from killswitch.errors import ConfigError

    try:
        config = load(config_file)
    except ConfigError as e:
        print(f"killswitch daemon: {e}", file=sys.stderr)
        return 2
    log.set_up(config.log_level)
    if os.geteuid() == 0:  # otherwise it ends soon enough
        process.prepare()
    from killswitch.daemon.app import run

    return run(config)
