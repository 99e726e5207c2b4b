"""Ordinary work that the shipped policy must leave alone: one command line a row, the executable by its path."""

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

BUILDS = r"""
/usr/bin/make -j8 -C /src/xmrig
/usr/bin/make -f Makefile.miner ccminer
/usr/bin/cmake -S /src/xmrig -B /src/xmrig/build -DWITH_RANDOMX=ON
/usr/bin/cmake -P script.cmake -U CACHE -L
/usr/bin/ctest -R '9000:localhost:22'
/usr/bin/ctest -R reverse -O out.log -u
/usr/bin/ninja -C build xmrig
/usr/bin/gcc -O2 -o miner.o -c miner.c -u main -p
/usr/bin/gcc -o xmrig main.o -Wl,--whole-archive
/usr/bin/g++ -O3 -march=native -o build/ethminer src/main.cpp
/usr/bin/x86_64-linux-gnu-ld -R /usr/lib -o a.out -u symbol
/usr/bin/clang -o randomx-test --randomize-functions
/usr/bin/cargo build --release --features rx/0
/usr/bin/cargo test -p stratum -- --nocapture
/usr/local/go/bin/go build -o ./bin/minerd ./cmd/minerd
/usr/local/go/bin/go test -run 'TestMiner/stratum' ./...
/usr/bin/npm install xmrig-proxy-web
/usr/bin/node scripts/mine-data.js --pool 4 --worker w1 -u
/usr/bin/docker build -t xmrig:latest -f Dockerfile.xmrig .
/usr/bin/docker run -u 1000:1000 -p 3333:3333 -o opt image
/usr/bin/docker pull ethereum/client-go
/usr/bin/docker exec -u root c1 ls -R /
/usr/bin/ccache gcc -c kworker.c -o kworker.o
/usr/bin/bear -- make kswapd.o
/usr/bin/objdump -R /usr/bin/ssh
/usr/bin/strip -R .comment -o out xmrig
/usr/bin/readelf -u -p .comment xmrig
/usr/bin/install -o root -m 755 xmrig /usr/local/bin/
/usr/bin/javac -d out Miner.java
/usr/bin/java -jar build/miner-tests.jar --pool 8 --user ci
/usr/bin/perf record -o perf.data -u -p 1234
/usr/bin/strace -o trace -u nobody -p 99 ls -R
/usr/bin/valgrind --log-file=x ./parser stratum
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --list /bin/ls
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 /bin/ls -R /src
/usr/bin/qemu-aarch64-static /bin/tar -R -cf x.tar /srv
/usr/bin/qemu-system-x86_64 -kernel xmrig/bzImage -append /xmrig
/usr/bin/wine notepad.exe xmrig.txt
/build/tests/rcu_scheduler_test --gtest_filter=rcu_sched
/opt/kworker-exporter/kworker-exporter --port 9100
/usr/local/bin/kworker_monitor -u
/usr/local/bin/kswapd-stats
/usr/bin/kded5
/usr/bin/kthxbye -o x
/srv/bin/migration --user=app --url=postgres://h/db
/srv/bin/writeback --pool=blocking
"""

