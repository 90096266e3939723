"""Asking for an ephemeral token over HTTP, as Google's clients and pages do."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from google.genai import Client, types
from google.genai.errors import APIError, ClientError
from issuing import AUDIENCE, ISSUER, SECRET, secret_token
from serving import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tornado_live.access.keys import keep_key, make_key
from tornado_live.access.tokens import Token, admit
from tornado_live.sessions.sqlite import SqliteSessionStore

MODEL = "gemini-3.8-live"
KEY = "no-real-key-but-a-long-one"
LISTED = "https://app.example.com"
SIGNED = {
    "AUTH__JWT_ALGORITHMS": "HS256",
    "AUTH__JWT_SECRET": SECRET,
    "AUTH__JWT_ISSUER": ISSUER,
    "AUTH__JWT_AUDIENCE": AUDIENCE,
}
# Google marks its token calls as experimental with warnings.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The SDK's token creation implementation is experimental",
    "ignore:The SDK's ephemeral token support is experimental",
)


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


def owner(server: Server, *, secure: bool = False, version: str = "v1alpha", key: str = KEY) -> Client:
    """Google's client with the key of whoever gives tokens away."""
    url = server.https if secure else server.url
    trust = ssl.create_default_context(cafile=str(server.ca)) if secure else True
    options = types.HttpOptions(
        base_url=url, api_version=version, client_args={"verify": trust, "trust_env": False}
    )
    return Client(api_key=key, http_options=options)


async def given(home: Path, name: str | None, *, resuming: bool = False) -> Token:
    """The token of this name, asked of the server's own file."""
    store = await SqliteSessionStore.open(home / "data/sessions.db", ttl_s=1800)
    try:
        return await admit(store, name or "", resuming=resuming)
    finally:
        await store.close()


def constraints() -> types.LiveConnectConstraints:
    return types.LiveConnectConstraints(
        model=MODEL,
        config=types.LiveConnectConfig(
            response_modalities=[types.Modality.AUDIO],
            top_p=0.9,
            system_instruction="Be brief.",
            tools=[types.Tool(google_search=types.GoogleSearch())],
            session_resumption=types.SessionResumptionConfig(),
            realtime_input_config=types.RealtimeInputConfig(
                automatic_activity_detection=types.AutomaticActivityDetection(disabled=True)
            ),
        ),
    )


@pytest.mark.parametrize("secure", [False, True])
async def test_google_s_client_makes_tokens_that_fix_what_it_was_told(tmp_path: Path, secure: bool) -> None:
    in_an_hour = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(hours=1)
    asked: dict[str, Any] = {
        "model": "models/another",
        "generationConfig": {"temperature": 2, "response_modalities": ["TEXT"]},
        "tools": [{"functionDeclarations": [{"name": "mine"}]}],
        "sessionResumption": {"handle": "h"},
        "outputAudioTranscription": {},
    }
    whole = {
        "model": f"models/{MODEL}",
        "generationConfig": {"responseModalities": ["AUDIO"], "topP": 0.9},
        "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
        "tools": [{"googleSearch": {}}],
        "realtimeInputConfig": {"automatic_activity_detection": {"disabled": True}},
        "sessionResumption": {"handle": "h"},
    }
    async with Server(home=tmp_path, tls=secure) as server:
        client = owner(server, secure=secure)
        names = [
            (await asyncio.to_thread(client.auth_tokens.create, config=config)).name
            for config in (
                None,
                types.CreateAuthTokenConfig(uses=0, live_connect_constraints=constraints()),
                types.CreateAuthTokenConfig(
                    uses=5,
                    expire_time=in_an_hour,
                    # as people write it, and without a zone on the way
                    new_session_expire_time=in_an_hour.replace(tzinfo=None),
                    live_connect_constraints=constraints(),
                    lock_additional_fields=["temperature", "output_audio_transcription"],
                ),
                types.CreateAuthTokenConfig(lock_additional_fields=["tools"]),
            )
        ]
        client.close()
        free, fixed, partly, toolless = [await given(tmp_path, name) for name in names]
    assert free.applied(asked) == asked
    assert (fixed.uses, fixed.applied(asked)) == (None, whole)
    assert (partly.uses, partly.expires_at, partly.sessions_until) == (5, *(in_an_hour.timestamp(),) * 2)
    assert partly.applied({**asked, "historyConfig": {}}) == {**whole, "historyConfig": {}}
    assert "tools" not in toolless.applied(asked)
    assert await given(tmp_path, names[2]) == partly  # the server is gone; the token is not


