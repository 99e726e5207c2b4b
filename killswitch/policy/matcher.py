"""Tier 3's judgement of one predicate on a field's values, in Python; the same meaning as the automata's."""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from killswitch.policy import hostnames, regex, wildcard
from killswitch.policy.fields import FIELDS, Values
from killswitch.policy.model import Predicate
from killswitch.policy.nfa import At, Nfa

Test = Callable[[Any], bool]  # one value of the field
Judge = Callable[[Values], bool]  # all of them

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def judge(predicate: Predicate, values: Values) -> bool:
    """Whether the predicate holds on these values of its field.

    Raises ValueError, with a sentence, for an operator or value that does not fit the field; it does so for every value
    or for none, so that one call at load time is enough.
    """
    return judge_of(predicate)(values)


@lru_cache(maxsize=4096)
def judge_of(predicate: Predicate) -> Judge:
    """``judge`` for this predicate: to be kept by who asks it often. Raises ValueError as it does."""
    tests = _tests(predicate)
    if predicate.op == "exists":
        wanted = bool(predicate.values[0])
        return lambda values: any(value not in (b"", "") for value in values) is wanted
    if predicate.all:
        return lambda values: all(any(test(value) for value in values) for test in tests)
    if FIELDS[predicate.field].kind == "ip":  # the same addresses come again and again, and networks are slow to ask
        return _any_of((lru_cache(maxsize=4096)(lambda value: any(test(value) for test in tests)),))
    words = _words(predicate)
    if len(words) > 1:
        others = _any_of(tuple(test for test, word in zip(tests, words, strict=True) if word is None))
        return _one_of(frozenset(word for word in words if word is not None), others, cased=predicate.cased)
    return _any_of(tests)


def _words(predicate: Predicate) -> tuple[bytes | None, ...]:
    """For each of its values the text that it is compared with, None if by more than that the two are the same."""
    if FIELDS[predicate.field].kind != "text" or predicate.op != "match":
        return ()
    globs = [wildcard.parse(str(value), predicate.op) for value in predicate.values]
    words = (glob.literal if glob.at_start and glob.at_end else None for glob in globs)
    return tuple(word if word is None or predicate.cased else word.lower() for word in words)


def _one_of(words: frozenset[bytes], others: Judge, *, cased: bool) -> Judge:
    """Names are compared with dozens of words: one look-up for all of them."""

    def judge(values: Values) -> bool:
        for value in values:
            if (value if cased else value.lower()) in words:
                return True
        return others(values)

    return judge


def _any_of(tests: tuple[Test, ...]) -> Judge:
    def judge(values: Values) -> bool:
        for test in tests:  # no generator: this is asked for every event
            for value in values:
                if test(value):
                    return True
        return False

    return judge


def check(predicate: Predicate) -> None:
    """Raises ValueError, with a sentence, when ``judge`` would."""
    _tests(predicate)


@lru_cache(maxsize=4096)
def _tests(predicate: Predicate) -> tuple[Test, ...]:
    kind = FIELDS[predicate.field].kind
    if predicate.op == "exists":
        return ()
    return tuple(_test(predicate, kind, value) for value in predicate.values)


def _test(predicate: Predicate, kind: str, wanted: str | int | float | bool) -> Test:
    op = predicate.op
    if kind == "number" and not isinstance(wanted, str):
        compare = operator.eq if op == "match" else _COMPARE.get(op)
        if compare is not None:
            return lambda value: bool(compare(value, wanted))
    if kind == "flag" and op == "match" and isinstance(wanted, bool):
        return lambda value: bool(value) is wanted
    if kind == "ip" and op in ("match", "cidr"):
        try:
            network = ipaddress.ip_network(str(wanted))
        except ValueError as error:
            raise ValueError(f"{wanted!r} is no address or network: {error}") from None
        return lambda value: _in(network, value)
    if predicate.field == "file.inode_of" and op == "match":  # what leads to the file has been found out before
        return lambda value: bool(value == wanted)
    if kind == "text":
        if op == "re":
            return regex.searcher(str(wanted), cased=predicate.cased)
        if op == "domain":
            suffix = hostnames.domain(str(wanted)).encode()
            return lambda value: hostnames.below(value.lower(), suffix)
        if op in ("match", "contains", "startswith", "endswith"):
            return _text_test(wildcard.parse(str(wanted), op), predicate.cased)
    raise ValueError(f"'{predicate.field}' cannot be compared by '{op}' with {wanted!r}")


