"""Which hosts and origins pass, as plain values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.access.origins import Doors

HOSTS = ("localhost", "127.0.0.1", "[::1]", "talk.example.com")
DOORS = Doors(["http://localhost:3000", "https://app.example.com"], HOSTS, [3001, 3002])


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:3001", "LOCALHOST:3001", "127.0.0.1:8080", "[::1]:3001", "[0:0:0:0:0:0:0:1]"],
)
def test_hosts_of_the_list_pass_with_any_port(host: str) -> None:
    assert DOORS.host_allowed(host)


@pytest.mark.proves("T3")
@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "rebind.test",
        "localhost.rebind.test",
        "evil-localhost",
        "localhost.",
        "localhost:",
        "localhost:0",
        "localhost:03001",
        "localhost:99999",
        "localhost:3001:3001",
        "user@localhost",
        "localhost/path",
        "localhost, localhost",
        " localhost",
        "localhost\n",
        "::1",
        "[::1",
        "[::2]",
        "[::1%25lo]",
        "127.1",
        "2130706433",
        "127.0.0.1.",
        "ｌocalhost",
        "localhoſt",
        "localhost:３001",
        "127.0.0.1\x00",
        "*",
    ],
)
def test_other_hosts_do_not(host: str | None) -> None:
    assert not DOORS.host_allowed(host)


def test_a_host_written_with_a_port_passes_with_that_port_only() -> None:
    doors = Doors([], ["box:3001"], [3001])
    assert doors.host_allowed("box:3001")
    assert not doors.host_allowed("box:3002")
    assert not doors.host_allowed("box")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://app.example.com",
        "https://app.example.com:443",
        "http://localhost:3001",
        "http://localhost:3002",
        "http://127.0.0.1:3001",
        "http://[::1]:3001",
        "http://talk.example.com:3001",
    ],
)
def test_listed_origins_and_the_pages_own_pass(origin: str) -> None:
    assert DOORS.origin_allowed(origin, "localhost:3001")


@pytest.mark.proves("T1")
@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "file://",
        "https://evil.example",
        "http://localhost:3000.evil.example",
        "http://localhost.evil.example:3000",
        "http://evil-localhost:3000",
        "https://sub.app.example.com",
        "https://app.example.com.",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://localhost:3000",
        "https://localhost:3001",
        "ws://localhost:3001",
        "http://localhost",
        "http://localhost:3003",
        "http://localhost:30000",
        "http://localhost:03000",
        "HTTP://LOCALHOST:3000",
        "http://Localhost:3000",
        "http://user@localhost:3000",
        "http://localhost:3000@evil.example",
        "http://localhost:3000/",
        "http://localhost:3000#",
        "http://localhost:3000,http://localhost:3000",
        "http://localhost:3000, https://evil.example",
        "http://localhost:3000 ",
        "http://localhost:3000\n",
        "http://localhost\x00:3000",
        "http://loc\u0430lhost:3000",
        "http://127.1:3001",
        "http://[::1]:3000",
        "http://[::ffff:127.0.0.1]:3001",
        "//localhost:3000",
        "localhost:3000",
    ],
)
def test_every_other_origin_is_refused(origin: str) -> None:
    assert not DOORS.origin_allowed(origin, "localhost:3001")


def test_a_missing_origin_passes_only_where_that_was_said() -> None:
    assert DOORS.origin_allowed(None, "localhost:3001")
    assert not Doors([], HOSTS, [3001], missing_origin=False).origin_allowed(None, "localhost:3001")


def test_a_page_served_through_a_mapped_port_is_our_own() -> None:
    assert DOORS.origin_allowed("http://localhost:8080", "localhost:8080")
    assert DOORS.origin_allowed("http://talk.example.com", "talk.example.com")
    assert not DOORS.origin_allowed("https://localhost:8080", "localhost:8080")
    assert not DOORS.origin_allowed("http://localhost:8080", "127.0.0.1:8080")


def test_a_page_of_a_tls_port_is_our_own_with_https_only() -> None:
    doors = Doors([], ["localhost", "[::1]"], [3001], own_tls_ports=[3443])
    for host, scheme in (("localhost:3001", "http"), ("localhost:3443", "https")):
        for origin in ("https://localhost:3443", "https://[::1]:3443", "http://localhost:3001"):
            assert doors.origin_allowed(origin, host, scheme)
        for origin in (
            "http://localhost:3443",
            "https://localhost:3001",
            "https://localhost",
            "wss://localhost:3443",
        ):
            assert not doors.origin_allowed(origin, host, scheme)


def test_a_page_served_over_tls_through_a_mapped_port_is_our_own() -> None:
    doors = Doors([], HOSTS, [3001], own_tls_ports=[3443])
    assert doors.origin_allowed("https://localhost:8443", "localhost:8443", "https")
    assert doors.origin_allowed("https://talk.example.com", "talk.example.com", "https")
    assert not doors.origin_allowed("http://localhost:8443", "localhost:8443", "https")
    assert not doors.origin_allowed("http://talk.example.com", "talk.example.com", "https")
    assert not doors.origin_allowed("https://localhost:8443", "127.0.0.1:8443", "https")


@pytest.mark.proves("T3")
def test_a_name_rebound_to_the_tls_port_is_refused() -> None:
    doors = Doors([], HOSTS, [3001], own_tls_ports=[3443])
    assert not doors.origin_allowed("https://rebind.test:3443", "rebind.test:3443", "https")
    assert not doors.origin_allowed("https://rebind.test", "rebind.test", "https")


@pytest.mark.proves("T3")
def test_a_rebound_name_is_refused_although_host_and_origin_agree() -> None:
    assert not DOORS.origin_allowed("http://rebind.test:8080", "rebind.test:8080")
    assert not DOORS.origin_allowed("http://rebind.test:3001", "rebind.test:3001")


def test_the_public_url_is_our_own() -> None:
    doors = Doors([], ["localhost"], [3001], public_url="https://Voice.example.com/live")
    assert doors.host_allowed("voice.example.com")
    assert doors.origin_allowed("https://voice.example.com", "voice.example.com")
    assert not doors.origin_allowed("https://example.com", "voice.example.com")


def test_entries_are_taken_as_operators_write_them() -> None:
    doors = Doors(["HTTP://LocalHost:3000/", "https://a.example:443"], ["Box", "[0:0::1]"], [])
    assert doors.origin_allowed("http://localhost:3000", None)
    assert doors.origin_allowed("https://a.example", None)
    assert doors.host_allowed("box")
    assert doors.host_allowed("[::1]")


@pytest.mark.parametrize("entry", ["*", "null", "", "https://*.example.com", "http://localhost:3000/app"])
def test_an_entry_that_is_no_origin_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host name nor an origin"):
        Doors([entry], [], [])


@given(st.text(), st.text(), st.sampled_from(["http://", "https://"]))
def test_nothing_around_an_allowed_origin_is_allowed(before: str, after: str, scheme: str) -> None:
    """T1's suffix and prefix tricks, found at random."""
    origin = f"{scheme}{before}localhost:3000{after}"
    allowed = {"http://localhost:3000"}
    assert DOORS.origin_allowed(origin, "localhost:3001") == (origin in allowed)


@given(st.text(st.sampled_from("localhost127.:0@/%\\ \t,x")), st.sampled_from(["localhost", "127.0.0.1"]))
def test_a_host_that_passes_is_a_listed_name_with_or_without_a_port(around: str, name: str) -> None:
    for host in (around, around + name, name + around):
        if DOORS.host_allowed(host):
            assert any(host.lower() == known or host.lower().startswith(f"{known}:") for known in HOSTS)
