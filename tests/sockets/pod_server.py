"""What a pod listens with, sent there as text: the first line that a connection gets says what to do."""

import hashlib
import socketserver
import sys
import time


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().split()
        getattr(self, words[0].decode() if words else "echo")(*words[1:])

    def echo(self):
        """Send back what comes, to its end."""
        while piece := self.rfile.read1(65536):
            self.wfile.write(piece)

    def source(self, size):
        """Send so many bytes and close."""
        block = bytes(range(256)) * 256
        left = int(size)
        while left:
            left -= self.connection.send(block[: min(left, len(block))])

    def take(self, size):
        """Read so many bytes, and send their digest."""
        digest = hashlib.sha256()
        left = int(size)
        while left and (piece := self.rfile.read1(min(left, 1 << 20))):
            left -= len(piece)
            digest.update(piece)
        self.wfile.write(digest.hexdigest().encode())

    def tail(self, size):
        """Read so many bytes, think, and answer."""
        self.rfile.read(int(size))
        time.sleep(0.2)
        self.wfile.write(b"the tail")

    def hold(self):
        """Read nothing until the connection ends."""
        time.sleep(30)

    def quit(self):
        self.server.shutdown()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, address):
        """Say nothing: tests break connections."""


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever(poll_interval=0.05)
    sys.exit()
