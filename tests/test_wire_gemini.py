"""The Gemini Live wire: messages as recorded from the real service, and setups as Google's own SDK sends them."""

from __future__ import annotations

import base64
import json
import re
import ssl
import warnings
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from modelling import MODELS
from simulating import LIVE_PATH, Simulator
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tornado_live.jsonvalue import Json
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel


def test_recorded_messages_are_decoded() -> None:
    audio = gemini.decode(
        b'{\n  "serverContent": {\n    "modelTurn": {\n      "parts": [\n        {\n          "inlineData": {\n'
        b'            "mimeType": "audio/pcm;rate=24000",\n            "data": "AAEC"\n          }\n        }\n'
        b"      ]\n    }\n  }\n}\n"
    )
    assert audio.server_content is not None
    assert audio.server_content.model_turn is not None
    assert audio.server_content.model_turn.parts is not None
    inline = audio.server_content.model_turn.parts[0].inline_data
    assert inline is not None
    assert gemini.pcm(inline) == b"\x00\x01\x02"

    assert gemini.decode(b'{\n  "setupComplete": {}\n}\n').setup_complete == gemini.SetupComplete()
    assert gemini.decode(b'{"setupComplete":{"sessionId":"f162"}}').setup_complete == gemini.SetupComplete(
        "f162"
    )
    bundled = gemini.decode(
        b'{"serverContent":{"modelTurn":{"role":"model","parts":[{"inlineData":{"mimeType":"audio/pcm","data":"AA=="}}]}'
        b',"outputTranscription":{"text":"It is"}}}'
    ).server_content
    assert bundled is not None
    assert bundled.output_transcription == gemini.Transcription("It is")
    done = gemini.decode(
        b'{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":1267,"totalTokenCount":1370}}'
    )
    assert done.server_content == gemini.ServerContent(turn_complete=True)
    assert done.usage_metadata == {"promptTokenCount": 1267, "totalTokenCount": 1370}
    called = gemini.decode(
        b'{"toolCall":{"functionCalls":[{"name":"get_weather","args":{"city":"London"},"id":"fc_38"}]}}'
    )
    assert called.tool_call == gemini.ToolCallMessage(
        [gemini.FunctionCall("get_weather", "fc_38", {"city": "London"})]
    )
    assert gemini.decode(b'{"toolCallCancellation":{"ids":["a"]}}').tool_call_cancellation == (
        gemini.ToolCallCancellation(["a"])
    )
    assert gemini.decode(b'{"goAway":{"timeLeft":"50s"}}').go_away == gemini.GoAway("50s")
    assert gemini.decode(
        b'{"sessionResumptionUpdate":{"newHandle":"h","resumable":true}}'
    ).session_resumption_update == (gemini.SessionResumptionUpdate("h", True))
    activity = gemini.decode(
        b'{"voiceActivity":{"type":"ACTIVITY_START","audioOffset":"0.200s"}}'
    ).voice_activity
    assert activity == gemini.VoiceActivity("ACTIVITY_START", "0.200s")


