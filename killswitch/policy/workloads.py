"""``workloads:``: which globs over cgroup paths a policy may have. A workload is one subtree, never the host."""

from __future__ import annotations

import re

# Cgroups that hold the host together or the operators' way in: a glob that reaches one of them would watch it, and a
# response could freeze it. (The daemon protects processes as well; a policy must not even ask for it.)
HOST = {
    "/init.scope": "pid 1",
    "/system.slice": "every system service",
    "/system.slice/ssh.service": "the operators' way in",
    "/system.slice/sshd.service": "the operators' way in",
    "/system.slice/systemd-journald.service": "the journal",
    "/system.slice/dbus.service": "the system bus",
    "/system.slice/killswitchd.service": "the daemon itself",
    "/user.slice": "every login",
    "/user.slice/user-0.slice": "root's logins",
    "/machine.slice": "every container and virtual machine",
    "/kubepods.slice": "every pod",
}


def glob_problem(glob: str) -> tuple[str, str] | None:
    """What is wrong with the glob: (message, hint); None when nothing is."""
    if not glob.startswith("/"):
        return f"a cgroup glob starts with '/', found '{glob}'", f"write '/{glob.lstrip('./')}'"
    if glob == "/":
        return "'/' is the root cgroup, which is the host and never a workload", "name a cgroup below it"
    parts = glob[1:].split("/")
    if "" in parts:
        return f"'{glob}' has an empty name", "write '/' once between names, and none at the end"
    if "." in parts or ".." in parts:
        return f"'{glob}' has '.' or '..' in it", "write the path as /proc/PID/cgroup shows it"
    if any("**" in p and p != "**" for p in parts):
        return f"'**' must stand alone between slashes in '{glob}'", "use '*' for a part of a name"
    if all(set(p) <= {"*", "?"} for p in parts):
        return f"'{glob}' matches every cgroup, which is the host and never a workload", "name at least one cgroup"
    pattern = glob_pattern(glob)
    for path, what in HOST.items():
        if pattern.fullmatch(path):
            return f"'{glob}' would watch {path}, {what}", "name the slice or the service that the workload runs in"
    return None


def glob_pattern(glob: str) -> re.Pattern[str]:
    """``*`` and ``?`` stay within one name; ``**`` is one or more whole names."""
    parts = [
        r"[^/]+(?:/[^/]+)*" if part == "**" else re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for part in glob[1:].split("/")
    ]
    return re.compile("/" + "/".join(parts))
