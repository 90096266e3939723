"""Whose word about a request is believed, as plain values."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.access.proxies import PASSED_ON, Asked, Proxies

OURS = [ipaddress.ip_network(text) for text in ("10.0.0.0/24", "127.0.0.1", "fd00::/64")]
PROXIES = Proxies(OURS)
PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"


def asked(sender: str | None = PROXY, scheme: str = "http", **headers: str) -> Asked:
    """Headers by their names with underscores; Host is there unless another is given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PROXIES.asked(sender, scheme, {"Host": "voice.example.com"} | named)


def test_without_such_headers_a_request_is_what_its_connection_is() -> None:
    for sender in (PROXY, CLIENT, "127.0.0.1", "::1", None):
        assert asked(sender) == Asked(sender, "http", "voice.example.com", "direct")
    assert asked(CLIENT, "https").scheme == "https"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.9", CLIENT),
        ("203.0.113.9, 10.0.0.7", CLIENT),
        ("203.0.113.9,10.0.0.7,  10.0.0.8", CLIENT),
        ("1.1.1.1, 203.0.113.9", CLIENT),  # the first is what the client itself wrote
        ("127.0.0.1, 203.0.113.9", CLIENT),
        ("10.0.0.7, 203.0.113.9", CLIENT),
        ("nonsense, 203.0.113.9", CLIENT),
        ("203.0.113.9:4711", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:0DB8:0::1, fd00::5", "2001:db8::1"),
        ("10.0.0.7", "10.0.0.7"),  # nobody but proxies of ours: the one that is furthest away
        ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("::ffff:10.0.0.7, 10.0.0.8", "10.0.0.7"),
    ],
)
def test_the_client_is_the_last_of_the_chain_that_is_no_proxy_of_ours(chain: str, client: str) -> None:
    assert asked(X_Forwarded_For=chain) == Asked(client, "http", "voice.example.com", "proxy")


@pytest.mark.parametrize(
    "chain",
    [
        "",
        " ",
        ",",
        "unknown",
        "203.0.113.9, ",
        "203.0.113.9, unknown",
        "203.0.113.9 10.0.0.7",
        "203.0.113",
        "203.0.113.999",
        "0203.0.113.9",
        "203.0.113.9:",
        "203.0.113.9:443:443",
        "2001:db8::1]:443",
        "[203.0.113.9",
        "fe80::1%eth0",
        "fe80::1%25<script>",
        "203.0.113.9/32",
        "٢٠٣.0.113.9",
        "voice.example.com",
        "\x00",
    ],
)
def test_a_malformed_address_ends_what_is_believed(chain: str) -> None:
    assert asked(X_Forwarded_For=chain).address == PROXY
    assert asked(X_Forwarded_For=f"203.0.113.9, {chain}, 10.0.0.7").address == "10.0.0.7"


@pytest.mark.parametrize("sender", [CLIENT, "10.0.1.1", "127.0.0.2", "::1", "fd00:0:0:1::1", "", None])
def test_from_anybody_else_nothing_is_believed(sender: str | None) -> None:
    found = asked(
        sender,
        X_Forwarded_For="127.0.0.1",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="evil.example",
        X_Real_Ip="127.0.0.1",
        Forwarded="for=127.0.0.1;proto=https;host=evil.example",
    )
    assert found == Asked(sender, "http", "voice.example.com", "untrusted")


def test_a_proxy_is_known_by_either_form_of_its_address() -> None:
    assert asked("::ffff:10.0.0.1", X_Forwarded_For=CLIENT).address == CLIENT
    assert asked("fd00::9", X_Forwarded_For=CLIENT).address == CLIENT


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("wss", "https"),
        ("ws", "http"),
        ("http", "http"),
        ("http, https", "https"),
        ("https,http", "http"),
        ("", "http"),
        ("https, ", "http"),
        ("ftp", "http"),
        ("https://", "http"),
        ("javascript", "http"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(said: str, scheme: str) -> None:
    assert asked(X_Forwarded_Proto=said).scheme == scheme
    assert asked(CLIENT, X_Forwarded_Proto=said).scheme == "http"


@pytest.mark.parametrize(
    ("said", "host"),
    [
        ("talk.example.com", "talk.example.com"),
        ("talk.example.com:8443", "talk.example.com:8443"),
        ("other.example, talk.example.com", "talk.example.com"),
        ("[::1]:3001", "[::1]:3001"),
        ("", "voice.example.com"),
        ("talk.example.com/path", "voice.example.com"),
        ("user@talk.example.com", "voice.example.com"),
        ("talk.example.com:99999", "voice.example.com"),
        ("talk.example.com;", "voice.example.com"),
        ("*", "voice.example.com"),
    ],
)
def test_the_host_is_what_the_nearest_proxy_says(said: str, host: str) -> None:
    assert asked(X_Forwarded_Host=said).host == host
    assert asked(CLIENT, X_Forwarded_Host=said).host == "voice.example.com"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("for=203.0.113.9", Asked(CLIENT, "http", "voice.example.com", "proxy")),
        ("For=203.0.113.9;Proto=HTTPS", Asked(CLIENT, "https", "voice.example.com", "proxy")),
        (
            'for="[2001:db8::1]:4711";by=10.0.0.1 ; proto=https; host="talk.example.com:8443"',
            Asked("2001:db8::1", "https", "talk.example.com:8443", "proxy"),
        ),
        ("for=1.1.1.1, for=203.0.113.9, for=10.0.0.7", Asked(CLIENT, "http", "voice.example.com", "proxy")),
        ("for=203.0.113.9;proto=https, proto=http", Asked(PROXY, "http", "voice.example.com", "proxy")),
        ('for="203.0.113.9:80"', Asked(CLIENT, "http", "voice.example.com", "proxy")),
        ('for="203.0\\.113.9"', Asked(CLIENT, "http", "voice.example.com", "proxy")),
        ("for=unknown", Asked(PROXY, "http", "voice.example.com", "proxy")),
        ("for=_hidden", Asked(PROXY, "http", "voice.example.com", "proxy")),
        ("proto=https", Asked(PROXY, "https", "voice.example.com", "proxy")),
    ],
)
def test_the_header_of_rfc_7239_is_read_where_there_is_no_other(said: str, expected: Asked) -> None:
    assert asked(Forwarded=said) == expected


