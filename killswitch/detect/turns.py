"""Two sides of what may be a relay, laid side by side in turns: what came on one, and what went out on the other upon it.

Inwards the outside is the cause: bytes that come in there, and then bytes that go out inside. Outwards it is the other
way round: bytes that come in inside, and then bytes that go out outside. What a tunnel sends for its own sake (keepalives,
windows, opening a channel) is on the outside only: that much may be left out at the outer end of a turn, and costs some of
what the turn proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from killswitch.events import Burst

FRAMING = 112  # bytes that encryption and framing add to a packet, at most
SHARE = 0.04  # and to each byte, where many packets were joined into one on their way up
MUCH = 4096  # bytes of a turn from which on a fiftieth may still be under way
LAG_NS = 1_000_000_000  # from cause to effect, at most: a busy machine is slow
TRIES = 4  # how many bursts at the outer end may be all that belongs to the turn


@dataclass(frozen=True, slots=True)
class Turn:
    """Bytes of payload outside, in so many packets, and inside. ``tries``: ways in which ``outer`` could be chosen; 0 = none
    of them fits what is inside."""

    outer: int
    packets: int
    inner: int
    tries: int

    @property
    def added(self) -> int:
        return self.outer - self.inner


def fits(outer: int, packets: int, inner: int) -> bool:
    """Whether ``outer`` bytes, in so many packets, can be ``inner`` bytes in a tunnel's framing."""
    slack = inner // 50 if inner > MUCH else 0
    return inner - slack <= outer <= inner + FRAMING * packets + SHARE * inner


def inwards(outer: Sequence[Burst], inner: Sequence[Burst]) -> list[Turn]:
    """``outer``: what came in outside; ``inner``: what went out inside; both by time."""
    turns = []
    for causes, effects in _segments(outer, inner):
        if effects:
            near = _near(causes, effects[0])
            turns.append(_turn([*reversed(near)], sum(b.bytes for b in effects)))
    return turns


def outwards(inner: Sequence[Burst], outer: Sequence[Burst]) -> list[Turn]:
    """``inner``: what came in inside; ``outer``: what went out outside; both by time."""
    turns = []
    for causes, effects in _segments(inner, outer):
        if causes:
            last = causes[-1]
            near = [b for b in effects if b.time_ns - last.time_ns - last.span_ns <= LAG_NS]
            turns.append(_turn(near, sum(b.bytes for b in causes)))
    return turns


def _near(causes: list[Burst], effect: Burst) -> list[Burst]:
    return [b for b in causes if effect.time_ns - b.time_ns - b.span_ns <= LAG_NS]


def _turn(outer: Sequence[Burst], inner: int) -> Turn:
    """``outer``: the nearest to the inside first."""
    size = packets = tries = 0
    for number, burst in enumerate(outer, 1):
        size += burst.bytes
        packets += max(burst.packets, 1)
        if number <= TRIES or number == len(outer):
            tries += 1
            if fits(size, packets, inner):
                return Turn(size, packets, inner, tries)
    return Turn(size, max(packets, 1), inner, 0)


def _segments(causes: Sequence[Burst], effects: Sequence[Burst]) -> list[tuple[list[Burst], list[Burst]]]:
    """A new one begins with a cause that comes when an effect has come and gone."""
    found: list[tuple[list[Burst], list[Burst]]] = [([], [])]
    end = 0  # of the last effect
    i = j = 0
    while i < len(causes) or j < len(effects):
        if j >= len(effects) or (i < len(causes) and causes[i].time_ns <= effects[j].time_ns):
            if found[-1][1] and causes[i].time_ns >= end:
                found.append(([], []))
            found[-1][0].append(causes[i])
            i += 1
        else:
            found[-1][1].append(effects[j])
            end = max(end, effects[j].time_ns + effects[j].span_ns)
            j += 1
    return found
