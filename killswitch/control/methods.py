"""Each method of ``KillSwitchService``: request in, ``Service`` called, response out. No authorization, no errors mapped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from killswitch.control import convert
from killswitch.control.service import EventFilter, Order, Service
from killswitch.control.status import InvalidFields
from killswitch.control.wiretext import from_wire, to_wire
from killswitch.v1 import killswitch_service_pb2 as pb
from killswitch.v1 import types_pb2

CHUNK = 256 << 10  # bytes of evidence in one message; gRPC peers take 4 MiB
POLICY_CHARS = 1 << 20

STAGES: dict[str, int] = {
    "thaw": types_pb2.RELEASE_STAGE_THAW,
    "network": types_pb2.RELEASE_STAGE_NETWORK,
    "all": types_pb2.RELEASE_STAGE_ALL,
}
_STAGE_WORDS = {number: word for word, number in STAGES.items()}


def check_order(method: str, request: Any) -> None:
    """Raises InvalidFields with all that is wrong in a request that changes something."""
    wrong: dict[str, str] = {}
    identifier = request.request_id
    if not (0 < len(identifier) <= 128 and identifier.isascii() and identifier.isprintable()):
        wrong["request_id"] = "must be 1 to 128 printable ASCII characters: a new UUID for each new order"
    fields = request.DESCRIPTOR.fields_by_name
    for name in ("target", "reason"):
        if name in fields:
            value = getattr(request, name)
            if not value.strip():
                wrong[name] = "must not be empty"
            elif len(value) > 4096:
                wrong[name] = "must have at most 4,096 characters"
    if "stage" in fields and request.stage not in _STAGE_WORDS:
        wrong["stage"] = "must be THAW, NETWORK or ALL"
    if wrong:
        raise InvalidFields(method, wrong)


def _order(request: Any, role: str) -> Order:
    fields = request.DESCRIPTOR.fields_by_name
    return Order(
        request_id=request.request_id,
        target=from_wire(request.target) if "target" in fields else "host",
        reason=from_wire(request.reason),
        role=role,
        wait_for_evidence="wait_for_evidence" in fields and request.wait_for_evidence,
        force="force" in fields and request.force,
    )


class Methods:
    """By the names that the proto gives them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Kill(self, request: Any, role: str) -> Any:
        result = await self._service.kill(_order(request, role), terminate=request.terminate)
        return pb.KillResponse(result=convert.to_wire(result))

    async def Sever(self, request: Any, role: str) -> Any:
        return pb.SeverResponse(result=convert.to_wire(await self._service.sever(_order(request, role))))

    async def Freeze(self, request: Any, role: str) -> Any:
        return pb.FreezeResponse(result=convert.to_wire(await self._service.freeze(_order(request, role))))

    async def Thaw(self, request: Any, role: str) -> Any:
        return pb.ThawResponse(result=convert.to_wire(await self._service.thaw(_order(request, role))))

    async def Terminate(self, request: Any, role: str) -> Any:
        return pb.TerminateResponse(result=convert.to_wire(await self._service.terminate(_order(request, role))))

    async def Release(self, request: Any, role: str) -> Any:
        result = await self._service.release(_order(request, role), stage=_STAGE_WORDS[request.stage])
        return pb.ReleaseResponse(result=convert.to_wire(result))

    async def Forget(self, request: Any, role: str) -> Any:
        return pb.ForgetResponse(detail=to_wire(await self._service.forget(_order(request, role))))

    async def WatchWorkload(self, request: Any, role: str) -> Any:
        info = await self._service.watch(_order(request, role), name=from_wire(request.name), create=request.create)
        return pb.WatchWorkloadResponse(workload=convert.to_wire(info))

    async def UnwatchWorkload(self, request: Any, role: str) -> Any:
        info = await self._service.unwatch(_order(request, role), remove=request.remove)
        return pb.UnwatchWorkloadResponse(workload=convert.to_wire(info))

    async def ReloadPolicies(self, request: Any, role: str) -> Any:
        policies = await self._service.reload_policies(_order(request, role))
        return pb.ReloadPoliciesResponse(policies=map(convert.to_wire, policies))

    async def SelfTest(self, request: Any, role: str) -> Any:
        return pb.SelfTestResponse(result=convert.to_wire(await self._service.self_test(_order(request, role))))

    async def ListWorkloads(self, request: Any, role: str) -> Any:
        workloads = sorted(await self._service.workloads(), key=lambda w: w.cgroup)
        return pb.ListWorkloadsResponse(workloads=map(convert.to_wire, workloads))

    async def GetStatus(self, request: Any, role: str) -> Any:
        return pb.GetStatusResponse(status=convert.to_wire(await self._service.status()))

    async def ListIncidents(self, request: Any, role: str) -> Any:
        incidents = await self._service.incidents(open_only=request.open_only, limit=request.limit)
        return pb.ListIncidentsResponse(incidents=map(convert.to_wire, incidents))

    async def GetIncident(self, request: Any, role: str) -> Any:
        incident = await self._service.incident(_incident_id("GetIncident", request))
        return pb.GetIncidentResponse(incident=convert.to_wire(incident))

    async def CheckPolicy(self, request: Any, role: str) -> Any:
        if len(request.text) > POLICY_CHARS:
            raise InvalidFields("CheckPolicy", {"text": f"must have at most {POLICY_CHARS:,} characters"})
        problems = await self._service.check_policy(from_wire(request.text), from_wire(request.file))
        return pb.CheckPolicyResponse(problems=map(convert.to_wire, problems))

    async def ListPolicies(self, request: Any, role: str) -> Any:
        return pb.ListPoliciesResponse(policies=map(convert.to_wire, await self._service.policies()))

    async def GetCapabilities(self, request: Any, role: str) -> Any:
        return pb.GetCapabilitiesResponse(capabilities=map(convert.to_wire, await self._service.capabilities()))

    async def VerifyLog(self, request: Any, role: str) -> Any:
        ok, detail = await self._service.verify_log()
        return pb.VerifyLogResponse(ok=ok, detail=to_wire(detail))

    async def GetEvidence(self, request: Any) -> AsyncIterator[Any]:
        async for file, chunk in self._service.evidence(_incident_id("GetEvidence", request)):
            for start in range(0, len(chunk) or 1, CHUNK):  # an empty file is told of, too
                yield pb.GetEvidenceResponse(file=to_wire(file), chunk=chunk[start : start + CHUNK])

    def events(self, request: Any) -> AsyncIterator[Any]:
        """The items of StreamEvents, not yet converted: the server may have to drop some."""
        return self._service.stream(convert.decode(request, EventFilter))


def _incident_id(method: str, request: Any) -> str:
    identifier = from_wire(request.incident_id)
    if not identifier:
        raise InvalidFields(method, {"incident_id": 'must not be empty: "inc-<n>"'})
    return identifier
