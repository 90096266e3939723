"""What Google's own SDK puts on the wire, frame by frame."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Awaitable, Callable, Mapping

from google import genai
from google.genai import types
from google.genai.live import AsyncSession
from websockets.asyncio.server import ServerConnection, serve

MODEL = "gemini-3.8-live"


async def sent_by_the_sdk(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
    config: Mapping[str, object],
    use: Callable[[AsyncSession], Awaitable[None]] | None = None,
) -> list[bytes]:
    """The frames of one session: its setup, and what `use` sends."""
    received: list[bytes] = []
    gone = asyncio.Event()

    async def take(connection: ServerConnection) -> None:
        received.append(await connection.recv(decode=False))
        await connection.send(b'{"setupComplete": {}}')
        async for frame in connection:
            received.append(frame.encode() if isinstance(frame, str) else frame)
        gone.set()

    server_context, client_context = certificates
    async with serve(take, "localhost", 0, ssl=server_context) as server:
        options = types.HttpOptions(
            base_url=f"https://localhost:{next(iter(server.sockets)).getsockname()[1]}",
            api_version="v1beta",
            async_client_args={"ssl": client_context, "proxy": None},
        )
        client = genai.Client(api_key="fake-key", http_options=options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            live = types.LiveConnectConfig(**config)  # type: ignore[arg-type]
            async with client.aio.live.connect(model=MODEL, config=live) as session:
                if use is not None:
                    await use(session)
        await client.aio.aclose()
        client.close()
        await gone.wait()
    return received
