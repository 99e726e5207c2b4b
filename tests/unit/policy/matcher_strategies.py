"""Random predicates, conditions, policies and exec events over a small alphabet, so that they often meet."""

from __future__ import annotations

from hypothesis import strategies as st

from killswitch.commands import Level, Mode, Response
from killswitch.events import Done, Exec
from killswitch.policy.model import And, Expr, Not, Or, Policy, Predicate, Rule

TEXT = st.text(alphabet="abAB -é", max_size=6)
SEGMENT = st.text(alphabet="abAB -é", min_size=1, max_size=5)
GLOB = st.lists(st.sampled_from(["a", "b", "A", " ", "*", "*", "?", "\\*", "\\?", "\\\\", "\\", "é"]), max_size=5).map(
    "".join
)
WALKED = ("process.name", "process.executable", "process.args", "process.command_line", "process.parent.name")


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "*?"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
        inner.map(lambda p: f"(?i:{p})"),
    )


REGEX = st.recursive(
    st.sampled_from(["a", "b", "A", " ", ".", "[ab]", "[^a]", "[^ ]", r"\w", r"\W", r"\s", r"\b", r"\B", "^", "$", "ab", "é"]),
    _grow,
    max_leaves=6,
)  # fmt: skip


@st.composite
def text_predicates(draw: st.DrawFn, field: str | None = None) -> Predicate:
    field = field or draw(st.sampled_from(WALKED))
    op = draw(st.sampled_from(["match", "match", "contains", "startswith", "endswith", "re", "exists"]))
    if op == "exists":
        return Predicate(field, op, (draw(st.booleans()),))
    one = {"match": GLOB | TEXT, "re": REGEX}.get(op, TEXT)
    values = tuple(draw(st.lists(one, min_size=1, max_size=3)))
    return Predicate(field, op, values, all=draw(st.booleans()), cased=draw(st.booleans()))


def facts() -> st.SearchStrategy[Predicate]:
    return st.one_of(
        st.booleans().map(lambda v: Predicate("file.memfd", "match", (v,))),
        st.booleans().map(lambda v: Predicate("file.unlinked", "match", (v,))),
        st.sampled_from(["match", "gte", "lt"]).map(lambda op: Predicate("user.id", op, (1000,))),
    )


def conditions() -> st.SearchStrategy[Expr]:
    return st.recursive(
        st.one_of(text_predicates(), text_predicates(), facts()),
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
        ),
        max_leaves=5,
    )


@st.composite
def policies(draw: st.DrawFn) -> tuple[Policy, ...]:
    made = []
    for number in range(draw(st.integers(1, 3))):
        rules = tuple(
            Rule(
                f"r{i}",
                "t",
                Level.HIGH,
                "exec",
                condition,
                tuple(draw(st.sampled_from(RESPONSES))),
                draw(st.sampled_from([0, 0, 0, 5])),
            )
            for i, condition in enumerate(draw(st.lists(conditions(), min_size=1, max_size=4)))
        )
        made.append(Policy(f"p{number}", 1, ("/ks/**",), draw(st.sampled_from(list(Mode))), rules))
    return tuple(made)


RESPONSES = [
    (Response.ALERT,),
    (Response.KILL_PROCESS,),
    (Response.SEVER, Response.FREEZE),
    (Response.KILL_PROCESS, Response.SEVER),
    (Response.FREEZE,),
]


def make_exec(
    executable: str | bytes = "/usr/bin/true", args: tuple[str | bytes, ...] = ("true",), *, filename: str | bytes | None = None,
    parent: str | bytes = "bash", uid: int = 1000, memfd: bool = False, nlink: int = 1, inode: int = 7, device: int = 3,
    argv_total: int | None = None, generation: int = 0, predicates: int = 0,
) -> Exec:  # fmt: skip
    def raw(text: str | bytes) -> bytes:
        return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")

    argv = b"".join(raw(a) + b"\0" for a in args)
    return Exec(
        time_ns=1, workload=1, cgroup_id=1, pid=10, start_ticks=1, ppid=1, parent_start_ticks=1, uid=uid, gid=uid,
        parent_name=raw(parent), executable=raw(executable), filename=raw(executable if filename is None else filename),
        argv=argv[:4096], argv_total=len(argv) if argv_total is None else argv_total, inode=inode, device=device, nlink=nlink,
        memfd=memfd, predicates=predicates, generation=generation, clause=-1, done=Done.NOTHING, verdict_ns=0,
    )  # fmt: skip


@st.composite
def execs(draw: st.DrawFn) -> Exec:
    path = st.lists(SEGMENT, min_size=1, max_size=2).map(lambda parts: "/" + "/".join(parts))
    return make_exec(
        draw(path), tuple(draw(st.lists(TEXT, min_size=1, max_size=4))), filename=draw(path), parent=draw(SEGMENT),
        uid=draw(st.sampled_from([0, 1000, 1001])), memfd=draw(st.booleans()), nlink=draw(st.sampled_from([0, 1])),
    )  # fmt: skip
