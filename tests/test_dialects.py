"""Client bytes into what was meant, events into client bytes."""

from __future__ import annotations

import base64
import json

import pytest

from tornado_live.errors import BadMessage, Limited, SessionMismatch, TooLarge
from tornado_live.live.commands import (
    Failure,
    Frame,
    Gesture,
    Interrupted,
    Line,
    Open,
    Said,
    Speech,
    Status,
    ToClient,
    ToolCancelled,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    Transcribed,
    TurnComplete,
    Typed,
    UsageTotals,
    Warned,
)
from tornado_live.live.dialects import MAX_MESSAGE, NativeDialect, Reply
from tornado_live.tools.result import ToolCode, ToolResult
from tornado_live.wire import gemini
from tornado_live.wire.native import ConnectOptions


def audio_message(data: str, mime: str = "audio/pcm;rate=24000") -> gemini.ServerMessage:
    part = gemini.Part(inline_data=gemini.InlineData(mime, data))
    return gemini.ServerMessage(server_content=gemini.ServerContent(model_turn=gemini.ModelTurn([part])))


def test_json_and_binary_audio_mean_the_same() -> None:
    dialect = NativeDialect("s")
    pcm = bytes(range(64)) * 10
    text = json.dumps({"type": "audio", "data": {"data": base64.b64encode(pcm).decode()}}).encode()
    wanted = Speech(gemini.audio(base64.b64encode(pcm).decode(), 16000), 0.02)
    assert dialect.decode(text, False) == wanted
    assert dialect.decode(pcm, True) == wanted


def test_binary_audio_has_the_rate_that_connect_named() -> None:
    dialect = NativeDialect("s")
    dialect.agree(ConnectOptions(input_rate=48000))
    speech = dialect.decode(bytes(960), True)
    assert isinstance(speech, Speech)
    assert speech.seconds == 0.01
    assert b"rate=48000" in speech.payload


def test_each_message_is_what_it_says() -> None:
    dialect = NativeDialect("s")
    wanted = {
        '{"type":"connect"}': Open(ConnectOptions()),
        '{"type":"connect","data":{"voice":"Kore"}}': Open(ConnectOptions(voice="Kore")),
        '{"type":"text","data":{"text":"hi"}}': Typed("hi"),
        '{"type":"video","data":{"data":"/9g="}}': Frame(gemini.video("/9g=", "image/jpeg")),
        '{"type":"activity_start"}': Gesture.ACTIVITY_START,
        '{"type":"activity_end"}': Gesture.ACTIVITY_END,
        '{"type":"audio_end"}': Gesture.AUDIO_END,
        '{"type":"disconnect"}': Gesture.DISCONNECT,
        '{"type":"ping","data":{"n":1}}': Reply(b'{"type":"pong","data":{"n":1},"sessionId":"s"}'),
        '{"type":"ping"}': Reply(b'{"type":"pong","sessionId":"s"}'),
    }
    for text, meaning in wanted.items():
        assert dialect.decode(text.encode(), False) == meaning


def test_wrong_frames_are_refused_with_their_code() -> None:
    dialect = NativeDialect("s")
    with pytest.raises(SessionMismatch):
        dialect.decode(b'{"type":"ping","sessionId":"other"}', False)
    with pytest.raises(TooLarge, match=str(MAX_MESSAGE)):
        dialect.decode(b" " * (MAX_MESSAGE + 1), False)
    with pytest.raises(BadMessage, match="odd number"):
        dialect.decode(b"123", True)
    with pytest.raises(BadMessage, match="sample rate"):
        dialect.decode(b'{"type":"connect","data":{"inputRate":1}}', False)
    with pytest.raises(BadMessage, match="not base64"):
        dialect.decode(b'{"type":"audio","data":{"data":"???"}}', False)


def test_model_speech_is_json_or_binary_as_the_client_asked() -> None:
    dialect = NativeDialect("s")
    ((frame, binary, size),) = dialect.audio(audio_message("AAEC", "audio/pcm"))
    assert json.loads(frame)["data"] == {"audio": "AAEC", "mimeType": "audio/pcm;rate=24000"}
    assert (binary, size) == (False, 3)
    dialect.agree(ConnectOptions(audio="binary"))
    assert list(dialect.audio(audio_message("AAEC"))) == [(b"\x00\x01\x02", True, 3)]
    assert list(dialect.audio(audio_message("AAEC", "image/png"))) == []
    assert list(dialect.audio(gemini.ServerMessage())) == []
    with pytest.raises(ValueError):
        list(dialect.audio(audio_message("%")))


RESULT = ToolResult(True, {"status": "ok"}, 7, sample=True, summary="sunny")
FAILED = ToolResult(False, {"status": "error"}, 8, error=ToolCode.TIMEOUT, summary="too slow")
EVENTS: list[tuple[ToClient, str, dict[str, object]]] = [
    (Status(Line.CONNECTING), "status", {"status": "CONNECTING"}),
    (Status(Line.CONNECTED, {"model": "m"}), "status", {"status": "CONNECTED", "model": "m"}),
    (
        Transcribed("hi", True, False, 3),
        "transcription",
        {"text": "hi", "isUser": True, "isFinal": False, "turn": 3},
    ),
    (Said("hi", 1), "text", {"text": "hi", "turn": 1}),
    (Interrupted(2), "interrupted", {"turn": 2}),
    (TurnComplete(2), "turn_complete", {"turn": 2}),
    (TurnComplete(2, {"totalTokens": 1}), "turn_complete", {"turn": 2, "usage": {"totalTokens": 1}}),
    (ToolStarted("1", "f", {"a": 1}), "tool_call", {"id": "1", "name": "f", "args": {"a": 1}}),
    (ToolStarted("1", "pay", None, "confirm"), "tool_call", {"id": "1", "name": "pay", "confirm": True}),
    (
        ToolStarted("1", "open", {"door": 1}, "client"),
        "tool_call",
        {"id": "1", "name": "open", "args": {"door": 1}, "client": True},
    ),
    (ToolProgress("1", "asking"), "tool_progress", {"id": "1", "text": "asking"}),
    (
        ToolFinished("1", "f", RESULT),
        "tool_result",
        {"id": "1", "name": "f", "ok": True, "durationMs": 7, "sample": True, "summary": "sunny"},
    ),
    (
        ToolFinished("1", "f", FAILED),
        "tool_result",
        {"id": "1", "name": "f", "ok": False, "durationMs": 8, "summary": "too slow", "error": "timeout"},
    ),
    (ToolCancelled(("1", "2")), "tool_cancelled", {"ids": ["1", "2"]}),
    (UsageTotals({"totalTokens": 4}), "usage", {"totalTokens": 4}),
    (Warned("audio_dropped", "old", 3), "warning", {"code": "audio_dropped", "message": "old", "count": 3}),
    (
        Failure(Limited("full", retry_after_ms=500)),
        "error",
        {"code": "limited", "message": "full", "retryable": True, "requestId": "r", "retryAfterMs": 500},
    ),
]


@pytest.mark.parametrize(("event", "kind", "data"), EVENTS)
def test_each_event_has_the_frame_of_the_protocol(
    event: ToClient, kind: str, data: dict[str, object]
) -> None:
    frame = json.loads(NativeDialect("s").encode(event, request_id="r"))
    assert frame == {"type": kind, "data": data, "sessionId": "s"}
