"""Headers and certificates of one connection."""

from __future__ import annotations

import base64
import os
import pickle
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from kubews.config import ClientCertificate, Credentials, User, cluster, credentials
from kubews.errors import CredentialsError


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User(), {}),
        (User(token="abc"), bearer("abc")),
        (User(token=" abc\r\n"), bearer("abc")),
        (User(token="\n"), {}),
        (User(token="a b\xe9"), bearer("a b\xe9")),
        (User(username="u", password="p:\u00fc"), {"Authorization": "Basic dTpwOsO8"}),
        (User(username="u"), {"Authorization": "Basic dTo="}),
        (User(password="p"), {"Authorization": "Basic OnA="}),
        (User(client_certificate="cert.pem", client_key="key.pem"), {}),
    ],
)
def test_headers(user: User, expected: dict[str, str]) -> None:
    assert Credentials(user).headers() == expected
    assert Credentials(user).headers(secure=True) == expected


@pytest.mark.parametrize(
    "user",
    [
        User(token="abc"),
        User(token_file="missing"),
        User(username="u", password="p"),
        User(client_certificate="missing", client_key="missing"),
    ],
)
def test_nothing_is_sent_over_plain_http(user: User) -> None:
    assert Credentials(user).headers(secure=False) == {}
    assert Credentials(user).client_certificate(secure=False) is None


def test_headers_are_the_callers(machine: Path) -> None:
    mine = Credentials(User(token="abc"))
    mine.headers()["Authorization"] = "x"
    assert mine.headers() == bearer("abc")


@pytest.mark.parametrize(
    "bad", ["s3c\nret", "s3c\rret", "s3c\0ret", "s3c\x7fret", "s3c\u20acret", "s3c\x85ret"]
)
def test_tokens_that_no_header_can_hold(bad: str, machine: Path) -> None:
    """R-30: no header injection."""
    with pytest.raises(CredentialsError, match=r'^token of user "alice" has characters') as caught:
        Credentials(User(token=bad, name="alice")).headers()
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3c" not in shown
    (machine / "tok").write_bytes(bad.encode("utf-8"))
    if bad != "s3c\u20acret":  # its bytes are latin-1 characters, or controls
        with pytest.raises(CredentialsError, match=r'^token file "tok" has characters'):
            Credentials(User(token_file="tok")).headers()


# -- tokens in files


def test_a_token_file_is_read_for_every_connection(machine: Path) -> None:
    """R-30."""
    mine = Credentials(User(token="static", token_file="tok"))
    for token in ("one", "two"):
        (machine / "tok").write_text(f"\n {token}\r\n")
        assert mine.headers() == bearer(token)


def test_a_token_file_that_never_could_be_read(machine: Path) -> None:
    mine = Credentials(User(token_file="tok"))
    with pytest.raises(
        CredentialsError, match=r'^failed to read token file "tok": open tok: No such'
    ):
        mine.headers()
    (machine / "tok").write_text(" \n")
    with pytest.raises(CredentialsError, match=r'^read empty token from file "tok"$'):
        mine.headers()
    with pytest.raises(CredentialsError, match="not a possible path"):
        Credentials(User(token_file="a\0b")).headers()


def test_the_token_stands_in_for_an_unreadable_file(machine: Path) -> None:
    mine = Credentials(User(token="static\n", token_file="tok"))
    assert mine.headers() == bearer("static")
    (machine / "tok").write_text("from-file")
    assert mine.headers() == bearer("from-file")


def test_after_a_success_the_old_token_is_kept_until_it_is_refused(machine: Path) -> None:
    """R-30."""
    mine = Credentials(User(token_file="tok"))
    (machine / "tok").write_text("one")
    assert mine.headers() == bearer("one")
    (machine / "tok").write_text("")
    assert mine.headers() == bearer("one")
    (machine / "tok").unlink()
    assert mine.headers() == bearer("one")
    mine.forget()
    with pytest.raises(CredentialsError, match="failed to read token file"):
        mine.headers()


def test_fifty_threads_and_a_rotating_file(machine: Path) -> None:
    """R-30."""
    mine = Credentials(User(token_file="tok"))
    (machine / "tok").write_text("token-0")
    stop = threading.Event()
    seen: set[str] = set()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.wait(0.002):  # without a pause fifty leave nothing to whoever rotates
                seen.add(mine.headers()["Authorization"])
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        if number % 3:
            (machine / "new").write_text(f"token-{number}\n")
            os.replace(machine / "new", machine / "tok")
        else:  # not atomic: there is a moment at which the file is empty
            (machine / "tok").write_text(f"token-{number}\n")
        if number % 7 == 0:
            os.replace(machine / "tok", machine / "away")
            mine.headers()
            os.replace(machine / "away", machine / "tok")
        time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert len(seen) > 10
    assert seen <= {f"Bearer token-{number}" for number in range(60)}
    assert mine.headers() == bearer("token-59")


