"""Datagrams that a workload has sent inwards, and whether anything came back.

UDP has no connections, so nothing in the kernel ends one that was in vain. What tells a poller of devices, or a client of
many servers, from a scan is that they are answered: an endpoint from which nothing has come ``PATIENCE_NS`` after it was
sent to counts as unanswered, until something does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

from killswitch.detect.reach import Endpoint, is_internal
from killswitch.events import Connect, Flow, Transport, Unanswered

PATIENCE_NS = 2_000_000_000  # SNMP, DNS and their kin ask again after a second or two
MAX_AWAITED = 8192  # endpoints of one workload


class Datagrams:
    """Of one workload. Noting costs the same however many are awaited."""

    __slots__ = ("_awaited",)

    def __init__(self) -> None:
        self._awaited: OrderedDict[Endpoint, Unanswered] = OrderedDict()  # as it will be told; the oldest first

    def sent(self, event: Connect) -> None:
        """A connect(2) of UDP sends nothing (name lookups do that to choose an address): ``flow`` says when it has."""
        if event.transport is Transport.UDP and event.operation == "sendmsg" and not event.denied:
            self._await(
                Unanswered(
                    event.time_ns, event.workload, event.cgroup_id, event.pid, event.start_ticks, event.uid, event.comm,
                    event.transport, event.destination_ip, event.destination_port,
                )
            )  # fmt: skip

    def flow(self, event: Flow) -> bool:
        """Of a connected socket. True when something has come back."""
        if event.transport is not Transport.UDP or not is_internal(event.remote_ip):
            return False
        if event.received_bytes:
            self.answered(event.remote_ip, event.remote_port)
            return True
        if event.sent_bytes:
            self._await(
                Unanswered(
                    event.last_ns, event.workload, event.workload, event.pid, event.start_ticks, event.uid, event.comm,
                    event.transport, event.remote_ip, event.remote_port,
                )
            )  # fmt: skip
        return False

    def answered(self, address: str, port: int) -> None:
        self._awaited.pop((address, port), None)

    def overdue(self, now_ns: int) -> Iterator[Unanswered]:
        """Those that have been waited for long enough; each is told once, and awaited again when it is sent to again."""
        awaited = self._awaited
        while awaited and now_ns - next(iter(awaited.values())).time_ns > PATIENCE_NS:
            yield replace(awaited.popitem(last=False)[1], time_ns=now_ns)

    def _await(self, told: Unanswered) -> None:
        if not is_internal(told.destination_ip):
            return
        if len(self._awaited) >= MAX_AWAITED:
            self._awaited.popitem(last=False)
        self._awaited.setdefault((told.destination_ip, told.destination_port), told)
