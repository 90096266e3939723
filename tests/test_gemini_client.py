"""What clients of Google's protocol say, in every spelling that Google's parser takes."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from typing import Any

import pytest
from capturing import sent_by_the_sdk
from google.genai import types
from google.genai.live import AsyncSession
from hypothesis import example, given
from hypothesis import strategies as st

from tornado_live.wire.gemini_client import Answer, ClientMessage, Content, Realtime, decode

PCM = bytes(range(256)) * 2 + bytes(128)
"""20 ms at 16 kHz."""
STANDARD = base64.b64encode(PCM).decode()
URL_SAFE = base64.urlsafe_b64encode(PCM).decode()


def read(message: object) -> ClientMessage:
    return decode(json.dumps(message).encode())


def sound(seconds: float) -> ClientMessage:
    return ClientMessage(realtime=Realtime(sound_s=seconds), alone=seconds)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        # genai Python, LiveKit, pipecat, gemilive
        ({"realtime_input": {"audio": {"data": URL_SAFE, "mime_type": "audio/pcm;rate=16000"}}}, 0.02),
        # genai JS
        ({"realtimeInput": {"audio": {"data": STANDARD, "mimeType": "audio/pcm;rate=16000"}}}, 0.02),
        # ADK
        (
            {"realtime_input": {"mediaChunks": [{"data": URL_SAFE, "mime_type": "audio/pcm;rate=16000"}]}},
            0.02,
        ),
        # LlamaIndex, Mastra
        ({"realtime_input": {"media_chunks": [{"data": STANDARD, "mime_type": "audio/pcm"}]}}, 0.02),
        # pipecat JS
        (
            {"realtimeInput": {"mediaChunks": [{"data": STANDARD, "mimeType": "audio/pcm;rate=24000"}]}},
            0.04 / 3,
        ),
        # the cookbook
        ({"realtimeInput": {"mediaChunks": {"data": STANDARD, "mimeType": "audio/pcm"}}}, 0.02),
        ({"realtimeInput": {"mediaChunks": [{"data": STANDARD}, {"data": STANDARD}]}}, 0.04),
        ({"realtimeInput": {"audio": {"data": ""}}}, 0.0),
    ],
)
def test_the_microphone_of_every_client_is_known(message: object, seconds: float) -> None:
    assert read(message) == sound(pytest.approx(seconds))


@pytest.mark.parametrize(
    ("mime_type", "rate"),
    [
        ("audio/pcm", 16_000),
        ("audio/pcm;rate=24000", 24_000),
        ("audio/pcm; rate=8000", 8_000),
        ("AUDIO/PCM;RATE=48000", 48_000),
        ("audio/l16;channels=1;rate=44100", 44_100),
        ('audio/pcm;rate="22050";x=y', 22_050),
        ("audio/l16", 16_000),
        ("audio/pcm;rate=", 16_000),
        ("audio/pcm;rate=0", 16_000),
        ("audio/pcm;rate=-1", 16_000),
        ("audio/pcm;rate=²", 16_000),
        ("audio/pcm;rate=99999999999999999999", 16_000),
        ("rate=8000", 16_000),
        ("", 16_000),
    ],
)
def test_the_length_of_a_sound_is_told_by_its_rate(mime_type: str, rate: int) -> None:
    message = read({"realtimeInput": {"audio": {"data": STANDARD, "mimeType": mime_type}}})
    assert message == sound(320 / rate)


@given(st.binary(max_size=2000), st.booleans(), st.booleans(), st.sampled_from([0, 4, 76]))
def test_the_length_of_a_sound_is_that_of_its_bytes(pcm: bytes, safe: bool, padded: bool, line: int) -> None:
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(pcm).decode()
    text = text if padded else text.rstrip("=")
    if line:
        text = "".join(f"{text[at : at + line]}\r\n" for at in range(0, len(text), line))
    message = {"realtimeInput": {"audio": {"data": text, "mimeType": "audio/pcm;rate=16000"}}}
    assert read(message) == sound(len(pcm) / 32_000)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"text": "Hello"}, Realtime(text="Hello")),
        ({"text": " "}, Realtime(text=" ")),
        ({"activityStart": {}}, Realtime(activity_start=True)),
        ({"activity_start": {}}, Realtime(activity_start=True)),
        ({"activityEnd": {}}, Realtime(activity_end=True)),
        ({"activity_end": {}}, Realtime(activity_end=True)),
        ({"activityEnd": None}, Realtime()),
        ({"audioStreamEnd": True}, Realtime(audio_stream_end=True)),
        ({"audio_stream_end": True}, Realtime(audio_stream_end=True)),
        ({"audioStreamEnd": False}, Realtime()),
        ({"video": {"data": "/9j/", "mimeType": "image/jpeg"}}, Realtime(picture=True)),
        ({"mediaChunks": [{"data": "/9j/", "mimeType": "image/jpeg"}]}, Realtime(picture=True)),
        ({"media_chunks": [{"data": "/9j/", "mime_type": "image/png"}]}, Realtime(picture=True)),
        ({"media_chunks": {"data": "/9j/", "mime_type": "IMAGE/png"}}, Realtime(picture=True)),
        (
            {"mediaChunks": [{"data": "/9j/", "mimeType": "image/jpeg"}, {"data": STANDARD}]},
            Realtime(picture=True, sound_s=0.02),
        ),
        (
            {"audio": {"data": STANDARD}, "video": {"data": "/9j/"}, "text": "Look!", "activityStart": {}},
            Realtime(text="Look!", activity_start=True, sound_s=0.02, picture=True),
        ),
        ({"audio": {"data": STANDARD}, "mediaChunks": [{"data": STANDARD}]}, Realtime(sound_s=0.04)),
        ({"aNewThing": {"x": 1}}, Realtime()),
        ({}, Realtime()),
    ],
)
def test_everything_in_one_realtime_input_is_told(said: object, expected: Realtime) -> None:
    for name in ("realtimeInput", "realtime_input"):
        assert read({name: said}).realtime == expected


def test_sound_beside_anything_else_is_not_alone() -> None:
    chunk = {"data": STANDARD, "mimeType": "audio/pcm;rate=16000"}
    for beside in ({"text": "x"}, {"activityStart": {}}, {"video": chunk}, {"aNewThing": 1}):
        message = read({"realtimeInput": {"audio": chunk, **beside}})
        assert message.alone is None
        assert message.realtime is not None
        assert message.realtime.sound_s == 0.02


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text}]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"turns": [user("Hi")], "turnComplete": True}, Content((("user", "Hi"),), complete=True)),
        ({"turns": [user("Hi")], "turn_complete": True}, Content((("user", "Hi"),), complete=True)),
        ({"turns": user("Hi")}, Content((("user", "Hi"),), complete=False)),
        ({"turns": [user("Hi")], "turnComplete": False}, Content((("user", "Hi"),), complete=False)),
        ({"turnComplete": True}, Content((), complete=True)),
        ({"turns": [], "turnComplete": True}, Content((), complete=True)),
        ({"turns": [{"parts": [{"text": "Hi"}]}]}, Content((("user", "Hi"),), complete=False)),
        (
            {"turns": [{"role": "system", "parts": {"text": "Hi"}}]},
            Content((("user", "Hi"),), complete=False),
        ),
        (
            {
                "turns": [
                    user("Hi"),
                    {
                        "role": "model",
                        "parts": [{"text": "Well,", "thought": True}, {"text": "Hello"}, {"text": "you."}],
                    },
                    {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
                ]
            },
            Content((("user", "Hi"), ("model", "Hello you.")), complete=False),
        ),
    ],
)
def test_what_was_said_is_told_turn_by_turn(said: object, expected: Content) -> None:
    for name in ("clientContent", "client_content"):
        assert read({name: said}) == ClientMessage(content=expected)


def test_fillers_are_no_words() -> None:
    """LiveKit sends the user's text without an end, and then a turn of one dot with the end."""
    assert read({"client_content": {"turns": [user(".")], "turnComplete": True}}).content == Content((), True)
    assert read({"client_content": {"turns": [user(" ")], "turnComplete": True}}).content == Content((), True)
    among = read({"clientContent": {"turns": [user("Hi"), user(" "), user(".")], "turnComplete": True}})
    assert among.content == Content((("user", "Hi"), ("user", ".")), True)


