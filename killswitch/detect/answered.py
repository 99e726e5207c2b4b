"""Who leads a conversation: how often the far side of a connection that the workload made speaks, and is answered, having
spoken first.

Who connects to ask is answered; who connects to serve answers. Pauses tell nothing: a slow answer looks like a late command.
"""

from __future__ import annotations

import itertools

from killswitch.detect.traffic import Connection

ANSWERED = "network.answered"


def answered(connection: Connection) -> int:
    """Turns of the far side that the workload answered, among the bursts that are remembered (``traffic.MAX_BURSTS``); 0 where
    the workload spoke first, or where it is not known who did."""
    if connection.complete_ns > connection.flow.began_ns or not connection.bursts or connection.bursts[0].sent:
        return 0
    bursts = list(connection.bursts)
    return sum(after.sent and not before.sent for before, after in itertools.pairwise(bursts))