async def test_every_version_and_any_number_of_slashes_lead_there(tmp_path: Path) -> None:
    async with Server(home=tmp_path) as server, asking(server) as client:
        for path in (
            "/v1/auth_tokens",
            "/v1alpha/auth_tokens",
            "//v1beta/auth_tokens",
            "///v1//auth_tokens?key=k",
        ):
            body = {
                "uses": 3,
                "new_session_expire_time": None,
                "bidi_generate_content_setup": {"model": "models/m"},
            }
            answer = await client.post(f"{server.url}{path}", json=body)
            assert answer.status_code == 200
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Etag" not in answer.headers
            assert list(answer.json()) == ["name"]
            token = await given(tmp_path, answer.json()["name"])
            assert (token.uses, token.setup, token.user) == (3, {"model": "models/m"}, "local")
        burst = await asyncio.gather(*(client.post("/v1alpha/auth_tokens") for _ in range(30)))
        assert len({answer.json()["name"] for answer in burst}) == 30


async def test_refusals_have_the_shape_that_google_s_clients_read(tmp_path: Path) -> None:
    async with Server(home=tmp_path) as server, asking(server) as client:
        json_type = {"Content-Type": "application/json"}
        asked: list[tuple[dict[str, Any], int, str, str]] = [
            (
                {"content": b"{", "headers": json_type},
                400,
                "INVALID_ARGUMENT",
                "The body is not JSON.",
            ),
            ({"content": b"[" * 60_000, "headers": json_type}, 400, "INVALID_ARGUMENT", "not JSON"),
            ({"content": b"\xff", "headers": json_type}, 400, "INVALID_ARGUMENT", "not JSON"),
            ({"content": b"null", "headers": json_type}, 200, "", ""),
            ({"content": b"{}"}, 400, "INVALID_ARGUMENT", "Content-Type: application/json"),
            ({"data": {"uses": "1"}}, 400, "INVALID_ARGUMENT", "Content-Type: application/json"),
            ({"json": []}, 400, "INVALID_ARGUMENT", "The body must be an object"),
            ({"json": {"uses": -1}}, 400, "INVALID_ARGUMENT", "'auth_token.uses'"),
            ({"json": {"fieldMask": "tools.0"}}, 400, "INVALID_ARGUMENT", "field_mask is invalid"),
            ({"json": {"x": "y" * 70_000}}, 413, "INVALID_ARGUMENT", "over 64 KiB"),
            ({"headers": {"Origin": "https://foreign.test"}}, 403, "PERMISSION_DENIED", "ALLOWED_ORIGINS"),
            ({"headers": {"Host": "foreign.test"}}, 403, "PERMISSION_DENIED", "ALLOWED_HOSTS"),
        ]
        for request, status, name, words in asked:
            answer = await client.post("/v1alpha/auth_tokens", **request)
            assert answer.status_code == status
            if status != 200:
                error = answer.json()["error"]
                assert (error["code"], error["status"]) == (status, name)
                assert words in error["message"]
                [detail] = error["details"]
                assert detail["requestId"] == answer.headers["X-Request-Id"]
                assert (answer.headers.get("Connection") == "close") == (
                    status == 403
                )  # its body was not read
        for method in ("GET", "PROPFIND"):
            answer = await client.request(method, "/v1alpha/auth_tokens")
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, OPTIONS")
            assert answer.json()["error"]["message"] == f"This path does not take {method}."
        sdk = owner(server)
        config: Any = {"uses": 1, "lock_additional_fields": ["heat"]}
        with pytest.raises(ClientError, match=r"400 INVALID_ARGUMENT.*field_mask is invalid") as refused:
            await asyncio.to_thread(sdk.auth_tokens.create, config=config)
        assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
        sdk.close()


