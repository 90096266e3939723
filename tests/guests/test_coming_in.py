"""Addresses, origins and certificates: how Google's own clients come in, and who does not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import httpx
import pytest
from serving import Server

from guests.conftest import IN_A_PAGE, Stage
from guests.guesting import Guest, RefusedError, in_page, program
from guests.stage import GatewayAt, Road, web_server

TRUST: dict[Literal["python", "node"], str] = {"python": "SSL_CERT_FILE", "node": "NODE_EXTRA_CA_CERTS"}


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
async def test_every_version_and_a_base_url_that_ends_in_a_slash(
    guest: Guest, road: Road, version: str
) -> None:
    async with guest.connected(f"{road.base}/", version=version) as session:
        assert await session.answered("Hello?") == "Good morning to you."


async def test_a_base_url_may_have_the_base_path(guest: Guest, gateway_at: GatewayAt, tmp_path: Path) -> None:
    async with gateway_at(tmp_path, BASE_PATH="/a/voice") as gateway:
        base = f"{gateway.https}/a/voice"
        async with guest.connected(base) as session:
            assert await session.answered("Hello?") == "Good morning to you."
        token = await guest.token(base, {"uses": 1})
        async with guest.connected(f"{base}/", key=token, version="v1alpha") as session:
            assert await session.answered("Hello?") == "Good morning to you."


@pytest.mark.parametrize("guest", ["node", IN_A_PAGE], indirect=True)
@pytest.mark.parametrize("end", ["", "/"], ids=["bare", "slash"])
async def test_clients_in_javascript_need_no_certificate(guest: Guest, gateway: Server, end: str) -> None:
    async with guest.connected(gateway.url + end) as session:
        assert await session.answered("What is in stock?") == "7 are left."


@pytest.mark.parametrize("guest", ["python"], indirect=True)
async def test_without_tls_a_client_in_python_says_that_it_wants_it(guest: Guest, gateway: Server) -> None:
    with pytest.raises(AssertionError, match="SSL"):
        async with guest.connected(gateway.url):
            pass


async def test_the_certificate_of_the_gateway_s_own_making_is_trusted_as_it_says(
    gateway_at: GatewayAt, tmp_path: Path
) -> None:
    async with gateway_at(tmp_path, self_signed=True) as gateway:
        for name, variable in TRUST.items():
            printed = await gateway.printed(rf"{variable}=(\S+)")
            async with program(name, Path(printed[1])) as guest, guest.connected(gateway.https) as session:
                assert await session.answered("Hello?") == "Good morning to you."


@pytest.mark.browser
async def test_a_page_of_an_origin_that_is_not_allowed_gets_neither_session_nor_token(
    stage: Stage, gateway: Server
) -> None:
    expected = ["WebSocket connection", "CORS policy", "Failed to load resource"]
    async with (
        web_server() as origin,
        in_page(await stage.browser(), origin, expected=expected) as stranger,
    ):
        with pytest.raises((RefusedError, AssertionError)):
            async with stranger.connected(gateway.https):
                pass
        with pytest.raises(AssertionError, match="Failed to fetch"):
            await stranger.token(gateway.https, {"uses": 1})


async def test_a_guest_s_conversation_is_a_session_like_any_other(guest: Guest, gateway: Server) -> None:
    async with guest.connected(gateway.https) as session:
        assert await session.answered("What is in stock?") == "7 are left."
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as http:
            (newest,) = (await http.get("/api/sessions?limit=1")).json()["sessions"]
            assert newest["connected"]
            path = f"/api/sessions/{newest['sessionId']}"
            known = (await http.get(f"{path}?include=memory")).json()
            events = (await http.get(f"{path}/events")).json()["events"]
    said = [(item["role"], item["text"]) for item in known["memory"] if item["role"] != "tool"]
    assert said == [("user", "What is in stock?"), ("model", "7 are left.")]
    assert known["usage"]
    assert "connected" in [event["kind"] for event in events]
