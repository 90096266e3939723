"""T12: over REST, a session of somebody else is answered exactly like one that there is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accessing import ASKING, api_key, bearer, session_of, signed
from doorways import METHODS, NO_MODEL, Answer, asked, routes
from serving import Server

ITS_OWN = ("date", "x-request-id")


def shape(answer: Answer, id: str) -> tuple[int, list[str], object]:
    """All that a client sees, but what each answer has of its own."""
    lines = answer.head.decode("latin-1").split("\r\n")[1:]
    head = sorted(line for line in lines if line.partition(":")[0].lower() not in ITS_OWN)
    body = json.loads(answer.body) if answer.body else None
    if body is not None:
        assert id not in answer.body.decode()
        body["error"].pop("requestId")
    return answer.status, head, body


@pytest.mark.proves("T12")
async def test_a_session_of_somebody_else_is_answered_like_one_that_there_is_not(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    alice = await api_key(shared, "alice", user="alice")
    others = [
        await api_key(shared, "bob", user="bob"),
        await api_key(shared, "site", roles=frozenset({"backend", "operator"})),
        signed("carol", roles=["operator"]),
        signed("Alice"),
    ]
    below = [route for route in await routes(tmp_path, **ASKING) if "{id}" in (route.rule.path or "")]
    assert {route.name for route in below} == {"session", "ticket", "events", "calls"}
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        hers = (await session_of(server, alice))["sessionId"]
        unknown = hers[:-1] + ("a" if hers[-1] != "a" else "b")
        for route in below:
            for method in METHODS[:6]:
                for other in others:
                    for body in (b"", b'{"userId": "dave"}') if route.name == "ticket" else (b"",):
                        seen = []
                        for id in (hers, unknown):
                            path = f"{route.path.replace('unknown', id)}?include=memory"
                            headers = (*bearer(other).items(), ("Content-Type", "application/json"))
                            answer = await asked(server.port, method, path, headers, body)
                            seen.append(shape(answer, id))
                        assert seen[0] == seen[1], (method, route.path)
                        assert seen[0][0] in (403, 404, 405), (method, route.path, seen[0])
        # It is hers all the while.
        found = await asked(server.port, "GET", f"/api/sessions/{hers}", tuple(bearer(alice).items()))
        assert (found.status, json.loads(found.body)["userId"]) == (200, "alice")
        for other in others:
            listed = await asked(server.port, "GET", "/api/sessions", tuple(bearer(other).items()))
            assert json.loads(listed.body) == {"sessions": []}


@pytest.mark.proves("T12")
async def test_a_backend_makes_sessions_for_its_users_and_comes_back_for_them(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    site = await api_key(shared, "site", roles=frozenset({"backend"}))
    alice, bob = signed("alice"), signed("bob")
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        made = await session_of(server, site, userId="alice", limits={"conversation_s": 5})
        path = f"/api/sessions/{made['sessionId']}"
        assert made["userId"] == "alice"
        for credential, status in ((alice, 200), (bob, 404), (site, 404)):
            answer = await asked(server.port, "GET", path, tuple(bearer(credential).items()))
            assert answer.status == status

        async def token(credential: str, body: object) -> int:
            headers = (*bearer(credential).items(), ("Content-Type", "application/json"))
            given = json.dumps(body).encode()
            return (await asked(server.port, "POST", f"{path}/token", headers, given)).status

        assert await token(site, {"userId": "alice"}) == 201
        assert await token(site, {"userId": "bob"}) == 404
        assert await token(site, {}) == 404
        assert await token(alice, {}) == 201
        assert await token(alice, {"userId": "alice"}) == 201
        assert await token(bob, {"userId": "alice"}) == 403
        assert await token(alice, {"origin": "https://evil.example"}) == 403
        for name in ("", " ", "local", "key:other", "a\u0000b", "x" * 300):
            assert await token(site, {"userId": name}) == 400, name
        # A ticket is for the socket alone.
        for method, where in (("GET", path), ("POST", f"{path}/token"), ("DELETE", path)):
            shown = tuple(bearer(made["token"]).items())
            assert (await asked(server.port, method, where, shown)).status == 401
