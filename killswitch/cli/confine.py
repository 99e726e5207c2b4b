"""What ``killswitch run`` takes away from CMD, in the order in which it has to go. Applied by the child itself."""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass, field

from killswitch.cli import syscallfilter, syscalls
from killswitch.cli.capabilities import KEPT
from killswitch.cli.surroundings import Surroundings, arrange

_SYS_ADMIN, _SETPCAP = 21, 8


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: tuple[tuple[str, str], ...]  # HOME, USER, LOGNAME where the user has an entry


@dataclass(frozen=True, slots=True)
class Confinement:
    """``surroundings`` None: no namespaces (we have not the right to make them, or are told not to)."""

    surroundings: Surroundings | None = None
    own_pids: bool = False
    bounding: frozenset[int] | None = None  # None: capabilities stay as they are
    added: frozenset[int] = field(default_factory=frozenset)  # kept by name: a --user has these, root has `bounding`
    user: User | None = None
    no_new_privs: bool = True


UNCONFINED = Confinement(no_new_privs=False)


def find_user(text: str) -> User:
    """``NAME``, ``UID`` or ``UID:GID``. Raises ValueError."""
    name, colon, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if name.isdigit() and group.isdigit():
            return User(int(name), int(group), (), ())
        raise ValueError(
            f"no user {name!r} here" + ("; give UID:GID for one without an entry" if name.isdigit() else "")
        ) from None
    if colon and not group.isdigit():
        raise ValueError(f"{group!r} is no group id: NAME, UID or UID:GID")
    gid = int(group) if colon else entry.pw_gid
    groups = () if colon else tuple(os.getgrouplist(entry.pw_name, gid))
    known = (("HOME", entry.pw_dir), ("USER", entry.pw_name), ("LOGNAME", entry.pw_name))
    return User(entry.pw_uid, gid, groups, known)


def is_able() -> bool:
    """Whether we may make namespaces and take capabilities out of the bounding set."""
    return {_SYS_ADMIN, _SETPCAP} <= syscalls.permitted()


def apply(wanted: Confinement) -> None:
    """Take it all away from this process. OSError: its text names the step; nothing may be run after that."""
    if wanted.surroundings is not None:
        arrange(wanted.surroundings)
    try:
        have = syscalls.permitted()
        if wanted.bounding is not None and _SYS_ADMIN not in wanted.added:
            syscallfilter.install()  # as long as we may, whatever becomes of no_new_privs
        if wanted.bounding is not None:
            syscalls.bound(wanted.bounding)
            have &= wanted.bounding
        passed: frozenset[int] = frozenset()
        if user := wanted.user:
            have = passed = have & wanted.added if user.uid else have
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            syscalls.keep_capabilities()
            os.setresuid(user.uid, user.uid, user.uid)
            os.environ.update(user.environment)
        if wanted.bounding is not None or wanted.user:
            syscalls.set_capabilities(have, passed)
        if wanted.no_new_privs:
            syscalls.no_new_privs()
    except OSError as e:
        raise OSError(e.errno or errno.EPERM, "give up privileges") from e


__all__ = ["KEPT", "UNCONFINED", "Confinement", "User", "apply", "find_user", "is_able"]