def test_answers_are_told_one_by_one_with_all_that_was_sent() -> None:
    entries: list[dict[str, Any]] = [
        {"id": "1", "name": "f", "response": {"result": [1, {"some_key": None}]}, "scheduling": "SILENT"},
        {"id": "2", "response": {"output": "('repr',)"}},
        {"name": "g", "will_continue": True, "a_new_thing": 1},
    ]
    expected = (
        Answer("1", "f", {"result": [1, {"some_key": None}]}, entries[0]),
        Answer("2", None, {"output": "('repr',)"}, entries[1]),
        Answer(None, "g", None, entries[2], continues=True),
    )
    for message in (
        {"toolResponse": {"functionResponses": entries}},
        {"tool_response": {"function_responses": entries}},
    ):
        assert read(message) == ClientMessage(answers=expected)
    assert read({"tool_response": {"functionResponses": entries[1]}}).answers == expected[1:2]


def test_setups_and_updates_are_told_as_they_were_sent() -> None:
    setup = {"model": "models/m", "generation_config": {"response_modalities": "AUDIO"}, "aNewThing": [1.0]}
    assert read({"setup": setup}) == ClientMessage(setup=setup)
    update = {"system_instruction": {"parts": [{"text": "Be brief."}]}, "tools": {"tools": []}}
    assert read({"contextUpdate": update}) == ClientMessage(context_update=update)
    assert read({"context_update": update}) == ClientMessage(context_update=update)


