"""Client messages: what is taken, and what is said about the rest."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tornado_live.errors import BadMessage
from tornado_live.wire import native


def said(data: bytes) -> str:
    with pytest.raises(BadMessage) as caught:
        native.decode(data)
    return caught.value.message


def test_every_message_of_the_protocol_is_decoded_by_its_type() -> None:
    samples = {
        b'{"type":"connect","sessionId":"s"}': native.Connect,
        b'{"type":"connect","data":{"voice":"Kore","audio":"binary","inputRate":48000}}': native.Connect,
        b'{"type":"audio","data":{"data":"AAAA","mimeType":"audio/pcm;rate=16000"},"sessionId":"s"}': native.Audio,
        b'{"type":"text","data":{"text":"hello"}}': native.Text,
        b'{"type":"video","data":{"data":"/9g=","mimeType":"image/jpeg"}}': native.Video,
        b'{"type":"activity_start"}': native.ActivityStart,
        b'{"type":"activity_end"}': native.ActivityEnd,
        b'{"type":"audio_end"}': native.AudioEnd,
        b'{"type":"tool_result","data":{"id":"1","response":{"a":[1]}}}': native.ToolResult,
        b'{"type":"tool_confirm","data":{"id":"1","ok":true}}': native.ToolConfirm,
        b'{"type":"disconnect"}': native.Disconnect,
        b'{"type":"ping","data":{"n":[1,2]}}': native.Ping,
    }
    for data, kind in samples.items():
        assert type(native.decode(data)) is kind
    assert {kind.__struct_config__.tag for kind in samples.values()} == set(native.TYPES)


def test_unknown_fields_are_ignored_outside_connect() -> None:
    assert native.decode(b'{"type":"text","data":{"text":"x","when":1},"extra":{}}') == native.Text(
        data=native.TextData("x")
    )


def test_what_is_not_json_is_said_to_be_so() -> None:
    for data in (b"hello", b"", b"\xff\xfe", b'{"type":"ping"', b"[" * 20_000):
        assert "JSON" in said(data)


def test_an_unknown_type_is_answered_with_the_nearest_known_one() -> None:
    assert said(b'{"type":"conect"}').endswith('did you mean "connect"?')
    assert '"type" must be one of' in said(b'{"type":7}')
    assert '"type" must be one of' in said(b"{}")


def test_an_unknown_option_of_connect_is_answered_with_the_nearest_known_one() -> None:
    assert said(b'{"type":"connect","data":{"voise":"Kore"}}').endswith('did you mean "voice"?')


def test_a_wrong_field_is_named_with_its_place() -> None:
    assert said(b'{"type":"text","data":{"text":5}}') == 'text: Expected "str", got "int" - at "$.data.text".'
    assert 'missing required field "data"' in said(b'{"type":"audio"}')
    assert said(b'{"type":"connect","data":{"modality":"VIDEO"}}').endswith("take AUDIO or TEXT.")
    assert said(b'{"type":"video","data":{"data":"","mimeType":"image/gif"}}').endswith(
        "take image/jpeg or image/png."
    )


@given(st.binary(max_size=64))
def test_both_base64_alphabets_mean_the_same(data: bytes) -> None:
    standard = base64.b64encode(data).decode()
    for text in (standard, base64.urlsafe_b64encode(data).decode(), standard.rstrip("=")):
        assert native.from_base64(text, "audio") == (standard, len(data))


def test_what_is_not_base64_is_refused() -> None:
    for text in ("%%%%", "AAA!", "A", "AAAA=", "AA==AA=="):
        with pytest.raises(BadMessage, match="not base64"):
            native.from_base64(text, "audio")


def test_audio_without_a_rate_is_16_khz_and_others_are_checked() -> None:
    assert native.input_rate("audio/pcm") == 16000
    assert native.input_rate("audio/PCM; rate=8000") == 8000
    assert native.input_rate("audio/pcm;rate=48000") == 48000
    for mime in (
        "audio/wav",
        "audio/pcm;rate=4000",
        "audio/pcm;rate=96000",
        "audio/pcm;rate=x",
        "audio/pcm;rate=" + "1" * 5000,
    ):
        with pytest.raises(BadMessage):
            native.input_rate(mime)


def test_half_samples_and_long_audio_are_refused() -> None:
    assert native.checked_pcm(640, 16000) == 0.02
    with pytest.raises(BadMessage, match="empty"):
        native.checked_pcm(0, 16000)
    with pytest.raises(BadMessage, match="odd number"):
        native.checked_pcm(641, 16000)
    with pytest.raises(BadMessage, match="one second"):
        native.checked_pcm(32002, 16000)


def test_an_image_must_be_what_it_says_it_is() -> None:
    png = base64.b64encode(b"\x89PNG\r\n").decode()
    assert native.checked_image(native.VideoData(png, "image/png")) == png
    with pytest.raises(BadMessage, match="not image/jpeg"):
        native.checked_image(native.VideoData(png, "image/jpeg"))
    with pytest.raises(BadMessage, match="empty"):
        native.checked_image(native.VideoData(""))


def test_a_frame_to_the_client_carries_type_data_and_session() -> None:
    assert json.loads(native.encode("pong", None, "s")) == {"type": "pong", "sessionId": "s"}
    assert json.loads(native.encode_audio("-_8=", "audio/pcm", "s")) == {
        "type": "audio",
        "data": {"audio": "+/8=", "mimeType": "audio/pcm;rate=24000"},
        "sessionId": "s",
    }


@given(st.binary(max_size=200))
@example(b'{"":{},"":"\x80"}')
def test_any_bytes_are_a_message_or_a_bad_message(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        native.decode(data)
