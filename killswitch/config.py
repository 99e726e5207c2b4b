"""The daemon's own configuration: where things lie, and a few settings.

Read from one YAML file (a flat mapping), then from the environment, which wins: the setting ``state_dir`` is
``KILLSWITCH_STATE_DIR``. So tests run many daemons side by side. A missing default file means "all defaults"; a file
that was asked for by name must be there. Whatever is not understood is an error, never ignored.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from killswitch.errors import ConfigError, Problem
from killswitch.hostallow import MOST, Allowed, parse

DEFAULT_FILE = Path("/etc/killswitch/config.yaml")
SHIPPED_POLICIES = Path(__file__).parent / "policies"
LEVELS = ("debug", "info", "warning", "error")
MAX_SOCKET_PATH = 107  # sockaddr_un.sun_path, less its NUL


@dataclass(frozen=True, slots=True)
class Config:
    """Every field is a key of the file and, as ``KILLSWITCH_<KEY>``, of the environment."""

    runtime_dir: Path = Path("/run/killswitch")  # admin.sock, view.sock, lock
    state_dir: Path = Path("/var/lib/killswitch")  # ledger, evidence
    pin_dir: Path = Path("/sys/fs/bpf/killswitch")  # what keeps containment in force without the daemon
    policy_dirs: tuple[Path, ...] = (Path("/etc/killswitch/policies"),)  # none has a *.yaml: the shipped policies
    cgroup_parent: str = "/killswitch"  # where `killswitch run` makes workloads, below the cgroup v2 root
    cgroup_mount: Path | None = None  # None: found in /proc/self/mountinfo
    protected_cgroups: tuple[str, ...] = ()  # never contained, nor any cgroup that holds one of them
    protected_programs: tuple[
        str, ...
    ] = ()  # names of executables that are never killed, nor contained with their cgroup
    view_group: str = "killswitch"  # group that may open view.sock
    log_level: str = "info"
    host_root: Path = Path("/")  # below which the host's places of persistence are looked at
    # How many workloads rules may hit by themselves, where no policy says (killswitch.policy.limits.Limits).
    budget_contained: int = 40
    budget_seconds: float = 600.0
    budget_share: float = 0.5  # of those that are watched, if that is more; written as 50%
    continuation_seconds: float = 86_400.0  # how long an incident's program is looked for elsewhere; 0 = it is not
    # What "host" means in `kill host`: the machine, unless both are set. host_cgroup "none": there is no such order.
    host_cgroup: str = "/"
    host_netns: Path | None = None
    host_allow: tuple[Allowed, ...] = ()  # what goes through while it is cut off, besides the operators' sshd and DHCP
    reconcile_seconds: float = 2.0  # how often desired and observed containment are compared
    selftest_every: float = 3600.0  # seconds between two self-tests of the timer, 0 = none ("off")

    @property
    def admin_socket(self) -> Path:
        return self.runtime_dir / "admin.sock"

    @property
    def view_socket(self) -> Path:
        return self.runtime_dir / "view.sock"

    @property
    def evidence_dir(self) -> Path:
        return self.state_dir / "evidence"

    @property
    def ledger_file(self) -> Path:
        return self.state_dir / "ledger.db"

    def policy_files(self) -> tuple[Path, ...]:
        """The operator's policies in order of name; where there are none, the shipped ones."""
        own = [f for d in self.policy_dirs for f in _yaml_files(d)]
        return tuple(own or _yaml_files(SHIPPED_POLICIES))