# One message of each kind in section 3 of the protocol, with what is looked at.
MESSAGES: list[tuple[bytes, gemini.ServerMessage]] = [
    (b"{}\n", gemini.ServerMessage()),
    (b'{\n  "serverContent": {}\n}\n', gemini.ServerMessage(gemini.ServerContent())),
    (
        b'{"serverContent":{"modelTurn":{"parts":[{"text":"**Greeting**","thought":true}]}}}',
        gemini.ServerMessage(
            gemini.ServerContent(gemini.ModelTurn([gemini.Part("**Greeting**", thought=True)]))
        ),
    ),
    (
        b'{"serverContent":{"modelTurn":{"parts":[{"executableCode":{"language":"PYTHON","code":"f()"}}]}}}',
        gemini.ServerMessage(gemini.ServerContent(gemini.ModelTurn([gemini.Part()]))),
    ),
    (
        b'{"serverContent":{"inputTranscription":{"text":" Hello","languageCode":"en","words":[]}}}',
        gemini.ServerMessage(gemini.ServerContent(input_transcription=gemini.Transcription(" Hello"))),
    ),
    (
        b'{"serverContent":{"outputTranscription":{}}}',
        gemini.ServerMessage(gemini.ServerContent(output_transcription=gemini.Transcription())),
    ),
    (
        b'{"serverContent":{"outputTranscription":{"finished":true}}}',
        gemini.ServerMessage(gemini.ServerContent(output_transcription=gemini.Transcription(finished=True))),
    ),
    (
        b'{"serverContent":{"interimInputTranscription":{"text":"zorblex the"}}}',
        gemini.ServerMessage(
            gemini.ServerContent(interim_input_transcription=gemini.Transcription("zorblex the"))
        ),
    ),
    (
        b'{"serverContent":{"generationComplete":true}}',
        gemini.ServerMessage(gemini.ServerContent(generation_complete=True)),
    ),
    (
        b'{"serverContent":{"interrupted":true}}',
        gemini.ServerMessage(gemini.ServerContent(interrupted=True)),
    ),
    (
        b'{"serverContent":{"turnComplete":true,"interactionStatus":"IN_PROGRESS"}}',
        gemini.ServerMessage(gemini.ServerContent(turn_complete=True, interaction_status="IN_PROGRESS")),
    ),
    (
        b'{"serverContent":{"turnComplete":true,"turnCompleteReason":"NEED_MORE_INPUT","waitingForInput":true}}',
        gemini.ServerMessage(
            gemini.ServerContent(
                turn_complete=True, turn_complete_reason="NEED_MORE_INPUT", waiting_for_input=True
            )
        ),
    ),
    (
        b'{"serverContent":{"turnComplete":true,"groundingMetadata":{},"urlContextMetadata":{}},'
        b'"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":3}}',
        gemini.ServerMessage(
            gemini.ServerContent(turn_complete=True),
            usage_metadata={"promptTokenCount": 12, "candidatesTokenCount": 3},
        ),
    ),
    (b'{"usageMetadata":{"totalTokenCount":1}}', gemini.ServerMessage(usage_metadata={"totalTokenCount": 1})),
    (
        b'{"toolCall":{"functionCalls":[{"name":"f","args":{},"id":"1"}]},"interactionStatus":"IN_PROGRESS"}',
        gemini.ServerMessage(
            tool_call=gemini.ToolCallMessage([gemini.FunctionCall("f", "1", {})]),
            interaction_status="IN_PROGRESS",
        ),
    ),
    (b'{"interactionStatus":"IDLE"}', gemini.ServerMessage(interaction_status="IDLE")),
    (
        b'{"sessionResumptionUpdate":{"newHandle":"h","resumable":true,"lastConsumedClientMessageIndex":"7"}}',
        gemini.ServerMessage(
            session_resumption_update=gemini.SessionResumptionUpdate("h", True, "7"),
        ),
    ),
    (
        b'{"sessionResumptionUpdate":{}}',
        gemini.ServerMessage(session_resumption_update=gemini.SessionResumptionUpdate()),
    ),
    (
        b'{"voiceActivity":{"type":"ACTIVITY_END"},"serverContent":{}}',
        gemini.ServerMessage(gemini.ServerContent(), voice_activity=gemini.VoiceActivity("ACTIVITY_END")),
    ),
    (
        b'{"voiceActivityDetectionSignal":{"vadSignalType":"VAD_SIGNAL_TYPE_SOS"}}',
        gemini.ServerMessage(
            voice_activity_detection_signal=gemini.VoiceActivityDetectionSignal("VAD_SIGNAL_TYPE_SOS")
        ),
    ),
]


@pytest.mark.parametrize("number", range(len(MESSAGES)))
def test_every_message_is_read_in_both_spellings(number: int) -> None:
    data, expected = MESSAGES[number]
    assert gemini.decode(data) == expected
    assert gemini.decode(json.dumps(snake(json.loads(data))).encode()) == expected


def snake(value: Json) -> Json:
    """JSON with protocol keys as proto names; a usage object is compared as it came, so it stays."""
    if isinstance(value, list):
        return [snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): snake(item)
        for key, item in value.items()
    }


