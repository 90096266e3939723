"""F13: the model side sends what is no message."""

from __future__ import annotations

import pytest

from faults.conftest import Gateway
from faults.model import ModelSide
from faults.stage import get, settled, talking, told

WRONG = [
    b"{",
    b"",
    b"not JSON",
    b'{"serverContent": {"outputTranscription": {"text": "half',
    b"\xff\xfe\x00\x01",
    b'{"serverContent": {"outputTranscription": {"text": "\xff"}}}',
    b'{"usageMetadata": {"totalTokenCount": NaN}}',
    b"[1, 2, 3]",
    b'"words"',
    b"[" * 100_000,
]


@pytest.mark.proves("F13")
async def test_single_messages_that_are_none_are_dropped_and_logged(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        for wrong in WRONG:
            await talk.line.raw(wrong)
            await talk.line.heard("word ")
            assert (await talk.client.until("transcription"))["text"] == "word "
        assert told(talk.client, "status", "error") == ["status CONNECTING", "status CONNECTED"]
        assert model.handshakes == 1

        async def logged() -> bool:
            lines = [line for line in gateway.server.log.splitlines() if talk.session in line]
            return sum('"model_message_unreadable"' in line for line in lines) == len(WRONG)

        await settled(logged)


@pytest.mark.proves("F13")
async def test_text_frames_are_as_good_as_binary_ones(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.line.raw('{"serverContent": {"inputTranscription": {"text": "grüß dich"}}}')
        assert (await talk.client.until("transcription"))["text"] == "grüß dich"


@pytest.mark.proves("F13")
async def test_three_in_a_row_are_a_line_that_is_left(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        for wrong in WRONG[:3]:
            await talk.line.raw(wrong)
        assert await talk.line.closed() in (1000, 1002, 1003, 1007, 1008, 1006)
        second = await model.dialled()
        assert second.handle == "h1"
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert (connected["resumed"], connected["memory"]) == (True, "restored")
        assert told(talk.client, "status", "error")[2:] == ["status RECONNECTING", "status CONNECTED"]


@pytest.mark.proves("F13")
async def test_wrong_utf8_in_a_text_frame_ends_that_line_only(gateway: Gateway) -> None:
    async with ModelSide(gateway.port) as model, talking(gateway.server, model) as talk:
        await talk.turn("What is nine?", "A number.")
        await talk.line.raw(b'{"serverContent": "\xff"}', text=True)
        assert await talk.line.closed() == 1007
        second = await model.dialled()
        await second.ready()
        connected = await talk.client.until("status", lambda data: data["status"] == "CONNECTED")
        assert connected["memory"] == "restored"
        assert (await get(gateway.server, "/health/ready")).status_code == 200