def test_a_field_that_is_null_is_not_there() -> None:
    message = {"setup": None, "realtimeInput": {"text": "Hi", "video": None, "activityStart": None}}
    assert read(message) == ClientMessage(realtime=Realtime(text="Hi"))


@pytest.mark.parametrize(
    "message",
    [
        {"somethingNew": {"x": 1}},
        {"type": "session.update"},
        {"setup": "models/m"},
        {"setup": []},
        {"realtimeInput": 5},
        {"clientContent": "Hi"},
        {"toolResponse": True},
        {"contextUpdate": [1]},
    ],
)
def test_what_nobody_knows_goes_on_as_it_is(message: object) -> None:
    assert read(message) == ClientMessage()


def test_a_wrong_type_inside_costs_only_itself() -> None:
    chunk = {"data": 5, "mimeType": ["audio/pcm"]}
    message = {"realtimeInput": {"audio": chunk, "text": 7, "activityStart": {}, "mediaChunks": [3, "x"]}}
    assert read(message) == ClientMessage(realtime=Realtime(activity_start=True))
    turns = [user("Hi"), 7, {"parts": "x"}, {"parts": [{"text": 3}, None]}, {"role": 4, "parts": []}]
    assert read({"clientContent": {"turns": turns, "turnComplete": "yes"}}) == ClientMessage(
        content=Content((("user", "Hi"),), complete=False)
    )
    entries = [{"id": 1, "name": []}, "x"]
    assert read({"toolResponse": {"functionResponses": entries}}).answers == (
        Answer(None, None, None, {"id": 1, "name": []}),
    )


DEEP = 100_000


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"setup":{"model":"\xff"}}', "not JSON"),
        (b'{"setup":{"model":"\\ud800"}}', "not JSON"),
        (b'{"realtimeInput":{"audio":{"data":"AA', "not JSON"),
        (b'{"realtimeInput":{"audio":{"data":"AAAA"}}} x', "not JSON"),
        (b'{"setup":{"x":1e999}}', "not JSON"),
        (b'{"setup":{"x":NaN}}', "not JSON"),
        (b'{"setup":{"x":%s}}' % (b"1" * 5000), "not JSON"),
        (b"[]", "one JSON object"),
        (b"null", "one JSON object"),
        (b'"setup"', "one JSON object"),
        (b"[" * DEEP, "not JSON"),
        (b'{"setup":' * DEEP, "at most 50000 values"),
        (b'{"setup":' + b"[" * 101 + b"]" * 101 + b"}", "too deep"),
        (b'{"realtimeInput":{"mediaChunks":' + b"[" * 500 + b"]" * 500 + b"}}", "too deep"),
        (b"{}", "exactly one field"),
        (b'{"setup":null}', "exactly one field"),
        (b'{"setup":{},"clientContent":{}}', "exactly one field"),
        (b'{"realtimeInput":{},"realtime_input":{}}', "exactly one field"),
        (
            b'{"realtimeInput":{"audio":{"data":"AAAA"}},"realtime_input":{"audio":{"data":"AAAA"}}}',
            "exactly one field",
        ),
        (b'{"realtimeInput":{"audio":{"data":"AAAA"}},"setup":{}}', "exactly one field"),
        (b'{"setup":{"model":"a"},"setup":{"model":"b"}}', "twice"),
        (b'{"setup":{"model":"a","\\u006dodel":"b"}}', "twice"),
        (b'{"contextUpdate":{"tools":{"tools":[]},"tools":null}}', "twice"),
        (b'{"toolResponse":{"functionResponses":[{"id":"1","id":"2"}]}}', "twice"),
        (
            b'{"realtimeInput":{"audio":{"data":"%s"},"audio":{"data":"AAAA"}}}' % (b"AAAA" * 200),
            "twice",
        ),
    ],
)
def test_what_google_could_not_read_or_would_read_otherwise_is_refused(frame: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(frame)


def test_what_is_nested_as_deep_as_google_takes_it_is_read() -> None:
    frame = b'{"setup":{"x":' + b"[" * 98 + b"]" * 98 + b"}}"
    assert decode(frame).setup is not None


NAMES = sorted(
    {
        *("setup", "realtimeInput", "realtime_input", "clientContent", "client_content", "toolResponse"),
        *("tool_response", "contextUpdate", "audio", "video", "mediaChunks", "media_chunks", "data"),
        *("mimeType", "mime_type", "text", "turns", "turnComplete", "parts", "role", "functionResponses"),
        *("function_responses", "id", "name", "response", "activityStart", "audioStreamEnd", "thought"),
    }
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["audio/pcm;rate=16000", "image/jpeg", STANDARD, ".", "model", ""])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner)
    ),
    max_leaves=12,
)


