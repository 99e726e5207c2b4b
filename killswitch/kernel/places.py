"""Where a program puts what is to run again without it: the places of persistence, and the files that hold containment.

A place is a directory and the names in it that count. ``~`` is each home. Only directories are looked at, never every
file: an ordinary write elsewhere costs nothing. ``deep`` says how many levels of directories below belong to it
(``x.service.d``, ``multi-user.target.wants``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ANY = ("*",)
MAX_HOMES = 256  # of one root


@dataclass(frozen=True, slots=True)
class Place:
    kind: str  # a word of the field file.place
    directory: str  # "/etc/cron.d", or "~/.ssh": of each home
    names: tuple[str, ...] = ANY  # globs
    deep: int = 0


def _places(kind: str, *directories: str, names: tuple[str, ...] = ANY, deep: int = 0) -> tuple[Place, ...]:
    return tuple(Place(kind, d, names, deep) for d in directories)


_UNITS = ("/etc", "/run", "/usr/lib", "/usr/local/lib", "/lib")
PLACES: tuple[Place, ...] = (
    *_places("cron", "/etc", names=("crontab", "anacrontab")),
    *_places("cron", "/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"),
    *_places("cron", "/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/var/spool/at"),
    *_places("authorized_keys", "~/.ssh", names=("authorized_keys*",)),
    *_places("authorized_keys", "/etc/ssh/authorized_keys", "/etc/ssh/authorized_keys.d"),
    *_places("ssh", "/etc/ssh", names=("sshd_config", "ssh_config", "sshrc")),
    *_places("ssh", "/etc/ssh/sshd_config.d", "/etc/ssh/ssh_config.d"),
    *_places("ssh", "~/.ssh", names=("config", "rc", "environment")),
    *_places("systemd", *(f"{d}/systemd/{of}" for d in _UNITS for of in ("system", "user")), deep=1),
    *_places("systemd", "/etc/systemd/system-generators", "/etc/systemd/user-generators", "/run/systemd/transient"),
    *_places("systemd", "~/.config/systemd/user", "~/.local/share/systemd/user", deep=1),
    *_places("profile", "/etc", names=("profile", "bash.bashrc", "bashrc", "environment", "zshenv", "zshrc", "zprofile")),
    *_places("profile", "/etc/profile.d", "/etc/zsh", "/etc/fish/conf.d"),
    *_places(
        "profile", "~",
        names=(
            ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".zshrc", ".zshenv",
            ".zprofile", ".zlogin", ".kshrc", ".xprofile", ".xsession", ".xinitrc", ".pam_environment",
        ),
    ),
    *_places("profile", "~/.config/fish", names=("config.fish",)),
    *_places("profile", "~/.config/fish/conf.d", "~/.config/environment.d"),
    *_places("preload", "/etc", names=("ld.so.preload",)),
    *_places("boot", "/etc", names=("rc.local", "inittab")),
    *_places("boot", "/etc/init.d", "/etc/rc.d", "/etc/modules-load.d", "/etc/modprobe.d", "/etc/update-motd.d"),
    *_places("sudoers", "/etc", names=("sudoers", "doas.conf")),
    *_places("sudoers", "/etc/sudoers.d", "/etc/polkit-1/rules.d"),
    *_places("pam", "/etc/pam.d", "/etc/security"),
    *_places("udev", "/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"),
    *_places("autostart", "/etc/xdg/autostart", "~/.config/autostart", "~/.config/autostart-scripts"),
    *_places("accounts", "/etc", names=("passwd", "shadow", "group", "gshadow", "nsswitch.conf")),
)  # fmt: skip
KINDS = (*dict.fromkeys(p.kind for p in PLACES), "cgroup", "killswitch")

# Homes of accounts that nobody logs in to, where everything else lies, too.
_NO_HOMES = frozenset(
    {
        "/",
        "/bin",
        "/sbin",
        "/dev",
        "/proc",
        "/sys",
        "/etc",
        "/usr",
        "/usr/bin",
        "/usr/sbin",
        "/run",
        "/var",
        "/var/run",
        "/tmp",
    }
)


@dataclass(slots=True)
class Spot:
    """What is to be looked at in one directory."""

    names: list[tuple[str, str]] = field(default_factory=list)  # (glob, kind), in the order of the places
    below: set[str] = field(default_factory=set)  # directories in it that are looked at, too, once they are there
    deep: int = 0  # levels of directories below that belong to it, whatever they are called
    deep_kind: str = ""

    def kind_of(self, name: str) -> str:
        """The kind of place that the file of this name is, "" = it does not count."""
        return next((kind for glob, kind in self.names if fnmatch.fnmatchcase(name, glob)), "")

    def into(self, name: str) -> Spot | None:
        """The spot of a directory in it that belongs to the place by ``deep``."""
        if not self.deep:
            return None
        return Spot([("*", self.deep_kind)], set(), self.deep - 1, self.deep_kind)


def spots(places: Iterable[Place], homes: Iterable[str]) -> dict[str, Spot]:
    """Every directory that is looked at, by its path, "/" first: those of the places and all that lead to them."""
    found: dict[str, Spot] = {"/": Spot()}
    for place in places:
        for directory in _directories(place, homes):
            spot = _spot(found, directory)
            spot.names += [(glob, place.kind) for glob in place.names]
            if place.deep > spot.deep:
                spot.deep, spot.deep_kind = place.deep, place.kind
    return found


def _directories(place: Place, homes: Iterable[str]) -> Iterator[str]:
    if place.directory.startswith("~"):
        yield from (home + place.directory[1:] for home in homes)
    else:
        yield place.directory


def _spot(found: dict[str, Spot], directory: str) -> Spot:
    if directory in found:
        return found[directory]
    above, _, name = directory.rpartition("/")
    _spot(found, above or "/").below.add(name)
    return found.setdefault(directory, Spot())


def homes_of(passwd: bytes, listed: Iterable[str] = (), more: Iterable[str] = ()) -> tuple[str, ...]:
    """Homes: of ``passwd`` (the file's bytes), ``listed`` (names in /home), ``more`` (what HOME says); the last first."""
    named = [line.split(b":")[5] for line in passwd.splitlines() if line.count(b":") >= 6]
    paths = [
        *more,
        "/root",
        *(f"/home/{name}" for name in listed),
        *(p.decode("utf-8", "surrogateescape") for p in named),
    ]
    kept = dict.fromkeys(p.rstrip("/") for p in paths if p.startswith("/") and "/../" not in p)
    return tuple(p for p in kept if p and p not in _NO_HOMES)[:MAX_HOMES]
