"""The unix sockets' places: who may reach them, and that nobody else's daemon listens there."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from killswitch.errors import ConfigError

log = logging.getLogger(__name__)

LONGEST = 107  # bytes of sun_path without its NUL


def prepare(path: Path) -> None:
    """Make the directory, and remove what a dead daemon left. Raises ConfigError when somebody listens there already,
    when something else has that name, or when others could replace the socket."""
    if len(os.fsencode(path)) > LONGEST:
        raise ConfigError(
            f"{path}: a unix socket's path has at most {LONGEST} bytes; choose a shorter runtime directory"
        )
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        parent = path.parent.stat()
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot be made ({error.strerror}); run as root, or choose another"
        ) from error
    if parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX:
        raise ConfigError(f"{path.parent}: others may write there and replace the socket; chmod go-w {path.parent}")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: is in the way and is not a socket; remove it")
    if listening(path):
        raise ConfigError(f"{path}: another daemon listens there; stop it, or give this one another runtime directory")
    path.unlink(missing_ok=True)


def listening(path: Path) -> bool:
    """Whether a process accepts connections there. A full backlog is an answer too: somebody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            raise ConfigError(f"{path}: cannot be tried ({error.strerror}); run as root, or remove it") from error
    return True


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Sockets made in here are nobody's but ours from their first moment; ``open_to`` widens."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def open_to(path: Path, group: str) -> bool:
    """Let the group connect (0660). False, logged, and the socket stays private, where there is no such group."""
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        log.warning("%s: there is no group %r, so only root may connect; groupadd --system %s", path, group, group)
        return False
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        log.warning("%s: cannot be given to the group %r, so only this user may connect; run as root", path, group)
        return False
    path.chmod(0o660)
    return True