async def test_pages_of_allowed_origins_may_ask_and_others_may_not() -> None:
    wanted = ("content-type", "x-goog-api-client", "x-goog-api-key")
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join(wanted)}
    async with Server(environ={"ALLOWED_ORIGINS": LISTED}) as server, asking(server) as client:
        for path in ("/v1alpha/auth_tokens", "//v1alpha/auth_tokens"):
            answer = await client.options(f"{server.url}{path}", headers={"Origin": LISTED} | ask)
            assert answer.status_code == 204
            assert answer.headers["Access-Control-Allow-Origin"] == LISTED
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert set(wanted) <= set(allowed)
        made = await client.post("/v1alpha/auth_tokens", headers={"Origin": LISTED, "X-Goog-Api-Key": KEY})
        assert made.json()["name"].startswith("auth_tokens/")
        assert made.headers["Access-Control-Allow-Origin"] == LISTED
        foreign = await client.options(
            "/v1alpha/auth_tokens", headers={"Origin": "https://foreign.test"} | ask
        )
        assert foreign.status_code == 403
        assert "Access-Control-Allow-Origin" not in foreign.headers
        # other routes take no more headers than before
        answer = await client.options("/api/sessions", headers={"Origin": LISTED} | ask)
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type, Authorization"


async def test_neither_keys_nor_tokens_come_into_the_log_or_the_file(tmp_path: Path) -> None:
    async with Server(home=tmp_path, environ={"LOG_LEVEL": "debug"}) as server, asking(server) as client:
        path, secrets = "/v1alpha/auth_tokens", [KEY]
        for query in (f"?key={KEY}", f"?alt=json&key={KEY}", f"?access_token=auth_tokens/{KEY}"):
            answer = await client.post(path + query, headers={"x-goog-api-key": KEY})
            secrets.append(answer.json()["name"].removeprefix("auth_tokens/"))
            refused = await client.post(path + query, headers={"Authorization": f"Token {KEY}"}, json=[KEY])
            assert refused.status_code == 400
        await client.get(f"/the-end?key={KEY}")
        await server.printed("/the-end")
    for secret in secrets:
        assert secret not in server.log
    assert server.log.count("access_token=***") == 2
    stored = (tmp_path / "data/sessions.db").read_bytes()
    assert not any(secret.encode() in stored for secret in secrets)


async def test_where_callers_are_asked_who_they_are_a_token_is_made_with_a_credential(tmp_path: Path) -> None:
    store = await SqliteSessionStore.open(tmp_path / "data/sessions.db", ttl_s=1800)
    shown, key = make_key("web", now=time.time(), limits={"cost_per_day": 2})
    await keep_key(store, key, None)
    await store.close()
    asking_all = {"AUTH__MODES": "api_key,jwt"} | SIGNED
    async with Server(home=tmp_path, environ=asking_all) as server, asking(server) as client:
        with owner(server) as stranger, pytest.raises(ClientError, match="401 UNAUTHENTICATED"):
            await asyncio.to_thread(stranger.auth_tokens.create)
        with owner(server, key=shown) as known:
            free = (await asyncio.to_thread(known.auth_tokens.create)).name or ""
            config = types.CreateAuthTokenConfig(live_connect_constraints=constraints())
            fixed = (await asyncio.to_thread(known.auth_tokens.create, config=config)).name or ""
        token = await given(tmp_path, free, resuming=True)
        assert token.user == "key:web"
        assert token.caller().limits == {"cost_per_day": 2}
        path = "/v1alpha/auth_tokens"
        of_a_person = {"Authorization": f"Bearer {secret_token()}"}
        assert (await client.post(path, headers=of_a_person)).status_code == 200
        for credential in (free, fixed, "tlt_" + "x" * 43, "tl_nothing", secret_token("another-secret" * 3)):
            refused = await client.post(path, headers={"x-goog-api-key": credential})
            assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        at = f"ws://127.0.0.1:{server.port}/ws"
        with pytest.raises(InvalidStatus) as closed:
            async with connect(at, additional_headers={"Authorization": f"Bearer {fixed}"}):
                pass
        assert closed.value.response.status_code == 403
        offered = [Subprotocol("tornado-live"), Subprotocol(f"bearer.{quote(free, safe='')}")]
        async with connect(at, subprotocols=offered) as socket:
            assert socket.subprotocol == "tornado-live"
            await socket.send('{"type":"connect","data":{}}')
            assert '"CONNECTING"' in str(await socket.recv())
        with pytest.raises(InvalidStatus) as closed:
            async with connect(at, subprotocols=offered):
                pass
        assert closed.value.response.status_code == 401
        assert '"ephemeral token used too many times"' in server.log
        for secret in (shown, free, fixed):
            assert secret[-30:] not in server.log


