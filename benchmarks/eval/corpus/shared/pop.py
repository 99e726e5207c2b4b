"""A POP3 server with forty mails, at port 110 of the address in the environment variable that is given."""

import os
import random
import socketserver
import sys

MAILS = [f"From: a@b.example\r\nSubject: {i}\r\n\r\n" + "text\r\n" * random.randint(5, 60) for i in range(40)]


class Session(socketserver.StreamRequestHandler):
    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("+OK ready")
        while words := self.rfile.readline().decode().split():
            number = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
            match words[0].upper():
                case "CAPA":
                    self.say("+OK\r\nUSER\r\nUIDL\r\n.")
                case "STAT":
                    self.say(f"+OK {len(MAILS)} {sum(map(len, MAILS))}")
                case "LIST" if not number:
                    self.say("+OK\r\n" + "".join(f"{i + 1} {len(m)}\r\n" for i, m in enumerate(MAILS)) + ".")
                case "UIDL" if not number:
                    self.say("+OK\r\n" + "".join(f"{i + 1} u{i + 1}\r\n" for i in range(len(MAILS))) + ".")
                case "LIST" | "UIDL":
                    self.say(f"+OK {number} {len(MAILS[number - 1])}")
                case "RETR" | "TOP":
                    self.say("+OK\r\n" + MAILS[number - 1] + ".")
                case "QUIT":
                    return self.say("+OK")
                case _:
                    self.say("+OK")


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((os.environ[sys.argv[1]], 110), Session).serve_forever()
