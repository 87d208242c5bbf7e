"""An OpenID Connect issuer on loopback: https, discovery, and a token endpoint that refreshes."""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import ssl
import threading
import time
import urllib.parse
from typing import Any

import trustme


def jwt(lives: float, **claims: Any) -> str:
    """An ID token that ends in so many seconds; nobody here checks its signature."""
    claims = {"exp": int(time.time() + lives), "jti": secrets.token_hex(8), **claims}
    parts = [{"alg": "none"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2ln"]).decode()


class Issuer:
    """Issues tokens to one client, and takes each refresh token once.

    ``answer`` replaces the answer of the token endpoint, ``asked`` tells what it was asked for.
    """

    client_id, client_secret = "kube client", "s3cret-of-client/+"

    def __init__(self) -> None:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign]
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._server.server_port}/realm"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        self.reset()

    def reset(self) -> None:
        """Forget what happened."""
        self.refresh_token = secrets.token_urlsafe(16)
        self.asked: list[dict[str, Any]] = []
        self.issued: list[str] = []
        self.answer: tuple[int, Any] | None = None
        self.discovery: tuple[int, Any] | None = None
        self.by_header = True  # or else by fields of the form

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def config(self, **other: str) -> dict[str, str]:
        """What a kubeconfig has of it."""
        return {
            "idp-issuer-url": self.url,
            "client-id": self.client_id,
            "client-secret": self.client_secret,
            "idp-certificate-authority-data": base64.b64encode(self.ca_pem).decode(),
            "refresh-token": self.refresh_token,
            **other,
        }

    def discover(self) -> tuple[int, Any]:
        return self.discovery or (
            200,
            {"issuer": self.url, "token_endpoint": f"{self.url}/token?x=1"},
        )

    def give(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        self.asked.append(form)
        if self.answer is not None:
            return self.answer
        pair = ":".join(
            urllib.parse.quote_plus(each) for each in (self.client_id, self.client_secret)
        )
        expected = f"Basic {base64.b64encode(pair.encode()).decode()}"
        in_form = form.get("client_secret") == self.client_secret
        if not (authorization == expected if self.by_header else in_form):
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != "refresh_token" or form["refresh_token"] != self.refresh_token:
            return 400, {"error": "invalid_grant", "error_description": "used before"}
        self.refresh_token = secrets.token_urlsafe(16)
        self.issued.append(jwt(3600))
        given = {"id_token": self.issued[-1], "refresh_token": self.refresh_token}
        return 200, {"access_token": "unused", "token_type": "Bearer", "expires_in": 3600, **given}


def _handler(issuer: Issuer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/realm/.well-known/openid-configuration"
            self._answer(*(issuer.discover() if known else (404, {})))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = dict(urllib.parse.parse_qsl(body))
            known = self.path == "/realm/token?x=1"
            authorization = self.headers.get("Authorization", "")
            self._answer(*(issuer.give(form, authorization) if known else (404, {})))

        def _answer(self, code: int, document: Any) -> None:
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
