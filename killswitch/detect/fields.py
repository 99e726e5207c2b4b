"""Fields that a rule asks for and the event itself does not hold: what is known of its process and its workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.detect.processes import Process
from killswitch.events import Done, Event, Exec, Wire
from killswitch.policy.compiled import CompiledRule
from killswitch.policy.fields import tokens
from killswitch.policy.shells import reads_program

OF_PROCESS = frozenset(
    {
        "process.name",
        "process.executable",
        "process.args",
        "process.command_line",
        "process.args_truncated",
        "process.parent.name",
        "process.reads_program",
    }
)
OF_FILE = frozenset({"file.inode_of", "file.memfd", "file.unlinked", "process.listens"})  # of ``cpu`` events
OF_WORKLOAD = frozenset({"cgroup.path"})


def wanted_fields(rules: Iterable[CompiledRule]) -> Mapping[str, frozenset[str]]:
    """For each kind of event, which of these fields some rule reads. An ``exec`` event brings its process along."""
    wanted: dict[str, frozenset[str]] = {}
    for rule in rules:
        kind = rule.rule.on
        supplied = OF_WORKLOAD if kind == "exec" else OF_WORKLOAD | OF_PROCESS
        if kind == "cpu":
            supplied |= OF_FILE
        elif kind == "flow":
            supplied |= OF_FILE - {"file.inode_of", "process.listens"}
        wanted[kind] = wanted.get(kind, frozenset()) | (rule.fields & supplied)
    return {kind: fields for kind, fields in wanted.items() if fields}


Files = Mapping[tuple[int, int], tuple[str, ...]]  # (device, inode) -> the paths of ``file.inode_of`` that lead there


def extra_fields(
    wanted: frozenset[str], event: Event, process: Process | None, cgroup: str, files: Files
) -> dict[str, object]:
    """``process.name`` has no value when the process was there before it was watched: a rule cannot match on it then."""
    extra: dict[str, object] = {}
    if "cgroup.path" in wanted:
        extra["cgroup.path"] = cgroup
    if process is None or not process.executable or isinstance(event, Exec):
        return extra
    for field in wanted:
        match field:
            case "process.name":  # as in an exec: of the executable, and of the file that was asked for
                extra[field] = (process.name, process.filename.rpartition(b"/")[2])
            case "process.executable":
                extra[field] = (process.executable, process.filename)
            case "process.args":
                extra[field] = tokens(process.argv)
            case "process.command_line":
                extra[field] = b" ".join(tokens(process.argv))
            case "process.args_truncated":
                extra[field] = process.argv_cut
            case "process.parent.name":
                extra[field] = process.parent_name
            case "process.reads_program":
                names = process.name, process.filename.rpartition(b"/")[2]
                extra[field] = not process.argv_cut and reads_program(names, tokens(process.argv))
            case "process.listens":
                extra[field] = process.listens
            case "file.inode_of":
                extra[field] = files.get(process.file, ())
            case "file.memfd":
                extra[field] = process.memfd
            case "file.unlinked":
                extra[field] = process.unlinked
    return extra


def program_of(process: Process, event: Wire) -> Exec:
    """The program behind a flow as its ``Exec``, as far as it is remembered: which file it was (inode, memfd) is not."""
    return Exec(
        time_ns=event.time_ns, workload=event.workload, cgroup_id=event.cgroup_id, pid=process.pid,
        start_ticks=process.start_ticks, ppid=process.ppid, parent_start_ticks=0, uid=event.uid, gid=0,
        parent_name=process.parent_name, executable=process.executable, filename=process.filename, argv=process.argv,
        argv_total=len(process.argv) + process.argv_cut, inode=0, device=0, nlink=1, memfd=False, predicates=0,
        generation=0, clause=-1, done=Done.NOTHING, verdict_ns=0,
    )  # fmt: skip