def test_no_file_is_read_under_the_lock(
    machine: Path, monkeypatch: pytest.MonkeyPatch, pem: Any
) -> None:
    for name, data in (("tok", b"t"), ("cert", pem.cert), ("key", pem.key)):
        (machine / name).write_bytes(data)
    mine = Credentials(User(token_file="tok", client_certificate="cert", client_key="key"))
    opened = []

    def spy(path: str, *args: Any) -> Any:
        held = []
        other = threading.Thread(target=lambda: held.append(mine._lock.acquire(blocking=False)))
        other.start()
        other.join()
        opened.append((path, held))
        return open(path, *args)

    monkeypatch.setattr(credentials, "open", spy, raising=False)
    monkeypatch.setattr(cluster, "open", spy, raising=False)
    monkeypatch.setattr(mine, "_lock", OneShotLock())
    mine.headers()
    mine.client_certificate()
    assert opened == [("tok", [True]), ("cert", [True]), ("key", [True])]


class OneShotLock:
    """An RLock whose probing acquire gives back at once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, blocking: bool) -> bool:
        got = self._lock.acquire(blocking=blocking)
        if got:
            self._lock.release()
        return got

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


# -- certificates


def loads(pair: Optional[ClientCertificate], directory: Path) -> None:
    """See that ssl takes the pair."""
    assert pair is not None
    (directory / "pair").write_bytes(pair.cert_pem + b"\n" + pair.key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(directory / "pair")


def test_certificate_from_data_files_and_both(machine: Path, pem: Any) -> None:
    (machine / "cert").write_bytes(pem.cert)
    (machine / "key").write_bytes(pem.key)
    users = [
        User(client_certificate_data=pem.cert, client_key_data=pem.key),
        User(client_certificate="cert", client_key="key"),
        User(client_certificate="cert", client_key_data=pem.key),
        User(client_certificate_data=pem.cert, client_key="key"),
        User(
            client_certificate="no", client_certificate_data=pem.cert,
            client_key="no", client_key_data=pem.key,
        ),
    ]  # fmt: skip
    for user in users:
        pair = Credentials(user).client_certificate()
        assert pair == ClientCertificate(pem.cert, pem.key)
        assert hash(pair) == hash(pickle.loads(pickle.dumps(pair)))
        loads(pair, machine)
    assert Credentials(User(token="t")).client_certificate() is None
    assert Credentials(User(client_key="no")).client_certificate() is None


def test_certificates_are_read_again(machine: Path, pem: Any) -> None:
    mine = Credentials(User(client_certificate="cert", client_key="key"))
    (machine / "cert").write_bytes(pem.cert)
    (machine / "key").write_bytes(pem.key)
    first = mine.client_certificate()
    (machine / "cert").write_bytes(pem.second_cert)
    (machine / "key").write_bytes(pem.second_key)
    second = mine.client_certificate()
    assert second == ClientCertificate(pem.second_cert, pem.second_key) != first
    (machine / "key").unlink()
    assert mine.client_certificate() == second
    mine.forget()
    with pytest.raises(CredentialsError, match="unable to read client-key key for"):
        mine.client_certificate()


KEYS: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda key: b"", "client-key key holds no PEM private key"),
    (
        lambda key: b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
        "client-key key is encrypted; .*openssl pkey",
    ),
    (
        lambda key: b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        "client-key key is encrypted",
    ),
]


@pytest.mark.parametrize(("make", "text"), KEYS)
def test_keys_that_cannot_be_used(
    machine: Path, pem: Any, make: Callable[[bytes], bytes], text: str
) -> None:
    (machine / "key").write_bytes(make(pem.key))
    user = User(client_certificate_data=pem.cert, client_key="key")
    with pytest.raises(CredentialsError, match=text):
        Credentials(user).client_certificate()


def test_certificates_that_cannot_be_used(machine: Path, pem: Any) -> None:
    cases = [
        (User(client_certificate_data=b"x", client_key_data=pem.key, name="u"),
         'client-certificate-data of user "u" holds no PEM certificate'),
        (User(client_certificate_data=pem.cert, client_key_data=b"s3cret", name="u"),
         'client-key-data of user "u" holds no PEM private key'),
        (User(client_certificate="no", client_key_data=pem.key, name="u"),
         "unable to read client-cert no for u due to open no: No such file"),
        (User(client_certificate_data=pem.cert, name="u"),
         "client-key-data or client-key must be specified for u"),
    ]  # fmt: skip
    for user, text in cases:
        with pytest.raises(CredentialsError, match=text) as caught:
            Credentials(user).client_certificate()
        assert "s3cret" not in str(caught.value)


def test_the_secrets_of_a_real_pair_are_not_shown(pem: Any) -> None:
    mine = Credentials(
        User(client_certificate_data=pem.cert, client_key_data=pem.key, token="s3cret")
    )
    shown = f"{mine!r} {mine.client_certificate()!r} {mine!s}"
    assert "s3cret" not in shown
    assert "BEGIN" not in shown
    assert base64.b64encode(pem.key).decode()[:20] not in shown
