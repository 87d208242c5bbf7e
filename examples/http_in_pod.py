"""Talk to an HTTP server in a pod: without a local port, and through one."""

from __future__ import annotations

import http.client
import urllib.request

from kubews import DEVNULL, PIPE
from kubews.testing import LocalCluster

SERVER = (
    "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
    "print(s.server_port, flush=True); s.serve_forever()"
)

with LocalCluster() as cluster, cluster.client() as client:
    cluster.add_pod("web-0")
    pod = client.pod("web-0")
    server = pod.popen(["python3", "-c", SERVER], stdout=PIPE, stderr=DEVNULL, text=True)
    port = int(server.stdout.readline())

    # A socket into the pod, for whatever takes a socket.
    connection = http.client.HTTPConnection("web-0")
    connection.sock = pod.connect(port, timeout=10)
    connection.request("GET", "/")
    print("without a local port:", connection.getresponse().status)
    connection.close()

    # A local port, for what wants an address.
    with pod.forward(port) as forward, urllib.request.urlopen(forward.url) as response:
        print("through a local port:", response.status)

    # Nothing listens there: the first call that meets it says so, with the server's words.
    with pod.connect(9, timeout=10) as sock:
        try:
            sock.recv(1)
        except ConnectionRefusedError as exc:
            print("refused:", "connection refused" in str(exc))

    server.close()
