from __future__ import annotations

import pytest

from killswitch.policy import regex
from killswitch.policy.automaton import TooBig
from killswitch.policy.nfa import Nfa, determinise


def found(pattern: str, text: bytes, *, cased: bool = True) -> bool:
    """Judged by the automaton, after making sure that tier 3 judges alike."""
    nfa = Nfa(searching=True)
    regex.add_to(nfa, pattern, cased=cased)
    by_walk = bool(determinise(nfa, 1, line=False, limit=512).walk(text + b"\0"))
    assert regex.searcher(pattern, cased=cased)(text) is by_walk
    return by_walk


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^/tmp/[^/]+$", b"/tmp/x", True),
        (r"^/tmp/[^/]+$", b"/tmp/x/y", False),
        (r"^/tmp/.*rig$", b"/tmp/a\nb/xmrig", True),  # a line feed hides nothing
        (r"rig$", b"rig\n", False),  # the end is the end
        (r"rig\z", b"xmrig", True),
        (r"a[$]b", b"a$b", True),
        (r"a\$b", b"a$b", True),
        (r"\bxmrig\b", b"./xmrig-6", True),
        (r"\bxmrig\b", b"notxmrig", False),
        (r"\Brig", b"xmrig", True),
        (r"(?:ab|c){2,3}d", b"xabcd", True),
        (r"(?:ab|c){2,3}d", b"xcd", False),
        (r"^$", b"", True),
        (r"^$", b"x", False),
        (r"\x41\.\d{2}", b"A.42", True),
        (r"[^\W\d]+=", b"_a=", True),
        (r"[\w.-]+@[]x]", b"a-b@]", True),
        (r"é+x", "aééx".encode(), True),
        (r"é+x", b"\xc3\xa9\xa9x", False),
        (r"a.c", b"a\xffc", True),  # any byte, valid UTF-8 or not
        (r"(?i)XM(?-i:R)ig", b"xmRIG", True),
        (r"(?i)XM(?-i:R)ig", b"xmrIG", False),
        (r"(?-s:a.b)", b"a\nb", False),
        (r"a*?b|", b"zzz", True),
        (r"\v", b"\x0b", True),
        (r"^\s$", b"\x0b", False),  # RE2's white space
    ],
)
def test_expressions(pattern: str, text: bytes, expected: bool) -> None:
    assert found(pattern, text) is expected


def test_case_folds_unless_cased() -> None:
    assert found("XmRig[a-c]", b"xMrIGB", cased=False)
    assert not found("XmRig[a-c]", b"xMrIGB")
    assert not found("é", "É".encode(), cased=False)


@pytest.mark.parametrize(
    ("pattern", "text", "reason"),
    [
        (r"a(?=b)", b"ab", "look-ahead"),
        (r"(?<!x)a", b"ya", "negative look"),
        (r"(a|b)\1", b"bb", "back reference"),
        (r"[[:digit:]]x", b"7x", "POSIX"),
        (r"\pLx", b"ax", "only RE2 reads"),
        (r"[é]x", "éx".encode(), "more than one byte"),
        (r"(?m)^b", b"a\nb", "flag"),
        (r"(?m:^b)", b"a\nb", "flag"),
        (r"x{,2}y", b"x{,2}y", "'{,'"),
    ],
)
def test_what_is_left_to_tier_three_says_why_and_is_still_judged(pattern: str, text: bytes, reason: str) -> None:
    with pytest.raises(regex.NotRegular, match=reason):
        regex.add_to(Nfa(searching=True), pattern, cased=True)
    assert regex.searcher(pattern, cased=True)(text)
    assert not regex.searcher(pattern, cased=True)(b"%")


@pytest.mark.parametrize("pattern", ["(", "[a", "a{2,1}", "*", "(?P<n>a", "\\"])
def test_no_expression(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        regex.searcher(pattern, cased=True)
    with pytest.raises(regex.NotRegular):
        regex.add_to(Nfa(searching=True), pattern, cased=True)


@pytest.mark.parametrize(
    "pattern", ["(a?){999}b", "(a|b)*a(a|b){30}c", "(" * 3000 + "a" + ")" * 3000, "((a{30}){30}){30}"]
)
def test_a_hostile_expression_is_refused(pattern: str) -> None:
    nfa = Nfa(searching=True)
    with pytest.raises((regex.NotRegular, TooBig)):
        regex.add_to(nfa, pattern, cased=True)
        determinise(nfa, 1, line=False, limit=512)
