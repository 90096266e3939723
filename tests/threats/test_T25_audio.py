"""T25, T26: sound that is none, and lies about what it is."""

from __future__ import annotations

import base64
import random
import string
from dataclasses import dataclass, field
from typing import Any

import pytest
from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import Talk, talking, unbroken

from threats.raw import GUEST, SETUP, hear, say, upgraded

SEED = 25
TALKS = 6
GOOD, BAD = 40, 20
"""Messages of a conversation; one more bad one would close it."""
SECOND = 32_000
STANDARD = string.ascii_letters + string.digits + "+/"

MIMES = {
    "audio/pcm": 16000,
    "audio/pcm;rate=16000": 16000,
    "AUDIO/PCM; RATE=8000": 8000,
    " audio/pcm ; rate = 48000 ": 48000,
    "audio/pcm;codecs=1;rate=24000": 24000,
    "audio/pcm;rate=044100": 44100,
    "audio/pcm;rate=٨٠٠٠": 8000,
    "audio/pcm;x\r\nX-Injected: 1": 16000,
    "audio/pcm;channels=2": 16000,
}
"""What is said of good sound, and the rate that it means."""
LIES = (
    *(
        "",
        "audio",
        "audio/wav",
        "audio/pcm/x",
        "audio/pcma",
        "video/mp4",
        "text/html",
        "audio/l16;rate=16000",
    ),
    *(
        "audio/pcm;rate=1",
        "audio/pcm;rate=0",
        "audio/pcm;rate=-16000",
        "audio/pcm;rate=7999",
        "audio/pcm;rate=48001",
    ),
    *(
        "audio/pcm;rate=16000.5",
        "audio/pcm;rate=1e4",
        "audio/pcm;rate=",
        "audio/pcm;rate=16k",
        "audio/pcm;rate=²",
    ),
    *(
        "audio/pcm;rate=" + "9" * 40,
        "audio/pcm;rate=16000" + " " * 100,
        'audio/pcm;rate="16000"',
        "audio/pcm\x00",
    ),
    *(
        "audio/pcm\r\nX-Injected: 1",
        "audio/pcm,audio/pcm",
        "audio\\/pcm",
        "audio/pcm;rate=16000&key=x;rate=1",
    ),
)


def pcm(chance: random.Random, size: int) -> bytes:
    return chance.randbytes(size * 2)


def written(chance: random.Random, sound: bytes) -> str:
    """In either alphabet, with or without its end."""
    text = base64.b64encode(sound).decode()
    if chance.random() < 0.5:
        text = base64.urlsafe_b64encode(sound).decode()
    return text if chance.random() < 0.5 else text.rstrip("=")


def garbage(chance: random.Random) -> str | None:
    """What is no base64 of whole samples of at most a second; None for what turned out to be."""
    text = written(chance, chance.randbytes(chance.randrange(0, 700)))
    for _ in range(chance.randrange(0, 4)):
        at = chance.randrange(0, len(text) + 1)
        text = (
            text[:at]
            + chance.choice(["=", "@@@@", "!!!!", " ", "\n", "\0", "é", "A", "%41", "==", "😀"])
            + text[at:]
        )
    return None if is_sound(text) else text


def is_sound(text: str) -> bool:
    """As the protocol has it, read with care: one alphabet or the other, nothing else, whole samples."""
    body = text.replace("-", "+").replace("_", "/")
    core = body.rstrip("=")
    if set(core) - set(STANDARD) or len(core) % 4 == 1:
        return False
    if len(body) % 4 and body != core:
        return False
    if len(body) - len(core) not in (0, -len(core) % 4):
        return False
    size = len(core) * 3 // 4
    return bool(size) and size % 2 == 0 and size <= SECOND


@dataclass
class Sent:
    """What the model side is to hear, in its order."""

    sound: list[bytes] = field(default_factory=list)
    rates: list[int] = field(default_factory=list)
    refused: int = 0

    def good(self, sound: bytes, rate: int) -> None:
        self.sound.append(sound)
        self.rates.append(rate)


async def lie(talk: Talk, chance: random.Random, sent: Sent, step: int) -> None:
    """One message that is to be refused."""
    sent.refused += 1
    sound = pcm(chance, 320)
    match step % 6:
        case 0:
            mime = chance.choice(LIES)
            await talk.client.send("audio", {"data": written(chance, sound), "mimeType": mime})
        case 1:
            await talk.client.send("audio", {"data": written(chance, sound[:-1])})
        case 2:
            await talk.client.send("audio", {"data": written(chance, pcm(chance, SECOND // 2 + 1))})
        case 3:
            await talk.client.raw(sound + chance.choice([b"x", bytes(SECOND)]))
        case _:
            text = None
            while text is None:
                text = garbage(chance)
            await talk.client.send("audio", {"data": text})


async def speak(talk: Talk, chance: random.Random, sent: Sent) -> None:
    """One message that is to be heard as it is."""
    sound = pcm(chance, chance.randrange(1, 1000))
    if chance.random() < 0.3:
        await talk.client.raw(sound)
        sent.good(sound, 16000)
        return
    mime = chance.choice(list(MIMES))
    await talk.client.send("audio", {"data": written(chance, sound), "mimeType": mime})
    sent.good(sound, MIMES[mime])


@pytest.mark.proves("T25", "T26")
async def test_the_model_hears_the_very_bytes_or_nothing_and_of_a_kind_that_it_takes(
    gateway: Gateway,
) -> None:
    chance = random.Random(SEED)
    async with ModelSide(gateway.port) as model:
        for _ in range(TALKS):
            async with talking(gateway.server, model) as talk:
                sent = Sent()
                for step in range(GOOD + BAD):
                    if sent.refused < BAD and chance.random() < 0.5:
                        await lie(talk, chance, sent, step)
                    else:
                        await speak(talk, chance, sent)
                await talk.turn("Have you heard that?", "Every word.")
                blobs = [
                    one["realtimeInput"]["audio"]
                    for one in talk.line.got
                    if "audio" in one.get("realtimeInput", {})
                ]
                assert [base64.b64decode(blob["data"], validate=True) for blob in blobs] == sent.sound
                assert [blob["mimeType"] for blob in blobs] == [
                    f"audio/pcm;rate={rate}" for rate in sent.rates
                ]
                told = [message["data"]["code"] for message in talk.client.seen if message["type"] == "error"]
                assert told == ["bad_message"] * sent.refused
    unbroken(gateway.server)


@pytest.mark.proves("T25", "T26")
async def test_what_a_guest_says_goes_up_as_it_is(gateway: Gateway) -> None:
    """Google judges it; nothing is made of it here that was not said."""
    chance = random.Random(SEED)
    async with ModelSide(gateway.port) as model, upgraded(gateway.server.port, GUEST) as guest:
        await say(guest, SETUP)
        line = await model.dialled()
        await line.ready("h1")
        assert "setupComplete" in await hear(guest)
        sent: list[dict[str, Any]] = []
        for step in range(GOOD):
            data = garbage(chance) if step % 2 else written(chance, pcm(chance, 160))
            blob = {"data": data or "", "mimeType": chance.choice([*LIES, *MIMES])}
            sent.append({"realtimeInput": {"audio": blob}})
        sent.append({"realtimeInput": {"text": "That was all."}})
        for message in sent:
            await say(guest, message)
        while not line.got or "text" not in line.got[-1]["realtimeInput"]:
            await line.receive()
        assert line.got == sent
