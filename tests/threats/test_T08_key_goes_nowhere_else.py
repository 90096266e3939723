"""T8: the key goes to the model's server, which has shown that it is that one, and to nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from canary import GEMINI_KEY, Searcher
from faults.stage import environment
from serving import Server
from talking import Talker

from tornado_live.doctor.checks import examine
from tornado_live.doctor.probe import Limits, probe
from tornado_live.settings import ConfigError, load_settings

REDIRECTS = (301, 302, 303, 307, 308)


@dataclass
class Listener:
    """Writes down all that it is sent, and answers each request with `answer`, or with nothing."""

    answer: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @contextlib.asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
        server = await asyncio.start_server(self._hear, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                self.heard += part
                self.asked.set()
                if b"\r\n\r\n" in part:
                    writer.write(self.answer)
                    break
        writer.close()

    @property
    def knows(self) -> bool:
        """Whether the key is in it, in any form."""
        searcher = Searcher({"key": GEMINI_KEY})
        searcher.feed("heard", bytes(self.heard))
        return bool(searcher.settle())


@dataclass
class Tap(Listener):
    """Passes on to the port that it leads to, and writes down what it passes."""

    leads_to: int = 0

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(reader, inner_writer, heard=True))
            pumps.create_task(self._pump(inner_reader, writer, heard=False))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, heard: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                if heard:
                    self.heard += part
                writer.write(part)
        writer.close()


@dataclass(frozen=True)
class Certificates:
    """Of an authority that the server trusts, and of ones that it does not."""

    trusted: Path
    contexts: Mapping[str, ssl.SSLContext]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    ours, another = trustme.CA(), trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    ours.cert_pem.write_to_path(path)
    issued = {
        "good": ours.issue_cert("localhost"),
        "self-signed": another.issue_cert("localhost"),
        "another name": ours.issue_cert("models.example"),
        "over": ours.issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=1)),
    }
    contexts = {}
    for name, certificate in issued.items():
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(contexts[name])
    return Certificates(path, contexts)


@pytest.mark.proves("T8")
async def test_a_certificate_that_is_not_right_is_refused_and_the_key_never_sent(
    certificates: Certificates,
) -> None:
    """And with the right one it is sent, so that there is something to be seen, and not readable on the way."""
    async with Tap().listening() as tap:
        assert isinstance(tap, Tap)
        environ = environment(0) | {
            "GEMINI_BASE_URL": f"https://localhost:{tap.port}",
            "SSL_CERT_FILE": str(certificates.trusted),
        }
        async with Server(environ=environ) as server:
            for shown, context in certificates.contexts.items():
                listener = Listener(answer=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                async with listener.listening(context), Talker(f"{server.ws_url}/") as client:
                    tap.heard.clear()
                    tap.leads_to = listener.port
                    await client.send("connect")
                    error = await client.until("error")
                    assert (await client.closed())[0] == 4502
                assert tap.heard[:1] == b"\x16", "a TLS handshake was begun"
                assert not tap.knows
                assert listener.knows == (shown == "good"), shown
                untrusted = "The certificate of the model's server is not trusted" in error["message"]
                assert untrusted == (shown != "good"), shown


@pytest.mark.proves("T8")
async def test_no_redirect_is_followed_with_the_key() -> None:
    elsewhere, first = Listener(), Listener()
    async with elsewhere.listening(), first.listening(), Server(environ=environment(first.port)) as server:
        for status in REDIRECTS:
            first.heard.clear()
            first.answer = (
                f"HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\n"
                "Content-Length: 0\r\n\r\n"
            ).encode()
            async with Talker(f"{server.ws_url}/") as client:
                await client.send("connect")
                await client.until("error")
            assert first.knows
    assert not elsewhere.asked.is_set()


@pytest.mark.proves("T8")
@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_the_doctor_follows_none_either(tmp_path: Path, scheme: str) -> None:
    elsewhere, first = Listener(), Listener()
    async with elsewhere.listening(), first.listening():
        first.answer = (
            f"HTTP/1.1 302 Found\r\nLocation: {scheme}://127.0.0.1:{elsewhere.port}/\r\n"
            "Content-Length: 0\r\n\r\n"
        ).encode()
        environ = {"GEMINI_API_KEY": GEMINI_KEY, "GEMINI_BASE_URL": f"http://127.0.0.1:{first.port}"}
        settings = load_settings(home=tmp_path, config=None, environ=environ, overrides={})
        told: list[str] = []
        await probe(settings, Limits(minutes=1), told.append, recordings=tmp_path / "recordings")
        assert first.knows
        first.heard.clear()
        await examine(settings, told.append)
        assert first.knows
    assert not elsewhere.asked.is_set()
    searcher = Searcher({"key": GEMINI_KEY})
    searcher.feed("told", "\n".join(told))
    searcher.files("recordings", tmp_path)
    assert not searcher.settle()
    assert searcher.finds == []


@pytest.mark.proves("T8")
@pytest.mark.parametrize("scheme", ["http", "ws", "HTTP"])
@pytest.mark.parametrize(
    "host",
    [
        "models.example",
        "192.0.2.1",
        "10.0.0.1:8080",
        "0.0.0.0",
        "127.0.0.1.example.com",
        "localhost.example.com",
        "127.0.0.1@models.example",
        "2130706433",
        "0x7f.1",
        "[::ffff:192.0.2.1]",
        "[2001:db8::1]",
    ],
)
def test_a_key_is_not_sent_unencrypted_to_another_machine(tmp_path: Path, scheme: str, host: str) -> None:
    environ = {"GEMINI_API_KEY": GEMINI_KEY, "GEMINI_BASE_URL": f"{scheme}://{host}"}
    with pytest.raises(ConfigError) as refused:
        load_settings(home=tmp_path, config=None, environ=environ, overrides={})
    assert "GEMINI_BASE_URL" in str(refused.value)
    assert GEMINI_KEY not in str(refused.value)


@pytest.mark.proves("T8")
async def test_the_start_is_refused_in_words(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": GEMINI_KEY, "GEMINI_BASE_URL": "ws://models.example"}
    server = Server(environ=environ, home=tmp_path)
    with pytest.raises(AssertionError, match="ended without printing"):
        await server.__aenter__()
    assert await server.ended() == 2
    assert server.log == (
        "environment: GEMINI_BASE_URL: the key would cross the network unencrypted - write wss://\n"
    )
