"""R-29: the proxy that kubectl would choose; the golden table is what Go's own code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubews import Config, errors
from kubews.config import proxies
from kubews.config.cluster import Cluster
from kubews.config.proxies import Proxy

TABLE = [
    line.split("\t")
    for line in (Path(__file__).parent / "proxies.tsv").read_text(encoding="utf-8").splitlines()
]
RULES = [(rule, exempt.split()) for kind, rule, exempt in TABLE if kind == "NO_PROXY"]
ENVIRONMENTS = [row for row in TABLE if row[0] != "NO_PROXY"]
#: Every server of the table: the rule "*" exempts all.
SERVERS = dict(RULES)["*"]
GIVEN = "http://proxy.example:3128"
SECRET = "s3cr3t"


def chosen(environ: dict[str, str], server: str) -> Proxy | None:
    return proxies.choose(Cluster(server), environ)


# -- golden: golang.org/x/net/http/httpproxy


def test_the_table_is_whole() -> None:
    assert len(RULES) > 65
    assert len(SERVERS) > 30
    assert len(ENVIRONMENTS) > 40


def test_no_proxy_as_go_r29() -> None:
    for rule, exempt in RULES:
        environ = {"HTTPS_PROXY": GIVEN, "HTTP_PROXY": GIVEN, "NO_PROXY": rule}
        ours = [server for server in SERVERS if chosen(environ, server) is None]
        assert ours == exempt, f"NO_PROXY={rule!r}"


def as_in_the_table(environ: dict[str, str], server: str) -> str:
    try:
        proxy = chosen(environ, server)
    except errors.ConfigError as exc:
        return "!" if "CGI environment" in str(exc) else str(exc)
    if proxy is None:
        return "-"
    # Go leaves the default port to its transport.
    named = any(value.rstrip("/").endswith(f":{proxy.port}") for value in environ.values())
    port = str(proxy.port) if named else "-"
    credentials = [(proxy.username or b"").decode() or "-", proxy.password.decode() or "-"]
    return " ".join((proxy.scheme, proxy.host, port, *credentials))


def test_environment_as_go_r29() -> None:
    for environment, server, expected in ENVIRONMENTS:
        environ = dict(pair.split("=", 1) for pair in environment.split())
        assert as_in_the_table(environ, server) == expected, f"{environment} {server}"


def test_default_ports() -> None:
    for scheme, port in {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}.items():
        proxy = chosen({"HTTPS_PROXY": f"{scheme}://proxy.example"}, "https://example.com")
        assert proxy is not None
        assert proxy.port == port


def test_the_environment_of_this_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    cluster = Cluster("https://example.com")
    assert proxies.choose(cluster) is None
    monkeypatch.setenv("https_proxy", GIVEN)
    assert str(proxies.choose(cluster)) == f"{GIVEN} (environment variable https_proxy)"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://proxy.example",
        "http://",
        "http://proxy.example:port",
        "http://proxy.example:0",
        "http://proxy.example:99999",
        "http://[::1",
        "http://[fe80::zz]:1",
        f"http://user:{SECRET}%zz@proxy.example",
        f"http://user:{SECRET}%@proxy.example",
        f"http://user:{SECRET} @proxy.example",
        f"http://user:{SECRET}\r\nX: y@proxy.example",
        f"http://user:{SECRET}@pro xy",
        f"http://user:{SECRET}@a!b",
    ],
)
def test_an_environment_that_is_no_proxy_is_said_and_not_shown(url: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        chosen({"HTTPS_PROXY": url}, "https://example.com")
    assert "environment variable HTTPS_PROXY" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value.__context__)


# -- proxy-url


def test_proxy_url_replaces_the_environment_r29() -> None:
    environ = {"HTTPS_PROXY": "http://other.example:1", "NO_PROXY": "*"}
    cluster = Cluster("https://127.0.0.1:6443", proxy_url=GIVEN, name="c")
    assert str(proxies.choose(cluster, environ)) == f'{GIVEN} (proxy-url of cluster "c")'


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example", ("http", "proxy.example", 80)),
        ("https://proxy.example", ("https", "proxy.example", 443)),
        ("socks5://proxy.example", ("socks5", "proxy.example", 1080)),
        ("HTTP://PROXY.example:1/path?x#y", ("http", "proxy.example", 1)),
        ("http://[::1]:3128", ("http", "::1", 3128)),
        ("http://[fe80::1%25eth0]:3128", ("http", "fe80::1%eth0", 3128)),
        ("http://bücher.example", ("http", "xn--bcher-kva.example", 80)),
        ("http://10.0.0.1:8080", ("http", "10.0.0.1", 8080)),
    ],
)
def test_a_proxy_url(url: str, expected: tuple[str, str, int]) -> None:
    proxy = proxies.of_cluster(url, "c")
    assert (proxy.scheme, proxy.host, proxy.port) == expected
    assert proxy.username is None


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        ("user:pass", b"user", b"pass"),
        ("us%40er:p%3A%2F%25", b"us@er", b"p:/%"),
        ("user:p:a:ss", b"user", b"p:a:ss"),
        ("user", b"user", b""),
        (":pass", b"", b"pass"),
        ("m%C3%BCller:%FF", "müller".encode(), b"\xff"),
        ("a@b:c", b"a@b", b"c"),
    ],
)
def test_credentials_are_percent_decoded_r29(
    userinfo: str, username: bytes, password: bytes
) -> None:
    proxy = proxies.of_cluster(f"http://{userinfo}@proxy.example:1", "c")
    assert (proxy.username, proxy.password, proxy.host) == (username, password, "proxy.example")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("socks5h://proxy.example", 'unsupported scheme "socks5h", must be http, https, or socks5'),
        ("ftp://proxy.example", 'unsupported scheme "ftp"'),
        ("proxy.example:3128", 'unsupported scheme ""'),
        ("10.0.0.1:3128", 'unsupported scheme ""'),
        (f"{SECRET}:pass@proxy.example", 'unsupported scheme ""'),
        (f"http://u:{SECRET}%zz@proxy.example", "must be written as %25"),
        (f"http://{SECRET}:12/34@proxy.example", "must be percent-encoded"),
        (f"http://{SECRET}#:34@proxy.example", "must be percent-encoded"),
        (f"http://u:{SECRET}@:3128", "it should look like http"),
        (f"http://u:{SECRET}@proxy.example:0", "it should look like http"),
        (f"http://u:{SECRET}@[proxy.example]:0", "it should look like http"),
    ],
)
def test_a_proxy_url_that_is_none(url: str, said: str) -> None:
    with pytest.raises(errors.ConfigError, match="invalid 'proxy-url' for cluster \"c\"") as caught:
        proxies.of_cluster(url, "c")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_kubeconfig_with_a_proxy_url(tmp_path: Path) -> None:
    path = tmp_path / "config"
    text = """
        clusters: [{name: c, cluster: {server: "https://api.example", proxy-url: "%s"}}]
        users: [{name: u, user: {token: t}}]
        contexts: [{name: x, context: {cluster: c, user: u}}]
        current-context: x
    """
    path.write_text(text % f"http://user:{SECRET}@proxy.example:3128")
    config = Config.load(path)
    proxy = proxies.choose(config.cluster, {})
    assert proxy is not None
    assert proxy.password == SECRET.encode()
    for shown in (repr(config), repr(config.cluster), repr(proxy), str(proxy)):
        assert SECRET not in shown
    path.write_text(text % f"socks5h://user:{SECRET}@proxy.example:3128")
    with pytest.raises(
        errors.ConfigError, match=r"unsupported scheme \"socks5h\".*config\)"
    ) as caught:
        Config.load(path)
    assert SECRET not in str(caught.value)
