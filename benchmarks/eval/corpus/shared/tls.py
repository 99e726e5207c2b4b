"""Stratum in TLS to HOST, with the name in SNI or none: tls.py HOST [NAME]. It mines nothing."""

import hashlib
import socket
import ssl
import sys
import time

host, name = sys.argv[1], (sys.argv[2:] or [None])[0]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
s = context.wrap_socket(socket.create_connection((host, 443)), server_hostname=name)
s.sendall(b'{"id":1,"method":"login","params":{"login":"48x","pass":"x","agent":"t/1"}}\n')
s.recv(4096)
end = time.time() + 280
while time.time() < end:
    hashlib.scrypt(b"%d" % time.time_ns(), salt=b"x", n=1024, r=1, p=1)
