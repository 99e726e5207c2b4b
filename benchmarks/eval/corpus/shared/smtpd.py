"""A mail server that takes everything, at port 25 of the address that is given, or of the environment variable of that name."""

import os
import socketserver
import sys


class Session(socketserver.StreamRequestHandler):
    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("220 mail.example ESMTP")
        while line := self.rfile.readline():
            match line[:4].upper():
                case b"DATA":
                    self.say("354 go on")
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    self.say("250 queued")
                case b"QUIT":
                    return self.say("221 bye")
                case _:
                    self.say("250 ok")


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((os.environ.get(sys.argv[1], sys.argv[1]), 25), Session).serve_forever()
