"""Paths and queries, read back by the standard library."""

from __future__ import annotations

from typing import Any, Optional
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubews.protocol.requests import (
    attach_path,
    exec_path,
    object_path,
    pod_path,
    pods_path,
    proxy_path,
)

ODD = [
    "a b",
    "a+b",
    "a&b=c",
    "a#b",
    "a?b",
    "a/b",
    "a%20b",
    "%",
    "é",
    "𝄞",
    "\r\nX-Injected: 1",
    "\0",
    "~",
    ";",
    '"',
]

text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


def query_of(path: str) -> list[tuple[str, str]]:
    parts = urlsplit(path)
    assert parts.scheme == parts.netloc == parts.fragment == ""
    return parse_qsl(
        parts.query,
        keep_blank_values=True,
        strict_parsing=True,
        errors="surrogateescape",
    )


def test_plain() -> None:
    path = exec_path("shop", "web-0", ["ls", "-l"], container="app", stdin=True)
    assert path == (
        "/api/v1/namespaces/shop/pods/web-0/exec"
        "?container=app&command=ls&command=-l&stdin=true&stdout=true&stderr=true"
    )


@pytest.mark.parametrize("container", [None, ""])
def test_no_container(container: Optional[str]) -> None:
    assert "container" not in exec_path("n", "p", ["x"], container=container)


def test_flags() -> None:
    """An absent parameter is the only way to say no: ``stdin=`` would mean yes."""
    for bits in range(16):
        wanted = [bool(bits >> n & 1) for n in range(4)]
        stdin, stdout, stderr, tty = wanted
        path = exec_path("n", "p", ["x"], stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
        flags = [name for n, name in enumerate(["stdin", "stdout", "stderr", "tty"]) if wanted[n]]
        assert query_of(path) == [("command", "x"), *((name, "true") for name in flags)]


@pytest.mark.parametrize("odd", ODD)
def test_odd_argument(odd: str) -> None:
    path = exec_path("n", "p", ["sh", "-c", odd, ""], container=odd, stderr=False)
    assert query_of(path) == [
        ("container", odd),
        ("command", "sh"),
        ("command", "-c"),
        ("command", odd),
        ("command", ""),
        ("stdout", "true"),
    ]
    assert path.isascii()
    assert path.isprintable()
    assert " " not in path


@pytest.mark.parametrize("odd", ODD)
def test_odd_name(odd: str) -> None:
    """A name is one segment, whatever is in it."""
    segments = pod_path(odd, odd).split("/")
    assert segments[:4] == ["", "api", "v1", "namespaces"]
    assert [unquote(segments[4]), segments[5], unquote(segments[6])] == [odd, "pods", odd]
    assert len(segments) == 7


@pytest.mark.parametrize("raw", [b"\xff", b"a\x80b", b"\xc3", b"caf\xe9"])
def test_argument_that_is_not_utf8(raw: bytes) -> None:
    """An argument of ``os.fsdecode`` goes out as the bytes it came from."""
    argument = raw.decode("utf-8", "surrogateescape")
    path = exec_path("n", "p", [argument])
    assert query_of(path)[0] == ("command", argument)
    assert "".join(f"%{byte:02X}" for byte in raw if byte > 127) in path


def test_lone_surrogate() -> None:
    """No bytes stand for it, so it cannot be sent, and nothing is put in its place."""
    with pytest.raises(UnicodeEncodeError):
        exec_path("n", "p", ["\ud800"])


@given(namespace=text, name=text, command=st.lists(text, max_size=5), container=st.none() | text)
def test_any_text(namespace: str, name: str, command: list[str], container: Optional[str]) -> None:
    path = exec_path(namespace, name, command, container=container)
    expected = [("container", container)] if container else []
    expected += [("command", argument) for argument in command]
    assert query_of(path) == [*expected, ("stdout", "true"), ("stderr", "true")]
    segments = urlsplit(path).path.split("/")
    assert [unquote(segments[4]), unquote(segments[6])] == [namespace, name]
    assert segments[7:] == ["exec"]


@given(raw=st.binary(max_size=20))
def test_any_bytes_through_fsdecode(raw: bytes) -> None:
    argument = raw.decode("utf-8", "surrogateescape")
    (value,) = [v for k, v in query_of(exec_path("n", "p", [argument])) if k == "command"]
    assert value.encode("utf-8", "surrogateescape") == raw


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"tty": False}, [("stdout", "true"), ("stderr", "true")]),
        ({"tty": True}, [("stdout", "true"), ("tty", "true")]),
        (
            {"tty": False, "stdin": True, "container": "a b"},
            [("container", "a b"), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")],
        ),
    ],
)
def test_attachments(options: dict[str, Any], query: list[tuple[str, str]]) -> None:
    """A terminal has no stderr of its own: servers refuse both together."""
    path = attach_path("shop", "web-0", **options)
    assert path.partition("?")[0] == "/api/v1/namespaces/shop/pods/web-0/attach"
    assert query_of(path) == query


