"""Google's own client, unmodified and over TLS, cannot tell the simulator from the service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import websockets.exceptions
from google import genai
from google.genai import errors, types
from google.genai.live import AsyncSession
from google.oauth2.credentials import Credentials
from simulating import MODEL, Simulator, speech

from tornado_live.simulator.pcm import loudness, tone
from tornado_live.simulator.profiles import PROFILES, VERTEX_PROFILES, Profile

FAST = 20.0
DEADLINE_S = 20
CONFIG: dict[str, Any] = {
    "response_modalities": ["AUDIO"],
    "input_audio_transcription": {},
    "output_audio_transcription": {},
}
DECLARATION = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "behavior": "BLOCKING",
    "parameters": {
        "type": "OBJECT",
        "properties": {"city": {"type": "STRING", "description": "The city."}},
        "required": ["city"],
    },
}
STEPS = [{"call": {"name": "get_weather", "args": {"city": "Paris"}}}, {"say": "It is {get_weather.sky}."}]
CALL = {"name": "get_weather", "args": {"city": "Paris"}}


def get_time(zone: str) -> dict[str, str]:
    """The time of a zone."""
    raise AssertionError("the SDK's live client leaves calling to its user")


@contextlib.asynccontextmanager
async def connected(
    simulator: Simulator, model: str = MODEL, client: genai.Client | None = None, **config: Any
) -> AsyncIterator[AsyncSession]:
    client = client or simulator.client()
    try:
        async with (
            asyncio.timeout(DEADLINE_S),
            client.aio.live.connect(
                model=model, config=types.LiveConnectConfig(**{**CONFIG, **config})
            ) as session,
        ):
            yield session
    finally:
        await client.aio.aclose()


async def turn(session: AsyncSession) -> list[types.LiveServerMessage]:
    """Everything up to turnComplete, where the SDK's own iteration ends."""
    return [message async for message in session.receive()]


def words(messages: list[types.LiveServerMessage]) -> str:
    contents = [message.server_content for message in messages if message.server_content]
    pieces = [content.output_transcription for content in contents if content.output_transcription]
    return "".join(piece.text or "" for piece in pieces)


def sound(messages: list[types.LiveServerMessage]) -> bytes:
    return b"".join(message.data for message in messages if message.data)


def interrupted(messages: list[types.LiveServerMessage]) -> bool:
    return any(message.server_content and message.server_content.interrupted for message in messages)


async def send_pcm(session: AsyncSession, pcm: bytes) -> None:
    for at in range(0, len(pcm), 640):
        blob = types.Blob(data=pcm[at : at + 640], mime_type="audio/pcm;rate=16000")
        await session.send_realtime_input(audio=blob)


async def until_call(session: AsyncSession) -> list[types.LiveServerMessage]:
    messages = []
    async for message in session.receive():
        messages.append(message)
        if message.tool_call:
            return messages
    raise AssertionError("the turn ended without a call")


def asked(message: types.LiveServerMessage) -> list[types.FunctionCall]:
    assert message.tool_call is not None
    return message.tool_call.function_calls or []


async def calls(session: AsyncSession) -> list[types.FunctionCall]:
    return asked((await until_call(session))[-1])


async def test_a_typed_turn() -> None:
    scenario = {"turns": [{"typed": "hello", "do": [{"say": "Good morning to you.", "seconds": 1}]}]}
    async with Simulator(scenario, tls=True, speed=FAST) as simulator, connected(simulator) as session:
        content = types.Content(role="user", parts=[types.Part(text="Hello?")])
        await session.send_client_content(turns=content, turn_complete=True)
        messages = await turn(session)
    assert words(messages) == "Good morning to you."
    assert sound(messages) == tone(1)
    first = next(message for message in messages if message.data)
    assert first.server_content is not None
    assert first.server_content.model_turn is not None
    assert first.server_content.model_turn.role == "model"
    last, before = messages[-1].server_content, messages[-2].server_content
    assert last is not None
    assert last.turn_complete
    assert before is not None
    assert before.generation_complete
    usage = messages[-1].usage_metadata
    assert usage is not None
    assert usage.response_tokens_details is not None
    counted = {detail.modality: detail.token_count for detail in usage.response_tokens_details}
    assert counted == {types.MediaModality.TEXT: 5, types.MediaModality.AUDIO: 25}


async def test_a_spoken_turn() -> None:
    scenario = {"turns": [{"heard": "How are you?", "do": [{"say": "Well.", "seconds": 0.5}]}]}
    async with Simulator(scenario, tls=True, speed=FAST) as simulator, connected(simulator) as session:
        await send_pcm(session, tone(0.5, rate=16_000) + bytes(32_000))
        messages = await turn(session)
    activities = [
        message.voice_activity.voice_activity_type for message in messages if message.voice_activity
    ]
    assert activities == [types.VoiceActivityType.ACTIVITY_START, types.VoiceActivityType.ACTIVITY_END]
    heard = [m.server_content.input_transcription for m in messages if m.server_content]
    assert [transcription.text for transcription in heard if transcription] == ["How are you?"]
    assert words(messages) == "Well."
    assert sound(messages) == tone(0.5)


