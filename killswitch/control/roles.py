"""Who may call what. The role of a caller is the socket that it came in by: file permissions are the authentication.

gRPC for Python does not tell a server the credentials of its peer, so there is one socket a role. ``admin`` (0600, root)
may do everything, and so it is the role that releases: to release takes more authority than to kill, and here both take
root. ``view`` (0660, group killswitch) may read, which includes command lines and evidence.
"""

from __future__ import annotations

from killswitch.errors import Denied

ADMIN = "admin"
VIEW = "view"

READS = frozenset(
    {
        "CheckPolicy",
        "GetCapabilities",
        "GetEvidence",
        "GetIncident",
        "GetStatus",
        "ListIncidents",
        "ListPolicies",
        "ListWorkloads",
        "StreamEvents",
        "VerifyLog",
    }
)
ORDERS = frozenset(
    {
        "Forget",
        "Freeze",
        "Kill",
        "Release",
        "ReloadPolicies",
        "SelfTest",
        "Sever",
        "Terminate",
        "Thaw",
        "UnwatchWorkload",
        "WatchWorkload",
    }
)


def authorize(role: str, method: str) -> None:
    """Raises Denied unless the role may call the method. What is not listed is nobody's."""
    if role == ADMIN and (method in READS or method in ORDERS):
        return
    if role == VIEW and method in READS:
        return
    raise Denied(f"{method}: the role {role!r} may not do that; use the admin socket (as root, or with sudo)")
