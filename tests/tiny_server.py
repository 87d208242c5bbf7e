"""tiny-proxy as a program that prints the port it listens at.

``tiny.py HOST USER PASSWORD`` is a SOCKS5 proxy, with a file of certificate and key at the end an ``https``
one. It holds little: while one side does not take its bytes, it reads none from the other.
"""

from __future__ import annotations

import ssl
import sys

import anyio
from anyio.streams.tls import TLSListener
from tiny_proxy import HttpProxyHandler, Socks5ProxyHandler


async def main(host: str, username: str, password: str, certificate: str = "") -> None:
    listener = await anyio.create_tcp_listener(local_host=host, local_port=0)
    print(listener.extra(anyio.abc.SocketAttribute.local_port), flush=True)
    if not certificate:
        await listener.serve(Socks5ProxyHandler(username or None, password or None).handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    tls = TLSListener(listener, context, standard_compatible=False)
    await tls.serve(HttpProxyHandler(username or None, password or None).handle)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