async def test_a_function_call_that_the_turn_waits_for() -> None:
    steps = [{"call": CALL}, {"say": "It is {get_weather.sky}.", "seconds": 0.2}]
    tools = [{"function_declarations": [DECLARATION]}, get_time]
    async with (
        Simulator({"turns": [{"do": steps}]}, tls=True, speed=FAST) as simulator,
        connected(simulator, tools=tools) as session,
    ):
        await session.send_realtime_input(text="The weather in Paris?")
        (call,) = await calls(session)
        assert (call.name, call.args) == ("get_weather", {"city": "Paris"})
        response = types.FunctionResponse(id=call.id, name=call.name, response={"sky": "clear"})
        await session.send_tool_response(function_responses=[response])
        assert words(await turn(session)) == "It is clear."


async def test_parallel_calls() -> None:
    steps = [
        {"call": [CALL, {"name": "get_time", "args": {"zone": "CET"}}]},
        {"say": "{get_weather.sky}{get_time.hour}."},
    ]
    async with (
        Simulator({"turns": [{"do": steps}]}, tls=True, speed=FAST) as simulator,
        connected(simulator, tools=[{"function_declarations": [DECLARATION]}, get_time]) as session,
    ):
        await session.send_realtime_input(text="Weather and time?")
        both = await calls(session)
        assert [call.name for call in both] == ["get_weather", "get_time"]
        responses = [
            types.FunctionResponse(id=call.id, name=call.name, response={"sky": "Clear", "hour": 7})
            for call in both
        ]
        await session.send_tool_response(function_responses=responses)
        assert words(await turn(session)) == "Clear7."


async def test_speech_cancels_an_open_call() -> None:
    scenario = {"turns": [{"typed": "weather", "do": [{"call": CALL}]}]}
    async with Simulator(scenario, tls=True, speed=FAST) as simulator, connected(simulator) as session:
        await session.send_realtime_input(text="The weather?")
        (call,) = await calls(session)
        await send_pcm(session, tone(0.2, rate=16_000))
        messages = await turn(session)
    assert interrupted(messages)
    assert [m.tool_call_cancellation.ids for m in messages if m.tool_call_cancellation] == [[call.id]]


async def test_barge_in() -> None:
    scenario = {"turns": [{"typed": "speak", "do": [{"say": "A long answer.", "seconds": 60}]}]}
    async with Simulator(scenario, tls=True, latency=0.1) as simulator, connected(simulator) as session:
        await session.send_realtime_input(text="Speak.")
        async for message in session.receive():
            if message.data:
                break
        await send_pcm(session, tone(0.2, rate=16_000))
        messages = await turn(session)
    assert interrupted(messages)
    assert not any(m.server_content and m.server_content.generation_complete for m in messages)
    assert len(sound(messages)) < len(tone(10))


SPEAKS = {
    "turns": [
        {"heard": "How are you?", "do": [{"say": "Well, thank you.", "seconds": 0.5}]},
        {"typed": "weather", "do": [{"say": "Let me see.", "seconds": 0.2}, *STEPS]},
        {"typed": "speak", "do": [{"say": "A long answer. " * 3000, "seconds": 600}]},
        {"typed": "stop", "do": [{"say": "I stop.", "seconds": 0.2}]},
    ]
}
CONVERSING = [
    *((profile, False) for profile in PROFILES.values() if profile.job == "converse"),
    *((profile, True) for profile in VERTEX_PROFILES.values() if profile.job == "converse"),
]


def vertex_client(simulator: Simulator) -> genai.Client:
    return genai.Client(
        vertexai=True,
        project="a-project",
        location="us-central1",
        credentials=Credentials(token="a-token-for-tests"),
        http_options=types.HttpOptions(
            base_url=simulator.url,
            async_client_args={"ssl": simulator.ssl, "proxy": None, "compression": None},
        ),
    )


def all_words(messages: list[types.LiveServerMessage]) -> str:
    """What was said, as transcription or as text."""
    turns = [message.server_content.model_turn for message in messages if message.server_content]
    parts = [part for turn in turns if turn for part in turn.parts or []]
    return words(messages) + "".join(part.text or "" for part in parts if not part.thought)


def tokens(messages: list[types.LiveServerMessage]) -> tuple[int, int]:
    """Of the prompt and of the answer, by either of the names that the service has for it."""
    usage = next(message.usage_metadata for message in reversed(messages) if message.usage_metadata)
    return usage.prompt_token_count or 0, usage.response_token_count or 0