@pytest.mark.parametrize(
    "said",
    [
        "203.0.113.9",
        "for=203.0.113.9;;proto=https",
        "for=203.0.113.9;for=1.1.1.1",
        "for=203.0.113.9,",
        'for="203.0.113.9',
        "for = 203.0.113.9",
        "for=[2001:db8::1]",
        "for=203.0.113.9 proto=https",
        ",",
        '"',
    ],
)
def test_a_malformed_one_is_ignored_as_a_whole(said: str) -> None:
    assert asked(Forwarded=said) == Asked(PROXY, "http", "voice.example.com", "proxy")


def test_one_kind_is_believed_at_a_time() -> None:
    """Most proxies pass on the kind that they do not write: it is the client's own."""
    found = asked(X_Forwarded_For=CLIENT, Forwarded="for=1.1.1.1;proto=https;host=evil.example")
    assert found == Asked(CLIENT, "http", "voice.example.com", "proxy")
    assert asked(X_Forwarded_Proto="https", Forwarded="for=1.1.1.1").address == PROXY
    assert asked(X_Forwarded_For=CLIENT, X_Real_Ip="1.1.1.1").address == CLIENT
    assert asked(X_Forwarded_For="unknown", X_Real_Ip="1.1.1.1").address == PROXY


def test_a_lone_address_counts_where_there_is_no_chain() -> None:
    assert asked(X_Real_Ip=CLIENT).address == CLIENT
    assert asked(X_Real_Ip=CLIENT, X_Forwarded_Proto="https").address == CLIENT
    assert asked(X_Real_Ip=f"1.1.1.1, {CLIENT}").address == PROXY
    assert asked(X_Real_Ip="nonsense").address == PROXY


@pytest.mark.parametrize("name", PASSED_ON)
def test_a_header_of_a_proxy_shows_that_there_was_one(name: str) -> None:
    assert asked("127.0.0.1", **{name.replace("-", "_"): "x"}).via == "proxy"
    assert asked("::1", **{name.replace("-", "_"): "x"}).via == "untrusted"


TEXT = st.text(st.sampled_from("0123456789.:,;=\"\\ []%forprtshw127203x'\t")) | st.text()
ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(
    [PROXY, "10.0.0.7", "127.0.0.1", "::ffff:10.0.0.1", ""]
)
CHAINS = st.lists(ADDRESSES | TEXT, max_size=6).map(", ".join)
NAMES = [name for name in PASSED_ON if name != "Via"]


@given(ADDRESSES | TEXT | st.none(), st.dictionaries(st.sampled_from(NAMES), CHAINS | TEXT))
def test_whatever_is_sent_there_is_an_answer_and_nothing_of_it_is_a_strangers(
    sender: str | None, headers: dict[str, str]
) -> None:
    found = PROXIES.asked(sender, "http", headers)
    try:
        peer = ipaddress.ip_address(sender or "")
    except ValueError:
        peer = ipaddress.ip_address("192.0.2.1")
    mapped = getattr(peer, "ipv4_mapped", None) or peer
    trusted = any(mapped in network for network in OURS)
    if not trusted or not headers:
        assert found == Asked(sender, "http", None, "untrusted" if headers else "direct")
    else:
        assert found.address is not None
        ipaddress.ip_address(found.address)
        assert found.scheme in ("http", "https")


@given(st.lists(st.ip_addresses(v=4), max_size=5), st.ip_addresses(v=4))
def test_no_client_talks_itself_past_a_proxy_that_adds_to_the_chain(
    forged: list[ipaddress.IPv4Address], true: ipaddress.IPv4Address
) -> None:
    chain = ", ".join(map(str, [*forged, true]))
    found = asked(X_Forwarded_For=chain).address
    if not any(true in network for network in OURS):
        assert found == str(true)
