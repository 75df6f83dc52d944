"""URLs of relays, which addresses count as public, and how a socket is connected."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylon.errors import RelayError
from pylon.relays import address
from pylon.relays.bell import Patience


@pytest.mark.parametrize("text, url, host, port, secure, resource", [
    ("wss://Relay.Example", "wss://relay.example", "relay.example", 443, True, "/"),
    ("wss://relay.example:443/", "wss://relay.example", "relay.example", 443, True, "/"),
    ("ws://relay.example:80", "ws://relay.example", "relay.example", 80, False, "/"),
    ("ws://127.0.0.1:7000/a/b?c=d", "ws://127.0.0.1:7000/a/b?c=d", "127.0.0.1", 7000, False,
     "/a/b?c=d"),
    ("wss://[2606:4700::1]:4848/x", "wss://[2606:4700::1]:4848/x", "2606:4700::1", 4848, True,
     "/x"),
    ("wss://relay.example#frag", "wss://relay.example", "relay.example", 443, True, "/"),
])
def test_urls(text, url, host, port, secure, resource):
    target = address.parse_url(text)
    assert (target.url, target.host, target.port, target.secure, target.resource) \
        == (url, host, port, secure, resource)
    assert address.normalise(url) == url


@pytest.mark.parametrize("text", [
    "", "relay.example", "http://relay.example", "wss://", "wss:///path", "wss://u:p@relay.example",
    "wss://relay.example:0", "wss://relay.example:99999", "wss://relay.example:x", "wss://[::1",
    "wss://relay.example/\r\nX-Evil: 1", "wss://relay.example/a b", "wss://r\u00e9lay.example",
    "wss://relay.example/\x00", "wss://" + "a" * 600])
def test_what_is_no_relay_url(text):
    with pytest.raises(RelayError):
        address.parse_url(text)


@given(st.text(max_size=80))
def test_any_text_is_a_url_or_refused(text):
    for candidate in (text, "wss://" + text):
        try:
            target = address.parse_url(candidate)
        except RelayError:
            continue
        assert address.parse_url(target.url) == target
        assert "\n" not in target.url + target.host_header + target.resource


@pytest.mark.parametrize("ip", [
    "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.1.1", "100.64.0.1", "0.0.0.0",
    "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:7f00:1::", "2001:db8::1",
    "198.18.0.1", "192.0.2.1"])
def test_private_addresses_in_all_disguises(ip):
    assert not address.is_public(ip)


@pytest.mark.parametrize("ip", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1",
                                "64:ff9b::101:101"])
def test_public_addresses(ip):
    assert address.is_public(ip)


def test_a_name_that_leads_home_is_refused_for_strangers(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443)),
             (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(address.socket, "getaddrinfo", lambda *args, **more: list(found))
    target = address.parse_url("wss://rebinding.example")
    with pytest.raises(RelayError, match="no public address"):
        address.resolve(target, public_only=True)
    found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443)))
    assert [info[4][0] for info in address.resolve(target, public_only=True)] == ["1.1.1.1"]
    assert len(address.resolve(target, public_only=False)) == 3


def test_a_name_that_is_not_found(monkeypatch):
    def lost(*args, **more):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(address.socket, "getaddrinfo", lost)
    with pytest.raises(RelayError, match="was not found"):
        address.resolve(address.parse_url("wss://nowhere.example"), public_only=False)


def test_a_closed_port_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RelayError, match="cannot connect"):
        address.dial(address.parse_url(f"ws://127.0.0.1:{port}"), Patience(5), False)


def test_a_connect_that_nobody_answers_ends_at_the_deadline():
    """A listener whose queue is full drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        target = address.parse_url(f"ws://127.0.0.1:{server.getsockname()[1]}")
        full = [address.dial(target, Patience(5), False)]
        with pytest.raises(RelayError, match="no answer within"):
            for _ in range(5):
                full.append(address.dial(target, Patience(0.3), False))
        for sock in full:
            sock.close()


def test_an_address_that_swallows_everything_does_not_hide_the_next(monkeypatch):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole, \
            socket.create_server(("127.0.0.1", 0)) as good:
        hole_target = address.parse_url(f"ws://127.0.0.1:{hole.getsockname()[1]}")
        full = [address.dial(hole_target, Patience(5), False)]
        with pytest.raises(RelayError):
            while True:
                full.append(address.dial(hole_target, Patience(0.2), False))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one.getsockname())
                 for one in (hole, good)]
        monkeypatch.setattr(address.socket, "getaddrinfo", lambda *args, **more: found)
        full.append(address.dial(address.parse_url("ws://two.example"), Patience(1), False))
        assert full[-1].getpeername() == good.getsockname()
        for sock in full:
            sock.close()


def test_a_stop_ends_dialling():
    with pytest.raises(RelayError, match="cannot connect"):
        address.dial(address.parse_url("ws://127.0.0.1:9"), Patience(5, None, lambda: True), False)