@pytest.mark.parametrize(
    ("profile", "vertex"), CONVERSING, ids=[f"{p.name}{'-on-vertex' * vertex}" for p, vertex in CONVERSING]
)
async def test_speech_calls_and_interruptions_with_every_model(profile: Profile, vertex: bool) -> None:
    thinking = {"thinking_config": {"thinking_level": "LOW"}} if profile.thinking == "level_required" else {}
    text = {"response_modalities": ["TEXT"]} if "AUDIO" not in profile.modalities else {}
    tools = [{"function_declarations": [{**DECLARATION, "behavior": None}]}]
    async with Simulator(SPEAKS, tls=True, speed=50) as simulator:
        client = vertex_client(simulator) if vertex else None
        async with connected(simulator, profile.name, client, tools=tools, **thinking, **text) as session:
            await send_pcm(session, tone(0.5, rate=16_000) + bytes(32_000))
            spoken = await turn(session)
            heard = [m.server_content.input_transcription for m in spoken if m.server_content]
            assert "".join(piece.text or "" for piece in heard if piece) == "How are you?"
            assert all_words(spoken) == "Well, thank you."
            assert sound(spoken) == (b"" if text else tone(0.5))
            prompt, response = tokens(spoken)
            assert prompt > 0
            assert response > 0

            await session.send_client_content(
                turns=types.Content(role="user", parts=[types.Part(text="The weather?")])
            )
            before = [message async for message in until(session, lambda message: bool(message.tool_call))]
            (call,) = asked(before[-1])
            assert (call.name, call.args) == ("get_weather", {"city": "Paris"})
            answer = types.FunctionResponse(id=call.id, name=call.name, response={"sky": "clear"})
            await session.send_tool_response(function_responses=[answer])
            after = [message async for message in until(session, says("clear."))]
            assert all_words(after).endswith("It is clear.")
            assert tokens([*after, *(await turn(session))])[0] > prompt

            await session.send_realtime_input(text="Speak.")
            async for _ in until(session, lambda message: bool(all_words([message]))):
                pass
            await session.send_realtime_input(text="Stop.")
            assert interrupted([message async for message in until(session, lambda m: interrupted([m]))])
            assert all_words([message async for message in until(session, says("stop."))]).endswith("I stop.")


def says(end: str) -> Callable[[types.LiveServerMessage], bool]:
    return lambda message: all_words([message]).endswith(end)


async def until(
    session: AsyncSession, wanted: Callable[[types.LiveServerMessage], bool]
) -> AsyncIterator[types.LiveServerMessage]:
    """Everything up to the wanted message, across the ends of turns."""
    while True:
        async for message in session.receive():
            yield message
            if wanted(message):
                return


async def test_the_model_that_transcribes() -> None:
    scenario = {"turns": [{"heard": "one two three four", "do": []}]}
    async with (
        Simulator(scenario, tls=True, speed=50) as simulator,
        connected(simulator, "gemini-3.5-transcribe-live", response_modalities=["TEXT"]) as session,
    ):
        await send_pcm(session, tone(0.5, rate=16_000) + bytes(32_000))
        contents = [message.server_content for message in await turn(session)]
    interim = [content.interim_input_transcription for content in contents if content]
    final = [content.input_transcription for content in contents if content]
    assert [piece.text for piece in interim if piece] == ["one two"]
    assert [piece.text for piece in final if piece] == ["one two three four"]


async def test_the_model_that_translates() -> None:
    scenario = {"turns": [{"heard": "Hello.", "do": [{"say": "Hola.", "seconds": 0.5}]}]}
    translation = types.TranslationConfig(target_language_code="es")
    async with (
        Simulator(scenario, tls=True, speed=50) as simulator,
        connected(simulator, "gemini-3.5-live-translate-preview", translation_config=translation) as session,
    ):
        await send_pcm(session, tone(0.5, rate=16_000) + bytes(32_000))
        messages = [message async for message in until(session, lambda message: any(message.data or b""))]
    assert words(messages) == "Hola."
    (told,) = [m.server_content.output_transcription for m in messages if m.server_content and words([m])]
    assert told is not None
    assert told.language_code == "es"