REMOTE = r"""
/usr/bin/ssh host
/usr/bin/ssh host ls -R
/usr/bin/ssh host -- ls -R /srv
/usr/bin/ssh host 'chmod -R 755 /srv && chown -R www:www /srv'
/usr/bin/ssh -t host sudo chmod -R g+w /srv
/usr/bin/ssh -p 2222 user@host cp -R a b
/usr/bin/ssh -iMyRSAKey host
/usr/bin/ssh -i ~/.ssh/R user@host
/usr/bin/ssh -l R host
/usr/bin/ssh -F /etc/ssh/ssh_config host
/usr/bin/ssh -L 8080:localhost:80 host
/usr/bin/ssh -L9000:localhost:22 -N -f host
/usr/bin/ssh -D 1080 -N host
/usr/bin/ssh -J jump host ls -R
/usr/bin/ssh -W target:22 jump
/usr/bin/ssh -o ProxyJump=RemoteForward host
/usr/bin/ssh -o User=RemoteForward host
/usr/bin/ssh -o "SetEnv=A=-R" host
/usr/bin/ssh -E R.log host
/usr/bin/ssh -G -R 9000:localhost:22 host
/usr/bin/ssh -V
/usr/bin/ssh -Q cipher
/usr/bin/ssh -o ControlMaster=auto -o ControlPath=/tmp/R -O check host
/usr/bin/ssh -o SendEnv=GIT_PROTOCOL git@github.com "git-upload-pack 'xmrig/xmrig.git'"
/usr/bin/ssh -x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no host scp -r -f R
/usr/bin/ssh -oForwardX11=no -oPermitLocalCommand=no -oClearAllForwardings=yes -s host sftp
/usr/bin/ssh host rsync --server -logDtprRe.iLsfxC . /srv
/usr/bin/ssh -C -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -tt host /bin/sh -c 'echo ~ -R 9000:localhost:22'
/usr/bin/ssh host ssh -R 9000:localhost:22 elsewhere
/usr/bin/scp -R 64 file host:
/usr/bin/scp -r -o StrictHostKeyChecking=no dir host:/srv
/usr/bin/sftp -R 64 -B 32768 host
/usr/bin/rsync -aR --rsh='ssh -p 22' /srv/./a host:/b
/usr/bin/rsync -R a:b host:1:2
/usr/bin/rsync -avzR -e ssh src/ user@host:/dst
/usr/bin/ssh-keygen -R host
/usr/bin/ssh-keygen -R '[host]:9000'
/usr/bin/ssh-copy-id -i key -o StrictHostKeyChecking=no host
/usr/bin/ssh-add -R x
/usr/sbin/sshd -R
/usr/sbin/sshd -D -o RemoteForward=no -R
/etc/init.d/ssh restart
/usr/bin/dbclient host ls -R /a:b:c
/usr/bin/dbclient -i key host
/usr/bin/dbclient -L 9000:localhost:22 host
/usr/bin/plink -batch host ls -R
/usr/bin/ansible -u root -i hosts all -m command -a 'ls -R'
/usr/bin/git clone https://github.com/xmrig/xmrig.git
/usr/bin/git commit -u -m 'stratum+tcp:// is a scheme now'
/usr/bin/git push -u origin miner
/usr/bin/git log -p --grep=xmrig -u
/usr/bin/git log -S'ssh -R 9000:localhost:22' -p
/usr/bin/curl -o out.json -u user:pw https://api.example/
/usr/bin/curl -o xmrig.tar.gz -L https://github.com/xmrig/xmrig/releases/download/v6.21.0/xmrig.tar.gz
/usr/bin/curl -u k:s https://api.nicehash.com:443/api
/usr/bin/wget -O xmrig.zip https://example.org/xmrig.zip
/usr/bin/ping pool.supportxmr.com
/usr/bin/dig -p 53 pool.supportxmr.com
/usr/bin/nc -u 192.0.2.1 3333
/usr/bin/nmap -p 3333 -oN out -sU 192.0.2.1
/usr/bin/openssl s_client -connect pool.supportxmr.com:443
/usr/bin/openssl speed sha256 aes-128-gcm
"""

