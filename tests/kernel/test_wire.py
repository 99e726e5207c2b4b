"""The first bytes of a flow, judged in the kernel: real sockets, the far side of a veth pair, the shipped rules."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import killswitch
from killswitch.commands import FREE, Level, Mode, Response
from killswitch.events import Done, Transport, Wire
from killswitch.kernel.dataplane import DataPlane
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_files
from killswitch.policy.model import Policy, Predicate, Rule
from tests.kernel.cgroups import Cgroup
from tests.kernel.listener import Listener
from tests.rig.netns import FarSide

TALKER = Path(__file__).with_name("programs") / "talker.py"
SHIPPED = Path(killswitch.__file__).with_name("policies") / "rogue-agent.yaml"
SUBSCRIBE = b'{"id":1,"method":"mining.subscribe","params":["x/1.0"]}\n'
LOGIN = b'{"id":1,"jsonrpc":"2.0","method":"login","params":{"login":"4A","pass":"x","agent":"a/1"}}\n'
JOB = b'{"jsonrpc":"2.0","method":"job","params":{"blob":"0707","job_id":"1","target":"b8","seed_hash":"ab"}}\n'


class Talker:
    """A process of the workload that connects and talks."""

    def __init__(self, cgroup: Cgroup, program: str | Path = sys.executable) -> None:
        self.process = cgroup.popen(program, "-I", "-S", TALKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout and self.process.stdout.readline() == b"ready\n"

    def say(self, to: Listener, *pieces: bytes, wait: float = 0.05) -> bytes:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{to.host} {to.port} {','.join(p.hex() for p in pieces)} {wait}\n".encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return b"" if answer == b"-" else bytes.fromhex(answer.decode())

    def close(self) -> None:
        self.process.communicate(timeout=10)


@dataclass
class Scene:
    plane: DataPlane
    cgroup: Cgroup
    far: FarSide
    compiled: Compiled
    generation: int = 1

    def load(self, *policies: Policy) -> Compiled:
        self.generation += 1
        compiled = compile_policies(policies)
        self.plane.load_policy(compiled.tables, self.generation)
        self.compiled = replace(compiled, generation=self.generation)
        return self.compiled

    def wires(self) -> list[Wire]:
        return [e for e in self.plane.drain(100_000) if isinstance(e, Wire)]


@pytest.fixture
def scene(plane: DataPlane, watched: Cgroup, far: FarSide) -> Scene:
    made = Scene(plane, watched, far, compile_policies([]))
    made.load(*load_files([SHIPPED]))
    return made


def one_byte_each(text: bytes) -> list[bytes]:
    return [text[i : i + 1] for i in range(len(text))]


MINERS = {
    "subscribe": [SUBSCRIBE],
    "blanks": [b' \t{ "params" : [ ] , "id" :7,\r\n "method"  :\t"mining.authorize" }\n'],
    "login": [LOGIN],
    "login, other order": [b'{"params":{"agent":"a/1","pass":"x","login":"4A"},"id":1,"method":"login"}\n'],
    "second message": [b'{"id":1,"method":"ping"}\n' + SUBSCRIBE],
    "batch": [b"[" + SUBSCRIBE[:-1] + b"]\n"],
    "a line feed first": [b"\r\n\n" + SUBSCRIBE],
    "escaped": [b'{"id":1,"m\\u0065thod":"mining\\u002esubscribe","params":[]}\n'],
    "escaped login": [b'{"id":1,"method":"log\\u0069n","params":{"log\\u0069n":"4A"}}\n'],
    "ethereum": [b'{"id":1,"method":"eth_submitLogin","params":["0xab"],"worker":"x"}\n'],
    "a proxy's job": [JOB],
    "far into the window": [b'{"padding":"' + b"x" * 900 + b'","method":"mining.subscribe"}\n'],
}
INNOCENT = {
    "language server": [
        b"Content-Length: 59\r\n\r\n" + b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n'
    ],
    "json-rpc": [b'{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}\n'],
    "http": [b"POST /log HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n" + SUBSCRIBE],
    "ethereum node": [b'{"jsonrpc":"2.0","id":1,"method":"eth_getWork","params":[]}\n'],
    "login service": [b'{"method":"login","params":{"login":"bob","password":"x"}}\n'],
    "log line": [json.dumps({"log": SUBSCRIBE.decode()}).encode()],
    "behind the window": [b'{"padding":"' + b"x" * 8200 + b'","method":"mining.subscribe"}\n'],
    "ssh in a page": [b"GET /SSH-2.0-x HTTP/1.0\r\n\r\nSSH-2.0-x\r\n"],
}


@pytest.mark.parametrize("name", MINERS)
def test_a_handshake_does_not_leave_and_severs(scene: Scene, listeners: list[Listener], name: str) -> None:
    for listener in listeners:
        talker = Talker(scene.cgroup)
        assert talker.say(listener, *MINERS[name]) == b""
        assert scene.plane.containment(scene.cgroup.id).severed
        assert bytes(listener.heard[-1]) == b""
        (event,) = scene.wires()
        assert event.done == Done.DENIED | Done.SEVERED and event.direction == "sent" and event.clause >= 0
        assert event.sent == MINERS[name][0][:128]
        assert (event.remote_ip, event.remote_port) == (listener.host, listener.port)
        assert event.pid == talker.process.pid and event.maker_known
        assert [r.rule.id for r in scene.compiled.matches(event, 1)] == ["stratum-handshake"]
        scene.plane.set_containment(scene.cgroup.id, FREE)
        talker.close()


def test_byte_by_byte_the_decisive_byte_does_not_leave(scene: Scene, listeners: list[Listener]) -> None:
    for listener in listeners:
        talker = Talker(scene.cgroup)
        talker.say(listener, *one_byte_each(SUBSCRIBE))
        method = b'"mining.subscribe"'  # up to the quote: other services have methods that begin like it
        decisive = SUBSCRIBE.index(method) + len(method)
        assert SUBSCRIBE.startswith(bytes(listener.heard[-1])) and len(listener.heard[-1]) < decisive
        assert scene.plane.containment(scene.cgroup.id).severed
        scene.plane.set_containment(scene.cgroup.id, FREE)
        talker.close()


@pytest.mark.parametrize(
    "before", [b'{"id":1,"method":"ping","params":["' + b"x" * 700 + b'"]}\n', b"\n" * 1000], ids=["harmless", "blank"]
)
def test_what_goes_before_does_not_hide_it(scene: Scene, listeners: list[Listener], before: bytes) -> None:
    for listener in listeners:
        talker = Talker(scene.cgroup)
        talker.say(listener, *[before] * 5, SUBSCRIBE)
        assert set(bytes(listener.heard[-1])) <= set(before) and b"mining" not in listener.heard[-1]
        assert scene.plane.containment(scene.cgroup.id).severed
        scene.plane.set_containment(scene.cgroup.id, FREE)
        talker.close()


@pytest.mark.parametrize("name", INNOCENT)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_what_is_innocent_goes_through(scene: Scene, listeners: list[Listener], name: str, pieces: str) -> None:
    text = b"".join(INNOCENT[name])
    for listener in listeners:
        talker = Talker(scene.cgroup)
        talker.say(listener, *([text] if pieces == "whole" else one_byte_each(text)))
        talker.close()
        listener.close()
        assert bytes(listener.heard[-1]) == text
    assert not scene.plane.containment(scene.cgroup.id).severed
    assert all(e.clause == -1 and not scene.compiled.matches(e, 1) for e in scene.wires())


def test_two_hundred_handshakes_not_a_byte(scene: Scene, listeners: list[Listener]) -> None:
    """On ``deny`` alone, so that it is the packet's own verdict each time, and not the sever of the first."""
    rule = next(r for p in load_files([SHIPPED]) for r in p.rules if r.id == "stratum-handshake")
    scene.load(Policy("wire", 1, ("/ks/**",), Mode.ENFORCE, (replace(rule, response=(Response.DENY,)),)))
    talker = Talker(scene.cgroup)
    variants = list(MINERS.values())
    for i in range(200):
        talker.say(listeners[i % 2], *variants[i % len(variants)], wait=0.001)
    talker.close()
    for listener in listeners:
        listener.close()
    assert sum(len(one.heard) for one in listeners) == 200, "the connections themselves were made"
    assert sum(len(said) for one in listeners for said in one.heard) == 0
    assert [e.done for e in scene.wires()] == [Done.DENIED] * 200
    assert not scene.plane.containment(scene.cgroup.id).severed


