"""A web server for a pod: only what the standard library has, for it runs in other images, too."""

import base64
import hashlib
import http.server
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    whole = 0  # bodies that came to their end

    def pieces(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left and (piece := self.rfile.read(min(left, 1 << 16))):
                left -= len(piece)
                yield piece
            self.close_connection = self.close_connection or left > 0  # the client has gone
            Handler.whole += left == 0

    def do(self):
        where = urlsplit(self.path)
        name = where.path.strip("/").split("/")[0]
        self.query = {key: values[0] for key, values in parse_qs(where.query).items()}
        getattr(self, f"on_{name}", self.on_other)()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def on_other(self):
        self.answer(404, b"there is no such page", Content_Type="text/plain")

    def on_echo(self):
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
        headers = {key.lower(): value for key, value in self.headers.items()}
        said = {"method": self.command, "path": self.path, "headers": headers}
        said.update(sha256=digest.hexdigest(), size=size, whole=Handler.whole)
        back = self.headers.get("X-Mine", "")
        body = json.dumps(said).encode()
        self.answer(200, body, Content_Type="application/json", X_Of="a pod", X_Back=back)

    def on_code(self):
        list(self.pieces())
        code = int(self.path.split("/")[2])
        self.answer(code, b'{"error": "of the pod"}', Content_Type="application/json")

    def on_bytes(self):
        size = int(self.query["n"])
        self.send_response(200)
        self.send_header("Content-Length", str(size + int(self.query.get("missing", 0))))
        self.end_headers()
        while size and self.command != "HEAD":
            piece = bytes(min(size, 1 << 16))
            self.wfile.write(piece)
            size -= len(piece)
        self.close_connection = "missing" in self.query

    def on_ticks(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(self.query["n"])):
            line = b"tick %d\n" % number
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(float(self.query["pause"]))
        self.wfile.write(b"0\r\n\r\n")

    def on_moved(self):
        self.answer(302, Location="/echo?moved=1")

    def on_enough(self):
        self.close_connection = True
        self.answer(413, b"that is enough", Connection="close")

    def on_chat(self):
        if "Upgrade" not in self.headers:
            self.answer(426, b"a WebSocket is wanted")
            return
        if self.path.startswith("/chat/closed"):
            self.answer(403, b"not for you", Content_Type="text/plain")
            return
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + guid).encode()).digest()
        self.send_response(101)
        for key, value in {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": base64.b64encode(accept).decode(),
            "X-Seen-Path": self.path,
        }.items():
            self.send_header(key, value)
        offered = self.headers.get("Sec-WebSocket-Protocol")
        if offered:
            self.send_header("Sec-WebSocket-Protocol", offered.split(",")[0].strip())
        self.end_headers()
        self.frame(0x81, b"hello, " + self.headers.get("X-Who", "you").encode())
        self.close_connection = True
        while head := self.rfile.read(2):
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), "big")
            mask = int.from_bytes(self.rfile.read(4) * (size // 4 + 1), "big")
            shift = 8 * (4 * (size // 4 + 1) - size)
            data = int.from_bytes(self.rfile.read(size), "big") ^ mask >> shift
            self.frame(head[0], data.to_bytes(size, "big"))
            if head[0] & 15 == 8:
                return

    def frame(self, first, data):
        size = len(data)
        if size < 126:
            head = bytes([first, size])
        elif size < 1 << 16:
            head = bytes([first, 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([first, 127]) + size.to_bytes(8, "big")
        self.wfile.write(head + data)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
