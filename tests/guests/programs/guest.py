"""Google's Python client under remote control: commands as JSON lines in, what happened as JSON lines out.

    {"id": 1, "do": "connect", "base": "https://…", "key": "…", "version": "v1beta", "model": "…", "config": {}}
    {"id": 1, "done": {"session": 1}}
    {"session": 1, "message": {"serverContent": {…}}}
    {"session": 1, "closed": {"code": 1011, "reason": "…"}}

guest.mjs is the same for JavaScript. Whatever is sent goes through public methods of the SDK, as in any program.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
from typing import Any

from google import genai
from google.genai import errors, types
from google.genai.live import AsyncSession

PIECE = 640  # 20 ms at 16 kHz
SENDING = {
    "content": "send_client_content",
    "realtime": "send_realtime_input",
    "answers": "send_tool_response",
    "context": "send_context_update",
}
ARGUMENTS = {
    "turns": lambda turns: [types.Content.model_validate(turn) for turn in turns],
    "function_responses": lambda answers: [types.FunctionResponse.model_validate(each) for each in answers],
}


class Guest:
    def __init__(self) -> None:
        self._clients: dict[tuple[str, ...], genai.Client] = {}
        self._sessions: dict[int, tuple[AsyncSession, contextlib.AsyncExitStack]] = {}
        self._opened = 0

    def _client(self, asked: dict[str, Any]) -> genai.Client:
        names = (asked["base"], asked["key"], asked["version"])
        if names not in self._clients:
            options = types.HttpOptions(base_url=asked["base"], api_version=asked["version"])
            self._clients[names] = genai.Client(api_key=asked["key"], http_options=options)
        return self._clients[names]

    async def token(self, asked: dict[str, Any]) -> dict[str, Any]:
        config = types.CreateAuthTokenConfig.model_validate(asked["config"])
        return {"name": (await self._client(asked).aio.auth_tokens.create(config=config)).name}

    async def connect(self, asked: dict[str, Any]) -> dict[str, Any]:
        config = types.LiveConnectConfig.model_validate(asked["config"])
        stack = contextlib.AsyncExitStack()
        session = await stack.enter_async_context(
            self._client(asked).aio.live.connect(model=asked["model"], config=config)
        )
        self._opened += 1
        number = self._opened
        self._sessions[number] = session, stack
        reading = asyncio.get_running_loop().create_task(self._read(number, session))

        async def stop() -> None:
            reading.cancel()
            await asyncio.wait([reading])

        stack.push_async_callback(stop)
        return {"session": number}

    async def _read(self, number: int, session: AsyncSession) -> None:
        try:
            while True:  # one run of receive() ends with each turn
                async for message in session.receive():
                    shown = message.model_dump(mode="json", by_alias=True, exclude_none=True)
                    tell({"session": number, "message": shown})
        except errors.APIError as error:
            tell({"session": number, "closed": {"code": error.code, "reason": str(error.details)}})

    async def send(self, asked: dict[str, Any]) -> None:
        session, _ = self._sessions[asked["session"]]
        for kind, given in asked["what"].items():
            arguments = {
                re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name): each
                for name, each in given.items()
            }
            arguments = {
                name: ARGUMENTS.get(name, lambda each: each)(each) for name, each in arguments.items()
            }
            await getattr(session, SENDING[kind])(**arguments)

    async def sound(self, asked: dict[str, Any]) -> None:
        session, _ = self._sessions[asked["session"]]
        pcm = base64.b64decode(asked["pcm"])
        for at in range(0, len(pcm), PIECE):
            blob = types.Blob(data=pcm[at : at + PIECE], mime_type="audio/pcm;rate=16000")
            await session.send_realtime_input(audio=blob)

    async def close(self, asked: dict[str, Any]) -> None:
        _, stack = self._sessions.pop(asked["session"])
        await stack.aclose()

    async def obey(self, asked: dict[str, Any]) -> None:
        try:
            done = await getattr(self, asked["do"])(asked)
        except errors.APIError as error:
            tell({"id": asked["id"], "refused": {"code": error.code, "reason": str(error.details)}})
        except Exception as error:  # noqa: BLE001 - told to the test, which fails
            tell({"id": asked["id"], "failed": f"{type(error).__name__}: {error}"})
        else:
            tell({"id": asked["id"], "done": done})


def tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    guest = Guest()
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(guest.obey(json.loads(line)))


asyncio.run(main())
