"""Errors over the wire: killswitch's own exceptions <-> google.rpc.Status with details.

The message is ``str()`` of the error; ErrorInfo carries which error it was (reason) and its errno, BadRequest the wrong
fields, PolicyProblem what is wrong in a policy. The modules of google.rpc are imported when the first error is.
"""

from __future__ import annotations

import errno as errno_names
from typing import TYPE_CHECKING, Any

import grpc

from killswitch import errors
from killswitch.control import convert, wiretext
from killswitch.control.orders import AlreadyUsed
from killswitch.control.remembered import Interrupted

if TYPE_CHECKING:
    from google.rpc import status_pb2

DOMAIN = "killswitch.v1"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_BYTES = 4096  # gRPC peers take 8 KiB of metadata; base64 and the message want their part of it
MESSAGE_CHARS = 1024

_CODES: tuple[tuple[type[BaseException], str, grpc.StatusCode], ...] = (  # the first that fits
    (AlreadyUsed, "REQUEST_ID_REUSED", grpc.StatusCode.ALREADY_EXISTS),
    (Interrupted, "ORDER_INTERRUPTED", grpc.StatusCode.ABORTED),
    (errors.RequestError, "BAD_REQUEST", grpc.StatusCode.INVALID_ARGUMENT),
    (errors.PolicyError, "POLICY_ERROR", grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ConfigError, "CONFIG_ERROR", grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotSupported, "NOT_SUPPORTED", grpc.StatusCode.UNIMPLEMENTED),
    (errors.Gone, "GONE", grpc.StatusCode.NOT_FOUND),
    (errors.KernelError, "KERNEL_ERROR", grpc.StatusCode.INTERNAL),
    (errors.TargetError, "TARGET_ERROR", grpc.StatusCode.NOT_FOUND),
    (errors.Protected, "PROTECTED", grpc.StatusCode.FAILED_PRECONDITION),
    (errors.LedgerError, "LEDGER_ERROR", grpc.StatusCode.INTERNAL),
    (errors.Denied, "DENIED", grpc.StatusCode.PERMISSION_DENIED),
    (errors.TimedOut, "TIMED_OUT", grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Unreachable, "UNREACHABLE", grpc.StatusCode.UNAVAILABLE),
    (errors.KillswitchError, "KILLSWITCH_ERROR", grpc.StatusCode.INTERNAL),
)
_CLASSES = {reason: cls for cls, reason, _ in _CODES}
_BY_CODE: dict[grpc.StatusCode, type[errors.KillswitchError]] = {  # when the other side sent no details
    grpc.StatusCode.UNAVAILABLE: errors.Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.TimedOut,
    grpc.StatusCode.PERMISSION_DENIED: errors.Denied,
    grpc.StatusCode.NOT_FOUND: errors.TargetError,
    grpc.StatusCode.INVALID_ARGUMENT: errors.RequestError,
}


class InvalidFields(errors.RequestError):
    """Fields of a request that are wrong: name -> what it must be. All of them at once."""

    def __init__(self, method: str, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__(f"{method}: " + "; ".join(f"{name} {what}" for name, what in fields.items()))


def is_ours(error: BaseException) -> bool:
    """Raised on purpose: its text is for the caller. Whatever else comes out is a bug, to be logged."""
    return isinstance(error, errors.KillswitchError)


def to_wire(error: BaseException, where: str) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """(code, message, trailing metadata) for ``context.abort``. ``where``: the method, for what was not raised on purpose."""
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    code, reason = grpc.StatusCode.INTERNAL, "INTERNAL"
    message = f"{where}: the daemon failed ({type(error).__name__}); its log tells more: journalctl -u killswitchd"
    if is_ours(error):
        code, reason = next((code, reason) for cls, reason, code in _CODES if isinstance(error, cls))
        message = wiretext.to_wire(str(error))
    if len(message) > MESSAGE_CHARS:
        message = message[: MESSAGE_CHARS - 1] + "…"
    status = status_pb2.Status(code=code.value[0], message=message)

    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, errors.KernelError):
        info.metadata["errno"] = errno_names.errorcode.get(error.code, str(error.code))
    details: list[object] = [info]
    if isinstance(error, InvalidFields):
        bad = error_details_pb2.BadRequest()
        for name, what in error.fields.items():
            bad.field_violations.add(field=name, description=f"{name} {what}")
        details.append(bad)
    if isinstance(error, errors.PolicyError):
        details += [convert.to_wire(problem) for problem in _fitting(error.problems)]
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)  # type: ignore[arg-type]
        status.details.append(packed)
    return code, message, ((DETAILS_KEY, status.SerializeToString()),)


def _fitting(problems: list[errors.Problem]) -> list[errors.Problem]:
    """As many as the metadata takes; the last then says how many more there are."""
    taken: list[errors.Problem] = []
    room = DETAILS_BYTES
    for problem in problems:
        room -= convert.to_wire(problem).ByteSize() + 64
        if room < 0:
            more = f"{len(problems) - len(taken)} more problems are not shown here"
            return [*taken, errors.Problem(problem.file, problem.line, problem.column, more, "killswitch policy check")]
        taken.append(problem)
    return taken


def from_wire(call: Any, where: str) -> errors.KillswitchError:
    """The error that the daemon raised, of the same class; or what the state of the connection means.

    ``call``: a grpc.RpcError that is a grpc.Call too, as every stub raises. ``where``: the socket's path, for messages
    that come from here.
    """
    code, text = call.code(), str(call.details() or "")
    status = _details(call)
    if status is not None:
        return _rebuild(status)
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unreachable(
            f"{where}: the daemon does not answer ({text}); is it running? systemctl status killswitchd"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.TimedOut(
            f"{where}: no answer in time; an order that was received is still carried out: killswitch status"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.KillswitchError(
            f"{where}: the daemon does not know this method ({text}); is it an older release?"
        )
    if code is grpc.StatusCode.CANCELLED:
        return errors.Unreachable(f"{where}: the daemon closed the connection ({text}); is it stopping?")
    return _BY_CODE.get(code, errors.KillswitchError)(f"{where}: {code.name}: {text}")


def _details(call: Any) -> status_pb2.Status | None:
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            from google.rpc import status_pb2

            return status_pb2.Status.FromString(value)
    return None


def _rebuild(status: status_pb2.Status) -> errors.KillswitchError:
    from google.rpc import error_details_pb2

    from killswitch.v1 import types_pb2

    message = wiretext.from_wire(status.message)
    info = error_details_pb2.ErrorInfo()
    problems: list[errors.Problem] = []
    for packed in status.details:
        problem = types_pb2.PolicyProblem()
        if packed.Unpack(problem):
            problems.append(convert.decode(problem, errors.Problem))
        packed.Unpack(info)
    cls = _CLASSES.get(info.reason, errors.KillswitchError)
    if cls is errors.PolicyError:
        return errors.PolicyError(problems)
    if issubclass(cls, errors.KernelError):
        kernel = cls.__new__(cls)  # its text is already made; the constructor would make it anew from the errno
        errors.KillswitchError.__init__(kernel, message)
        kernel.code = int(getattr(errno_names, info.metadata.get("errno", ""), 0))
        return kernel
    built = cls(message)
    assert isinstance(built, errors.KillswitchError)
    return built
