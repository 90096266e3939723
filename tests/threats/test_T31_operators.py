"""T31: what is for operators is for operators, and nothing else shows how the server works inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from accessing import ASKING, api_key, bearer, session_of, signed, store_of
from doorways import NO_MODEL, applications, asked, routes
from serving import Server

from tornado_live.handlers.rules import RULES

OPERATORS = {"metrics", "invoke"}
"""Whoever makes a further route one of operators writes its name here too."""
ELSEWHERE = ("X-Forwarded-For", "203.0.113.9")
INSIDES = (
    "/debug", "/admin", "/metrics/", "/metrics.json", "/status", "/server-status", "/actuator/env", "/env",
    "/console", "/docs", "/redoc", "/swagger", "/swagger.json", "/api/openapi.json", "/openapi.yaml", "/.git/HEAD",
    "/.env", "/config", "/api/config", "/api/settings", "/api/keys", "/api/users", "/trace", "/__debug__",
    "/api/metrics", "/v1/metrics", "/health/debug", "/tools.yaml", "/data/sessions.db",
)  # fmt: skip


@pytest.mark.proves("T31")
async def test_routes_of_operators_take_the_role_and_no_other(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    with_role = await api_key(shared, "operator", roles=frozenset({"operator"}))
    without_role = [
        await api_key(shared, "plain"),
        await api_key(shared, "backend", roles=frozenset({"backend", "admin", "Operator", "operators"})),
        signed("alice"),
        signed("mallory", scope="operator", role="operator"),
    ]
    found = await routes(tmp_path, **ASKING)
    assert {route.name for route in found if route.rule.access == "operator"} == OPERATORS
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        for route in found:
            for method in {one.upper() for one in RULES[route.name].operations} - {"DELETE"}:
                shown = (ELSEWHERE, *bearer(with_role).items())
                allowed = await asked(server.port, method, route.path, shown)
                assert allowed.status not in (401, 403), allowed.text
                for credential in without_role:
                    shown = (ELSEWHERE, *bearer(credential).items())
                    answer = await asked(server.port, method, route.path, shown)
                    if route.name in OPERATORS:
                        assert answer.status == 403, answer.text
                        assert b'"forbidden"' in answer.body
                        # Nor as this machine itself: whoever shows a credential is held to it.
                        assert (await asked(server.port, method, route.path, shown[1:])).status == 403
                    else:
                        assert answer.status == allowed.status, answer.text
        roles = signed("ops", roles=["operator"])
        assert (await asked(server.port, "GET", "/metrics", tuple(bearer(roles).items()))).status == 200


@pytest.mark.proves("T31")
async def test_a_ticket_makes_no_page_an_operator(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "all", roles=frozenset({"operator", "backend", "nurse"}))
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        own = await session_of(server, key)
        others = await session_of(server, key, userId="bob")
    async with store_of(shared) as store:
        found = [await store.use_credential(made["token"], spend=False) for made in (own, others)]
    kept = [credential.body["caller"]["roles"] for credential in found if credential is not None]
    assert kept == [["nurse"], []]


@pytest.mark.proves("T31")
async def test_nothing_shows_the_insides_and_nothing_reloads_itself(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "operator", roles=frozenset({"operator"}))
    async with Server(environ=NO_MODEL | ASKING | shared) as server:
        for path in INSIDES:
            for shown in ((), tuple(bearer(key).items())):
                answer = await asked(server.port, "GET", path, shown)
                assert answer.status == 404, (path, answer.text)
                for word in ("Traceback", "tornado_live/", "site-packages", str(tmp_path)):
                    assert word not in answer.text
        answer = await asked(server.port, "GET", "/health?debug=1&serve_traceback=1", (("X-Debug", "1"),))
        assert answer.header("Server") is None
        assert "Tornado" not in answer.text


@pytest.mark.proves("T31")
async def test_no_application_is_in_debug_mode(tmp_path: Path) -> None:
    for route in await routes(tmp_path):
        assert route.spec.handler_class.__module__.startswith("tornado_live.handlers.")
    async with applications(tmp_path) as both:
        for application in both:
            for name in ("debug", "autoreload", "serve_traceback"):
                assert not application.settings.get(name)