TEXTS = r"""
/usr/bin/grep -rn -e stratum+tcp:// -u --include=*.py
/usr/bin/grep -o 'stratum+tcp://[^ ]*' -u config.json
/usr/bin/grep '[kworker/0:1]' ps.txt
/usr/bin/grep -R 9000:localhost:22 .
/usr/bin/egrep -R 'xmrig|minerd|cpuminer' /var/log
/usr/bin/rg -u 'stratum\+tcp://' --algo
/root/.cargo/bin/rg -uu 'stratum+tcp://'
/usr/bin/ag -u stratum+tcp://
/usr/bin/sed -i s/xmrig/miner/ README.md
/usr/bin/sed -n -e '/donate-level/p' -u config
/usr/bin/awk -f miner.awk -u
/usr/bin/vim.basic xmrig.json
/usr/bin/vim.basic -u NONE -o a b
/usr/bin/nano /etc/minerd.conf
/usr/bin/less -R xmrig.log
/usr/bin/cat /proc/1/comm kworker
/usr/bin/echo -o stratum+tcp://pool.example:3333 -u wallet -p x
/usr/bin/echo xmrig --donate-level=1 --nicehash --algo rx/0
/usr/bin/echo ssh -o StrictHostKeyChecking=no -R 9000:localhost:22 host
/usr/bin/printf '%s\n' 'stratum+tcp://p:3333' -u w
/usr/bin/tee xmrig.log
/usr/bin/jq -r '.pools[].url' xmrig.json
/usr/bin/diff -u xmrig.conf minerd.conf
/usr/bin/patch -R -p1 -o out
/usr/bin/tr a-z A-Z
/usr/bin/head -n 5 xmrig
/usr/bin/bash -c 'echo stratum+tcp://pool.example:3333 -u wallet --donate-level 1'
/usr/bin/bash -c "ps aux | grep '[k]worker'"
/usr/bin/bash -c 'echo ssh -R 9000:localhost:22 -o StrictHostKeyChecking=no host'
/usr/bin/dash -c 'cd xmrig && make'
/usr/bin/python3.11 -c "print('stratum+tcp://', '--donate-level')"
/usr/bin/python3.11 -m pytest -u tests/test_rx/0
/usr/bin/python3.11 -u mock_pool.py stratum+tcp://localhost:3333
/usr/bin/python3.11 -u train.py --algo ppo --user=ci --url http://mlflow:5000
/usr/bin/python3.11 -u parse.py -o out.json
/usr/bin/python3.11 -u tests/test_url.py --pool 8
/usr/bin/python3.11 -m http.server 3333
/usr/bin/python3.11 train.py --algo gr --coin heads --threads 8 --cuda
/usr/bin/python3.11 train.py -a gr -t 8 -o out -u user -p x
/usr/bin/python3.11 rl.py --algo=cnn --opencl
/usr/bin/python3.11 bench.py --cpu-affinity 0xff --huge-pages
/usr/bin/python3.11 sweep.py --rig-count 4 --worker w
/usr/bin/python3.11 -c 'import paramiko; print("-R 9000:localhost:22")'
/usr/bin/perl -pe 's/xmrig/x/' -i file
/usr/bin/ruby -u miner.rb
/usr/bin/tmux new-session -d -s xmrig
/usr/bin/man xmrig
/usr/bin/which xmrig minerd
/usr/bin/test -x /usr/bin/xmrig
/usr/bin/[ kworker = x ]
/usr/bin/logger -t kworker '[kworker/0:1] hello'
"""

SYSTEM = r"""
/usr/bin/ls -R /srv/xmrig
/usr/bin/chmod -R 755 .
/usr/bin/chown -R user:group .
/usr/bin/cp -R xmrig /tmp
/usr/bin/mv xmrig xmrig.old
/usr/bin/rm -Rf /tmp/xmrig
/usr/bin/tar -R -czf xmrig.tar.gz xmrig
/usr/bin/tar -xzf xmrig-6.21.0-linux-x64.tar.gz -C /opt
/usr/bin/find / -name xmrig -o -user root -print
/usr/bin/find . -newer x -o -name 'kworker*'
/usr/bin/ps -u wallet -o pid,comm
/usr/bin/ps -o user -p 1
/usr/bin/pgrep -u root kworker
/usr/bin/pkill -u ci xmrig
/usr/bin/killall xmrig
/usr/bin/top -u user -p 1 -o %CPU
/usr/bin/lsof -u user -p 1 -i :3333
/usr/bin/sudo -u rig --user=x cn/r
/usr/bin/su -p user
/usr/bin/apt-get install -o Dpkg::Options::=--force-confold -y cpuminer
/usr/bin/apt-get remove xmrig
/usr/bin/apt-cache search miner
/usr/bin/dpkg -l minerd
/usr/bin/pip3 install -U stratum --user
/usr/bin/pip3 download --no-deps p2pool
/usr/bin/systemctl status xmrig.service
/usr/bin/journalctl -u xmrig -o cat -p err
/usr/bin/crontab -u user -l
/usr/bin/kubectl get pods -o wide -u x
/usr/bin/kubectl port-forward svc/db 9000:22 -n R
/usr/bin/helm upgrade --user x --pool y
/usr/bin/gh release download -R xmrig/xmrig -p '*.tar.gz' -O out
/usr/bin/mysql -u root -p secret -o db -h host:3306
/usr/bin/mysqldump --user=root --password=x -R --routines db
/usr/bin/psql -U user -p 5432 -o out.txt
/usr/bin/redis-cli -u redis://user@localhost:6379 -p 6379
/usr/bin/mongodump --uri=mongodb://u:p@h:27017 -o dump
/usr/bin/sqlite3 xmrig.db .tables
/usr/bin/pgbench -U user -p 5432 -t 1000 -R 9000
/usr/bin/sysbench cpu --threads=8 run
/usr/bin/stress-ng --cpu 8 --timeout 60
/usr/sbin/john --test
/usr/bin/sha256sum big.iso
/usr/bin/xz -9 -T8 big.tar
/usr/bin/ffmpeg -i a.mp4 -o out -t 8 -u x
/usr/bin/zmore x
/usr/bin/zm-import
/opt/games/t-rex/t-rex
/opt/rigel/bin/rigel --version
/opt/excavator/excavator -p 8080
/usr/bin/claymore-fonts
/usr/bin/determinerd
/usr/bin/xmrig-exporter --url http://localhost:8080
/usr/local/bin/xmrig_test
/usr/local/bin/minerdata --import
/usr/local/bin/text-miner -o out -u user
/usr/local/bin/ethminerals
/usr/local/bin/p2pool-docs
/usr/local/bin/datacpuminer
/home/a/xmrig/build.sh
/home/a/p2pool/scripts/build
/usr/bin/monero-wallet-cli --daemon-address node.example:18081 --wallet-file w
/usr/bin/monerod --detach --out-peers 8
/usr/bin/geth --http --user x
/usr/bin/bitcoin-cli -rpcuser=u -rpcpassword=p getmininginfo
/usr/bin/lightningd --daemon
/usr/bin/autossh -V
/usr/bin/socat TCP-LISTEN:3333 TCP:localhost:22
/usr/bin/iperf3 -c host -u -p 3333 -R
/usr/sbin/tcpdump -u -p -i lo port 3333
"""

