"""What the command line uses: the daemon's methods as plain calls, dataclasses out, killswitch's own errors raised.

Every method raises Unreachable (no daemon, exit code 3), Denied (4), TimedOut (6), TargetError, Protected, NotSupported,
PolicyError or RequestError, as ``service.Service`` says.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from killswitch.control import convert, status
from killswitch.control.methods import STAGES
from killswitch.control.service import (
    CapabilityInfo,
    EventFilter,
    IncidentInfo,
    OrderResult,
    PolicyInfo,
    Status,
    StreamItem,
    WorkloadInfo,
)
from killswitch.control.wiretext import from_wire, to_wire
from killswitch.errors import Denied, Problem, RequestError, Unreachable
from killswitch.v1 import killswitch_service_pb2 as pb
from killswitch.v1 import killswitch_service_pb2_grpc as pb_grpc

READ_SECONDS = 10.0
ORDER_SECONDS = 30.0
EVIDENCE_SECONDS = 300.0  # an order that waits for evidence, reading it, and what is long work on a slow host
OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # http_proxy in the environment must not come between
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.enable_retries", 0),
)


class Client:
    """Use as a context manager, or ``close``. ``timeout`` (seconds) replaces the default of every call but streams."""

    def __init__(self, socket: Path, *, timeout: float | None = None) -> None:
        """Raises Unreachable when no socket is there, Denied when this user may not open it."""
        self.socket = socket
        self._timeout = timeout
        _check(socket)
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self._stub: Any = pb_grpc.KillSwitchServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    # --- orders -------------------------------------------------------------------------------------------------

    def kill(
        self,
        target: str,
        reason: str,
        *,
        terminate: bool = False,
        wait_for_evidence: bool = False,
        force: bool = False,
        request_id: str = "",
    ) -> OrderResult:
        """Sever and freeze; ``terminate``: and kill every process. ``force``: the whole host, though no way in can be kept.
        ``request_id`` is made when it is not given."""
        more = {"terminate": terminate, **({"force": True} if force else {})}
        return self._order("Kill", target, reason, request_id, wait_for_evidence=wait_for_evidence, **more)

    def sever(
        self, target: str, reason: str, *, wait_for_evidence: bool = False, force: bool = False, request_id: str = ""
    ) -> OrderResult:
        more = {"force": True} if force else {}
        return self._order("Sever", target, reason, request_id, wait_for_evidence=wait_for_evidence, **more)

    def freeze(self, target: str, reason: str, *, wait_for_evidence: bool = False, request_id: str = "") -> OrderResult:
        return self._order("Freeze", target, reason, request_id, wait_for_evidence=wait_for_evidence)

    def thaw(self, target: str, reason: str, *, request_id: str = "") -> OrderResult:
        return self._order("Thaw", target, reason, request_id)

    def terminate(
        self, target: str, reason: str, *, wait_for_evidence: bool = False, request_id: str = ""
    ) -> OrderResult:
        return self._order("Terminate", target, reason, request_id, wait_for_evidence=wait_for_evidence)

    def release(self, target: str, reason: str, *, stage: str = "all", request_id: str = "") -> OrderResult:
        """``stage``: thaw, network or all."""
        if stage not in STAGES:
            raise RequestError(f"release: there is no stage {stage!r}; take one of {', '.join(STAGES)}")
        return self._order("Release", target, reason, request_id, stage=STAGES[stage])

    def watch(
        self, cgroup: str, reason: str = "", *, name: str = "", create: bool = False, request_id: str = ""
    ) -> WorkloadInfo:
        """``cgroup``: a path below the cgroup v2 root; ``create``: make it when it does not exist."""
        response = self._call_order(
            "WatchWorkload", request_id, reason or _who(), target=to_wire(cgroup), name=to_wire(name), create=create
        )
        return convert.decode(response.workload, WorkloadInfo)

    def unwatch(self, target: str, reason: str = "", *, remove: bool = False, request_id: str = "") -> WorkloadInfo:
        response = self._call_order(
            "UnwatchWorkload", request_id, reason or _who(), target=to_wire(target), remove=remove
        )
        return convert.decode(response.workload, WorkloadInfo)

    def forget(self, target: str, reason: str = "", *, request_id: str = "") -> str:
        """``target``: ``budget``, an incident's id, or a program's SHA-256. A sentence that says what was forgotten."""
        response = self._call_order("Forget", request_id, reason or _who(), target=to_wire(target))
        return from_wire(response.detail)

    def reload_policies(self, reason: str = "", *, request_id: str = "") -> Sequence[PolicyInfo]:
        response = self._call_order("ReloadPolicies", request_id, reason or _who())
        return [convert.decode(p, PolicyInfo) for p in response.policies]

    def self_test(self, reason: str = "", *, request_id: str = "") -> OrderResult:
        response = self._call_order("SelfTest", request_id, reason or _who())
        return convert.decode(response.result, OrderResult)

    # --- reads --------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        return convert.decode(self._read("GetStatus").status, Status)

    def workloads(self) -> Sequence[WorkloadInfo]:
        return [convert.decode(w, WorkloadInfo) for w in self._read("ListWorkloads").workloads]

    def incidents(self, *, open_only: bool = False, limit: int = 0) -> Sequence[IncidentInfo]:
        """Newest first; ``limit`` 0 leaves it to the daemon."""
        response = self._read("ListIncidents", open_only=open_only, limit=limit)
        return [convert.decode(i, IncidentInfo) for i in response.incidents]

    def incident(self, incident: str) -> IncidentInfo:
        return convert.decode(self._read("GetIncident", incident_id=to_wire(incident)).incident, IncidentInfo)

    def capabilities(self) -> Sequence[CapabilityInfo]:
        return [convert.decode(c, CapabilityInfo) for c in self._read("GetCapabilities").capabilities]

    def policies(self) -> Sequence[PolicyInfo]:
        return [convert.decode(p, PolicyInfo) for p in self._read("ListPolicies").policies]

    def check_policy(self, text: str, file: str) -> Sequence[Problem]:
        response = self._read("CheckPolicy", text=to_wire(text), file=to_wire(file))
        return [convert.decode(p, Problem) for p in response.problems]

    def verify_log(self) -> tuple[bool, str]:
        response = self._read("VerifyLog", seconds=ORDER_SECONDS)
        return response.ok, from_wire(response.detail)

    def evidence(self, incident: str) -> Iterator[tuple[str, bytes]]:
        """(file name, chunk) in order; one file's chunks follow each other."""
        with self._errors():
            call = self._stub.GetEvidence(
                pb.GetEvidenceRequest(incident_id=to_wire(incident)), timeout=self._timeout or EVIDENCE_SECONDS
            )
            try:
                for response in call:
                    yield from_wire(response.file), response.chunk
            finally:
                call.cancel()

    def stream(self, wanted: EventFilter | None = None) -> Iterator[StreamItem]:
        """Items from the moment of this call on, until the iterator is closed or the daemon stops (Unreachable)."""
        wanted = wanted or EventFilter()
        with self._errors():
            call = self._stub.StreamEvents(convert.to_wire(wanted))
            call.initial_metadata()  # waits until the daemon has subscribed us, or has refused
        return self._items(call)

    def _items(self, call: Any) -> Iterator[StreamItem]:
        with self._errors():
            try:
                for response in call:
                    yield convert.decode(response, StreamItem)
            finally:
                call.cancel()

    # --- one call -----------------------------------------------------------------------------------------------

    def _order(self, method: str, target: str, reason: str, request_id: str, **fields: Any) -> OrderResult:
        if not fields.get("wait_for_evidence", True):
            del fields["wait_for_evidence"]
        response = self._call_order(method, request_id, reason, target=to_wire(target), **fields)
        return convert.decode(response.result, OrderResult)

    def _call_order(self, method: str, request_id: str, reason: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(
            request_id=request_id or str(uuid.uuid4()), reason=to_wire(reason), **fields
        )
        slow = fields.get("wait_for_evidence") or method in ("SelfTest", "ReloadPolicies")
        with self._errors():
            return getattr(self._stub, method)(
                request, timeout=self._timeout or (EVIDENCE_SECONDS if slow else ORDER_SECONDS)
            )

    def _read(self, method: str, *, seconds: float = READ_SECONDS, **fields: Any) -> Any:
        with self._errors():
            return getattr(self._stub, method)(
                getattr(pb, f"{method}Request")(**fields), timeout=self._timeout or seconds
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise status.from_wire(error, str(self.socket)) from None


def _check(path: Path) -> None:
    """Say what is wrong before gRPC says "failed to connect to all addresses"."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise Unreachable(
            f"{path}: there is no such socket, so the daemon is not running (what is contained stays so); "
            "systemctl start killswitchd"
        ) from None
    except OSError as error:
        raise Denied(f"{path}: this user may not look there ({error.strerror}); use sudo") from None
    if not stat.S_ISSOCK(facts.st_mode):
        raise Unreachable(f"{path}: is not a socket; where does the daemon listen? (runtime_dir in its configuration)")
    if facts.st_uid not in (0, os.geteuid()):
        raise Denied(f"{path}: belongs to user {facts.st_uid}, not to root, so it is not the daemon's; do not trust it")
    if not os.access(path, os.W_OK):
        raise Denied(f"{path}: this user may not open it; use sudo, or for reading join the group killswitch")


def _who() -> str:
    """The reason of an order that needs no better one, for the audit."""
    return f"ordered by user {os.environ.get('SUDO_USER') or os.getuid()} on the command line"