def test_a_job_from_a_pool_is_not_heard(scene: Scene, far: FarSide) -> None:
    pool = Listener(far, answer=JOB)
    talker = Talker(scene.cgroup)
    assert talker.say(pool, b"hello\n", wait=0.3) == b""
    pool.close()
    assert bytes(pool.heard[0]) == b"hello\n"
    (event,) = scene.wires()
    assert (event.direction, event.received) == ("received", JOB[:128])
    assert scene.plane.containment(scene.cgroup.id).severed


def test_banner_of_another_program_does_not_leave(scene: Scene, listeners: list[Listener]) -> None:
    for listener in listeners:
        talker = Talker(scene.cgroup)
        for _ in range(20):
            talker.say(listener, b"SSH-2.0-paramiko_3.4.0\r\n", wait=0.001)
        talker.close()
        listener.close()
        assert [bytes(h) for h in listener.heard] == [b""] * 20
        events = scene.wires()
        assert [e.done for e in events] == [Done.DENIED] * 20
        assert {r.rule.id for e in events for r in scene.compiled.matches(e, 1)} == {"ssh-banner-other-program"}
    assert not scene.plane.containment(scene.cgroup.id).severed


def test_banner_of_ssh_itself_leaves(scene: Scene, far: FarSide) -> None:
    server = Listener(far, greeting=b"SSH-2.0-OpenSSH_9.2p1\r\n")
    command = [
        "ssh",
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=2",
        "-p",
        str(server.port),
        server.host,
    ]
    ssh = scene.cgroup.popen(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        if server.heard and server.heard[0].startswith(b"SSH-2.0-OpenSSH"):
            break
        select.select([], [], [], 0.02)
    ssh.kill()
    ssh.wait()
    server.close()
    assert server.heard and server.heard[0].startswith(b"SSH-2.0-OpenSSH")
    for event in scene.wires():
        assert event.maker_known and event.done == Done.NOTHING and not scene.compiled.matches(event, 1)


def test_program_that_no_table_has_judged_is_left_to_the_daemon(scene: Scene, listeners: list[Listener]) -> None:
    """After a reload what is known of running programs is of other tables: nothing is assumed, and nothing is lost."""
    talker = Talker(scene.cgroup)
    scene.load(*load_files([SHIPPED]))
    scene.wires()
    talker.say(listeners[0], b"SSH-2.0-x\r\n")
    (event,) = scene.wires()
    assert not event.maker_known and event.done == Done.NOTHING
    assert [r.rule.id for r in scene.compiled.matches(event, 1)] == ["ssh-banner-other-program"]
    start = int(Path(f"/proc/{talker.process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    scene.plane.tell_program(talker.process.pid, start, 0, scene.generation)
    talker.say(listeners[0], b"SSH-2.0-x\r\n")
    (event,) = scene.wires()
    assert event.maker_known and event.done == Done.DENIED, "once told, it is denied"
    scene.load(*load_files([SHIPPED]))
    talker.say(listeners[0], SUBSCRIBE)
    assert scene.plane.containment(scene.cgroup.id).severed, "what needs no program is judged all the same"
    talker.close()


def test_sockets_that_the_workload_listens_on_are_judged_too(scene: Scene, far: FarSide) -> None:
    """From outside it is denied, whoever called; between the workload's own processes, on loopback, it is nobody's business."""
    code = (
        "import socket, sys; s = socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1], flush=True)\n"
        "c = s.accept()[0]; c.send(b'SSH-2.0-asyncssh\\r\\n'); c.recv(1)"
    )
    for address in (far.near4, "127.0.0.1"):
        process = scene.cgroup.popen(sys.executable, "-I", "-S", "-c", code, address, stdout=subprocess.PIPE)
        assert process.stdout
        port = int(process.stdout.readline())
        outside = address != "127.0.0.1"
        with far.open_socket() if outside else socket.socket() as client:
            client.connect((address, port))
            client.settimeout(0.3)
            heard = b""
            with contextlib.suppress(TimeoutError):
                heard = client.recv(100)
            (event,) = scene.wires()
            assert event.pid == process.pid and not event.outbound
            assert (heard, event.done) == ((b"", Done.DENIED) if outside else (b"SSH-2.0-asyncssh\r\n", Done.NOTHING))
        process.kill()
        process.wait()
        process.stdout.close()


def test_nothing_is_looked_at_while_no_rule_asks(plane: DataPlane, watched: Cgroup, far: FarSide) -> None:
    listener = Listener(far)
    talker = Talker(watched)
    talker.say(listener, SUBSCRIBE)
    talker.close()
    listener.close()
    assert bytes(listener.heard[0]) == SUBSCRIBE
    assert not [e for e in plane.drain(1000) if isinstance(e, Wire)]


PARTS = st.sampled_from([b"ab", b"a", b"b", b"\n", b" ", b"{", b"\0", b"x" * 70, b"abab" * 80])
TEXTS = st.lists(PARTS, max_size=6).map(b"".join)
WORDS = st.sampled_from(["a", "ab", "ba", "{", "x\n", "bab"])
PREDICATES = st.builds(
    lambda field, op, values, cased: Predicate(field, op, tuple(values), cased=cased),
    st.sampled_from(["wire.sent", "wire.sent", "wire.received"]),
    st.sampled_from(["contains", "startswith"]),
    st.lists(WORDS, min_size=1, max_size=2),
    st.booleans(),
) | st.builds(
    lambda field, value: Predicate(field, "re", (value,)),
    st.sampled_from(["wire.sent", "wire.received"]),
    st.sampled_from([r"^\s*\{.*ab", "a[^b]", "(ab){3}", r"^[^{]*b", "x{60}a"]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(PREDICATES, min_size=1, max_size=5, unique=True),
    flows=st.lists(
        st.tuples(st.lists(TEXTS.filter(bool), min_size=1, max_size=4), st.booleans()), min_size=1, max_size=4
    ),
)
def test_kernel_and_daemon_agree(
    scene: Scene, listeners: list[Listener], asked: list[Predicate], flows: list[tuple[list[bytes], bool]]
) -> None:
    rules = tuple(Rule(str(i), "t", Level.HIGH, "wire", p, (Response.ALERT,)) for i, p in enumerate(asked))
    compiled = scene.load(Policy("random", 1, ("/ks/**",), Mode.MONITOR, rules))
    talker = Talker(scene.cgroup)
    for pieces, six in flows:
        scene.wires()
        talker.say(listeners[six], *pieces, wait=0.001)
        events = scene.wires()
        seen = events[-1].predicates & compiled.tables.told_bits if events else 0
        event = Wire(1, 1, 1, 1, 1, 0, b"", Transport.TCP, "192.0.2.1", 9, "sent", b"".join(pieces), b"", 0, False, 0, -1,
                     Done.NOTHING, 0)  # fmt: skip
        assert f"{seen:b}" == f"{compiled.wire_predicates(event) & compiled.tables.told_bits:b}", (pieces, asked)
    talker.close()


def test_python_copied_under_ssh_s_name_is_no_ssh(scene: Scene, listeners: list[Listener], tmp_path: Path) -> None:
    copy = tmp_path / "ssh"
    shutil.copy(sys.executable, copy)
    talker = Talker(scene.cgroup, copy)
    talker.say(listeners[0], b"SSH-2.0-OpenSSH_9.2p1\r\n")
    talker.close()
    assert bytes(listeners[0].heard[-1]) == b""
