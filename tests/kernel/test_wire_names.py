"""Names on the wire, judged in the kernel: DNS questions over UDP and TCP, the server's name of TLS."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch.commands import Level, Mode, Response
from killswitch.events import Done, Transport
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.model import And, Not, Policy, Predicate, Rule
from tests.kernel.cgroups import Cgroup
from tests.kernel.listener import Listener
from tests.kernel.test_wire import Scene, Talker, one_byte_each
from tests.rig import names
from tests.rig.netns import FarSide

DENY = (Response.DENY,)
POOL = ("supportxmr.com", "2miners.com")
SENDER = Path(__file__).with_name("programs") / "datagrams.py"
KEY_SHARE = names.extension(51, bytes(1730))  # as large as a post-quantum one


def rule(name: str, condition: object, response: tuple[Response, ...] = DENY) -> Rule:
    return Rule(name, name, Level.HIGH, "wire", condition, response)  # type: ignore[arg-type]


@pytest.fixture
def scene(plane: DataPlane, watched: Cgroup, far: FarSide) -> Scene:
    made = Scene(plane, watched, far, compile_policies([]))
    load(
        made,
        rule("dns", Predicate("dns.question.name", "domain", POOL)),
        rule("tls", Predicate("tls.client.server_name", "domain", POOL)),
    )
    return made


def load(scene: Scene, *rules: Rule, mode: Mode = Mode.ENFORCE) -> None:
    scene.load(Policy("names", 1, ("/ks/**",), mode, rules))


class Datagrams:
    """A process of the workload that sends datagrams, and says what came of each."""

    def __init__(self, cgroup: Cgroup) -> None:
        self.process = cgroup.popen(sys.executable, "-I", "-S", SENDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"

    def send(self, to: tuple[str, int], *payloads: bytes, how: str = "sendto") -> list[str]:
        assert self.process.stdin and self.process.stdout
        line = f"{how} {to[0]} {to[1]} {','.join(p.hex() for p in payloads)}\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().split()

    def close(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture
def datagrams(scene: Scene) -> Iterator[Datagrams]:
    made = Datagrams(scene.cgroup)
    yield made
    made.close()


def heard(sock: socket.socket) -> list[bytes]:
    sock.settimeout(0.1)
    found = []
    try:
        while True:
            found.append(sock.recv(65536))
    except TimeoutError:
        return found


ASKED = {
    "itself": names.query("supportxmr.com"),
    "below": names.query("pool.eu.supportxmr.com"),
    "case": names.query("PoOl.SupportXMR.cOm"),
    "edns": names.query("supportxmr.com", edns=True),
    "second question": names.query("example.org", "xmr.2miners.com"),
    "long": names.query(".".join(["a" * 60] * 3 + ["x.supportxmr.com"])),
    "answer bits set": names.query("supportxmr.com", flags=0x0580),
    "label with a NUL": names.query("a\0b.supportxmr.com"),
}
NOT_ASKED = {
    "other": names.query("example.org"),
    "not a whole label": names.query("notsupportxmr.com"),
    "not at the end": names.query("supportxmr.com.example.org"),
    "an answer": names.query("supportxmr.com", flags=0x8180),
    "cut off": names.query("supportxmr.com")[:20],
    "text": b"supportxmr.com\0 and more of it",
    "short": b"\x12\x34\1\0\0\1",
    "label too long": b"\x12\x34\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("how", ["sendto", "connected"])
def test_questions_over_udp(
    scene: Scene, far: FarSide, datagrams: Datagrams, family: socket.AddressFamily, how: str
) -> None:
    with far.listen(family=family, kind=socket.SOCK_DGRAM) as server:
        at = server.getsockname()[:2]
        for name, payload in ASKED.items():
            assert datagrams.send(at, payload, how=how) == ["EPERM"], name
            (event,) = scene.wires()
            assert event.done == Done.DENIED and event.transport is Transport.UDP, name
            assert (event.remote_ip, event.remote_port, event.direction) == (*at, "sent")
            wanted = names.questions(payload)[-1]
            assert event.question == wanted, name
            assert event.pid == datagrams.process.pid and event.maker_known
            assert [r.rule.id for r in scene.compiled.matches(event, 1)] == ["dns"]
        assert heard(server) == []
        for name, payload in NOT_ASKED.items():
            assert datagrams.send(at, payload, how=how) == ["sent"], name
        assert heard(server) == list(NOT_ASKED.values())
        assert scene.wires() == []
    assert not scene.plane.containment(scene.cgroup.id).severed


def test_a_resolver_on_loopback_is_no_way_round(scene: Scene, datagrams: Datagrams) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        assert datagrams.send(resolver.getsockname(), ASKED["below"]) == ["EPERM"]
        assert heard(resolver) == []


def test_a_flood_is_denied_all_of_it_and_told_seldom(scene: Scene, far: FarSide, datagrams: Datagrams) -> None:
    with far.listen(kind=socket.SOCK_DGRAM) as server:
        said = datagrams.send(server.getsockname(), *[ASKED["below"]] * 500, how="connected")
        assert said == ["EPERM"] * 500 and heard(server) == []
    events = scene.wires()
    assert 0 < len(events) < 100
    lost = {e.reason: e.count for e in scene.plane.losses() if e.workload == scene.cgroup.id}
    assert lost.get("sendmsg_suppressed", 0) >= 500 - len(events) - 1


FLOWS = {
    "tls": names.client_hello([names.server_name("xmr.supportxmr.com")]),
    "tls, behind a large key share": names.client_hello([KEY_SHARE, names.server_name("xmr.supportxmr.com")]),
    "tls, behind 60 KiB": names.client_hello([names.extension(21, bytes(60000)), names.server_name("2miners.com")]),
    "tls, several records": names.client_hello([KEY_SHARE, names.server_name("2MINERS.com")], record=100),
    "tls, records of a byte": names.client_hello([names.server_name("2miners.com")], record=1),
    "tls, a dot at the end": names.client_hello([names.server_name("2miners.com.")]),
    "tls, no session": names.client_hello([names.server_name("2miners.com")], session=b""),
    "dns": names.over_tcp(ASKED["below"]),
    "dns, second message": names.over_tcp(NOT_ASKED["other"], ASKED["edns"]),
    "dns, second question": names.over_tcp(ASKED["second question"]),
}
INNOCENT = {
    "tls": names.client_hello([KEY_SHARE, names.server_name("notsupportxmr.com")]),
    "tls without a name": names.client_hello([KEY_SHARE]),
    "tls, name in another extension": names.client_hello([names.extension(5, names.server_name("supportxmr.com"))]),
    "tls, not a ClientHello": names.client_hello([names.server_name("2miners.com")]).replace(b"\1", b"\2", 2),
    "dns": names.over_tcp(names.query("example.org"), names.query("supportxmr.com.example.org")),
    "dns, an answer": names.over_tcp(NOT_ASKED["an answer"]),
    "text": b"GET http://supportxmr.com/ HTTP/1.0\r\n\r\n",
    "binary": bytes(range(256)) * 20 + names.encoded("supportxmr.com"),
}


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_names_in_a_flow(scene: Scene, listeners: list[Listener]) -> None:
    talker = Talker(scene.cgroup)
    for name, text in FLOWS.items():
        dns = name.startswith("dns")
        told = names.questions_over_tcp(text)[-1] if dns else names.hello_name(text)
        small = 7 if len(text) < 5000 else 4000
        for number, pieces in enumerate(([text], cut(text, 1400), cut(text, small))):
            listener = listeners[number % 2]
            talker.say(listener, *pieces, wait=0.02)
            events = scene.wires()
            assert [e.done for e in events] == [Done.DENIED], name
            (event,) = events
            assert (event.question, event.server_name) == ((told, b"") if dns else (b"", told)), name
            assert [r.rule.id for r in scene.compiled.matches(event, 1)] == ["dns" if dns else "tls"]
            through = bytes(listener.heard[-1])
            assert text.startswith(through) and len(through) < len(text), name
            if number == 0 and len(text) < 8000:  # what a sender may send before it is answered
                assert through == b"", name
    talker.close()
    assert not scene.plane.containment(scene.cgroup.id).severed


def test_what_has_no_such_name_goes_through(scene: Scene, listeners: list[Listener]) -> None:
    talker = Talker(scene.cgroup)
    for text in INNOCENT.values():
        for listener, pieces in zip(listeners, ([text], [*one_byte_each(text[:600]), text[600:] or b"."]), strict=True):
            talker.say(listener, *pieces)
    talker.close()
    for listener in listeners:
        listener.close()
    assert [bytes(h) for h in listeners[0].heard] == list(INNOCENT.values())
    assert all(bytes(h).startswith(t) for h, t in zip(listeners[1].heard, INNOCENT.values(), strict=True))
    assert scene.wires() == []


def test_where_it_goes_and_who_began_it_decide_in_the_kernel(scene: Scene, far: FarSide) -> None:
    """An address, a port, a direction and a transport are predicates like any other."""
    here = [Listener(far, family) for family in (socket.AF_INET, socket.AF_INET6)]
    banner = Predicate("wire.sent", "startswith", ("SSH-2.0-",))
    load(
        scene,
        rule("far", And((banner, Predicate("remote.ip", "cidr", (f"{far.far4}/32", f"{far.far6}/128")),
                         Predicate("remote.port", "match", (here[0].port,))))),
        rule("high", And((banner, Not(Predicate("remote.ip", "cidr", ("127.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1"))),
                          Predicate("remote.port", "gte", (here[1].port + 1,))))),
    )  # fmt: skip
    talker = Talker(scene.cgroup)
    assert [c.deny for c in scene.compiled.tables.wire_clauses] == [True, True], "judged by the kernel alone"
    talker.say(here[0], b"SSH-2.0-x\r\n")
    talker.say(here[1], b"SSH-2.0-x\r\n")
    talker.close()
    for listener in here:
        listener.close()
    assert bytes(here[0].heard[-1]) == b"" and bytes(here[1].heard[-1]) == b"SSH-2.0-x\r\n"
    four, six = scene.wires()
    assert (four.done, six.done) == (Done.DENIED, Done.NOTHING)
    assert four.outbound and scene.compiled.wire_predicates(four) == four.predicates & scene.compiled.tables.wire_bits
    assert scene.compiled.wire_predicates(six) == six.predicates & scene.compiled.tables.wire_bits


def test_a_connection_that_was_accepted_is_inbound(scene: Scene) -> None:
    banner = Predicate("wire.sent", "startswith", ("SSH-2.0-",))
    load(scene, rule("in", And((banner, Predicate("network.direction", "match", ("inbound",))))))
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "c = s.accept()[0]; c.send(b'SSH-2.0-x\\r\\n'); c.recv(1)"
    )
    process = scene.cgroup.popen(sys.executable, "-I", "-S", "-c", code, stdout=subprocess.PIPE)
    assert process.stdout
    with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
    (event,) = scene.wires()
    assert event.done == Done.DENIED and not event.outbound
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_first_bytes_of_a_datagram(scene: Scene, far: FarSide, datagrams: Datagrams) -> None:
    udp = Predicate("network.transport", "match", ("udp",))
    stratum = Predicate("wire.sent", "re", (r'^\s*\{.*"method"\s*:\s*"mining\.',), cased=True)
    load(scene, rule("udp", And((stratum, udp))))
    message = b'{"id":1,"padding":"' + b"x" * 500 + b'","method":"mining.subscribe"}'
    with far.listen(kind=socket.SOCK_DGRAM) as server:
        at = server.getsockname()
        assert datagrams.send(at, message, b"x" + message) == ["EPERM", "sent"]
        assert heard(server) == [b"x" + message]
    (event,) = scene.wires()
    assert event.transport is Transport.UDP and event.sent == message[:128] and event.question == b""


NAME_PARTS = st.sampled_from(
    ["supportxmr.com", "a.supportxmr.com", "x", "example.org", "2miners.com", "notsupportxmr.com", "a" * 60]
)
QUERIES = st.lists(NAME_PARTS, min_size=1, max_size=3).map(lambda asked: names.query(*asked))
EXTENSIONS = st.one_of(
    NAME_PARTS.map(names.server_name),
    st.builds(names.extension, st.integers(1, 60), st.integers(0, 300).map(bytes)),
)
HELLOS = st.builds(
    lambda listed, session, record: names.client_hello(listed, session=bytes(session), record=record),
    st.lists(EXTENSIONS, max_size=5), st.integers(0, 32), st.sampled_from([1, 5, 40, 16384]),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    text = bytearray(draw(texts))
    for _ in range(draw(st.integers(0, 2))):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.sampled_from([0, 1, 2, 5, 63, 64, 192, 255]))
    return bytes(text[: draw(st.integers(1, len(text)))] if draw(st.booleans()) else text)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    flows=st.lists(
        st.tuples(mutated(HELLOS | QUERIES.map(names.over_tcp)), st.integers(1, 400)), min_size=1, max_size=6
    ),
    packets=st.lists(mutated(QUERIES), min_size=1, max_size=8),
)
def test_kernel_and_a_plain_reader_agree(
    scene: Scene, listeners: list[Listener], datagrams: Datagrams, flows: list[tuple[bytes, int]], packets: list[bytes]
) -> None:
    """Whatever is sent, however it is cut: the kernel sees the names that a plain reader of the whole sees."""
    load(
        scene,
        rule("dns", Predicate("dns.question.name", "domain", POOL), (Response.ALERT,)),
        rule("tls", Predicate("tls.client.server_name", "domain", POOL), (Response.ALERT,)),
        mode=Mode.MONITOR,
    )
    talker = Talker(scene.cgroup)
    scene.wires()
    for text, size in flows:
        talker.say(listeners[0], *cut(text, max(size, len(text) // 20)), wait=0.001)
        events = scene.wires()
        asked = names.questions_over_tcp(text) if text[0] != 0x16 else []
        server = names.hello_name(text)
        wanted = any(map(_is_pool, asked)) or _is_pool(server)
        assert bool(events) is wanted, (text.hex(), asked, server, events)
    talker.close()
    for payload in packets:  # a socket each: what one sends is told only now and then
        assert datagrams.send((listeners[0].host, 9), payload) == ["sent"]
        told = bool(scene.wires())
        assert told is any(map(_is_pool, names.questions(payload))), payload.hex()


def _is_pool(name: bytes) -> bool:
    name = name.lower()
    return any(name == p.encode() or name.endswith(b"." + p.encode()) for p in POOL)
