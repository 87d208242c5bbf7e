"""Local sockets that listen: kubectl's rules for addresses, and one port for all of them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence

import pytest
from support import unused_port

from kubews import listeners
from kubews.errors import ConfigError


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


@contextlib.contextmanager
def listening(*addresses: str, port: int = 0) -> Iterator[list[socket.socket]]:
    socks = listeners.listen(addresses, port)
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()


def names(socks: Sequence[socket.socket]) -> list[str]:
    return [sock.getsockname()[0] for sock in socks]


def ports(socks: Sequence[socket.socket]) -> set[int]:
    return {sock.getsockname()[1] for sock in socks}


def test_one_address() -> None:
    with listening("127.0.0.1") as socks:
        assert names(socks) == ["127.0.0.1"]
        assert socks[0].getblocking() is False
        assert socks[0].get_inheritable() is False
        with socket.create_connection(socks[0].getsockname(), 5):
            socks[0].accept()[0].close()


@ipv6
def test_localhost_is_two_addresses_with_one_port() -> None:
    with listening("localhost") as socks:
        assert names(socks) == ["127.0.0.1", "::1"]
        assert len(ports(socks)) == 1
    with listening("::1", "127.0.0.1", "127.0.0.2") as socks:
        assert names(socks) == ["::1", "127.0.0.1", "127.0.0.2"]
        assert len(ports(socks)) == 1


def test_an_address_that_stands_twice() -> None:
    with listening("127.0.0.1", "127.0.0.1") as socks:
        assert names(socks) == ["127.0.0.1"]


@ipv6
def test_all_of_ipv6_leaves_ipv4_to_others() -> None:
    port = unused_port()
    with listening("::", port=port) as socks, listening("0.0.0.0", port=port) as others:
        assert ports(socks) == ports(others)


def test_a_port_that_is_asked_for() -> None:
    port = unused_port()
    with listening("127.0.0.1", "127.0.0.2", port=port) as socks:
        assert ports(socks) == {port}


@pytest.mark.skipif(os.name != "posix", reason="a rule of POSIX systems")
def test_a_port_that_was_in_use_a_moment_ago() -> None:
    with listening("127.0.0.1") as socks:
        port = ports(socks).pop()
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            with socks[0].accept()[0]:
                pass
            assert client.recv(1) == b""
    with listening("127.0.0.1", port=port):
        pass


@pytest.mark.parametrize("first", [(), ("127.0.0.2",)])
def test_a_port_in_use(first: tuple[str, ...]) -> None:
    """What was bound before is closed: the suite would see it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1 port {port}: ") as raised:
            listeners.listen([*first, "127.0.0.1"], port)
        assert raised.value.errno == errno.EADDRINUSE


@ipv6
def test_localhost_where_one_of_its_addresses_is_taken() -> None:
    """As kubectl: one is enough."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listening("localhost", port=port) as socks:
            assert names(socks) == ["::1"]
            with pytest.raises(OSError, match="cannot listen at ::1"):
                listeners.listen(["localhost"], port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match=r"cannot listen at 192\.0\.2\.1 port 0: ") as raised:
        listeners.listen(["127.0.0.1", "192.0.2.1"], 0)
    assert raised.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("address", ["", "example.com", "127.0.0.1:80", "127.1", "LOCALHOST"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid IP address, nor localhost"):
        listeners.listen(["127.0.0.1", address], 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(ConfigError, match="not a valid port"):
        listeners.listen(["127.0.0.1"], port)


def test_no_address() -> None:
    with pytest.raises(OSError, match="no address"):
        listeners.listen([], 0)


class Taken:
    """Makes ``bind`` fail at some hosts, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, *hosts: str) -> None:
        self.times, self.hosts = times, hosts
        self.asked: list[tuple[str, int]] = []
        self.bind = listeners._bind
        monkeypatch.setattr(listeners, "_bind", self)
        self.number = errno.EADDRINUSE

    def __call__(self, host: str, port: int) -> socket.socket:
        self.asked.append((host, port))
        if host in self.hosts and self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.bind(host, port)


def test_a_picked_port_that_is_taken_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-42: the kernel is asked for another, also where the address need not work."""
    for addresses in (["127.0.0.1", "127.0.0.2"], ["localhost"]):
        taken = Taken(monkeypatch, 3, "127.0.0.2", "::1")
        with listening(*addresses):
            assert len(taken.asked) == 8
            assert [port for _, port in taken.asked[::2]] == [0] * 4
            assert all(port for _, port in taken.asked[1::2])


def test_picked_ports_that_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch, 1000, "127.0.0.2")
    with pytest.raises(OSError, match=r"cannot listen at 127\.0\.0\.2"):
        listeners.listen(["127.0.0.1", "127.0.0.2"], 0)
    assert len(taken.asked) == 40


def test_localhost_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch, 1, "::1")
    taken.number = errno.EADDRNOTAVAIL
    with listening("localhost") as socks:
        assert names(socks) == ["127.0.0.1"]


def test_no_localhost_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Taken(monkeypatch, 2, "127.0.0.1", "::1")
    taken.number = errno.EADDRNOTAVAIL
    with pytest.raises(OSError, match="cannot listen at ::1"):
        listeners.listen(["localhost"], 0)


def test_where_there_is_no_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the option would let somebody else take the port."""
    monkeypatch.setattr(os, "name", "nt")
    with listening("127.0.0.1") as socks:
        monkeypatch.undo()
        assert socks[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