async def test_a_backend_says_for_whom_a_token_is(tmp_path: Path) -> None:
    store = await SqliteSessionStore.open(tmp_path / "data/sessions.db", ttl_s=1800)
    backend, key = make_key("web", now=time.time(), roles=frozenset({"backend"}))
    plain, other = make_key("app", now=time.time())
    for each in (key, other):
        await keep_key(store, each, None)
    await store.close()
    path = "/v1alpha/auth_tokens"
    async with Server(home=tmp_path, environ={"AUTH__MODES": "api_key"}) as server, asking(server) as client:
        shows = {"x-goog-api-key": backend}
        made = await client.post(path, headers=shows, json={"userId": "visitor-7", "uses": 2})
        caller = (await given(tmp_path, made.json()["name"])).caller()
        assert (caller.user, caller.roles, caller.claims) == ("visitor-7", frozenset(), {"sub": "visitor-7"})
        assert {"user:visitor-7", f"key:{key.id}"} < caller.subjects
        for user in ("", "local", "key:app", 7, None, "a\nb"):
            refused = await client.post(path, headers=shows, json={"userId": user})
            assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
        refused = await client.post(path, headers={"x-goog-api-key": plain}, json={"userId": "visitor-7"})
        assert refused.status_code == 400
        assert 'Unknown name "userId"' in refused.json()["error"]["message"]


async def test_google_s_client_talks_with_whatever_shows_who_it_is(tmp_path: Path) -> None:
    store = await SqliteSessionStore.open(tmp_path / "data/sessions.db", ttl_s=1800)
    shown, key = make_key("web", now=time.time())
    await keep_key(store, key, None)
    await store.close()

    async def heard(server: Server, credential: str) -> str:
        """What the model says, or what the client is told."""
        trust = ssl.create_default_context(cafile=str(server.ca))
        options = types.HttpOptions(
            base_url=server.https, api_version="v1alpha", async_client_args={"ssl": trust}
        )
        client = Client(api_key=credential, http_options=options)
        config: Any = {"response_modalities": ["AUDIO"], "output_audio_transcription": {}}
        try:
            async with client.aio.live.connect(model=MODEL, config=config) as session:
                await session.send_realtime_input(text="Hello")
                async for message in session.receive():
                    content = message.server_content
                    if content is not None and content.output_transcription is not None:
                        return "an answer"
        except APIError as error:
            return f"{error.code}: {error.details}"
        except ConnectionClosed as error:  # it was closed before the SDK had sent its setup
            return f"{error.rcvd.code}: {error.rcvd.reason}" if error.rcvd else "nothing"
        finally:
            client.close()
            await client.aio.aclose()
        return "nothing"

    modes = {"AUTH__MODES": "api_key,jwt"} | SIGNED
    async with Server(home=tmp_path, environ=modes, tls=True) as server:
        with owner(server, secure=True, key=shown) as known:
            ephemeral = (await asyncio.to_thread(known.auth_tokens.create)).name or ""
        told = {
            name: await heard(server, credential)
            for name, credential in {
                "a key": shown,
                "a signed token": secret_token(),
                "an ephemeral token": ephemeral,
                "the same once more": ephemeral,
                "a wrong key": f"{shown[:-1]}-",
                "a forged token": secret_token("another-secret" * 3),
                "a key of Google's": KEY,
            }.items()
        }
    refused = "1008: The credential is wrong, has expired, or was revoked. Show another one."
    assert told == {
        "a key": "an answer",
        "a signed token": "an answer",
        "an ephemeral token": "an answer",
        "the same once more": "1008: Token has been used too many times. Make a new one, or one with more uses.",
        "a wrong key": refused,
        "a forged token": refused,
        "a key of Google's": refused,
    }


async def test_where_the_drop_in_is_off_there_are_no_tokens() -> None:
    async with Server("--set", "drop_in.enabled=false") as server, asking(server) as client:
        assert (await client.post("/v1alpha/auth_tokens", json={})).status_code in (404, 405)


async def test_the_rest_of_google_s_api_is_refused_in_words_that_its_clients_show() -> None:
    async with Server() as server:
        with owner(server) as google, pytest.raises(ClientError) as refused:
            await asyncio.to_thread(google.models.generate_content, model=MODEL, contents="Hello")
        assert refused.value.code == 404
        assert "Only the Live API" in str(refused.value)
        async with asking(server) as client:
            for method, path in (("GET", "/v1beta/models"), ("PUT", "/v1/files/x"), ("DELETE", "/v1alpha/x")):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")
