"""Ephemeral tokens and Vertex AI: the other two ways in."""

from __future__ import annotations

import asyncio
import datetime
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from dialling import AUDIO, FAST, LIVE_PATH, SETUP, VERTEX_PATH, dialled, words
from google.genai import Client, types
from google.genai.errors import ClientError
from simulating import MODEL, Simulator

from tornado_live.simulator.messages import Refused
from tornado_live.simulator.tokens import Tokens
from tornado_live.simulator.values import Mistake

CONSTRAINED = LIVE_PATH + "Constrained"
YES = {"turns": [{"repeat": True, "do": [{"say": "Yes.", "audio": "none"}]}]}
USED_UP = (1011, "Token has been used too many times")
NOW = 1_800_000_000.0
# Google marks its token calls as experimental with a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The SDK's token creation implementation is experimental"),
    pytest.mark.filterwarnings("ignore:The SDK's ephemeral token support is experimental"),
]


def posted(simulator: Simulator, body: Any, version: str = "v1beta", key: str = "a-key") -> dict[str, Any]:
    request = urllib.request.Request(
        f"{simulator.url}/{version}/auth_tokens",
        data=json.dumps(body).encode(),
        headers={"x-goog-api-key": key, "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            answer = json.load(error)
    return answer


async def made(simulator: Simulator, **body: Any) -> str:
    name = (await asyncio.to_thread(posted, simulator, body))["name"]
    assert isinstance(name, str)
    return name


# The tokens, by plain values


def test_a_token_is_good_for_so_many_sessions_and_so_long() -> None:
    tokens = Tokens()
    token = tokens.create({"uses": 2}, now=NOW)
    for now in (NOW, NOW + 59):
        assert tokens.admit(token.name, resuming=False, now=now) is token
    with pytest.raises(Refused, match="used too many times"):
        tokens.admit(token.name, resuming=False, now=NOW)
    assert tokens.admit(token.name, resuming=True, now=NOW + 1799) is token
    with pytest.raises(Refused, match="expired"):
        tokens.admit(token.name, resuming=True, now=NOW + 1801)
    with pytest.raises(Refused, match="invalid authentication"):
        tokens.admit("auth_tokens/never-given", resuming=False, now=NOW)


def test_no_new_session_begins_after_its_time_and_0_uses_are_any_number() -> None:
    tokens = Tokens()
    times = {"expireTime": "2027-01-15T08:30:00Z", "newSessionExpireTime": "2027-01-15T08:00:10.123456789Z"}
    token = tokens.create({"uses": 0, **times}, now=NOW)
    for _ in range(5):
        tokens.admit(token.name, resuming=False, now=NOW + 10)
    with pytest.raises(Refused, match="expired"):
        tokens.admit(token.name, resuming=False, now=NOW + 11)
    tokens.admit(token.name, resuming=True, now=NOW + 11)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        (
            None,
            {
                "model": "models/a",
                "generationConfig": {"temperature": 0.5},
                "sessionResumption": {"handle": "h"},
            },
        ),
        (
            "model,generationConfig.temperature",
            {
                "model": "models/a",
                "generationConfig": {"temperature": 0.5, "topP": 0.9},
                "systemInstruction": {"parts": []},
                "sessionResumption": {"handle": "h"},
            },
        ),
        (
            "generationConfig.top_p,systemInstruction",
            {
                "model": "models/b",
                "generationConfig": {"temperature": 1.0},
                "sessionResumption": {"handle": "h"},
            },
        ),
    ],
)
def test_what_a_token_fixes_the_client_cannot_change(mask: str | None, counts: dict[str, Any]) -> None:
    fixed = {"model": "models/a", "generation_config": {"temperature": 0.5}}
    body = {"bidiGenerateContentSetup": fixed} | ({} if mask is None else {"fieldMask": mask})
    token = Tokens().create(body, now=NOW)
    asked: Any = {
        "model": "models/b",
        "generationConfig": {"temperature": 1.0, "topP": 0.9},
        "systemInstruction": {"parts": []},
        "sessionResumption": {"handle": "h"},
    }
    assert token.applied(asked) == counts


