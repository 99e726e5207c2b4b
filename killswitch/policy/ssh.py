"""What forwarding an OpenSSH client's command line asks for, by OpenSSH's own grammar, as one automaton.

It follows ``main()`` of ssh.c, the getopt that comes with OpenSSH, and ``process_config_line`` of readconf.c over the
NUL-terminated arguments: clusters of flags until an option that takes a value; the rest of the token, or the next one,
is that value; after the host, options once more; then comes the remote command, and nothing in it is an option.
``-o`` is a line of the configuration file, with its keyword in any case, quotes, and ``=`` or blanks.

Where versions of OpenSSH differ (``-P`` was a flag before 9.6 and takes a value since) it follows both. It judges what is
asked for: a later ``-o ClearAllForwardings=yes`` does not make it unsaid. What a configuration file says is not in the
arguments: that is judged by ``policy.sshconfig``, a moment later.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from killswitch.policy.automaton import Dfa, minimise

KINDS = ("remote", "local", "dynamic", "tun", "stdio")
NAMES = ("ssh", "slogin")  # what OpenSSH's client is installed as
FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/openssh/bin")  # and those of $PATH: see paths()

FLAGS = frozenset(b"1246ACKMNPTXYZafgknqstvxy")  # G, V and Q print something and exit
VALUED = frozenset(b"BDEFIJLOPRSWbceilmopw")
OPENING = (b"forward", b"proxy")  # of what -O can ask of a client that runs already, what can open something
CLIENT = "openssh-client"  # what a program is called that is OpenSSH's client by its content
_ASKS = {ord("R"): "remote", ord("L"): "local", ord("D"): "dynamic", ord("w"): "tun", ord("W"): "stdio"}
_KEYWORDS = {b"remoteforward": "remote", b"localforward": "local", b"dynamicforward": "dynamic", b"tunnel": "tun"}
_PREFIXES = frozenset(keyword[:end] for keyword in _KEYWORDS for end in range(len(keyword) + 1))
_BLANKS = b" \t\r\n"
_NUL, _DASH, _EQUALS, _QUOTE, _HASH, _BACKSLASH, _TICK = 0, *b"-=\"#\\'"

# A state is a tuple: what is being read, then whether the host was seen, then what that kind of state needs. () is dead:
# nothing after it can ask for anything.
_State = tuple[str | bytes | bool, ...]
_DEAD: _State = ()
_Step = tuple[tuple[_State, ...], str]  # the states that may come next, and what is asked for


def paths() -> tuple[str, ...]:
    """Where OpenSSH's client may lie: its inode is then known, whatever a link to it is called.

    Not when the name is a link to a program that is called something else: to a program that is many in one (dropbearmulti,
    busybox), whose ``ls -R`` would be read as a client's.
    """
    folders = dict.fromkeys((*FOLDERS, *os.get_exec_path()))
    found = (f"{folder}/{name}" for folder in folders if folder.startswith("/") for name in NAMES)
    return tuple(path for path in found if Path(os.path.realpath(path)).name.startswith(NAMES))


def step(state: _State, byte: int) -> _Step:
    """One byte further. Total: any state, any byte."""
    if not state:
        return (), ""
    kind, hosted = state[0], bool(state[1])
    ended = byte == _NUL
    if kind == "argv0":  # the program's own name
        return ((("token", hosted, False) if ended else state,), "")
    if kind == "skip":  # the rest of a token that says nothing more
        return ((("token", hosted, False) if ended else state,), "")
    if kind == "host":
        return ((_after_host(state) if ended else state,), "")
    if kind == "token":
        if byte == _DASH:
            return ((("dash", *state[1:]),), "")
        return (((_after_host(state) if ended else ("host", *state[1:])) if not hosted else _DEAD,), "")
    if kind == "dash":
        if ended:  # "-" alone is no option
            return ((_after_host(state) if not hosted else _DEAD,), "")
        return _option(state, byte) if byte != _DASH else ((), "")  # "--" ends the options, "--x" is a usage error
    if kind == "cluster":
        if ended:
            return ((("token", hosted, False),), "")
        if byte == _DASH:
            return ((("trailing", *state[1:]),), "")
        return _option(state, byte)
    if kind == "trailing":  # getopt takes "-4-" for no option at all: it is the host
        return ((_after_host(state) if ended and not hosted else _DEAD,), "")
    if kind == "value":
        return _value(state, byte)
    if kind == "mux":
        return _mux(state, byte)
    return _line(state, byte)


def _after_host(state: _State) -> _State:
    """Options are parsed once more, unless the token before the host was "--" (as an option's value: ssh.c looks no closer)."""
    return _DEAD if state[2] else ("token", True, False)


def _option(state: _State, byte: int) -> _Step:
    if byte == ord("O"):
        return ((("mux", state[1], b"", "first"),), "")
    states: list[_State] = []
    if byte in FLAGS:
        states.append(("cluster", *state[1:]))
    if byte in VALUED:
        states.append(("value", state[1], "first", byte == ord("o")))
    return tuple(states), _ASKS.get(byte, "")


def _mux(state: _State, byte: int) -> _Step:
    """The value of -O: what ends, cancels or asks opens nothing, whatever else is asked for behind it."""
    _, hosted, read, place = state
    if byte == _NUL:
        if place == "first" and not read:
            return ((("mux", hosted, b"", "own"),), "")
        return ((("token", hosted, False) if read in OPENING else _DEAD,), "")
    assert isinstance(read, bytes)
    read += bytes((byte,))
    return ((("mux", hosted, read, place) if any(word.startswith(read) for word in OPENING) else _DEAD,), "")


def _value(state: _State, byte: int) -> _Step:
    """``state[2]``: first (right after the letter), then, in a token of its own, own, "-", "--"; ``state[3]``: of -o."""
    _, hosted, place, of_line = state
    if of_line:
        if place == "first" and byte == _NUL:
            return ((("value", hosted, "own", True),), "")
        return _line(("start", hosted), byte)
    if byte == _NUL:
        if place == "first":
            return ((("value", hosted, "own", False),), "")
        return ((("token", hosted, place == "--" and not hosted),), "")
    longer = {"own": "-", "-": "--"}.get(str(place)) if byte == _DASH else None
    return ((("value", hosted, longer, False) if longer else ("skip", hosted),), "")


def _line(state: _State, byte: int) -> _Step:
    """A configuration line: start, lead (blanks before the keyword), keyword, quoted, blanks or equals after it, answer."""
    kind, hosted = state[0], state[1]
    if byte == _NUL:
        if kind in ("start", "lead", "led", "quoted", "answer"):  # an empty line is ignored
            return ((("token", hosted, False),), "")
        return (), ""  # no argument after the keyword: ssh exits
    if kind in ("start", "lead", "led"):
        return _lead(state, byte)
    if kind == "keyword":
        read = state[2]
        assert isinstance(read, bytes)
        if byte in _BLANKS or byte == _EQUALS:
            return _delimited(hosted, read, "blanks" if byte in _BLANKS else "equals")
        if byte == _QUOTE:
            return ((("quoted", hosted, read),), "")
        return ((_longer("keyword", hosted, read, byte),), "")
    if kind == "quoted":
        read = state[2]
        assert isinstance(read, bytes)
        if byte != _QUOTE:
            return ((_longer("quoted", hosted, read, byte),), "")
        return _delimited(hosted, read, "equals") if read else ((("led", hosted),), "")
    if kind in ("blanks", "equals"):
        if byte in _BLANKS:
            return ((state,), "")
        if byte == _EQUALS and kind == "blanks":
            return ((("equals", *state[1:]),), "")
        if byte == _HASH:  # a comment where the argument should be
            return (), ""
    return _answer(hosted, str(state[2]), byte)


def _lead(state: _State, byte: int) -> _Step:
    """Before the keyword: blanks and one ``=`` are skipped, in any order that ``strdelim`` takes."""
    kind, hosted = state[0], state[1]
    if byte in _BLANKS:
        return ((("lead" if kind == "start" else kind, hosted),), "")
    if byte == _EQUALS:
        return ((("led", hosted) if kind != "led" else ("skip", hosted),), "")
    if byte == _QUOTE:
        return ((("quoted", hosted, b""),), "")
    return ((_longer("keyword", hosted, b"", byte),), "")


def _longer(kind: str, hosted: bool | str | bytes, read: bytes, byte: int) -> _State:
    read += bytes((byte,)).lower()
    return (kind, hosted, read) if read in _PREFIXES else ("skip", hosted)


def _delimited(hosted: bool | str | bytes, read: bytes, kind: str) -> _Step:
    asked = _KEYWORDS.get(read)
    return ((("skip", hosted) if asked is None else (kind, hosted, asked),), "")


def _answer(hosted: bool | str | bytes, asked: str, byte: int) -> _Step:
    if asked == "tun":
        if byte in (_QUOTE, _TICK, _BACKSLASH):
            return ((("answer", hosted, asked),), "")
        if byte in b"nNfF":  # no, false
            return ((("skip", hosted),), "")
    return ((("skip", hosted),), asked)


def asked_for(args: Iterable[bytes]) -> set[str]:
    """What these arguments ask for, the program's own name first."""
    dfa, bits = grammar()
    seen = dfa.walk(b"".join(arg + b"\0" for arg in args))
    return {kind for kind, bit in zip(KINDS, bits, strict=True) if seen & bit}


@cache
def grammar() -> tuple[Dfa, tuple[int, ...]]:
    """The automaton, with one bit a kind in the order of ``KINDS``, and those bits."""
    classes, samples = _classes()
    rows = _single_steps(samples)
    # Subset construction. A set of states is a mask; what was asked for on the way in lies below it.
    order = [1 << len(KINDS)]
    index = {order[0]: 0}
    table: list[list[int]] = []
    for subset in order:
        row, left = [0] * len(samples), subset >> len(KINDS)
        while left:
            member = rows[(left & -left).bit_length() - 1]
            row = list(map(operator.or_, row, member)) if any(row) else member
            left &= left - 1
        targets = []
        for target in row:
            number = index.get(target, -1)
            if number < 0:
                index[target] = number = len(order)
                order.append(target)
            targets.append(number)
        table.append(targets)
    kinds = (1 << len(KINDS)) - 1
    dfa = Dfa(classes, table, [subset & kinds for subset in order], 0)
    return minimise(dfa), tuple(1 << i for i in range(len(KINDS)))


def _single_steps(samples: list[int]) -> list[list[int]]:
    """For each state, numbered as found, and each class of bytes: the mask of states that come next, and what is asked for."""
    order: list[_State] = [("argv0", False)]
    index = {order[0]: 0}
    bit = {kind: 1 << i for i, kind in enumerate(KINDS)} | {"": 0}
    rows: list[list[int]] = []
    for state in order:
        row = []
        for byte in samples:
            after, asked = step(state, byte)
            mask = bit[asked]
            for target in after:
                if target:
                    if target not in index:
                        index[target] = len(order)
                        order.append(target)
                    mask |= 1 << len(KINDS) + index[target]
            row.append(mask)
        rows.append(row)
    return rows


def _classes() -> tuple[bytes, list[int]]:
    """Bytes that the grammar tells apart, each its own class; all others are one."""
    letters = {c for keyword in _KEYWORDS for word in (keyword, keyword.upper()) for c in word}
    letters |= {c for word in OPENING for c in word}
    apart = sorted({_NUL, _EQUALS, _QUOTE, _HASH, _BACKSLASH, _TICK, _DASH, *b"nNfF", *letters, *_ASKS, *b"oPO"})
    groups: list[list[int]] = [[byte] for byte in apart]
    rest = [byte for byte in range(256) if byte not in apart]
    groups.append([byte for byte in rest if byte in _BLANKS])
    groups.append([byte for byte in rest if byte in FLAGS])
    groups.append([byte for byte in rest if byte in VALUED])
    groups.append([byte for byte in rest if byte not in FLAGS | VALUED and byte not in _BLANKS])
    classes = bytearray(256)
    for number, group in enumerate(groups):
        for byte in group:
            classes[byte] = number
    return bytes(classes), [group[0] for group in groups]
