"""Where the model side is, how it is dialled, and what is kept of its refusals."""

from __future__ import annotations

import asyncio

import pytest
from peering import Certificates, raw_server
from pydantic import SecretStr
from serving import nobody_listens

from tornado_live.live.causes import (
    CERTIFICATE_UNTRUSTED,
    DIAL_TIMED_OUT,
    UNREACHABLE,
    Cause,
    of_close,
    of_status,
)
from tornado_live.live.upstream import (
    GOOGLE,
    REFUSAL_S,
    DialFailed,
    GeminiAddress,
    Patience,
    Upstream,
    live_url,
    retry_after_s,
)

PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


def test_every_scheme_of_a_base_url_leads_to_its_websocket() -> None:
    assert live_url(GOOGLE, "v1beta") == f"wss://generativelanguage.googleapis.com{PATH}"
    assert live_url("http://127.0.0.1:9000/", "v1beta") == f"ws://127.0.0.1:9000{PATH}"
    assert live_url("ws://host:1/gateway", "v1beta") == f"ws://host:1/gateway{PATH}"
    assert live_url("wss://host", "v1alpha").endswith(".v1alpha.GenerativeService.BidiGenerateContent")


def refused(code: int, reason: str) -> Cause:
    return of_close(code, reason, facts=None, last_sent="setup", opened=False, resuming=False)


def test_a_refusal_of_the_key_is_kept_until_a_setup_is_accepted() -> None:
    upstream = Upstream(GeminiAddress(), None, "v1beta")
    upstream.refused(refused(1011, "Resource has been exhausted (e.g. check quota)."))
    assert upstream.unready() is None
    upstream.refused(refused(1007, "No matching speaker voice found for name: alloy"))
    assert upstream.unready() is None, "that is one client's matter"
    upstream.refused(refused(1007, "API key not valid. Please pass a valid API key."))
    assert upstream.unready() == "The key is not valid; check GEMINI_API_KEY."
    upstream.accepted()
    assert upstream.unready() is None


async def answered(status: int, *headers: str) -> tuple[Upstream, Cause, bytes]:
    """How a handshake that gets `status` is told, and what was asked."""
    async with raw_server() as server, asyncio.TaskGroup() as tasks:
        upstream = Upstream(
            GeminiAddress(server.url.replace("ws", "http", 1)), SecretStr("a-key-for-tests"), "v1beta"
        )

        async def attempt() -> DialFailed:
            with pytest.raises(DialFailed) as failed:
                await upstream.dial()
            return failed.value

        attempting = tasks.create_task(attempt())
        far, request = await server.arrivals.get()
        head = "".join(
            f"{line}\r\n" for line in (f"HTTP/1.1 {status} Sorry", *headers, "Content-Length: 0", "")
        )
        await far.send(head.encode())
        return upstream, (await attempting).cause, request


@pytest.mark.proves("F2")
async def test_a_handshake_that_is_refused_for_the_key_is_remembered() -> None:
    upstream, cause, request = await answered(403)
    assert cause == of_status(403, None)
    assert upstream.unready() == cause.message
    assert b"x-goog-api-key: a-key-for-tests" in request


@pytest.mark.proves("F3")
async def test_a_server_that_says_when_to_come_back_is_asked_no_sooner() -> None:
    upstream, cause, _ = await answered(503, "Retry-After: 12")
    assert cause == of_status(503, 12)
    assert cause.retry_after_ms == 12_000
    assert upstream.unready() is None, "the key is not at fault"


@pytest.mark.proves("F1")
async def test_a_port_that_is_closed_is_unreachable() -> None:
    with nobody_listens() as port, pytest.raises(DialFailed) as failed:
        await Upstream(GeminiAddress(f"http://127.0.0.1:{port}"), None, "v1beta").dial()
    assert failed.value.cause is UNREACHABLE


async def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    async with raw_server(Certificates()) as server:
        with pytest.raises(DialFailed) as failed:
            await Upstream(GeminiAddress(server.url.replace("wss", "https", 1)), None, "v1beta").dial()
    assert failed.value.cause is CERTIFICATE_UNTRUSTED


async def test_a_server_that_does_not_answer_the_handshake_is_told_apart() -> None:
    async with raw_server() as server:
        url = server.url.replace("ws", "http", 1)
        with pytest.raises(DialFailed) as failed:
            await Upstream(GeminiAddress(url), None, "v1beta", patience=Patience(open_s=0.05)).dial()
    assert failed.value.cause is DIAL_TIMED_OUT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Mon, 23 Nov 2026 10:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    at_ten = 1795428000.0
    assert retry_after_s({"Retry-After": header}, at_ten) == seconds
    assert retry_after_s({}, at_ten) is None


def test_a_refused_key_is_forgotten_after_a_minute_so_that_somebody_can_try_it_again() -> None:
    now = [100.0]
    upstream = Upstream(GeminiAddress(), None, "v1beta", clock=lambda: now[0])
    upstream.refused(of_status(401, None))
    now[0] += REFUSAL_S - 1
    assert upstream.unready() is not None
    now[0] += 1
    assert upstream.unready() is None
    upstream.refused(of_status(401, None))
    upstream.accepted()
    assert upstream.unready() is None
