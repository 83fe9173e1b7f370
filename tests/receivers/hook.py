"""A webhook's receiver: takes what is signed with $HOOK_SECRET and not five minutes old, refuses the rest with 401.

python -m tests.receivers.hook FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.receivers import hear, next_answer

FOLDER = Path(sys.argv[1])


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = next_answer(FOLDER)
        if said == "hang":
            time.sleep(600)
        if said == "drip":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.2)
        status = 401 if not self.is_signed(body) else said or 200
        hear(FOLDER, status=status, id=self.headers["Webhook-Id"], body=json.loads(body))
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "120")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def is_signed(self, body: bytes) -> bool:
        number, then = self.headers["Webhook-Id"], self.headers["Webhook-Timestamp"]
        digest = hmac.digest(os.environ["HOOK_SECRET"].encode(), f"{number}.{then}.".encode() + body, hashlib.sha256)
        expected = "v1," + base64.b64encode(digest).decode()
        return hmac.compare_digest(expected, self.headers["Webhook-Signature"]) and abs(time.time() - int(then)) < 300

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
sys.stdout.write(f"{server.server_address[1]}\n")
sys.stdout.flush()
server.serve_forever()