TOOLS = r"""
/usr/bin/qemu-aarch64 /usr/bin/make -C /src/xmrig
/usr/bin/qemu-x86_64 -L /x /usr/bin/git clone https://x.example/xmrig
/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --list /opt/xmrig
/usr/bin/wine64 cmake.exe --build C:/xmrig
/usr/bin/python3.11 calibrate.py --rig-id cam0 --algo=cnn
/usr/bin/python3.11 train.py -o storage.example:9000 -u user --algo=cnn
/usr/bin/nc -klvp 9000 -e /bin/cat
/usr/bin/nc -lvnkp 4444 -e /bin/cat
/usr/bin/nc -c db.example 443
/usr/bin/nc -zv 10.0.0.1 22
/usr/bin/busybox nc -ll -p 80 -e /bin/cat
/usr/bin/socat TCP:ip6-localhost:1 EXEC:cat
/usr/bin/socat TCP:localhost:8000 TCP:localhost:9000
/usr/bin/socat TCP-LISTEN:2375,fork UNIX-CONNECT:/run/docker.sock
/usr/bin/ngrok config edit http
/usr/bin/ngrok http --help
/usr/bin/cloudflared tunnel create run
/usr/bin/cloudflared tunnel info run
/usr/bin/cloudflared tunnel delete --token=x
/usr/bin/cloudflared access tcp --hostname h --url localhost:2222
/usr/bin/frpc tcp --help
/usr/bin/bore local --help
/usr/bin/zrok share --help
/usr/bin/code tunnel --help
/usr/bin/devtunnel host --help
/usr/bin/tailscale funnel status
/usr/bin/tailscale ssh host
/usr/bin/node server.js lt --port 3000
/usr/bin/npx vite --port 3000
"""

LINES = [line for group in (BUILDS, REMOTE, TEXTS, SYSTEM, TOOLS) for line in group.strip().splitlines()]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_policies(load_files(FILES))


def test_there_are_many() -> None:
    assert len(LINES) >= 200 and len(set(LINES)) == len(LINES)


@pytest.mark.parametrize("line", LINES)
def test_ordinary_work_is_not_stopped(compiled: Compiled, line: str) -> None:
    executable, *arguments = shlex.split(line)
    fields = {"process.executable": executable, "process.args": (executable.rpartition("/")[2], *arguments)}
    event, extra = build_event("exec", fields)
    policies = (1 << len(compiled.policies)) - 1
    assert isinstance(event, Exec)
    found = (*compiled.matches(event, policies, extra), *compiled.later(event, policies, Facts(), extra))
    assert [one.rule.id for one in found if set(one.rule.response) - {Response.ALERT}] == []
    bits = compiled.predicates(event)
    assert compiled.clause(bits, (1 << len(compiled.policies)) - 1) == -1, "the kernel would"
