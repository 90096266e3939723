"""What is made of what the probes saw: plain values in, findings out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tornado_live.deploy import findings, remedies
from tornado_live.deploy.findings import Finding
from tornado_live.deploy.remedies import PROXIES, Remedy
from tornado_live.deploy.seen import (
    Answer,
    Client,
    Closed,
    Echo,
    Idle,
    NoAnswer,
    Quiet,
    Reached,
    Returned,
    Secured,
    Seen,
)
from tornado_live.deploy.target import Target, target_of
from tornado_live.errors import ConfigError

VOICE = target_of("https://example.com/voice/")
ROOT = target_of("https://voice.example.com")
LOOPBACK = target_of("http://localhost:3001")
OURS = {"x-request-id": "1", "content-security-policy": "default-src 'self'"}
NGINX = {"server": "nginx"}
NOTHING = NoAnswer("nothing came in time")
UPGRADED = Answer(101, {})


def ours(status: int, message: str = "") -> Answer:
    return Answer(status, OURS, json.dumps({"error": {"message": message}}).encode())


def names(found: Finding) -> tuple[str, ...]:
    return tuple(remedy.name for remedy in found.remedies)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://example.com", Target(True, "example.com", 443, "")),
        ("https://example.com:8443/a/b/", Target(True, "example.com", 8443, "/a/b")),
        ("wss://example.com/voice", Target(True, "example.com", 443, "/voice")),
        ("http://[::1]:3001", Target(False, "::1", 3001, "")),
    ],
)
def test_an_address_is_taken_apart(text: str, target: Target) -> None:
    assert target_of(text) == target


@pytest.mark.parametrize(
    "text", ["example.com", "ftp://example.com", "https://", "https://a:b@c", "https://a:99999"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a page"):
        target_of(text)


def test_an_address_is_shown_as_browsers_write_it() -> None:
    assert (VOICE.origin, VOICE.ws_url) == ("https://example.com", "wss://example.com/voice")
    assert target_of("https://[2001:db8::1]:8443").origin == "https://[2001:db8::1]:8443"
    assert [
        target_of(f"http://{host}").is_loopback for host in ("127.0.0.2", "[::1]", "localhost", "a.b")
    ] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (Reached((), words="Name or service not known"), "WRONG", "has no address"),
        (Reached(("192.0.2.1",), words="Connection refused"), "WRONG", "nothing listens on port 443"),
        (Reached(("192.0.2.1",), 12.0), "ok", "answers in 12 ms"),
    ],
)
def test_where_it_is(seen: Reached, verdict: str, words: str) -> None:
    found = findings.of_reached(seen, ROOT)
    assert found.verdict == verdict
    assert words in found.text


GOOD_TLS = Secured("TLSv1.3", ("voice.example.com",), 60.0)


@pytest.mark.parametrize(
    ("seen", "target", "verdicts", "words"),
    [
        (GOOD_TLS, ROOT, ["ok"], "for 60 more days"),
        (replace(GOOD_TLS, days_left=3.0), ROOT, ["WRONG"], "ends in 3 days"),
        (replace(GOOD_TLS, version="TLSv1.1", days_left=3.0), ROOT, ["WRONG", "WRONG"], "TLSv1.1 is broken"),
        (
            Secured(distrusted="certificate has expired"),
            ROOT,
            ["WRONG"],
            "not trusted: certificate has expired.",
        ),
        (Secured(distrusted="unable to get local issuer certificate"), ROOT, ["WRONG"], "fullchain.pem"),
        (Secured(distrusted="Hostname mismatch"), ROOT, ["WRONG"], "Hostname mismatch"),
        (Secured(plain=True, words="WRONG_VERSION_NUMBER"), ROOT, ["WRONG"], "speaks no TLS"),
        (Secured(words="the line was closed"), ROOT, ["WRONG"], "no handshake"),
        (None, target_of("http://example.com"), ["WRONG"], "no page a microphone"),
        (None, LOOPBACK, ["note"], "on other names"),
    ],
)
def test_the_certificate(seen: Secured | None, target: Target, verdicts: list[str], words: str) -> None:
    found = findings.of_secured(seen, target)
    assert [one.verdict for one in found] == verdicts
    assert words in found[0].text


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Answer(308, {"location": "https://voice.example.com/"}), "ok"),
        (Answer(301, {"location": "https://voice.example.com:443/x"}), "ok"),
        (Answer(302, {"location": "https://elsewhere.example/"}), "WRONG"),
        (Answer(308, {"location": "http://voice.example.com/login"}), "WRONG"),
        (ours(403), "WRONG"),
        (Answer(200, NGINX, b"Welcome"), "WRONG"),
        (Answer(404, NGINX), "note"),
        (NOTHING, "note"),
    ],
)
def test_http_leads_to_https(seen: Seen, verdict: str) -> None:
    assert findings.of_redirect(seen, ROOT, 80).verdict == verdict


@pytest.mark.parametrize(
    ("seen", "mending", "words"),
    [
        (
            Answer(200, OURS, b'{"status": "ok", "version": "1.2", "upstream": "gemini"}'),
            None,
            "tornado-live 1.2",
        ),
        (Answer(200, NGINX, b"<html>"), ("prefix",), "sends this path elsewhere"),
        (Answer(404, NGINX), ("prefix",), "the proxy (nginx) answered 404"),
        (ours(404), ("prefix",), "its BASE_PATH is another one"),
        (Answer(502, NGINX), ("upstream",), "does not reach the server"),
        (Answer(504, {"cf-ray": "1"}), ("upstream",), "Cloudflare answered 504"),
        (Answer(302, {"location": "/login"}), (), "leads to /login"),
        (Answer(401, NGINX), (), "asks for a password"),
        (NOTHING, ("upstream",), "nothing came in time"),
    ],
)
def test_who_answers_for_the_server(seen: Seen, mending: tuple[str, ...] | None, words: str) -> None:
    found = findings.of_health(seen, VOICE)
    assert words in found.text
    assert found.verdict == ("ok" if mending is None else "WRONG")
    assert names(found) == (mending or ())


@pytest.mark.parametrize(
    ("seen", "mending"),
    [
        (UPGRADED, None),
        (ours(400, "This is a WebSocket; open it with a WebSocket client"), ("headers",)),
        (ours(403, "This host name is not allowed here."), ("headers", "public url")),
        (Answer(403, NGINX), ("headers",)),
        (NOTHING, ("headers",)),
    ],
)
def test_the_upgrade(seen: Seen, mending: tuple[str, ...] | None) -> None:
    found = findings.of_upgrade(seen, ROOT)
    assert (found.verdict, names(found)) == (("ok", ()) if mending is None else ("WRONG", mending))


def test_foreign_pages_must_be_refused() -> None:
    refused = findings.of_origins(UPGRADED, ours(403), ours(403))
    assert [one.verdict for one in refused] == ["ok"]
    programs = findings.of_origins(UPGRADED, ours(403), UPGRADED)
    assert [one.verdict for one in programs] == ["ok", "note"]
    open_doors = findings.of_origins(UPGRADED, UPGRADED, UPGRADED)
    assert [one.verdict for one in open_doors] == ["WRONG", "note"]
    assert findings.of_origins(NOTHING, NOTHING, NOTHING)[0].verdict == "WRONG"


def test_foreign_names_must_be_refused() -> None:
    assert findings.of_host(Answer(200, OURS), ROOT).verdict == "WRONG"
    assert findings.of_host(Answer(200, {}, b'{"tools": []}'), ROOT).verdict == "WRONG"
    for seen in (
        ours(403),
        Answer(421, NGINX),
        Answer(200, {"server": "Caddy"}),
        Answer(301, {"location": "/"}),
        NOTHING,
    ):
        assert findings.of_host(seen, ROOT).verdict == "ok"


def test_clients_are_told_to_come_back_to_the_address_that_people_use() -> None:
    for told, verdict in (
        ("wss://example.com/voice/ws?sessionId=1", "ok"),
        ("ws://example.com/voice/ws?sessionId=1", "WRONG"),
        ("wss://example.com/ws?sessionId=1", "WRONG"),
        ("wss://tornado_live/voice/ws", "WRONG"),
    ):
        (found,) = findings.of_address(Answer(201, OURS), {"wsUrl": told}, VOICE)
        assert (found.verdict, names(found)) == (verdict, () if verdict == "ok" else ("public url",))
    assert findings.of_address(Answer(503, NGINX), {}, VOICE)[0].verdict == "WRONG"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Answer(413, NGINX), "the server takes 64"),
        (NOTHING, "does not arrive"),
        (ours(413), "does not arrive"),
    ],
)
def test_a_body_that_does_not_arrive(seen: Seen, words: str) -> None:
    found = findings.of_body(seen)
    assert words in found.text
    assert names(found) == ("body",)
    assert findings.of_body(Answer(201, OURS)).verdict == "ok"


SEEN_AS = Client("proxy", "198.51.100.4", "https", "voice.example.com", ("192.0.2.9",))


@pytest.mark.parametrize(
    ("seen", "verdicts", "mending"),
    [
        (None, ["note"], []),
        (SEEN_AS, ["ok"], [()]),
        (replace(SEEN_AS, address=findings.FORGED), ["WRONG"], [("headers",)]),
        (replace(SEEN_AS, via="untrusted", address=None), ["WRONG"], [("trusted proxies",)]),
        (replace(SEEN_AS, via="direct", address="private"), ["WRONG"], [("headers", "trusted proxies")]),
        (replace(SEEN_AS, via="direct", address="127.0.0.1"), ["WRONG"], [("headers", "trusted proxies")]),
        (replace(SEEN_AS, via="direct", address="192.0.2.9"), ["note"], [()]),
        (replace(SEEN_AS, via="direct", address="8.8.8.8"), ["note"], [()]),
        (replace(SEEN_AS, scheme="http"), ["ok", "WRONG"], [(), ("headers", "trusted proxies")]),
        (replace(SEEN_AS, host="tornado_live"), ["ok", "WRONG"], [(), ("headers",)]),
    ],
)
def test_whom_the_server_sees(
    seen: Client | None, verdicts: list[str], mending: list[tuple[str, ...]]
) -> None:
    found = findings.of_client(seen, ROOT)
    assert [one.verdict for one in found] == verdicts
    assert [names(one) for one in found] == (mending or [()])


def echo(size: int, *took: float, wanted: int = 3) -> Echo:
    return Echo(size, wanted, took, "" if len(took) == wanted else "nothing came in time")


def test_what_is_held_back_is_told_from_what_is_far_away() -> None:
    near = [echo(64, 1, 2, 900), echo(204_800, 5, 6, 7)]
    assert [one.verdict for one in findings.of_echoes(near, 1)] == ["ok"], "one slow moment is no buffer"
    far = [echo(64, 600, 610, 620), echo(204_800, 700, 710, 720)]
    assert [one.verdict for one in findings.of_echoes(far, 300)] == ["ok"]
    (held,) = findings.of_echoes(far, 5)
    assert (held.step, held.verdict, names(held)) == ("delay", "WRONG", ("buffering",))
    (lost,) = findings.of_echoes([echo(64, 1, 1, 1), echo(1024, 1)], 1)
    assert (lost.step, lost.verdict) == ("frames", "WRONG")
    (never,) = findings.of_echoes([echo(64)], 1)
    assert names(never) == ("buffering",)


def test_large_frames() -> None:
    assert findings.of_largest(Closed(1007, "The first message must be setup.")).verdict == "ok"
    assert findings.of_largest(Closed(1009, "")).verdict == "WRONG"
    assert findings.of_largest(Closed(1006)).verdict == "WRONG"
    assert findings.of_largest(NOTHING).verdict == "note"


def test_the_drop_in_endpoint() -> None:
    assert findings.of_drop_in(Closed(1007, "The first message must be setup.")).verdict == "ok"
    assert findings.of_drop_in(ours(404)).verdict == "note", "it may be switched off"
    for seen in (Answer(404, NGINX), Answer(301, {"location": "/ws/google"}), NOTHING, Closed(1006)):
        assert findings.of_drop_in(seen).verdict == "WRONG"


OPEN = Quiet(75.0, None, (20.0, 40.0, 60.0), (25.0,))
CUT = Quiet(62.5, 1006, (20.0, 40.0), ())


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (Idle(OPEN), "ok", "stayed open for all 75 s; 3 pings and 1 messages"),
        (Idle(Quiet(75.0, None)), "WRONG", "neither pings nor messages"),
        (Idle(CUT, CUT), "WRONG", "cut after 62.5 s (close 1006), 22.5 s after the last thing"),
        (Idle(CUT, CUT, OPEN, CUT), "WRONG", "pings of the client keep it open"),
        (Idle(CUT, CUT, CUT, OPEN, True), "WRONG", "messages of the client keep it open"),
        (Idle(CUT, CUT, OPEN, OPEN), "WRONG", "pings and messages of the client keep it open"),
        (Idle(CUT, CUT, CUT, CUT), "WRONG", "nothing of the client's keeps it open"),
        (Idle(CUT, CUT, answers=False), "WRONG", "does not answer any more"),
        (
            Idle(CUT, OPEN, answers=False),
            "note",
            "it was not for its silence. The process that had it does not",
        ),
        (Idle(CUT, OPEN, answers=True), "note", "whether the proxy was reloaded"),
        (Idle(CUT, OPEN), "note", "whether a process or the proxy was restarted"),
        (Idle(CUT, answers=False), "note", "and no other could be opened"),
        (Closed(4502, "the key is refused"), "note", "no conversation could be opened"),
        (NOTHING, "note", "was not tried"),
    ],
)
def test_silent_lines(seen: Idle | Seen | Closed, verdict: str, words: str) -> None:
    found = findings.of_idle(seen, 75.0)
    assert found.verdict == verdict
    assert words in found.text
    blamed = isinstance(seen, Idle) and verdict == "WRONG" and seen.answers is not False
    assert names(found) == ((("read timeout",) if seen.silent.ended else ("buffering",)) if blamed else ())


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        ([Returned("a"), Returned("b")], "ok", "to 2 processes"),
        ([Returned("a"), Returned("a")], "note", "always to the same process: not tried on another node"),
        ([Returned(None)], "note", "who answered is not told"),
        ([Returned("a"), Returned("b", "close 4404")], "WRONG", "1 of 2 times"),
    ],
)
def test_coming_back(seen: list[Returned], verdict: str, words: str) -> None:
    found = findings.of_returns(seen)
    assert found.verdict == verdict
    assert words in found.text


@pytest.mark.parametrize("remedy", remedies.ALL, ids=lambda remedy: remedy.name)
def test_every_remedy_has_lines_that_are_filled_in(remedy: Remedy) -> None:
    shown = {proxy: remedy.lines(proxy, VOICE) for proxy in PROXIES}
    assert shown["nginx"], "for nginx, or for the server itself"
    for found in shown.values():
        for place, lines in found:
            assert place
            assert lines
            for line in lines:
                assert not any(f"<{name}>" in line for name in ("host", "port", "prefix", "origin", "url")), (
                    line
                )


def test_a_setting_without_a_value_is_not_printed() -> None:
    assert dict(remedies.PREFIX.lines("nginx", ROOT))[".env"] == ["PUBLIC_URL=https://voice.example.com"]
