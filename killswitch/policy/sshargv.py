"""An OpenSSH client's command line, read as the client reads it: what the judgement of its configuration starts from.

The kernel walks the same grammar as an automaton (``policy.ssh``), which answers what is asked for and nothing else. Here
the values are kept: the host, ``-F``, ``-l``, ``-o``, and what tells ``Host`` and ``Match`` blocks apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from killswitch.policy.ssh import FLAGS, OPENING, VALUED

_SETTINGS = frozenset(b"oRLDwW")
_P = ord("P")
Option = tuple[int, bytes | None]  # (letter, its value)


@dataclass(frozen=True, slots=True)
class Invocation:
    host: bytes  # as typed, without user and port
    user: bytes | None  # of -l, or before the @
    config: bytes | None  # of -F
    tag: bytes | None  # of -P
    settings: tuple[tuple[str, bytes], ...]  # (letter, value) of each -o, -R, -L, -D, -w and -W, in their order
    opens: bool  # False: -O only asks a client that runs already to end, to cancel or to answer


def readings(args: Sequence[bytes]) -> tuple[Invocation, ...]:
    """What the command line (the program's own name first) may mean, by version; () = refused, or answered without connecting.

    ``-P`` takes a value since OpenSSH 9.6 and was a flag before.
    """
    found = (_read(args[1:], valued, flags) for valued, flags in ((VALUED, FLAGS - {_P}), (VALUED - {_P}, FLAGS)))
    return tuple(dict.fromkeys(reading for reading in found if reading is not None))


def _read(args: Sequence[bytes], valued: frozenset[int], flags: frozenset[int]) -> Invocation | None:
    options, at = _options(args, 0, valued)
    if at >= len(args):
        return None
    host, user = _host(args[at])
    if host is None:
        return None
    # ssh.c looks at the token before the host alone: "--" there ends the options, also as the value of one.
    if not (at and args[at - 1] == b"--"):
        options += ((ord("l"), user),) if user is not None else ()
        options += _options(args, at + 1, valued)[0]
        user = None
    given: dict[int, bytes] = {}
    settings: list[tuple[str, bytes]] = []
    config = None
    for letter, value in options:
        if value is None:
            if letter not in flags:  # unknown, answered at once, or its value is missing
                return None
            continue
        if letter in _SETTINGS:
            settings.append((chr(letter), value))
        elif letter == ord("F"):
            config = value  # the last one is taken; of the others, the first
        given.setdefault(letter, value)
    opens = given.get(ord("O"), OPENING[0]) in OPENING
    return Invocation(host, given.get(ord("l"), user), config, given.get(_P), tuple(settings), opens)


def _options(args: Sequence[bytes], at: int, valued: frozenset[int]) -> tuple[tuple[Option, ...], int]:
    """The options from ``at`` on, as getopt hands them out, and the index of the first token that is none of them."""
    found: list[Option] = []
    while at < len(args):
        token = args[at]
        if token[:2] == b"--":
            return tuple(found), at + 1
        if token[:1] != b"-" or token == b"-":
            break
        for place, letter in enumerate(token[1:], 2):
            if letter == ord("-"):  # "-4-": getopt stops, and does not count the token as read
                return tuple(found), at
            if letter not in valued:
                found.append((letter, None))
            elif place < len(token):
                found.append((letter, token[place:]))
                break
            else:
                at += 1
                found.append((letter, args[at] if at < len(args) else None))
        at += 1
    return tuple(found), min(at, len(args))


def _host(typed: bytes) -> tuple[bytes | None, bytes | None]:
    """(host, user) of ``[user@]host`` or ``ssh://[user@]host[:port][/]``; None as the host: refused."""
    if typed[:6].lower() == b"ssh://":
        user, at, rest = typed[6:].split(b"/", 1)[0].rpartition(b"@")
        host = rest[1:].partition(b"]")[0] if rest.startswith(b"[") else rest.partition(b":")[0]
        return host or None, unquote_to_bytes(user.partition(b";")[0]) if at else None
    user, at, host = typed.rpartition(b"@")
    return (None, None) if at and not user else (host, user if at else None)
