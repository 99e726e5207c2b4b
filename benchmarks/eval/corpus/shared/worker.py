"""A miner in Python that takes a well-known miner's options and configuration file. It mines nothing."""

import hashlib
import json
import socket
import ssl
import sys
import time
from pathlib import Path

ARGS = sys.argv[1:]


def after(*names):
    for i, word in enumerate(ARGS):
        for name in names:
            if word == name:
                return ARGS[i + 1]
            if word.startswith(name + "="):
                return word[len(name) + 1 :]
    return ""


config = after("-c", "--config")
pool = (
    json.loads(Path(config).read_text())["pools"][0]
    if config
    else {"url": after("-o", "--url"), "user": after("-u", "--user")}
)
host, port = pool["url"].split("://")[-1].rsplit(":", 1)
s = socket.create_connection((host, int(port)), 10)
if pool.get("tls") or "ssl" in pool["url"]:
    s = ssl.create_default_context().wrap_socket(s, server_hostname=host)
login = {"id": 1, "jsonrpc": "2.0", "method": "login", "params": {"login": pool["user"], "pass": "x", "agent": "w/1"}}
s.sendall(json.dumps(login).encode() + b"\n")
s.recv(4096)
end, n = time.time() + 280, 0
while time.time() < end:
    for _ in range(20000):
        n += 1
        hashlib.sha256(hashlib.sha256(b"%d" % n).digest()).digest()
    s.sendall(b'{"id":2,"method":"submit","params":{"id":"1","job_id":"1","nonce":"1","result":"0"}}\n')
