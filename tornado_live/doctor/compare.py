"""A setup as Google's own client would send it, held against ours: where the two differ, the protocol has moved.

google-genai is pointed at an endpoint of our own on loopback, and what it sends first is read there; no private
name of it is used. It speaks to nothing but TLS, so the endpoint does, with a key exchange that needs no
certificate: both ends are in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tornado_live.jsonvalue import Json
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel

_PATIENCE_S = 10.0
_SHOWN = 60


class NotComparable(Exception):
    """google-genai does not send this setup; the message says why."""


async def compared(facts: LiveModel, config: Mapping[str, Json], setup: bytes) -> list[str]:
    """How our reading of `config`, and the whole `setup` made of it, differ from what google-genai sends.

    `config` is an assistant's LiveConnectConfig, `setup` our first message. Raises NotComparable.
    """
    ours = json.loads(setup)["setup"]
    path = facts.path or facts.name
    wanted = gemini.setup(path, config)
    found = list(differences(wanted, await googles_setup(facts, config)))
    if found:
        return found
    return list(differences(ours, await googles_setup(facts, _as_config(ours))))


async def googles_setup(facts: LiveModel, config: Mapping[str, Json]) -> dict[str, Json]:
    """The `setup` that google-genai sends for a LiveConnectConfig (camelCase JSON). Raises NotComparable."""
    from google.genai import Client, types

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            checked = types.LiveConnectConfig.model_validate(config)
            async with _endpoint() as (port, received):
                client = Client(
                    vertexai=facts.vertex,
                    api_key="none",
                    http_options=types.HttpOptions(
                        base_url=f"https://127.0.0.1:{port}",
                        api_version="v1beta1" if facts.vertex else "v1beta",
                        async_client_args={"ssl": _without_certificate(server=False), "proxy": None},
                    ),
                )
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        async with client.aio.live.connect(model=facts.path or facts.name, config=checked):
                            pass
                finally:
                    await client.aio.aclose()
                    client.close()
                made = json.loads(await received)["setup"]
        except NotComparable:
            raise
        except Exception as failed:  # the SDK raises its own, pydantic's and its transport's exceptions alike
            raise NotComparable(_first_line(failed)) from failed
    assert isinstance(made, dict)
    return made


@contextlib.asynccontextmanager
async def _endpoint() -> AsyncIterator[tuple[int, asyncio.Future[str | bytes]]]:
    """Takes one setup and says yes to it: (its port, the setup)."""
    received: asyncio.Future[str | bytes] = asyncio.get_running_loop().create_future()

    async def answer(connection: ServerConnection) -> None:
        try:
            message = await connection.recv()
            if not received.done():
                received.set_result(message)
            await connection.send(b'{"setupComplete": {}}')
            await connection.wait_closed()
        except ConnectionClosed:
            pass

    async with serve(answer, "127.0.0.1", 0, ssl=_without_certificate(server=True), max_size=None) as server:
        yield next(iter(server.sockets)).getsockname()[1], received


def _without_certificate(*, server: bool) -> ssl.SSLContext:
    """TLS without a certificate (anonymous Diffie-Hellman), which only these two ends agree to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers("aNULL:@SECLEVEL=0")
    except ssl.SSLError as error:
        raise NotComparable("this machine's OpenSSL has no TLS without a certificate") from error
    return context


def _as_config(setup: Mapping[str, Json]) -> dict[str, Json]:
    """A setup of the wire as the LiveConnectConfig that means it."""
    config = {name: value for name, value in setup.items() if name not in ("model", "generationConfig")}
    generation = setup.get("generationConfig")
    return {**config, **(generation if isinstance(generation, dict) else {})}


def differences(ours: Json, theirs: Json) -> Iterator[str]:
    """Every place where two setups mean something else. How keys are spelt, and nulls, do not count."""
    yield from _differ("", _plain(ours), _plain(theirs))


def _plain(setup: Json) -> Json:
    plain = gemini.camel(setup)
    if isinstance(plain, dict) and isinstance(plain.get("tools"), list):
        tools = plain["tools"]
        assert isinstance(tools, list)
        plain["tools"] = gemini.merged_tools(tools)
    return _without_nulls(plain)


def _without_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _differ(path: str, ours: Json, theirs: Json) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in (*ours, *(name for name in theirs if name not in ours)):
            inner = f"{path}.{name}" if path else name
            if name not in theirs:
                yield f"{inner}: {_short(ours[name])} is only in ours"
            elif name not in ours:
                yield f"{inner}: {_short(theirs[name])} is only in google-genai's"
            else:
                yield from _differ(inner, ours[name], theirs[name])
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differ(f"{path}[{index}]", mine, other)
    elif ours != theirs:
        yield f"{path}: {_short(ours)}, google-genai's {_short(theirs)}"


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