def test_messages_that_nobody_knows_are_marked_so_that_they_can_be_counted() -> None:
    for data in (b'{"error":{"code":1}}', b'{"brand_new":{}}', b'{"brandNew":{"a":[1]},"other":1}'):
        assert gemini.decode(data) == gemini.ServerMessage(unknown=True)
    for data in (b"{}", b'{"serverContent":{}}', b'{"serverContent":null}', b'{"goAway":{},"brandNew":1}'):
        assert not gemini.decode(data).unknown
    assert gemini.decode(b'{"new":1,"goAway":{"timeLeft":"5s","more":[]}}').go_away == gemini.GoAway("5s")
    pretended = gemini.decode(b'{"unknown":1,"dropped":2,"serverContent":{"turnComplete":true}}')
    assert pretended == gemini.ServerMessage(gemini.ServerContent(turn_complete=True))


@pytest.mark.parametrize(
    ("data", "left", "dropped"),
    [
        (b'{"serverContent":3}', gemini.ServerMessage(), ("serverContent",)),
        (
            b'{"goAway":{"timeLeft":{"seconds":50}}}',
            gemini.ServerMessage(go_away=gemini.GoAway()),
            ("goAway.timeLeft",),
        ),
        (
            b'{"serverContent":{"turnComplete":"yes","outputTranscription":{"text":1},"interrupted":true}}',
            gemini.ServerMessage(
                gemini.ServerContent(output_transcription=gemini.Transcription(), interrupted=True)
            ),
            ("serverContent.outputTranscription.text", "serverContent.turnComplete"),
        ),
        (
            b'{"serverContent":{"model_turn":{"parts":[{"text":1},7,{"text":"b"}]}}}',
            gemini.ServerMessage(gemini.ServerContent(gemini.ModelTurn([gemini.Part(), gemini.Part("b")]))),
            ("serverContent.modelTurn.parts[0].text", "serverContent.modelTurn.parts[1]"),
        ),
        (
            b'{"toolCall":{"functionCalls":[{"id":"1","args":[]},{"id":"2","name":"f"}]},"usageMetadata":[]}',
            gemini.ServerMessage(
                tool_call=gemini.ToolCallMessage(
                    [gemini.FunctionCall("", "1"), gemini.FunctionCall("f", "2")]
                )
            ),
            ("toolCall.functionCalls[0].args", "usageMetadata"),
        ),
        (
            b'{"toolCallCancellation":{"ids":["a",2,"b"]}}',
            gemini.ServerMessage(tool_call_cancellation=gemini.ToolCallCancellation(["a", "b"])),
            ("toolCallCancellation.ids[1]",),
        ),
    ],
)
def test_a_field_of_a_wrong_type_costs_only_itself(
    data: bytes, left: gemini.ServerMessage, dropped: tuple[str, ...]
) -> None:
    message = gemini.decode(data)
    assert sorted(message.dropped) == sorted(dropped)
    message.dropped = ()
    assert message == left