def test_objects() -> None:
    assert object_path("shop", "services", "web") == "/api/v1/namespaces/shop/services/web"
    assert (
        object_path("shop", "deployments", "we/b", group="apps")
        == "/apis/apps/v1/namespaces/shop/deployments/we%2Fb"
    )


def test_pods_of_a_selector() -> None:
    path = pods_path("sh/op", "app=web,tier in (a, b)")
    assert (
        path
        == "/api/v1/namespaces/sh%2Fop/pods?labelSelector=app%3Dweb%2Ctier%20in%20%28a%2C%20b%29"
    )


PODS = "/api/v1/namespaces/shop/pods"


@pytest.mark.parametrize(
    ("port", "scheme", "segment"),
    [
        ("", "", "web-0"),
        ("80", "", "web-0:80"),
        ("http", "", "web-0:http"),
        ("", "https", "https:web-0:"),
        ("443", "https", "https:web-0:443"),
    ],
)
@pytest.mark.parametrize("path", ["", "/", "//", "a", "/a/b/", "/a?x=1&y=%2F", "?x", "/a?"])
def test_proxied(port: str, scheme: str, segment: str, path: str) -> None:
    whole = proxy_path(PODS, "web-0", port, scheme, path)
    assert whole == f"{PODS}/{segment}/proxy/{path.lstrip('/')}"


@pytest.mark.parametrize(
    "path", ["..", "/../x", "/a/%2e%2e/b", "/a/..%2fb", "/./x", "/%2E", "/a%2F.."]
)
def test_a_proxied_path_that_leads_to_others(path: str) -> None:
    with pytest.raises(ValueError, match="segments of dots"):
        proxy_path(PODS, "web-0", "", "", path)


@pytest.mark.parametrize("path", ["/...", "/.a", "/a..", "/a?x=/../y", "/%252e%252e", "/a/.%20./b"])
def test_a_proxied_path_with_other_dots(path: str) -> None:
    assert proxy_path(PODS, "web-0", "", "", path) == f"{PODS}/web-0/proxy{path}"


@pytest.mark.parametrize("path", ["/100%", "/%zz", "/%2", "/%%20"])
def test_a_proxied_path_that_is_not_encoded(path: str) -> None:
    """Go answers 400 to it, which looks like the pod's own word. In a query everything is allowed."""
    with pytest.raises(ValueError, match="%25"):
        proxy_path(PODS, "web-0", "", "", path)
    assert proxy_path(PODS, "web-0", "", "", f"/?{path}").endswith(f"/proxy/?{path}")


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("", ""),
        ("..", ""),
        (".", ""),
        ("https:web", ""),
        ("a/b", ""),
        ("a%2Fb", ""),
        ("web", "80/proxy/.."),
        ("web", "80:81"),
        ("web", "80%2f"),
    ],
)
def test_a_proxied_name_that_leads_to_others(name: str, port: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        proxy_path(PODS, name, port, "", "/")


@given(path=text)
def test_any_proxied_path(path: str) -> None:
    """It ends neither the line nor the path, and names nobody else."""
    try:
        whole = proxy_path(PODS, "web-0", "80", "", path)
    except ValueError:
        return
    parts = urlsplit(whole)
    assert whole.isascii()
    assert whole.isprintable()
    assert " " not in whole
    assert parts.fragment == ""
    assert parts.path.startswith(f"{PODS}/web-0:80/proxy/")
    asked, _, query = path.partition("?")
    assert unquote(parts.path.partition("/proxy/")[2]) == unquote(asked).lstrip("/")
    assert unquote(parts.query) == unquote(query)