def _yaml_files(directory: Path) -> list[Path]:
    try:
        return sorted(f for f in directory.iterdir() if f.suffix in (".yaml", ".yml") and not f.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _absolute(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return Path(os.path.normpath(value))


def _cgroup(value: object) -> str:
    """A path below the cgroup v2 root, never the root itself."""
    path = str(_absolute(value))
    if path.startswith("/sys/fs/cgroup"):
        raise ValueError("must be a path below the cgroup v2 root, such as /killswitch, not a path of the file system")
    if path == "/":
        raise ValueError("must not be the root of the cgroup tree: everything lies in it")
    return path


def _host_cgroup(value: object) -> str:
    if value in ("/", "none"):
        return str(value)
    return _cgroup(value)


def _allowed(value: object) -> tuple[Allowed, ...]:
    if isinstance(value, str):  # of the environment: an address may hold colons
        value = [part.strip() for part in value.split(";") if part.strip()]
    if not isinstance(value, list):
        raise ValueError("must be a list")
    if len(value) > MOST:
        raise ValueError(f"has {len(value)} entries; at most {MOST} fit: use networks and ranges of ports")
    return tuple(parse(str(v)) for v in value)


def _socket_dir(value: object) -> Path:
    path = _absolute(value)
    if len(str(path / "admin.sock")) > MAX_SOCKET_PATH:
        raise ValueError(f"is too long: a unix socket's path has at most {MAX_SOCKET_PATH} bytes")
    return path


def _level(value: object) -> str:
    if value not in LEVELS:
        raise ValueError(f"must be one of {', '.join(LEVELS)}{_suggest(str(value), LEVELS)}")
    return str(value)


def _group(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be the name of a group")
    return value


def _program(value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise ValueError("must be the name of an executable, without a directory, such as backup-agent")
    return value


def _seconds(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not 0.1 <= number <= 3600:
        raise ValueError("must be a number of seconds from 0.1 to 3600")
    return number


def _count(value: object) -> int:
    digits = str(value)
    if isinstance(value, bool) or not digits.isdecimal() or int(digits) > 100_000:
        raise ValueError("must be a whole number from 0 to 100000")
    return int(digits)


def _window(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not 1 <= number <= 86_400:
        raise ValueError("must be a number of seconds from 1 to 86400")
    return number


def _days(value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not 0 <= number <= 30 * 86_400:
        raise ValueError("must be a number of seconds from 0 to 2592000 (30 days)")
    return number


def _share(value: object) -> float:
    digits = value.removesuffix("%") if isinstance(value, str) and value.endswith("%") else ""
    if not digits.isdecimal() or int(digits) > 100:
        raise ValueError("must be a percentage from 0% to 100%, such as 25%")
    return int(digits) / 100


def _interval(value: object) -> float:
    """Seconds from "90s", "30m", "1h" or "1d"; 0 from "off"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if value == "off":
        return 0.0
    found = re.fullmatch(r"(\d{1,9})([smhd])", value) if isinstance(value, str) else None
    seconds = int(found[1]) * units[found[2]] if found else 0
    if not 10 <= seconds <= 7 * 86400:
        raise ValueError("must be 'off', or a time from 10s to 7d, such as 30m or 1h")
    return float(seconds)


def _list_of(one: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def parse(value: object) -> tuple[Any, ...]:
        if isinstance(value, str):  # of the environment, as in PATH
            value = [part for part in value.split(os.pathsep) if part]
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return tuple(one(v) for v in value)

    return parse


_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "runtime_dir": _socket_dir,
    "state_dir": _absolute,
    "pin_dir": _absolute,
    "policy_dirs": _list_of(_absolute),
    "cgroup_parent": _cgroup,
    "cgroup_mount": _absolute,
    "protected_cgroups": _list_of(_cgroup),
    "protected_programs": _list_of(_program),
    "view_group": _group,
    "log_level": _level,
    "host_root": _absolute,
    "budget_contained": _count,
    "budget_seconds": _window,
    "budget_share": _share,
    "continuation_seconds": _days,
    "host_cgroup": _host_cgroup,
    "host_netns": _absolute,
    "host_allow": _allowed,
    "reconcile_seconds": _seconds,
    "selftest_every": _interval,
}
assert _PARSERS.keys() == {f.name for f in fields(Config)}

# What the environment calls them. Only names with this prefix that are listed here are read; others that share it (the
# command line's own) are left alone.
ENVIRONMENT: Mapping[str, str] = {f"KILLSWITCH_{key.upper()}": key for key in _PARSERS} | {
    "KILLSWITCH_POLICY_DIR": "policy_dirs"
}


def _suggest(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def load(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force. ``file`` None: the default file, if there is one.

    Raises ConfigError, whose text has one line for each problem of the file and of the environment.
    """
    environ = os.environ if environ is None else environ
    file = file or (Path(environ["KILLSWITCH_CONFIG"]) if environ.get("KILLSWITCH_CONFIG") else None)
    settings: dict[str, Any] = {}
    problems: list[str] = []
    try:
        text = (file or DEFAULT_FILE).read_text()
    except FileNotFoundError:
        if file is not None:
            raise ConfigError(f"{file}: no such file; leave --config out to run on the defaults") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file or DEFAULT_FILE}: cannot be read: {e}; mend the file or its permissions") from e
    else:
        settings, found = _parse_file(text, str(file or DEFAULT_FILE))
        problems += map(str, found)
    for variable, key in ENVIRONMENT.items():
        if value := environ.get(variable):
            try:
                settings[key] = _PARSERS[key](value)
            except ValueError as e:
                problems.append(f"environment: {variable}={value}: {e}")
    host = settings.get("host_cgroup", "/")
    if host != "none" and (host == "/") == ("host_netns" in settings):
        problems.append("host_cgroup and host_netns: set both, or neither: half of another host is none")
    if problems:
        raise ConfigError("\n".join(problems))
    return Config(**settings)


def _parse_file(text: str, file: str) -> tuple[dict[str, Any], list[Problem]]:
    def problem(node: yaml.Node, message: str, hint: str = "") -> Problem:
        return Problem(file, node.start_mark.line + 1, node.start_mark.column + 1, message, hint)

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        cause = getattr(e, "problem", None) or str(e).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return {}, [Problem(file, line, column, f"is not YAML: {cause}")]
    if root is None:
        return {}, []
    if not isinstance(root, yaml.MappingNode):
        return {}, [problem(root, "must be a mapping", "one 'key: value' a line, such as 'log_level: info'")]
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    for key_node, value_node in root.value:
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        if key not in _PARSERS:
            known = f"known are {', '.join(_PARSERS)}"
            problems.append(
                problem(key_node, f"unknown setting {key!r}", _suggest(key, list(_PARSERS)).lstrip("; ") or known)
            )
        elif key in settings:
            problems.append(problem(key_node, f"{key} is set twice", "keep one of them"))
        else:
            try:
                settings[key] = _PARSERS[key](_plain(value_node))
            except ValueError as e:
                problems.append(problem(value_node, f"{key} {e}"))
    return settings, problems


def _plain(node: yaml.Node) -> object:
    """Scalars as they are written and lists of them: no aliases, no implicit types but numbers."""
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(n) for n in node.value]
    raise ValueError("must be a plain value or a list of them")
