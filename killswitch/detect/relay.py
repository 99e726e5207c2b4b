"""A relay, seen by what it does: what comes in on a connection to the outside goes out on one to the inside, and back.

Names, programs and protocols play no part, and nothing is decrypted. A relay hands on what it got, within what encryption
and framing add. One turn (``detect.turns``) that fits proves little: two numbers are alike by chance. How much it proves is
counted in bits, -log2 of the chance that sizes fit which have nothing to do with each other: sizes in general, and the
other turns of these very connections (turns that are all alike prove no more than one of them). Turns that do not
fit count against it. Both directions have to prove it: who fetches pages and stores them fits one way, who asks a model
and then a tool fits by chance.

What is allowed for framing is by the protocols' own definitions: TLS adds 22 to 29 bytes a record, SSH 34 to 69 a packet,
a WebSocket 2 to 14 a frame, yamux 12; one within the other at most some 112. Which of them it is shows by being the same
all the time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from killswitch.detect.traffic import Connection, Traffic, leads_inside, stays_here
from killswitch.detect.turns import SHARE, Turn, inwards, outwards
from killswitch.events import Burst, Flow

RELAY = ("relay.exchanges", "relay.bytes", "relay.match", "relay.certainty")
MAX_PAIRS = 32  # pairs of outside and inside that are looked at a time
BY_ITSELF = 6  # bursts that a connection must have for being looked at by itself, where it is also one of many
TURNS = 48  # the last of each direction that are judged
LOG_SIZES = math.log(1e6)  # sizes of turns in general: from a byte to a megabyte, each magnitude as likely as the next
MOST_BITS = 12.0  # that one turn can prove
# Framing that need not be learnt (none; WebSocket's; TLS 1.3 and 1.2) -> bits that choosing it costs.
KNOWN = {0: 0.0, 2: 3.0, 4: 3.0, 6: 3.0, 8: 3.0, 22: 3.0, 29: 3.0}
ENOUGH = 4  # exchanges, before what proves more is preferred to what has more of them
LOPSIDED = 3.0  # how many times what its weaker direction proves a relay can prove in all
MISS_BITS = 4.0  # that one turn takes away which does not fit
UNLIKE = 8  # bytes a packet by which framing may differ between the two directions
DOUBTFUL = 15.0  # bits, at most, where it differs by more
PAD = 24  # bytes by which framing may differ from packet to packet: SSH pads to blocks of 8 or 16


@dataclass(frozen=True, slots=True)
class Way:
    """One direction, judged."""

    matched: int  # turns that fit
    missed: int
    bytes: int  # of the inside, in turns that fit
    share: float  # of all bytes of the inside, 0..1
    alike: int  # bytes inside of every turn that fits, 0 = they are not all alike
    bits: float  # that it proves
    added: float  # bytes that the outside has more a packet, median


@dataclass(frozen=True, slots=True)
class Relay:
    """What two connections (or several to the same places, taken together) have in common."""

    outer: Flow
    inner: Flow
    inwards: Way
    outwards: Way

    @property
    def exchanges(self) -> int:
        return min(self.inwards.matched, self.outwards.matched)

    @property
    def certainty(self) -> float:
        """Bits that both directions prove together. A tunnel frames alike both ways; where the two differ it may be one still,
        or a program that hands on what it is told by protocols of its own: never certain. And where all that is ever said is of
        one size, both ways, nothing is proved."""
        there, back = self.inwards, self.outwards
        if there.alike and there.alike == back.alike:
            return 0.0
        bits = min(there.bits + back.bits, LOPSIDED * min(there.bits, back.bits))
        return bits if abs(there.added - back.added) <= UNLIKE else min(bits, DOUBTFUL)

    @property
    def match(self) -> float:
        return min(self.inwards.share, self.outwards.share)

    @property
    def bytes(self) -> int:
        return self.inwards.bytes + self.outwards.bytes

    @property
    def fields(self) -> dict[str, object]:
        values = (self.exchanges, self.bytes, round(self.match, 3), round(self.certainty, 1))
        inner = {"destination.ip": self.inner.remote_ip, "destination.port": self.inner.remote_port}
        return {**inner, **dict(zip(RELAY, values, strict=True))}

    @property
    def reasons(self) -> str:
        to = self.inner.remote_ip
        where = f"[{to}]:{self.inner.remote_port}" if ":" in to else f"{to}:{self.inner.remote_port}"
        return (
            f"what comes in on it goes on to {where}, and back: {self.exchanges} exchanges, {self.bytes} bytes, "
            f"{self.match:.0%} of what is said inside, {self.inwards.added:.0f} and {self.outwards.added:.0f} bytes of "
            f"framing a packet, {self.certainty:.0f} bits"
        )


def judge(turns: Sequence[Turn]) -> Way:
    """What these turns of one direction prove together."""
    total = sum(t.inner for t in turns)
    fitting = [t for t in turns if t.tries]
    usual = median(t.added / t.packets for t in fitting) if fitting else 0.0
    good = [t for t in fitting if abs(t.added - usual * t.packets) <= PAD * t.packets + SHARE * t.inner]
    missed = len(turns) - len(good)
    if not good:
        return Way(0, missed, 0, 0.0, 0, 0.0, usual)
    distinct = frozenset(good)
    proof = sum(_bits(t, distinct, usual) for t in distinct)
    if usual in KNOWN:
        proof -= KNOWN[int(usual)]
    else:
        proof *= (len(distinct) - 1) / len(distinct)  # what is usual was learnt from them
    matched = sum(t.inner for t in good)
    inner = {t.inner for t in good}
    return Way(
        matched=len(good), missed=missed, bytes=matched, share=matched / total if total else 0.0,
        alike=inner.pop() if len(inner) == 1 else 0, bits=max(proof - MISS_BITS * missed, 0.0), added=usual,
    )  # fmt: skip


def _bits(turn: Turn, distinct: Collection[Turn], usual: float) -> float:
    """-log2 of the chance that this turn fits and means nothing."""
    apart = [abs(t.added - usual * t.packets) for t in distinct]
    few = (len(apart) + 1) / max(len(apart) - 1, 1)  # how far apart they are is known the worse the fewer there are
    width = min(2 * max(apart) * few + 1, 2 * PAD * turn.packets + SHARE * turn.inner + 1)
    general = math.log1p(width / turn.inner) / LOG_SIZES if turn.inner else 1.0
    others = [t for t in distinct if t is not turn]
    alike = sum(abs(turn.outer - t.inner - usual * turn.packets) <= width / 2 for t in others) / max(len(others), 1)
    chance = min(max(general, alike, 2**-MOST_BITS) * turn.tries, 1.0)
    return -math.log2(chance)


# --- which pairs ----------------------------------------------------------------------------------------------------


def find(traffic: Traffic, moved: Collection[int]) -> list[Relay]:
    """For each place outside the pair that proves most, best first. ``moved``: the cookies of the connections over which
    something went since the last time; of the others nothing is new."""
    outer, inner = _sides(traffic)
    best: dict[int, Relay] = {}
    for group, others in _pairs(outer, inner, moved):
        relay = compare(group, others)
        if relay is None:
            continue
        known = best.get(relay.outer.cookie)
        if known is None or _rank(relay) > _rank(known):
            best[relay.outer.cookie] = relay
    return sorted(best.values(), key=lambda r: -r.certainty)


def _rank(relay: Relay) -> tuple[bool, float, int]:
    return relay.exchanges >= ENOUGH, relay.certainty, relay.exchanges


def compare(outer: Sequence[Connection], inner: Sequence[Connection]) -> Relay | None:
    """None when there is nothing to compare: nothing went both ways, or at no common time."""
    since = max((c.complete_ns for c in (*outer, *inner) if c.complete_ns > c.flow.began_ns), default=0)
    came, went = _bursts(outer, since, sent=False), _bursts(outer, since, sent=True)
    given, got = _bursts(inner, since, sent=True), _bursts(inner, since, sent=False)
    if not (came and went and given and got):
        return None
    there = judge(_settled(inwards(came, given)))
    back = judge(_settled(outwards(got, went)))
    if not there.matched or not back.matched:
        return None
    return Relay(_latest(outer), _latest(inner), there, back)


def _settled(turns: list[Turn]) -> list[Turn]:
    """Without the first and the last where they do not fit: the one may have begun before, the other is perhaps not over."""
    turns = turns[-TURNS:]
    if turns and not turns[-1].tries:
        turns = turns[:-1]
    return turns[1:] if turns and not turns[0].tries else turns


def _bursts(connections: Iterable[Connection], since: int, *, sent: bool) -> list[Burst]:
    found = [b for c in connections for b in c.bursts if b.sent is sent and b.time_ns >= since]
    return sorted(found, key=lambda b: b.time_ns)


def _latest(connections: Sequence[Connection]) -> Flow:
    return max(connections, key=lambda c: c.flow.last_ns).flow


Group = tuple[Connection, ...]


def _sides(traffic: Traffic) -> tuple[list[Group], list[Group]]:
    """Connections that may be the outside and the inside of a relay: each by itself, and those that are likely to be one
    thing together. The most recently used first."""
    outer: dict[tuple[object, ...], list[Connection]] = defaultdict(list)
    inner: dict[tuple[object, ...], list[Connection]] = defaultdict(list)
    for known in reversed(traffic.connections.values()):
        flow = known.flow
        if not known.bursts:
            continue
        process, place = (flow.pid, flow.start_ticks), (flow.remote_ip, flow.remote_port)
        if not stays_here(flow):
            outer[(flow.cookie,)].append(known)
            outer[process, place].append(known)
            outer[place].append(known)  # a new process for each
        if leads_inside(flow):
            inner[process].append(known)
            inner[process, place].append(known)
            inner[place].append(known)
            inner[(flow.cookie,)].append(known)
            inner[()].append(known)
    return _distinct(outer.values()), _distinct(inner.values())


def _distinct(groups: Iterable[list[Connection]]) -> list[Group]:
    """Each once, and short connections not also by themselves."""
    found: dict[frozenset[int], Group] = {}
    for group in sorted(groups, key=len, reverse=True):
        cookies = frozenset(c.flow.cookie for c in group)
        short = len(group) == 1 and len(group[0].bursts) < BY_ITSELF
        if not (short and any(cookies < other for other in found)):
            found.setdefault(cookies, tuple(group))
    return list(found.values())


def _pairs(outer: list[Group], inner: list[Group], moved: Collection[int]) -> list[tuple[Group, Group]]:
    """Those that may have something in common, of one process first, then the largest; at most ``MAX_PAIRS``."""
    found = []
    moving = frozenset(moved)
    for a in outer:
        cookies = {c.flow.cookie for c in a}
        if cookies.isdisjoint(moving):
            continue
        pids = {c.flow.pid for c in a}
        remote = {c.flow.remote_ip for c in a}
        for b in inner:
            if any(c.flow.cookie in cookies or c.flow.remote_ip in remote for c in b):
                continue
            found.append((pids.isdisjoint(c.flow.pid for c in b), -len(a) - len(b), a, b))
    found.sort(key=lambda pair: pair[:2])
    return [(a, b) for _, _, a, b in found[:MAX_PAIRS]]
