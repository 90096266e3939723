"""Gemini Live on Vertex AI: settings, addresses, credentials, and a conversation's setup on the simulator."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr
from serving import Server
from simulating import Simulator
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from websockets.asyncio.client import connect

from tornado_live.errors import ConfigError
from tornado_live.live.upstream import DialFailed, Patience, Upstream, live_url
from tornado_live.live.vertex import VERTEX_METHOD, VertexAddress, service_url, vertex_upstream
from tornado_live.settings import Settings, Vertex, load_settings
from tornado_live.wire import gemini

KEY = "fake-key-for-tests-only"
LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def load(home: Path, **environ: str) -> Settings:
    return load_settings(home=home, config=None, environ=environ, overrides={})


# Settings


def test_googles_own_names_lead_to_vertex_ai(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        GOOGLE_GENAI_USE_VERTEXAI="true",
        GOOGLE_CLOUD_PROJECT="shop",
        GOOGLE_CLOUD_LOCATION="europe-west4",
    )
    assert (settings.upstream, settings.vertex) == ("vertex", Vertex("shop", "europe-west4", None))
    facts = settings.models.of("gemini-3.8-live")
    parent = "projects/shop/locations/europe-west4/publishers/google/models"
    assert (facts.vertex, facts.path) == (True, f"{parent}/gemini-3.8-live")


def test_without_them_nothing_is_of_vertex_ai(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOGLE_CLOUD_PROJECT="shop", GOOGLE_GENAI_USE_VERTEXAI="0", GEMINI_API_KEY=KEY)
    assert (settings.upstream, settings.vertex) == ("gemini", None)
    assert not settings.models.of("gemini-3.8-live").vertex
    assert load(tmp_path, UPSTREAM="simulator", GOOGLE_GENAI_USE_VERTEXAI="1").vertex is None
    others = {"GOOGLE_CLOUD_PROJECT": "your project", "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"}
    assert load(tmp_path, **others).vertex is None


def test_a_key_without_a_project_is_the_express_mode(tmp_path: Path) -> None:
    settings = load(tmp_path, UPSTREAM="vertex", GEMINI_API_KEY=KEY)
    assert settings.vertex == Vertex(None, "global", None)
    assert settings.models.of("gemini-3.8-live").path == "publishers/google/models/gemini-3.8-live"
    assert settings.vertex is not None
    upstream = vertex_upstream(
        settings.vertex, SecretStr(KEY), "v1beta", None, ssl.create_default_context(), Patience()
    )
    assert (upstream.key, upstream.authorize) == (SecretStr(KEY), None)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "google_cloud_project: Vertex AI needs a project - put GOOGLE_CLOUD_PROJECT into .env"),
        (
            {"GOOGLE_CLOUD_PROJECT": "shop", "GOOGLE_APPLICATION_CREDENTIALS": "missing.json"},
            "GOOGLE_APPLICATION_CREDENTIALS: .*missing.json is not a file",
        ),
        (
            {"GOOGLE_CLOUD_PROJECT": "shop", "GEMINI_BASE_URL": "http://gateway.example"},
            "GEMINI_BASE_URL: the token would cross the network unencrypted - write https://",
        ),
        (
            {"GOOGLE_CLOUD_PROJECT": "shop/x"},
            'GOOGLE_CLOUD_PROJECT: "shop/x" is not the id of a project, such as my-project',
        ),
    ],
)
def test_what_does_not_reach_vertex_ai_is_told_at_start(
    tmp_path: Path, environ: Mapping[str, str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load(tmp_path, UPSTREAM="vertex", **environ)


# Addresses


def test_each_location_has_its_address() -> None:
    assert service_url("global") == "https://aiplatform.googleapis.com"
    assert service_url("eu") == "https://aiplatform.eu.rep.googleapis.com"
    assert service_url("us-central1") == "https://us-central1-aiplatform.googleapis.com"
    assert live_url(service_url("us-central1"), "v1beta1", VERTEX_METHOD) == (
        "wss://us-central1-aiplatform.googleapis.com"
        "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
    )


# Credentials


@dataclass
class Tokens:
    """Google's token endpoint: answers every signed request with the next token, or with `refusal`."""

    life_s: int = 3600
    refusal: int | None = None
    granted: list[str] = field(default_factory=list)
    port: int = 0