def test_a_token_without_a_setup_fixes_nothing() -> None:
    asked: Any = {"model": "models/b"}
    assert Tokens().create({}, now=NOW).applied(asked) is asked


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"expireTime": "2020-01-01T00:00:00Z"}, "expireTime must be in the future"),
        (
            {"bidiGenerateContentSetup": {"model": "models/m"}, "fieldMask": "model,generation_config.heat"},
            "fieldMask has generationConfig.heat, which is no field of a setup",
        ),
        ({"use": 1}, 'use is not known here - did you mean "uses"?'),
        ({"uses": -1}, "uses must be a whole number, 0 (any number of times) or more"),
        ({"expireTime": "tomorrow"}, "expireTime must be a time such as 2026-12-01T10:00:00Z"),
        ({"expireTime": "2027-01-16T08:00:00Z"}, "expireTime must not be more than 20 hours from now"),
        ({"fieldMask": "model"}, "fieldMask must be text, beside a bidiGenerateContentSetup"),
        (
            {"bidiGenerateContentSetup": {"voice": "Kore"}},
            "bidiGenerateContentSetup Invalid JSON payload received. Unknown name \"voice\" at 'setup':"
            " Cannot find field.",
        ),
    ],
)
def test_a_wrong_token_is_told_in_words(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(Mistake) as caught:
        Tokens().create(body, now=NOW)
    assert str(caught.value) == problem


# Over the wire


@pytest.mark.parametrize("way", ["Authorization", "x-goog-api-key", "access_token"])
async def test_a_token_opens_the_constrained_method_in_three_ways_and_once(way: str) -> None:
    async with Simulator(YES, speed=FAST, require_key=True) as simulator:
        token = await made(simulator, uses=1)
        path, options = CONSTRAINED, {}
        match way:
            case "Authorization":
                options = {"additional_headers": {"Authorization": f"Token {token}"}}
            case "x-goog-api-key":
                options = {"additional_headers": {"x-goog-api-key": token}}
            case _:
                path = f"{CONSTRAINED}?access_token={token}"
        async with dialled(simulator, path, **options) as client:
            await client.send({"setup": {**SETUP, "sessionResumption": {}}})
            assert await client.next() == {"setupComplete": {}}
            update = (await client.until(lambda message: "sessionResumptionUpdate" in message))[-1]
            handle = update["sessionResumptionUpdate"]["newHandle"]
        async with dialled(simulator, path, **options) as client:
            await client.send({"setup": SETUP})
            assert await client.closed() == USED_UP
        async with dialled(simulator, path, **options) as client:  # going on is no second use
            await client.send({"setup": {**SETUP, "sessionResumption": {"handle": handle}}})
            assert await client.next() == {"setupComplete": {}}


async def test_tokens_and_keys_do_not_open_each_other_s_method() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        token = await made(simulator)
        for path in (
            f"{LIVE_PATH}?access_token={token}",
            f"{CONSTRAINED}?key=a-key",
            f"{CONSTRAINED}?access_token=x",
        ):
            async with dialled(simulator, path) as client:
                await client.send({"setup": SETUP})
                assert await client.closed() == (1008, "Request had invalid authentication credentials.")


async def test_who_has_no_key_gets_no_token() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        for body, key, status in (({}, "", 403), ({}, "invalid", 403), ({"uses": "many"}, "a-key", 400)):
            answer = await asyncio.to_thread(posted, simulator, body, "v1alpha", key)
            assert answer["error"]["code"] == status
        assert (await simulator.status())["tokens"] == 0


async def test_a_conversation_ends_with_its_token() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        soon = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(seconds=3)
        token = await made(simulator, expireTime=soon.isoformat())
        async with dialled(simulator, f"{CONSTRAINED}?access_token={token}") as client:
            await client.send({"setup": SETUP})
            assert await client.closed() == (1008, "Token has expired.")


async def test_what_the_token_fixes_counts() -> None:
    async with Simulator(YES, speed=FAST) as simulator:
        fixed = {"model": f"models/{MODEL}", "generationConfig": AUDIO}
        token = await made(simulator, bidiGenerateContentSetup=fixed)
        async with dialled(simulator, f"{CONSTRAINED}?access_token={token}") as client:
            await client.send(
                {"setup": {"model": "models/none", "generationConfig": {"responseModalities": ["TEXT"]}}}
            )
            assert await client.next() == {"setupComplete": {}}
            assert (await simulator.status())["conversations"][0]["setup"] == fixed


async def test_google_s_client_makes_a_token_and_talks_with_it() -> None:
    async with Simulator(YES, tls=True, speed=FAST, require_key=True) as simulator:
        soon = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(minutes=5)
        config = types.CreateAuthTokenConfig(
            uses=1,
            expire_time=soon,
            live_connect_constraints=types.LiveConnectConstraints(
                model=MODEL, config=types.LiveConnectConfig(response_modalities=[types.Modality.AUDIO])
            ),
            lock_additional_fields=["temperature"],
        )
        owner = simulator.client(api_version="v1alpha")
        token = await asyncio.to_thread(owner.auth_tokens.create, config=config)
        assert token.name is not None
        guest = simulator.client(api_key=token.name, api_version="v1alpha")
        async with guest.aio.live.connect(model=MODEL) as session:
            await session.send_realtime_input(text="Hello.")
            said = [
                message.server_content.output_transcription.text
                async for message in session.receive()
                if message.server_content and message.server_content.output_transcription
            ]
            assert "".join(filter(None, said)) == "Yes."
        stranger = simulator.client(api_key="invalid")
        with pytest.raises(ClientError, match="403"):
            await asyncio.to_thread(stranger.auth_tokens.create)
        owner.close()
        stranger.close()
        guest.close()


# Vertex AI


@pytest.mark.parametrize("prefix", ["projects/p/locations/europe-west4/", ""])
async def test_vertex_has_its_path_its_model_names_and_a_session_id(prefix: str) -> None:
    async with Simulator(YES, speed=FAST, require_key=True) as simulator:
        headers = {"Authorization": "Bearer ya29.a-token-for-tests"}
        async with dialled(simulator, VERTEX_PATH, additional_headers=headers) as client:
            model = f"{prefix}publishers/google/models/{MODEL}"
            await client.send({"setup": {"model": model, "generationConfig": AUDIO}})
            complete = await client.next()
            assert list(complete["setupComplete"]) == ["sessionId"]
            await client.say("Hello.")
            turn = await client.turn()
            assert words(turn) == "Yes."
            assert "candidatesTokenCount" in turn[-1]["usageMetadata"]


@pytest.mark.parametrize(
    ("headers", "model", "reason"),
    [
        ({}, f"publishers/google/models/{MODEL}", "Request had invalid authentication credentials."),
        (
            {"Authorization": "Bearer t"},
            "publishers/google/models/gemini-1",
            "Publisher Model `publishers/google/models/gemini-1` not found.",
        ),
        ({"Authorization": "Bearer t"}, f"models/{MODEL}", f"Publisher Model `models/{MODEL}` not found."),
    ],
)
async def test_vertex_refuses_who_has_no_token_and_what_it_does_not_serve(
    headers: dict[str, str], model: str, reason: str
) -> None:
    async with (
        Simulator(YES, speed=FAST, require_key=True) as simulator,
        dialled(simulator, VERTEX_PATH, additional_headers=headers) as client,
    ):
        await client.send({"setup": {"model": model, "generationConfig": AUDIO}})
        assert await client.closed() == (1008, reason)


async def test_google_s_client_talks_to_vertex_here() -> None:
    async with Simulator(YES, tls=True, speed=FAST) as simulator:
        client = Client(
            vertexai=True,
            api_key="an-express-key",
            http_options=types.HttpOptions(
                base_url=simulator.url,
                api_version="v1beta1",
                async_client_args={"ssl": simulator.ssl, "proxy": None},
            ),
        )
        async with client.aio.live.connect(model=MODEL) as session:
            await session.send_realtime_input(text="Hello.")
            said = [
                message.server_content.output_transcription.text
                async for message in session.receive()
                if message.server_content and message.server_content.output_transcription
            ]
            assert "".join(filter(None, said)) == "Yes."
        client.close()