NAMES = sorted(
    {
        field.encode_name
        for view in vars(gemini).values()
        if isinstance(view, type) and issubclass(view, msgspec.Struct)
        for field in msgspec.structs.fields(view)
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=2), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_no_object_is_fatal(message: dict[str, Json]) -> None:
    gemini.decode(json.dumps(message).encode())


def test_proto_names_are_read_too() -> None:
    message = gemini.decode(
        b'{"server_content":{"model_turn":{"parts":[{"inline_data":{"mime_type":"audio/pcm","data":"_-8="}}]}}}'
    )
    assert message.server_content is not None
    assert message.server_content.model_turn is not None
    assert message.server_content.model_turn.parts is not None
    inline = message.server_content.model_turn.parts[0].inline_data
    assert inline == gemini.InlineData("audio/pcm", "_-8=")
    assert gemini.pcm(inline) == b"\xff\xef"
    called = gemini.decode(b'{"tool_call":{"function_calls":[{"name":"f","id":"1","args":{"snake_key":1}}]}}')
    assert called.tool_call == gemini.ToolCallMessage([gemini.FunctionCall("f", "1", {"snake_key": 1})])


def test_what_is_no_message_is_a_value_error() -> None:
    for data in (b"", b"[]", b"nothing", b"3", b'{"serverContent":', b'"\xff"', b"[" * 5000):
        with pytest.raises(ValueError):
            gemini.decode(data)


def test_the_time_that_is_left_is_read_as_far_as_it_is_one() -> None:
    assert [gemini.seconds(text) for text in ("50s", "0.5s", " 7 s ", "60", "0s")] == [
        50.0,
        0.5,
        7.0,
        60.0,
        0.0,
    ]
    for text in (None, "", "s", "-1s", "1m", "soon", "1e9s", "9" * 400, "nan", "50s50s"):
        assert gemini.seconds(text) is None


def test_what_is_sent_up_has_the_shape_that_google_documents() -> None:
    assert json.loads(gemini.audio("AAAA", 16000)) == {
        "realtimeInput": {"audio": {"data": "AAAA", "mimeType": "audio/pcm;rate=16000"}}
    }
    assert (
        json.loads(gemini.audio("AAAA", 22050))["realtimeInput"]["audio"]["mimeType"]
        == "audio/pcm;rate=22050"
    )
    assert json.loads(gemini.video("/9g=", "image/jpeg")) == {
        "realtimeInput": {"video": {"data": "/9g=", "mimeType": "image/jpeg"}}
    }
    assert json.loads(gemini.typed(MODELS.of("gemini-3.8-live"), "hi")) == {
        "clientContent": {"turns": [{"role": "user", "parts": [{"text": "hi"}]}], "turnComplete": True}
    }
    assert json.loads(gemini.typed(MODELS.of("models/gemini-3.1-flash-live-preview"), "hi")) == {
        "realtimeInput": {"text": "hi"}
    }
    assert json.loads(gemini.tool_response("1", "f", {"status": "ok"})) == {
        "toolResponse": {"functionResponses": [{"id": "1", "name": "f", "response": {"status": "ok"}}]}
    }
    scheduled = gemini.tool_response("1", "f", {}, scheduling="WHEN_IDLE", will_continue=True)
    assert json.loads(scheduled)["toolResponse"]["functionResponses"] == [
        {"id": "1", "name": "f", "response": {}, "scheduling": "WHEN_IDLE", "willContinue": True}
    ]
    assert json.loads(gemini.context_update(instruction="Be brief.", tools=[])) == {
        "contextUpdate": {
            "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
            "tools": {"tools": []},
        }
    }
    assert [
        json.loads(one) for one in (gemini.ACTIVITY_START, gemini.ACTIVITY_END, gemini.AUDIO_STREAM_END)
    ] == [
        {"realtimeInput": {"activityStart": {}}},
        {"realtimeInput": {"activityEnd": {}}},
        {"realtimeInput": {"audioStreamEnd": True}},
    ]


def test_a_conversation_is_transcribed_and_waits_for_its_tools() -> None:
    tool = {"name": "f", "description": "d", "parameters": {"type": "OBJECT"}}
    made = gemini.conversation_setup(MODELS.of("gemini-3.8-live"), {}, [tool], history=[("user", "hi")])
    assert made.changes == ()
    assert json.loads(made.payload)["setup"] == {
        "model": "models/gemini-3.8-live",
        "generationConfig": {"responseModalities": ["AUDIO"]},
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
        "tools": [{"functionDeclarations": [{**tool, "behavior": "BLOCKING"}]}],
        "sessionResumption": {},
        "historyConfig": {"initialHistoryInClientContent": True},
    }


def test_a_model_that_only_answers_without_waiting_is_not_asked_to_wait() -> None:
    facts = MODELS.of("gemini-3.8-live-extended-thinking")
    setup = json.loads(gemini.conversation_setup(facts, {}, [{"name": "f"}]).payload)["setup"]
    assert setup["tools"] == [{"functionDeclarations": [{"name": "f"}]}]


CONFIGS: list[dict[str, object]] = [
    {},
    {
        "response_modalities": ["AUDIO"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 3,
        "max_output_tokens": 100,
    },
    {
        "speech_config": {
            "voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}},
            "language_code": "en-US",
        },
        "media_resolution": "MEDIA_RESOLUTION_LOW",
        "thinking_config": {"include_thoughts": True, "thinking_level": "LOW"},
        "enable_affective_dialog": True,
    },
    {"system_instruction": "Be brief."},
    {"system_instruction": {"parts": [{"text": "Be brief."}], "role": "user"}},
    {"system_instruction": {"text": "Be brief."}},
    {
        "tools": [
            {"google_search": {}},
            {
                "function_declarations": [
                    {"name": "a", "parameters": {"type": "OBJECT", "properties": {"x_y": {"type": "STRING"}}}}
                ]
            },
            {
                "function_declarations": [
                    {"name": "b", "parameters_json_schema": {"type": "object"}, "behavior": "NON_BLOCKING"}
                ]
            },
        ]
    },
    {
        "session_resumption": {"handle": "h"},
        "input_audio_transcription": {"language_codes": ["en-US"]},
        "output_audio_transcription": {},
        "context_window_compression": {"trigger_tokens": 25000, "sliding_window": {"target_tokens": 8000}},
    },
    {
        "realtime_input_config": {
            "automatic_activity_detection": {
                "disabled": False,
                "start_of_speech_sensitivity": "START_SENSITIVITY_HIGH",
                "prefix_padding_ms": 20,
                "silence_duration_ms": 500,
            },
            "activity_handling": "NO_INTERRUPTION",
            "turn_coverage": "TURN_INCLUDES_ONLY_ACTIVITY",
        },
        "proactivity": {"proactive_audio": True},
        "history_config": {"initial_history_in_client_content": True},
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "labels": {"safety_identifier": "b"},
        "translation_config": {"target_language_code": "es", "echo_target_language": True},
    },
]


def test_every_field_of_googles_configuration_reaches_the_wire() -> None:
    names = {field.alias or name for name, field in types.LiveConnectConfig.model_fields.items()}
    config: dict[str, Json] = {name: {"parts": []} for name in names - {"httpOptions"}}
    made = gemini.setup("gemini-3.8-live", config)
    generation = made.pop("generationConfig")
    assert isinstance(generation, dict)
    assert {*made, *generation, "generationConfig"} - {"model", "parts"} == config.keys()


def tools_in_one_order(made: Json) -> Json:
    """Proto JSON takes both spellings, an absent role of an instruction and one tool or several alike."""
    plain = gemini.camel(made)
    assert isinstance(plain, dict)
    if "tools" in plain and isinstance(plain["tools"], list):
        plain["tools"] = gemini.merged_tools(plain["tools"])
    return plain


async def sent_by_the_sdk(
    config: Mapping[str, object],
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
    model: str = "gemini-3.8-live",
    *,
    vertex: bool = False,
) -> Json:
    received: list[str | bytes] = []

    async def answer(connection: ServerConnection) -> None:
        received.append(await connection.recv())
        await connection.send(b'{"setupComplete": {}}')
        await connection.wait_closed()

    server_context, client_context = certificates
    async with serve(answer, "localhost", 0, ssl=server_context) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        options = types.HttpOptions(
            base_url=f"https://localhost:{port}",
            api_version="v1beta1" if vertex else "v1beta",
            async_client_args={"ssl": client_context, "proxy": None},
        )
        client = (
            genai.Client(
                vertexai=True,
                project="p",
                location="us-central1",
                credentials=Credentials(token="fake-token"),
                http_options=options,
            )
            if vertex
            else genai.Client(api_key="fake-key", http_options=options)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            async with client.aio.live.connect(model=model, config=types.LiveConnectConfig(**config)):
                pass
        await client.aio.aclose()
        client.close()
    made = json.loads(received[0])["setup"]
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize("number", range(len(CONFIGS)))
async def test_our_setup_means_the_same_as_the_one_googles_sdk_sends(
    number: int, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    config = CONFIGS[number]
    ours = types.LiveConnectConfig(**config).model_dump(mode="json", by_alias=True, exclude_none=True)  # type: ignore[arg-type]
    made = gemini.setup("gemini-3.8-live", ours)
    assert tools_in_one_order(made) == tools_in_one_order(await sent_by_the_sdk(config, tls))


# Google's own client is the judge of everything that is sent, for every model.

DEVELOPER = [*MODELS.names, "gemini-9-live"]
VERTEX = MODELS.on_vertex("projects/p/locations/us-central1/publishers/google/models")
ON_VERTEX = ["gemini-3.8-live", "gemini-3.8-live-extended-thinking", "gemini-live-2.5-flash-native-audio"]
FUNCTIONS: list[dict[str, Json]] = [
    {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "OBJECT",
            "properties": {"location": {"type": "STRING"}},
            "required": ["location"],
        },
    },
    {"name": "send_report"},
]
TURNS = [("user", "Hello."), ("model", "Hello, how can I help?")]


def live_config(config: Mapping[str, object]) -> dict[str, Json]:
    checked = types.LiveConnectConfig(**config)  # type: ignore[arg-type]
    dumped: dict[str, Json] = checked.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def setups(facts: LiveModel) -> list[bytes]:
    """What a conversation can begin with: each configuration, fresh, with a memory, and resumed."""
    made: list[bytes] = []
    for config in CONFIGS:
        ours = live_config(config)
        background = frozenset({"send_report"})
        made += [
            gemini.conversation_setup(facts, ours, []).payload,
            gemini.conversation_setup(facts, ours, FUNCTIONS, background=background, history=TURNS).payload,
            gemini.conversation_setup(facts, ours, FUNCTIONS, handle="a-handle").payload,
        ]
    return made


def everything_after_the_setup(facts: LiveModel) -> list[bytes]:
    seed = gemini.history(facts, TURNS)
    return [
        *([seed] if seed is not None else []),
        gemini.audio("AAAA", 16000),
        gemini.video("/9j/", "image/jpeg"),
        gemini.typed(facts, "Hello."),
        gemini.ACTIVITY_START,
        gemini.ACTIVITY_END,
        gemini.AUDIO_STREAM_END,
        gemini.tool_response("1", "f", {"status": "ok"}),
        gemini.tool_response("1", "f", {}, scheduling="SILENT", will_continue=False),
        gemini.context_update(instruction="Be brief.", tools=[{"googleSearch": {}}]),
    ]


@pytest.mark.parametrize("vertex", [False, True])
@pytest.mark.parametrize("model", DEVELOPER)
def test_googles_types_take_everything_that_is_sent(model: str, vertex: bool) -> None:
    facts = (VERTEX if vertex else MODELS).of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unknown enum value is only a warning to google-genai
        for payload in setups(facts):
            message = json.loads(payload)
            # google-genai's own type of the setup lacks this one field, which its converter writes.
            types.RealtimeInputConfig.model_validate(message["setup"].pop("realtimeInputConfig", {}))
            types.LiveClientMessage.model_validate(message)
        for payload in everything_after_the_setup(facts):
            types.LiveClientMessage.model_validate(json.loads(payload))


@pytest.mark.parametrize("model", DEVELOPER)
async def test_a_fitted_setup_means_the_same_when_googles_sdk_sends_it(
    model: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """The fitted configuration, given to the SDK, is the setup that we send."""
    facts = MODELS.of(model)
    for config in CONFIGS[:3]:
        ours = json.loads(gemini.conversation_setup(facts, live_config(config), FUNCTIONS).payload)["setup"]
        generation = dict(ours["generationConfig"])
        rest = {key: value for key, value in ours.items() if key not in ("model", "generationConfig")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = await sent_by_the_sdk(
                {**camel_to_fields(generation), **camel_to_fields(rest)}, tls, model
            )
        assert tools_in_one_order(theirs) == tools_in_one_order(ours)


async def test_a_setup_for_vertex_ai_means_the_same_when_googles_sdk_sends_it(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    config: dict[str, object] = {
        "response_modalities": ["AUDIO"],
        "system_instruction": "Be brief.",
        "session_resumption": {"transparent": True},
        "explicit_vad_signal": True,
        "input_audio_transcription": {},
        "output_audio_transcription": {},
        "context_window_compression": {"sliding_window": {}},
    }
    facts = VERTEX.of("gemini-3.8-live")
    ours = json.loads(gemini.conversation_setup(facts, live_config(config), []).payload)["setup"]
    theirs = await sent_by_the_sdk(config, tls, vertex=True)
    assert tools_in_one_order(theirs) == tools_in_one_order(ours)


def camel_to_fields(config: Mapping[str, Json]) -> dict[str, object]:
    """The names of LiveConnectConfig's own fields; what is below them may stay camelCase."""
    aliases = {field.alias or name: name for name, field in types.LiveConnectConfig.model_fields.items()}
    return {aliases[key]: value for key, value in config.items()}


async def refusals(url: str, headers: Mapping[str, str], payloads: Sequence[bytes]) -> list[str]:
    """The setups that a model side does not answer with setupComplete."""
    refused = []
    for payload in payloads:
        async with connect(url, additional_headers=headers, proxy=None, compression=None) as socket:
            await socket.send(payload.decode())
            try:
                said = gemini.decode(await socket.recv(decode=False))
            except ConnectionClosed as closed:
                refused.append(f"{closed.rcvd} {payload.decode()}")
            else:
                assert said.setup_complete is not None
    return refused


async def test_the_simulator_accepts_the_fitted_setups_of_every_model() -> None:
    developer = {
        name: MODELS.of(name)
        for name in (
            "gemini-3.8-live",
            "gemini-3.8-live-extended-thinking",
            "gemini-3.1-flash-live-preview",
            "gemini-2.5-flash-native-audio-preview-12-2025",
            "gemini-3.5-live-translate-preview",
            "gemini-3.5-transcribe-live",
            "gemini-robotics-er-2-streaming-preview",
        )
    }
    async with Simulator(speed=100) as simulator:
        for facts in developer.values():
            resumed = b'"handle":"a-handle"'
            payloads = [payload for payload in setups(facts) if resumed not in payload]
            assert await refusals(simulator.live_url, {"x-goog-api-key": "fake"}, payloads) == []
        url = simulator.live_url.replace(LIVE_PATH, VERTEX_LIVE_PATH)
        for name in (*ON_VERTEX, "gemini-live-2.5-flash"):
            payloads = [payload for payload in setups(VERTEX.of(name)) if resumed not in payload]
            assert await refusals(url, {"Authorization": "Bearer fake"}, payloads) == []


async def test_the_simulator_refuses_what_was_not_fitted() -> None:
    config: dict[str, Json] = {"thinkingConfig": {"thinkingLevel": "LOW"}}
    raw = json.dumps({"setup": gemini.setup("gemini-3.8-live", config)}).encode()
    fitted = gemini.conversation_setup(MODELS.of("gemini-3.8-live"), config, []).payload
    async with Simulator(speed=100) as simulator:
        key = {"x-goog-api-key": "fake"}
        assert len(await refusals(simulator.live_url, key, [raw, fitted])) == 1


VERTEX_LIVE_PATH = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"


@pytest.mark.parametrize(
    "model",
    [
        "gemini-3.8-live",
        "gemini-3.8-live-extended-thinking",
        "gemini-3.1-flash-live-preview",
        "gemini-2.5-flash-native-audio-preview-12-2025",
    ],
)
async def test_a_whole_turn_with_a_call_is_taken_by_the_simulated_model(model: str) -> None:
    facts = MODELS.of(model)
    scheduling = "WHEN_IDLE" if facts.scheduling else None
    async with (
        Simulator(speed=20) as simulator,
        connect(simulator.live_url + "?key=fake", proxy=None, compression=None) as socket,
    ):
        made = gemini.conversation_setup(facts, {}, FUNCTIONS, history=TURNS)
        await socket.send(made.payload.decode())
        assert gemini.decode(await socket.recv(decode=False)).setup_complete is not None
        seed = gemini.history(facts, TURNS)
        for payload in (
            *([seed] if seed is not None else []),
            gemini.audio(base64.b64encode(bytes(640)).decode(), 16000),
            gemini.video("/9j/", "image/jpeg"),
            gemini.AUDIO_STREAM_END,
            gemini.typed(facts, "What is the weather in Rome?"),
        ):
            await socket.send(payload.decode())
        answered = False
        while True:
            message = gemini.decode(await socket.recv(decode=False))
            assert not message.unknown
            assert message.dropped == ()
            for call in (message.tool_call.function_calls or []) if message.tool_call else []:
                assert (call.name, call.args) == ("get_weather", {"location": "Rome"})
                result: dict[str, Json] = {"status": "ok", "result": {"temperature": 21}}
                answer = gemini.tool_response(call.id or "", call.name, result, scheduling=scheduling)
                await socket.send(answer.decode())
                answered = True
            content = message.server_content
            if answered and content is not None and content.turn_complete:
                break


def test_base64_of_either_alphabet_is_the_same_sound() -> None:
    data = bytes(range(240, 256))
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert gemini.pcm(gemini.InlineData("audio/pcm", text)) == data
    with pytest.raises(ValueError):
        gemini.pcm(gemini.InlineData("audio/pcm", "%%%"))


def test_what_is_no_utf_8_is_no_message_even_where_nobody_looks() -> None:
    with pytest.raises(ValueError):
        gemini.decode(b'{"serverContent":{"groundingMetadata":{"x":"\xff"}}}')
    assert gemini.decode('{"serverContent":{"x":"é"}}'.encode()).server_content is not None
