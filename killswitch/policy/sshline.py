"""Lines, words and patterns of OpenSSH's client configuration, as ``readconf.c``, ``misc.c`` and ``match.c`` read them."""

from __future__ import annotations

BLANKS = b" \t\r\n"


def next_word(rest: bytes | None) -> tuple[bytes | None, bytes | None]:
    """``strdelim``: (word, what follows). The word is None at the end, or where a quote is not closed."""
    if rest is None:
        return None, None
    cut = next((i for i, c in enumerate(rest) if c in b' \t\r\n"='), -1)
    if cut < 0:
        return rest, None
    if rest[cut : cut + 1] == b'"':
        joined = rest[:cut] + rest[cut + 1 :]
        end = joined.find(b'"', cut)
        return (None, None) if end < 0 else (joined[:end], joined[end + 1 :].lstrip(BLANKS))
    after = rest[cut + 1 :].lstrip(BLANKS)
    if rest[cut : cut + 1] != b"=" and after[:1] == b"=":  # one "=" between the words, with blanks around it
        after = after[1:].lstrip(BLANKS)
    return rest[:cut], after


def keyword(line: bytes) -> tuple[bytes, bytes] | None:
    """(keyword in lower case, what follows it) of a line; None for an empty one, a comment, and what has no argument."""
    line = line.split(b"\0", 1)[0]
    line = line[:1] + line[1:].rstrip(BLANKS + b"\f")  # the first byte is never taken for trailing blank
    word, rest = next_word(line) if line else (None, None)
    if word == b"":  # blanks before the keyword
        word, rest = next_word(rest)
    if not word or word[:1] in (b"\n", b"#"):
        return None
    rest = rest.lstrip(BLANKS) if rest is not None else b""
    return (word.lower(), rest) if rest else None


def words(text: bytes) -> list[bytes] | None:
    """``argv_split``: quoted with ' or ", escaped with a backslash, up to a #. None where a quote is not closed."""
    found: list[bytes] = []
    i, size = 0, len(text)
    while i < size:
        if text[i] in b" \t":
            i += 1
            continue
        if text[i] == 0x23:
            break
        quote, word = 0, bytearray()
        while i < size:
            c = text[i]
            if c == 0x5C:
                following = text[i + 1] if i + 1 < size else 0
                if following in b"'\"\\" or (not quote and following == 0x20):
                    i += 1
                    c = following
                word.append(c)
            elif not quote and c in b" \t":
                break
            elif not quote and c in b"'\"":
                quote = c
            elif quote and c == quote:
                quote = 0
            else:
                word.append(c)
            i += 1
        if quote:
            return None
        found.append(bytes(word))
    return found


def fits(text: bytes, pattern: bytes) -> bool:
    """``match_pattern``: the whole text, ``*`` any run and ``?`` any one byte, with case. Linear but for the last star."""
    t = p = 0
    star, mark = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == 0x2A:
            star, mark = p, t
            p += 1
        elif p < len(pattern) and (pattern[p] == 0x3F or pattern[p] == text[t]):
            p += 1
            t += 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return not pattern[p:].strip(b"*")


def fits_list(text: bytes, patterns: bytes, *, lower: bool = False) -> bool:
    """``match_pattern_list``: one of the patterns between commas, and none of those with a ``!`` before them."""
    found = False
    for pattern in (patterns.lower() if lower else patterns).split(b","):
        negated = pattern[:1] == b"!"
        if len(pattern) >= 1024:
            return False
        if fits(text, pattern[1:] if negated else pattern):
            if negated:
                return False
            found = True
    return found
