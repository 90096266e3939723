"""What `doctor --production` concludes from what it saw."""

from __future__ import annotations

import stat

import pytest

from tornado_live.deploy import posture, shut
from tornado_live.deploy.findings import FOREIGN, FORGED, Finding
from tornado_live.deploy.posture import FileSeen, KeySeen
from tornado_live.deploy.seen import Answer, Closed, NoAnswer
from tornado_live.deploy.shut import Tried
from tornado_live.deploy.target import target_of

OURS = {"x-request-id": "1", "content-security-policy": "default-src 'self'"}
REFUSED = Answer(401, OURS)
SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self)",
    "content-security-policy": "default-src 'self'; object-src 'none'; frame-ancestors 'none'",
    "strict-transport-security": "max-age=31536000",
}
VOICE = target_of("https://voice.example.com")


def verdicts(found: list[Finding]) -> list[str]:
    return [one.verdict for one in found]


@pytest.mark.parametrize(
    ("tried", "is_open"),
    [
        (Tried("GET /api/tools", Answer(200, OURS)), True),
        (Tried("GET /api/sessions/nobody", Answer(404, OURS)), True),
        (Tried("POST /api/sessions", Answer(500, {})), True),
        (Tried("GET /api/tools", REFUSED), False),
        (Tried("GET /api/tools", Answer(429, {})), False),
        (Tried("/ws", Answer(101, {}), took=True), True),
        (Tried("/ws", Closed(4401)), False),
        (Tried("/ws", Closed(4503)), True),
        (Tried("the endpoint of Google's clients", Closed(1008)), False),
        (Tried("the endpoint of Google's clients", Closed(1011)), True),
        (Tried("/ws", Answer(403, OURS)), False),
        (Tried("/ws", NoAnswer("nothing came in time")), False),
    ],
)
def test_a_door_is_open_that_does_more_than_refuse(tried: Tried, is_open: bool) -> None:
    assert tried.is_open is is_open
    (first, *_) = shut.of_strangers([tried], [])
    assert first.verdict == ("WRONG" if is_open or isinstance(tried.seen, NoAnswer) else "ok")


def test_a_key_that_is_made_up_and_taken_is_told_apart() -> None:
    (found,) = shut.of_strangers([Tried("/ws", REFUSED)], [Tried("GET /api/sessions", Answer(200, OURS))])
    assert found.text.startswith("whoever makes up a key is let in at GET /api/sessions")


def test_what_operators_may_is_known_of_an_operators_credential_and_wrong_of_nobodys() -> None:
    metrics, invoked = Answer(200, OURS), Answer(404, OURS)
    assert verdicts(shut.of_operators(metrics, invoked, shows=True, here=False)) == ["note", "note"]
    assert verdicts(shut.of_operators(metrics, invoked, shows=False, here=False)) == ["WRONG", "WRONG"]
    assert verdicts(shut.of_operators(metrics, REFUSED, shows=False, here=True)) == ["note", "ok"]
    assert verdicts(shut.of_operators(Answer(404, {}), Answer(404, {}), shows=False, here=False)) == [
        "ok",
        "ok",
    ]
    assert shut.of_operators(Answer(403, OURS), Answer(403, OURS), shows=True, here=False) == []


def test_foreign_pages_are_refused_everywhere_or_named_where_not() -> None:
    refused = Answer(403, OURS)
    assert verdicts(shut.of_foreign(refused, refused, refused)) == ["ok"]
    let = Answer(204, {"access-control-allow-origin": FOREIGN})
    (found,) = shut.of_foreign(Answer(200, OURS), Answer(101, {}), let)
    assert "REST, the WebSocket, what comes before a call of another origin" in found.text


def test_headers_are_held_one_by_one() -> None:
    assert verdicts(shut.of_headers(Answer(200, SAFE), VOICE)) == ["ok"]
    for name in SAFE:
        less = {key: value for key, value in SAFE.items() if key != name}
        wanted = "note" if name == "strict-transport-security" else "WRONG"
        assert verdicts(shut.of_headers(Answer(200, less), VOICE)) == [wanted], name
    twice = SAFE | {"x-content-type-options": "nosniff, nosniff"}
    assert verdicts(shut.of_headers(Answer(200, twice), VOICE)) == ["WRONG"]
    for told, verdict in (("nginx", "ok"), ("nginx/1.22.1", "WRONG"), ("TornadoServer/6.6", "WRONG")):
        assert verdicts(shut.of_headers(Answer(200, SAFE | {"server": told}), VOICE)) == [verdict]
    unsafe = SAFE["content-security-policy"] + "; script-src 'self' 'unsafe-inline'"
    assert verdicts(shut.of_headers(Answer(200, SAFE | {"content-security-policy": unsafe}), VOICE)) == [
        "WRONG"
    ]
    assert verdicts(shut.of_headers(NoAnswer("gone"), VOICE)) == ["WRONG"]


def test_wrong_credentials_are_tried_only_where_they_count() -> None:
    assert shut.of_flood(35, True, "203.0.113.9", exempt=False).verdict == "ok"
    assert shut.of_flood(35, False, "203.0.113.9", exempt=False).verdict == "WRONG"
    assert shut.of_flood(0, False, "127.0.0.1", exempt=True).verdict == "note"
    assert "pass for another" in shut.of_flood(0, False, FORGED, exempt=True).text


DIRECTORY, FILE = stat.S_IFDIR, stat.S_IFREG


@pytest.mark.parametrize(
    ("mode", "owner", "folder", "private", "is_fine"),
    [
        (FILE | 0o600, 1000, DIRECTORY | 0o755, True, True),
        (FILE | 0o640, 0, DIRECTORY | 0o755, True, True),
        (FILE | 0o604, 1000, DIRECTORY | 0o755, True, False),
        (FILE | 0o644, 1000, DIRECTORY | 0o755, False, True),
        (FILE | 0o646, 1000, DIRECTORY | 0o755, False, False),
        (FILE | 0o600, 1000, DIRECTORY | 0o777, True, False),
        (FILE | 0o600, 1000, DIRECTORY | 0o1777, True, True),
        (FILE | 0o600, 1001, DIRECTORY | 0o755, True, False),
        (DIRECTORY | 0o700, 1000, DIRECTORY | 0o755, True, True),
        (DIRECTORY | 0o755, 1000, DIRECTORY | 0o755, True, False),
    ],
)
def test_a_file_is_its_owners(mode: int, owner: int, folder: int, private: bool, is_fine: bool) -> None:
    (found,) = posture.of_files([FileSeen("it", mode, owner, folder, private)], 1000)
    assert found.verdict == ("ok" if is_fine else "WRONG"), found.text


def test_keys_without_an_end_are_counted_and_named() -> None:
    (none,) = posture.of_keys([], alone=True)
    assert (none.verdict, "token create" in none.text) == ("note", True)
    (unneeded,) = posture.of_keys([], alone=False)
    assert unneeded.verdict == "ok"
    keys = [KeySeen(f"key-{number}", number == 0, number < 7) for number in range(9)]
    (found,) = posture.of_keys(keys, alone=True)
    assert found.text.startswith(
        "API keys: 9, of operators 1; 7 without an end (key-0, key-1, key-2, key-3, key-4 …)"
    )
    (good,) = posture.of_keys([KeySeen("web", False, False)], alone=True)
    assert good.verdict == "ok"
