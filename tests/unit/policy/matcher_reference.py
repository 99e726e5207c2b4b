"""What a predicate means, told as plainly as possible and without any code of the compiler: the oracle of its tests."""

from __future__ import annotations

from functools import lru_cache

import re2

from killswitch.events import Exec
from killswitch.policy.model import And, Expr, Not, Or, Predicate


def lower(text: bytes) -> bytes:
    return bytes(b + 32 if 0x41 <= b <= 0x5A else b for b in text)


def glob_items(value: str) -> list[bytes | str]:
    """Single bytes, and the strings "?" and "*"."""
    items: list[bytes | str] = []
    chars = list(value)
    while chars:
        char = chars.pop(0)
        if char == "\\" and chars and chars[0] in "*?\\":
            char = chars.pop(0)
        elif char in "*?":
            items.append(char)
            continue
        items.extend(bytes([b]) for b in char.encode("utf-8", "surrogateescape"))
    return items


def glob_fits(items: tuple[bytes | str, ...], text: bytes) -> bool:
    @lru_cache(None)
    def fits(i: int, j: int) -> bool:
        if i == len(items):
            return j == len(text)
        if items[i] == "*":
            return any(fits(i + 1, k) for k in range(j, len(text) + 1))
        if j == len(text):
            return False
        return (items[i] == "?" or items[i] == text[j : j + 1]) and fits(i + 1, j + 1)

    return fits(0, 0)


def fits(predicate: Predicate, value: str, text: bytes) -> bool:
    if predicate.op == "re":
        options = re2.Options()
        options.encoding, options.dot_nl = re2.Options.Encoding.LATIN1, True
        options.case_sensitive = predicate.cased
        return re2.compile(value.encode(), options).search(text) is not None
    raw = value.encode("utf-8", "surrogateescape")
    fold = (lambda t: t) if predicate.cased else lower
    if predicate.op == "contains":
        return fold(raw) in fold(text)
    if predicate.op == "startswith":
        return fold(text).startswith(fold(raw))
    if predicate.op == "endswith":
        return fold(text).endswith(fold(raw))
    items = tuple(i if isinstance(i, str) else fold(i) for i in glob_items(value))
    return glob_fits(items, fold(text))


def texts_of(field: str, event: Exec) -> list[bytes]:
    args = event.argv.split(b"\0")[:-1] if event.argv.endswith(b"\0") else event.argv.split(b"\0")
    base = event.executable.split(b"/")[-1]
    return {
        "process.name": [base, event.filename.split(b"/")[-1]],
        "process.executable": [event.executable, event.filename],
        "process.parent.name": [event.parent_name],
        "process.args": args,
        "process.command_line": [b" ".join(args)],
    }[field]


def holds(expr: Expr, event: Exec) -> bool:
    match expr:
        case Not(part):
            return not holds(part, event)
        case And(parts):
            return all(holds(p, event) for p in parts)
        case Or(parts):
            return any(holds(p, event) for p in parts)
    if expr.field == "file.memfd":
        return any(event.memfd is v for v in expr.values)
    if expr.field == "file.unlinked":
        return any((event.nlink == 0) is v for v in expr.values)
    if expr.field in ("user.id", "group.id"):
        have = event.uid if expr.field == "user.id" else event.gid
        wanted = int(expr.values[0])
        return {"match": have in expr.values, "gte": have >= wanted, "lt": have < wanted}[expr.op]
    texts = texts_of(expr.field, event)
    if expr.op == "exists":
        return any(texts) is expr.values[0]
    found = [any(fits(expr, str(value), text) for text in texts) for value in expr.values]
    return all(found) if expr.all else any(found)
