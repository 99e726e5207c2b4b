"""Predicates about an address or a port as automata over its bytes: a network and a range of ports are regular languages.

Unlike a text, such a value has a fixed length and may hold any byte, so nothing ends at a NUL.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from killswitch.policy.automaton import Dfa, TooBig, prune
from killswitch.policy.model import Predicate

ANY = (1 << 256) - 1
MAX_PORT = 65535
Chain = tuple[int, ...]  # which bytes may stand at each place, as masks; it is found once its last one has been read


def addresses(predicate: Predicate, version: int) -> list[Chain]:
    """What the values of a predicate on an address (plain or ``cidr``) say of addresses of this version (4 or 6)."""
    networks = (ipaddress.ip_network(str(value)) for value in predicate.values)
    return [_network(network) for network in networks if network.version == version]


def ports(predicate: Predicate) -> list[Chain]:
    """The same of a port, in network order."""
    return [chain for value in predicate.values for chain in _range(*_bounds(predicate.op, int(value)))]


def build(wanted: Mapping[int, Sequence[Chain]], length: int, limit: int) -> Dfa:
    """One automaton that reports, at the last of ``length`` bytes, each bit (a mask) of which a chain has been read.

    Only there, so that who walks need not collect anything on the way. Raises TooBig beyond ``limit`` states.
    """
    # A state is how far it is, what is still to be read of each chain, and what has been found.
    start: _State = (0, frozenset((bit, chain) for bit, found in wanted.items() for chain in found), 0)
    order, index = [start, _DEAD], {start: 0, _DEAD: 1}
    rows: list[list[int]] = []
    for state in order:
        depth, _, held = state
        if depth in (length, -1):
            rows.append([1] * 256)
            continue
        row = []
        for rest, bits in zip(*_steps(state), strict=True):
            target = (depth + 1, frozenset(rest), held | bits) if rest or held | bits else _DEAD
            number = index.get(target)
            if number is None:
                index[target] = number = len(order)
                order.append(target)
                if len(order) > limit:
                    raise TooBig(limit)
            row.append(number)
        rows.append(row)
    return prune(Dfa(bytes(range(256)), rows, [held if depth == length else 0 for depth, _, held in order], 0))


_State = tuple[int, frozenset[tuple[int, Chain]], int]
_DEAD: _State = (-1, frozenset(), 0)


def _steps(state: _State) -> tuple[list[set[tuple[int, Chain]]], list[int]]:
    """By each byte: what is to be read after it, and what it completes."""
    _, alive, held = state
    after: list[set[tuple[int, Chain]]] = [set() for _ in range(256)]
    done = [0] * 256
    for bit, chain in alive:
        if bit & held:  # found already
            continue
        for byte in _bytes_of(chain[0]):
            if len(chain) > 1:
                after[byte].add((bit, chain[1:]))
            else:
                done[byte] |= bit
    return after, done


def _bytes_of(mask: int) -> Iterable[int]:
    if mask == ANY:
        return range(256)
    return (byte for byte in range(256) if mask >> byte & 1)


def _span(low: int, high: int) -> int:
    """The bytes from ``low`` to ``high``, both included, as a mask."""
    return (1 << high + 1) - (1 << low)


def _network(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Chain:
    first, last = network.network_address.packed, network.broadcast_address.packed
    places = max(1, -(-network.prefixlen // 8))  # of 0.0.0.0/0 too: nothing is found before a byte has been read
    return tuple(_span(a, b) for a, b in zip(first[:places], last[:places], strict=True))


def _bounds(op: str, value: int) -> tuple[int, int]:
    return {
        "match": (value, value),
        "gt": (value + 1, MAX_PORT),
        "gte": (value, MAX_PORT),
        "lt": (0, value - 1),
        "lte": (0, value),
    }[op]


def _range(low: int, high: int) -> list[Chain]:
    low, high = max(low, 0), min(high, MAX_PORT)
    found: list[Chain] = []
    for first in range(low >> 8, (high >> 8) + 1) if low <= high else ():
        start = low & 255 if first == low >> 8 else 0
        end = high & 255 if first == high >> 8 else 255
        found.append((1 << first, _span(start, end)))
    return found