async def test_an_answer_may_come_later_and_say_how_it_is_told() -> None:
    scenario = {
        "turns": [
            {"do": [{"call": CALL, "background": True}, {"say": "One moment.", "seconds": 0.2}]},
            {"answered": "get_weather", "do": [{"say": "It is {get_weather.sky}.", "seconds": 0.2}]},
        ]
    }
    async with Simulator(scenario, tls=True, speed=50) as simulator, connected(simulator) as session:
        await session.send_realtime_input(text="The weather?")
        messages = await turn(session)
        assert words(messages) == "One moment."
        (call,) = next(asked(message) for message in messages if message.tool_call)
        for sky, scheduling in (("silent", "SILENT"), ("clear", "WHEN_IDLE")):
            response = types.FunctionResponse(
                id=call.id,
                name=call.name,
                response={"sky": sky},
                scheduling=types.FunctionResponseScheduling(scheduling),
                will_continue=scheduling == "SILENT",
            )
            await session.send_tool_response(function_responses=[response])
        assert words(await turn(session)) == "It is clear."


async def test_the_models_are_listed() -> None:
    async with Simulator(tls=True) as simulator:
        client = simulator.client()
        models = [model async for model in await client.aio.models.list()]
        await client.aio.aclose()
        refused = simulator.client("invalid-key")
        with pytest.raises(errors.ClientError, match="API key not valid"):
            await refused.aio.models.list()
        await refused.aio.aclose()
    assert [(model.name, model.supported_actions) for model in models] == [
        (f"models/{name}", ["bidiGenerateContent"]) for name in PROFILES
    ]


@pytest.mark.parametrize(
    ("key", "model", "config", "code", "reason"),
    [
        ("invalid-key", MODEL, {}, 1007, "API key not valid. Please pass a valid API key."),
        (
            "a-key",
            "gemini-2.0-flash-exp",
            {},
            1008,
            "models/gemini-2.0-flash-exp is not found for API version v1beta",
        ),
        (
            "a-key",
            MODEL,
            {"thinking_config": {"thinking_budget": 0}},
            1007,
            "Request contains an invalid argument.",
        ),
        (
            "a-key",
            MODEL,
            {"response_modalities": ["TEXT"]},
            1007,
            "The requested combination of response modalities",
        ),
    ],
    ids=["key", "model", "thinking", "text"],
)
async def test_a_refused_setup_is_an_api_error(
    key: str, model: str, config: dict[str, Any], code: int, reason: str
) -> None:
    async with Simulator(tls=True, speed=FAST) as simulator:
        client = simulator.client(key)
        with pytest.raises(errors.APIError) as caught:
            async with client.aio.live.connect(model=model, config=types.LiveConnectConfig(**config)):
                pass
        await client.aio.aclose()
    assert type(caught.value) is errors.APIError
    assert (caught.value.code, caught.value.status) == (code, None)
    assert str(caught.value.details).startswith(reason)


@pytest.mark.parametrize(
    ("step", "code", "reason"),
    [
        (
            {"close": {"code": 1011, "reason": "Internal error encountered."}},
            1011,
            "Internal error encountered.",
        ),
        ({"close": {"code": 1000}}, 1000, ""),
        ({"drop": True}, 1006, "abnormal closure [internal]"),
    ],
    ids=["error", "normal", "drop"],
)
async def test_a_connection_that_ends_is_an_api_error(step: dict[str, Any], code: int, reason: str) -> None:
    async with (
        Simulator({"turns": [{"do": [step]}]}, tls=True, speed=FAST) as simulator,
        connected(simulator) as session,
    ):
        await session.send_realtime_input(text="Break.")
        with pytest.raises(errors.APIError) as caught:
            await turn(session)
        assert (caught.value.code, caught.value.details) == (code, reason)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await session.send_realtime_input(text="Still there?")


@pytest.mark.voice
async def test_a_spoken_question_an_answer_aloud_and_a_spoken_interruption() -> None:
    question = await speech("What's the weather in Paris?")
    async with Simulator(voice="on", tls=True) as simulator:
        assert await simulator.next_line(timeout=30) == {"voice": "ready"}
        async with connected(simulator, tools=[{"function_declarations": [DECLARATION]}]) as session:
            await send_pcm(session, question)
            before = await until_call(session)
            heard = [m.server_content.input_transcription for m in before if m.server_content]
            assert [piece.text for piece in heard if piece] == ["What's the weather in Paris?"]
            (call,) = asked(before[-1])
            assert (call.name, call.args) == ("get_weather", {"city": "Paris"})
            result = {
                "status": "ok",
                "result": {"conditions": "sunny", "temperature_c": 21, "humidity_percent": 40},
            }
            response = types.FunctionResponse(id=call.id, name=call.name, response=result)
            await session.send_tool_response(function_responses=[response])
            answer = []
            async for message in session.receive():
                answer.append(message)
                if message.server_content and message.server_content.generation_complete:
                    break
            assert words(answer).startswith("This is the local simulator. ")
            assert "sunny" in words(answer)
            assert loudness(sound(answer)) > 300
            # The answer is still being played when the user speaks again.
            await send_pcm(session, question)
            assert interrupted(await turn(session))
