"""Who turns inwards: a process that has connected to another host, and then connects to this one or to another inside.

A client that is asked by the far side to forward connections does that. So do proxies and servers, all day: which programs it
says something about is for rules to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from killswitch.detect.processes import Process
from killswitch.detect.reach import port_of
from killswitch.detect.traffic import is_inside, is_own
from killswitch.detect.workload import Workload
from killswitch.events import Connect, Transport

TURNS_INWARDS = "network.turns_inwards"


def tried(workload: Workload, process: Process | None, event: Connect, *, reaching: bool) -> Mapping[str, object]:
    """What rules on a connect are told besides it. ``reaching``: some rule asks how widely the workload reaches."""
    more: dict[str, object] = {}
    if reaching:
        more.update(workload.reach.tried(event.time_ns, event.destination_ip, port_of(event)))
    if process is not None and event.transport is Transport.TCP:
        more[TURNS_INWARDS] = turns_inwards(process, event)
    return more


def turns_inwards(process: Process, event: Connect) -> bool:
    """Notes where ``process`` connects to by TCP. True when that is inside, and where it (or the one that it was forked from)
    first connected to was another host. A host that has several addresses is tried at one port: that is no turn."""
    address, port = event.destination_ip, event.destination_port
    first = process.outside
    if is_own(address):
        return first is not None
    if first is None:
        process.outside = address, port
        return False
    return is_inside(address) and port != first[1] and address != first[0]