@given(st.sampled_from(NAMES), JSON)
def test_no_message_of_one_field_is_an_error(name: str, value: Any) -> None:
    if value is not None:
        message = read({name: value})
        known = (message.setup, message.realtime, message.content, message.answers, message.context_update)
        assert sum(one is not None for one in known) <= 1
        assert message.alone is None or message.realtime == Realtime(sound_s=message.alone)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"realtimeInput":{"audio":{"data":"\xed\xa0\x80"}}}')
@example(b"\xef\xbb\xbf{}")
def test_no_bytes_are_fatal(frame: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(frame)


@given(
    st.text(alphabet="AB+/-_=\n", max_size=40), st.sampled_from(["audio/pcm;rate=8000", "audio/pcm", None])
)
def test_plain_sound_is_read_as_any_other_message_is(data: str, mime_type: str | None) -> None:
    chunk = {"data": data} if mime_type is None else {"data": data, "mime_type": mime_type}
    for said in ({"audio": chunk}, {"mediaChunks": [chunk]}, {"media_chunks": chunk}, {"video": chunk}):
        quickly, closely = read({"realtime_input": said}), read({"realtime_input": {**said, "x": 1}})
        assert quickly.realtime == closely.realtime
        assert (quickly.alone is None) == ("video" in said)


async def test_what_googles_own_sdk_sends_is_understood(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def use(session: AsyncSession) -> None:
        await session.send_client_content(
            turns=types.Content(role="user", parts=[types.Part(text="Hi")]), turn_complete=False
        )
        await session.send_client_content(turn_complete=True)
        await session.send_realtime_input(audio=types.Blob(data=PCM, mime_type="audio/pcm;rate=16000"))
        await session.send_realtime_input(media=types.Blob(data=PCM, mime_type="audio/pcm"))
        await session.send_realtime_input(video=types.Blob(data=b"\xff\xd8", mime_type="image/jpeg"))
        await session.send_realtime_input(text="Hello")
        await session.send_realtime_input(activity_start=types.ActivityStart())
        await session.send_realtime_input(activity_end=types.ActivityEnd())
        await session.send_realtime_input(audio_stream_end=True)
        await session.send_tool_response(
            function_responses=types.FunctionResponse(id="1", name="f", response={"result": "ok"})
        )

    setup, *frames = [decode(frame) for frame in await sent_by_the_sdk(tls, {}, use)]
    assert setup.setup == {"model": "models/gemini-3.8-live"}
    assert frames == [
        ClientMessage(content=Content((("user", "Hi"),), complete=False)),
        ClientMessage(content=Content((), complete=True)),
        sound(0.02),
        sound(0.02),
        ClientMessage(realtime=Realtime(picture=True)),
        ClientMessage(realtime=Realtime(text="Hello")),
        ClientMessage(realtime=Realtime(activity_start=True)),
        ClientMessage(realtime=Realtime(activity_end=True)),
        ClientMessage(realtime=Realtime(audio_stream_end=True)),
        ClientMessage(
            answers=(
                Answer("1", "f", {"result": "ok"}, {"id": "1", "name": "f", "response": {"result": "ok"}}),
            )
        ),
    ]
