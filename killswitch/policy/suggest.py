"""Did you mean …? One voice for every word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], *, otherwise: bool = True) -> str:
    """A hint for ``word``, which is none of ``known``: the nearest one, else (when ``otherwise``) all of them."""
    names = sorted(set(known))
    folded = {n.lower(): n for n in names}
    near = difflib.get_close_matches(word[:64].lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"known: {', '.join(names)}" if otherwise and names else ""


def quoted(text: str, limit: int = 60) -> str:
    """``text`` in quotes, on one line, no longer than ``limit`` characters."""
    flat = " ".join(text.split())
    return f"'{flat}'" if len(flat) <= limit else f"'{flat[: limit - 1]}…'"
