"""What leaves with every answer, whatever was asked."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
from accessing import ASKING
from doorways import NO_MODEL, asked, routes
from serving import Server

HSTS = "Strict-Transport-Security"


@pytest.mark.proves("T6")
@pytest.mark.parametrize("asks", [False, True])
async def test_every_answer_of_every_route_is_locked_down(tmp_path: Path, asks: bool) -> None:
    async with Server(environ=NO_MODEL | (ASKING if asks else {})) as server:
        for route in await routes(tmp_path):
            for method in ("GET", "POST", "OPTIONS", "BREW"):
                answer = await asked(server.port, method, route.path)
                where = f"{method} {route.path}: {answer.text}"
                assert answer.header("X-Content-Type-Options") == "nosniff", where
                assert answer.header("X-Frame-Options") == "DENY", where
                assert answer.header("Referrer-Policy") == "no-referrer", where
                assert answer.header("Cross-Origin-Opener-Policy") == "same-origin", where
                assert answer.header("Cross-Origin-Resource-Policy") == "same-origin", where
                permissions = answer.header("Permissions-Policy") or ""
                assert {"microphone=(self)", "camera=()", "geolocation=()"} <= set(permissions.split(", ")), (
                    where
                )
                policy = answer.header("Content-Security-Policy") or ""
                assert "default-src 'self'" in policy, where
                assert "unsafe" not in policy, where
                assert answer.header("Server") is None, where
                assert answer.header("X-Request-Id"), where
                assert answer.header(HSTS) is None, where
                assert answer.header("Set-Cookie") is None, where


async def test_tls_is_asked_for_where_a_request_came_by_it_and_only_there() -> None:
    names = {"ALLOWED_HOSTS": "voice.example.com,localhost,127.0.0.1"}
    matrix = [
        ("voice.example.com", "https", True),
        ("voice.example.com", "http", False),
        ("localhost", "https", False),
        ("127.0.0.1", "https", False),
    ]
    async with Server(environ=NO_MODEL | names | {"TRUSTED_PROXIES": "127.0.0.1"}, tls=True) as server:
        for host, proto, told in matrix:
            for path in ("/health", "/api/nothing", "/"):
                headers = (("Host", host), ("X-Forwarded-Proto", proto), ("X-Forwarded-For", "198.51.100.1"))
                answer = await asked(server.port, "GET", path, headers)
                assert answer.header(HSTS) == ("max-age=31536000" if told else None), (host, proto)
        # Not on the word of whoever asks, nor where the same server has a port without TLS for its clients.
        direct = await asked(server.port, "GET", "/health", (("Host", "voice.example.com"),))
        assert direct.header(HSTS) is None
        trusted = ssl.create_default_context(cafile=str(server.ca))
        async with httpx.AsyncClient(verify=trusted, trust_env=False) as client:
            answer = await client.get(f"{server.https}/health", headers={"Host": "voice.example.com"})
            assert answer.status_code == 200
            assert HSTS not in answer.headers