def _in(network: ipaddress.IPv4Network | ipaddress.IPv6Network, value: str) -> bool:
    address = _address(value)
    return address is not None and address.version == network.version and address in network


@lru_cache(maxsize=4096)
def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """IPv4 that goes through an IPv6 socket is IPv4: or ``::ffff:10.0.0.1`` would get past a rule about 10.0.0.0/8."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _text_test(glob: wildcard.Glob, cased: bool) -> Test:
    literal = glob.literal
    if literal is None:
        return _wild_test(glob, cased)
    wanted = literal if cased else literal.lower()
    folded: Callable[[bytes], bytes] = (lambda value: value) if cased else bytes.lower
    if glob.at_start and glob.at_end:
        return lambda value: folded(value) == wanted
    if glob.at_start:
        return lambda value: folded(value).startswith(wanted)
    if glob.at_end:
        return lambda value: folded(value).endswith(wanted)
    return lambda value: wanted in folded(value)


def _wild_test(glob: wildcard.Glob, cased: bool) -> Test:
    """Greedy from the left, which is enough for globs and linear but for ``?``; no expression engine, no blow-up."""
    runs: list[list[bytes | None]] = [[]]  # between stars: bytes, None = any one
    for part in glob.parts:
        if part is wildcard.Wild.MANY:
            runs.append([])
        elif part is wildcard.Wild.ONE:
            runs[-1].append(None)
        else:
            assert isinstance(part, bytes)
            runs[-1].extend((part if cased else part.lower())[i : i + 1] for i in range(len(part)))

    def test(value: bytes) -> bool:
        text = value if cased else value.lower()
        at, end = 0, len(text)
        middle = runs
        if glob.at_start:
            if not _fits(middle[0], text, 0):
                return False
            at = len(middle[0])
            if len(middle) == 1:
                return at == end if glob.at_end else True
            middle = middle[1:]
        if glob.at_end:
            last = middle[-1]
            if end - len(last) < at or not _fits(last, text, end - len(last)):
                return False
            end -= len(last)
            middle = middle[:-1]
        for run in middle:
            while at + len(run) <= end and not _fits(run, text, at):
                at += 1
            if at + len(run) > end:
                return False
            at += len(run)
        return True

    return test


def _fits(run: list[bytes | None], text: bytes, at: int) -> bool:
    if at + len(run) > len(text):
        return False
    return all(want is None or text[at + i : at + i + 1] == want for i, want in enumerate(run))


def pattern_of(predicate: Predicate, values: Iterable[str]) -> Nfa:
    """These values of the predicate as one automaton to be. Raises regex.NotRegular, and automaton.TooBig."""
    nfa = Nfa(searching=True)
    for value in values:
        if predicate.op == "re":
            regex.add_to(nfa, value, cased=predicate.cased)
        else:
            wildcard.add_to(nfa, wildcard.parse(value, predicate.op), cased=predicate.cased)
    return nfa


def wants_end(predicate: Predicate) -> bool:
    """Whether it cannot be judged before the text has ended."""
    if predicate.op == "re":
        try:
            return looks_at_end(pattern_of(predicate, map(str, predicate.values)))
        except regex.NotRegular:
            return True
    return any(wildcard.parse(str(value), predicate.op).at_end for value in predicate.values)


def looks_at_end(nfa: Nfa) -> bool:
    """Whether it has to know where the text ends."""
    return any(where is At.END for edges in nfa.when for where, _ in edges)