class TokenHandler(RequestHandler):
    def initialize(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def post(self) -> None:
        assert self.get_body_argument("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        if self.tokens.refusal is not None:
            self.set_status(self.tokens.refusal)
            self.write({"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
            return
        self.tokens.granted.append(f"token-{len(self.tokens.granted) + 1}")
        self.write(
            {
                "access_token": self.tokens.granted[-1],
                "expires_in": self.tokens.life_s,
                "token_type": "Bearer",
            }
        )


@asynccontextmanager
async def token_endpoint() -> AsyncIterator[Tokens]:
    tokens = Tokens()
    server = HTTPServer(
        Application([("/token", TokenHandler, {"tokens": tokens})], log_function=lambda _: None)
    )
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    tokens.port = sockets[0].getsockname()[1]
    try:
        yield tokens
    finally:
        server.stop()
        await server.close_all_connections()


def account(folder: Path, port: int) -> Path:
    """A service account's key file whose tokens come from here."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "shop",
                "private_key_id": "1",
                "private_key": private.decode(),
                "client_email": "voice@shop.example",
                "client_id": "1",
                "token_uri": f"http://127.0.0.1:{port}/token",
            }
        )
    )
    return path


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LOOPBACK.items():
        monkeypatch.setenv(name, value)


async def test_a_token_is_fetched_once_for_all_and_kept(tmp_path: Path) -> None:
    async with token_endpoint() as tokens:
        address = VertexAddress(Vertex("shop", "us-central1", account(tmp_path, tokens.port)))
        headers = await asyncio.gather(*(address.headers() for _ in range(5)))
    assert headers == [{"Authorization": "Bearer token-1"}] * 5
    assert tokens.granted == ["token-1"]


async def test_a_token_is_renewed_before_its_end(tmp_path: Path) -> None:
    async with token_endpoint() as tokens:
        tokens.life_s = 120  # google.auth calls a token stale 3 minutes and 45 seconds before its end
        address = VertexAddress(Vertex("shop", "us-central1", account(tmp_path, tokens.port)))
        assert await address.headers() == {"Authorization": "Bearer token-1"}
        assert await address.headers() == {"Authorization": "Bearer token-2"}
        tokens.refusal = 400
        assert await address.headers() == {"Authorization": "Bearer token-2"}


async def refusal(address: VertexAddress) -> str:
    with pytest.raises(DialFailed) as failed:
        await address.headers()
    return failed.value.cause.name


async def test_credentials_that_cannot_be_used_have_a_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with token_endpoint() as tokens:
        path = account(tmp_path, tokens.port)
        tokens.refusal = 400
        assert await refusal(VertexAddress(Vertex("shop", "us-central1", path))) == "credentials_refused"
    assert await refusal(VertexAddress(Vertex("shop", "us-central1", path))) == "unreachable"
    path.write_text("{}")
    assert await refusal(VertexAddress(Vertex("shop", "us-central1", path))) == "credentials_missing"
    for name in ("HOME", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert await refusal(VertexAddress(Vertex("shop", "us-central1", None))) == "credentials_missing"


async def test_refused_credentials_show_in_the_readiness_until_they_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text("{}")
    upstream = vertex_upstream(
        Vertex("shop", "us-central1", path),
        None,
        "v1beta",
        "http://127.0.0.1:9",
        ssl.create_default_context(),
        Patience(),
    )
    assert upstream.unready() is None
    with pytest.raises(DialFailed):
        await upstream.dial()
    assert "Google Cloud credentials" in str(upstream.unready())


# A conversation's setup


class First:
    """Keeps the first message, or the close, of the model side."""

    def __init__(self) -> None:
        self.said: asyncio.Future[bytes | tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    def on_message(self, data: bytes, binary: bool) -> None:
        if not self.said.done():
            self.said.set_result(data)

    def on_closed(self, code: int, reason: str) -> None:
        if not self.said.done():
            self.said.set_result((code, reason))
        self.gone.set()

    def on_writable(self, writable: bool) -> None:
        pass


async def answer(upstream: Upstream, setup: bytes) -> gemini.ServerMessage:
    peer = await upstream.dial()
    first = First()
    peer.attach(first)
    peer.send_text(setup)
    said = await first.said
    assert isinstance(said, bytes), said
    peer.close()
    await first.gone.wait()
    return gemini.decode(said)


@pytest.mark.parametrize(
    "model", ["gemini-3.8-live", "gemini-3.8-live-extended-thinking", "gemini-live-2.5-flash"]
)
async def test_a_setup_is_accepted_on_the_path_of_vertex_ai(tmp_path: Path, model: str) -> None:
    async with token_endpoint() as tokens, Simulator(require_key=True, speed=20) as simulator:
        settings = load(
            tmp_path,
            UPSTREAM="vertex",
            GOOGLE_CLOUD_PROJECT="shop",
            GOOGLE_CLOUD_LOCATION="us-central1",
            GOOGLE_APPLICATION_CREDENTIALS=str(account(tmp_path, tokens.port)),
            GEMINI_BASE_URL=simulator.url,
        )
        assert settings.vertex is not None
        upstream = vertex_upstream(
            settings.vertex,
            None,
            settings.api_version,
            settings.gemini_base_url,
            ssl.create_default_context(),
            Patience(),
        )
        config = settings.assistants["default"].config
        functions = [{"name": "get_weather", "description": "The weather."}]
        made = gemini.conversation_setup(
            settings.models.of(model), config, functions, history=[("user", "Hello.")]
        )
        opened = await answer(upstream, made.payload)
    assert opened.setup_complete is not None
    assert opened.setup_complete.session_id
    assert tokens.granted == ["token-1"]


async def test_the_server_holds_a_conversation_over_vertex_ai(tmp_path: Path) -> None:
    async with token_endpoint() as tokens, Simulator(require_key=True, speed=20) as simulator:
        environ = {
            "UPSTREAM": "vertex",
            "GOOGLE_CLOUD_PROJECT": "shop",
            "GOOGLE_CLOUD_LOCATION": "us-central1",
            "GOOGLE_APPLICATION_CREDENTIALS": str(account(tmp_path, tokens.port)),
            "GEMINI_BASE_URL": simulator.url,
            **LOOPBACK,
        }
        async with (
            Server(environ=environ) as server,
            connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as socket,
        ):

            async def until(kind: str, **wanted: object) -> dict[str, object]:
                while True:
                    message = json.loads(await socket.recv())
                    data: dict[str, object] = message["data"]
                    if message["type"] == kind and wanted.items() <= data.items():
                        return data

            await socket.send(json.dumps({"type": "connect", "data": {}}))
            connected = await until("status", status="CONNECTED")
            assert (connected["upstream"], connected["model"]) == ("vertex", "gemini-3.8-live")
            await socket.send(json.dumps({"type": "text", "data": {"text": "What is the weather in Rome?"}}))
            assert (await until("tool_call"))["name"] == "get_weather"
            await until("transcription", isUser=False, isFinal=True)
            await until("turn_complete")
    assert tokens.granted == ["token-1"]
