"""A real proxy of each kind, once a session, and nothing from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import proxying
import pytest
from proxying import KINDS, RealProxy
from support import time_limit


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with time_limit(60):
        yield


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy from the environment; and the authority of our https proxies is the system's only one."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    proxying.trust(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def http_proxy() -> Iterator[RealProxy]:
    with proxying.http_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def https_proxy() -> Iterator[RealProxy]:
    with proxying.http_proxy(tls=True) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def socks5_proxy() -> Iterator[RealProxy]:
    with proxying.tiny_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def tight_proxy() -> Iterator[RealProxy]:
    """An ``https`` proxy that lets each side wait for the other."""
    with proxying.tiny_proxy(tls=True) as proxy:
        yield proxy


@pytest.fixture(params=list(KINDS))
def proxy(request: pytest.FixtureRequest) -> RealProxy:
    """Each kind of proxy in turn."""
    found: RealProxy = request.getfixturevalue(f"{request.param}_proxy")
    return found
