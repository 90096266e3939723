"""What clients say, as the published ones say it, and the scenario of the model side that answers them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dropin.compare import Script
from dropin.wire import Guest, Message, content, url_safe

SPEECH = array("h", [9_000, 9_000, -9_000, -9_000] * 3_200).tobytes()
"""0.8 s that is loud enough for speech."""
SILENCE = bytes(32_000)

WHAT = {"type": "OBJECT", "properties": {"what": {"type": "STRING", "min_length": 1}}}
OWN = frozenset({"look", "think"})
OURS = frozenset({"shelf", "wait"})
SHELF = {"shelf": {"shelf": 7}}
"""What a client answers for the operator's functions that talks to the model directly."""

ODD: list[Message] = [
    {},
    {"serverContent": {}},
    {
        "serverContent": {
            "modelTurn": {"parts": [{"text": "**Thinking**\n\nOf Zoë's \u2028 ☕.", "thought": True}]}
        }
    },
    {"serverContent": {"novelty": {"of": ["this", None, 1.5e300]}, "outputTranscription": {"text": "Odd"}}},
    {"somethingNew": {"kind": "SOMETHING_NEW", "values": [1, None, "x"], "more": {}}},
    {
        "serverContent": {
            "groundingMetadata": {"webSearchQueries": ["a < b"], "groundingChunks": [{"web": {}}]}
        }
    },
    {"serverContent": {"interactionStatus": "IN_PROGRESS"}},
    {"interactionStatus": "IN_PROGRESS"},
    {"usageMetadata": {"promptTokenCount": 3, "newTokenCount": 4}},
    {"voiceActivityDetectionSignal": {"vadSignalType": "VAD_SIGNAL_TYPE_SOS"}},
    {"serverContent": {"inputTranscription": {"text": "odd", "languageCode": "en", "novelty": 1}}},
    {"serverContent": {"urlContextMetadata": {"urlMetadata": []}}, "novelty": True},
    {"serverContent": {"modelTurn": {"parts": [{"executableCode": {"language": "PYTHON", "code": "1"}}]}}},
]


def _turn(*do: Message, **fits: str) -> Message:
    return {"repeat": True, **fits, "do": list(do)}


def _call(*names: str, **args: str) -> Message:
    return {"call": [{"name": name, "args": args} for name in names]}


SCENARIO: Mapping[str, Any] = {
    "turns": [
        _turn({"say": "And to you.", "seconds": 0.5}, heard="Good morning."),
        _turn(_call("look", at="Zürich"), {"say": "A city."}, typed="look"),
        _turn(_call("shelf", thing="tea"), {"say": "It is on seven."}, typed="shelf"),
        _turn({"say": "Let me see."}, _call("shelf"), _call("look"), {"say": "Both."}, typed="first"),
        _turn(_call("shelf", "look", "shelf"), {"say": "All three."}, typed="both"),
        _turn({**_call("think"), "background": True}, {"say": "I am on it."}, typed="later"),
        _turn({"say": "I have thought."}, answered="think"),
        _turn({"say": "Once upon a time there was a very long story.", "seconds": 120}, typed="story"),
        _turn(*({"send": message} for message in ODD), {"say": "That was odd."}, typed="odd"),
        _turn({"say": "As you say."}),
    ]
}


@dataclass(frozen=True, slots=True)
class Family:
    """later: whether a function may run beside the turn. media_chunks: whether the model takes them."""

    model: str
    generation: Mapping[str, Any] = field(default_factory=dict)
    later: bool = True
    context_update: bool = False
    media_chunks: bool = False

    def setup(self, **more: Any) -> Message:
        """Spelt as the Python SDK spells it: camelCase at two levels, snake_case below."""
        functions: list[Message] = [
            {
                "name": "look",
                "description": "Looks.",
                "parameters_json_schema": {"type": "object", "properties": {}},
            }
        ]
        if self.later:
            functions.append({"name": "think", "behavior": "NON_BLOCKING", "parameters": WHAT})
        return {
            "model": f"models/{self.model}",
            "generationConfig": {
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}},
                **self.generation,
            },
            "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
            "tools": [{"functionDeclarations": functions}],
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            **more,
        }


FAMILIES: Mapping[str, Family] = {
    "2.5": Family("gemini-2.5-flash-native-audio-preview-12-2025", media_chunks=True),
    "3.1": Family("gemini-3.1-flash-live-preview", later=False),
    "3.8": Family("gemini-3.8-live", context_update=True),
    "thinking": Family(
        "gemini-3.8-live-extended-thinking",
        {"thinkingConfig": {"thinking_level": "LOW"}},
        context_update=True,
    ),
}


def all_scripts(family: Family) -> Mapping[str, Script]:
    """Every script of this family, by its name."""

    async def typed(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("Hello?")
        await client.idle()

    async def spoken(client: Guest) -> None:
        await client.opened(family.setup())
        await client.hear(SPEECH + SILENCE)
        await client.idle()

    async def several(client: Guest) -> None:
        await client.opened(family.setup())
        for text in ("One.", "Two.", "Three ☕."):
            await client.say(text)
            await client.idle()
        await client.send({"clientContent": {"turns": [user("Four.")], "turnComplete": True}})
        await client.idle()

    async def handles(client: Guest) -> None:
        await client.opened(family.setup(sessionResumption={}))
        for text in ("One.", "Two."):
            await client.say(text)
            await client.idle()
            await client.until(lambda message: message.get("sessionResumptionUpdate", {}).get("newHandle"))

    async def deaf(client: Guest) -> None:
        setup = family.setup()
        for name in ("inputAudioTranscription", "outputAudioTranscription"):
            setup.pop(name)
        await client.opened(setup)
        await client.hear(SPEECH + SILENCE)
        await client.idle()
        await client.say("Hello?")
        await client.idle()

    async def own_function(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("Please look.")
        (call,) = await client.call()
        assert call["args"] == {"at": "Zürich"}
        result = {"id": call["id"], "name": "look", "response": {"output": "{'a': 1}"}}
        await client.send({"tool_response": {"functionResponses": [result]}})
        await client.idle()
        await client.say("Thanks.")
        await client.idle()

    async def nameless_answer(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("Please look.")
        (call,) = await client.call()
        await client.send(
            f'{{ "toolResponse":{{"functionResponses" : [{{"id":"{call["id"]}","response":{{}}}}] }} }}'
        )
        await client.idle()

    async def odd(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("odd")
        await client.until(
            lambda message: content(message).get("outputTranscription", {}).get("text") == "Odd"
        )
        await client.turn()

    async def two_spellings(client: Guest) -> None:
        """Both alphabets, padded and not, both kinds of frames, and spaces where nobody has them."""
        sound = url_safe(b"\xfb\xff\xfe\x00" * 160)
        setup = family.setup(realtime_input_config={"automatic_activity_detection": {"disabled": True}})
        await client.opened(json.dumps({"setup": setup}, indent=1) + "\n")
        await client.send(' {"realtime_input" : {"activity_start": { } } } ')
        for frame in (
            f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate=16000","data":"{sound}"}}}}}}',
            f'{{"realtime_input":{{"audio":{{"data":"{sound}","mime_type":"audio/pcm"}}}}}}',
            f'{{"realtimeInput": {{"audio": {{"mime_type":"audio/pcm;rate=24000", "data":"{sound[:-2]}"}}}}}}',
            f'{{\n  "realtimeInput":\n{{"audio":{{"data":"{sound}","mimeType":"audio/pcm;rate=16000"}}}}}}\r\n',
        ):
            await client.send(frame)
            await client.send(frame.encode())
        await client.send(b'{"realtimeInput":{"activityEnd":{}}}')
        await client.idle()
        await client.send(
            '{"client_content":{"turns":[{"role":"user","parts":[{"text":"\\u00fcber"}]}],"turn_complete":true}}'
        )
        await client.idle()

    async def manual(client: Guest) -> None:
        await client.opened(
            family.setup(realtimeInputConfig={"automatic_activity_detection": {"disabled": True}})
        )
        for _ in range(2):
            await client.send({"realtime_input": {"activityStart": {}}})
            await client.hear(SPEECH)
            await client.send({"realtime_input": {"activityEnd": {}}})
            await client.idle()

    async def stream_end(client: Guest) -> None:
        await client.opened(family.setup())
        await client.hear(SPEECH)
        await client.send({"realtime_input": {"audioStreamEnd": True}})
        await client.idle()

    async def video(client: Guest) -> None:
        await client.opened(family.setup())
        picture = {"data": url_safe(b"\xff\xd8\xff\xe0" + bytes(90_000)), "mime_type": "image/jpeg"}
        await client.send({"realtime_input": {"video": picture}})
        await client.say("What is that?")
        await client.send({"realtime_input": {"video": picture}})
        await client.idle()

    async def history(client: Guest) -> None:
        await client.opened(family.setup(historyConfig={"initial_history_in_client_content": True}))
        past = [user("I am Ada."), {"role": "model", "parts": [{"text": "Hello, Ada."}]}]
        await client.send({"client_content": {"turns": past, "turnComplete": True}})
        await client.say("Who am I?")
        await client.idle()

    async def livekit(client: Guest) -> None:
        await client.opened(family.setup())
        await client.send({"client_content": {"turns": [user("Tell me.")], "turnComplete": False}})
        await client.send({"client_content": {"turns": [user(".")], "turnComplete": True}})
        await client.idle()
        await client.send({"client_content": {"turns": [user("And then?")], "turnComplete": False}})
        await client.send({"client_content": {"turns": [], "turnComplete": True}})
        await client.idle()

    async def pipecat(client: Guest) -> None:
        await client.opened(family.setup())
        await client.send({"client_content": {"turns": [user("Tell me.")], "turnComplete": True}})
        await client.say(" ")
        await client.idle()
        await client.say("And then?")
        await client.idle()

    scripts: dict[str, Script] = {
        "typed": typed,
        "spoken": spoken,
        "several turns": several,
        "handles": handles,
        "no transcription": deaf,
        "own function": own_function,
        "answer without a name": nameless_answer,
        "odd messages": odd,
        "odd bytes": two_spellings,
        "manual activity": manual,
        "end of the stream": stream_end,
        "video": video,
        "history": history,
        "livekit": livekit,
        "pipecat": pipecat,
    }

    if family.later:

        async def later(client: Guest) -> None:
            await client.opened(family.setup())
            await client.say("Later, please.")
            (call,) = await client.call()
            await client.turn()
            result = {
                "id": call["id"],
                "name": "think",
                "response": {"result": "ok"},
                "scheduling": "WHEN_IDLE",
            }
            await client.send({"tool_response": {"functionResponses": [{"will_continue": False, **result}]}})
            await client.idle()

        scripts["function of its own beside the turn"] = later

    if family.context_update:

        async def update(client: Guest) -> None:
            await client.opened(family.setup())
            instruction = {"parts": [{"text": "Be long."}], "role": "user"}
            await client.send({"contextUpdate": {"systemInstruction": instruction}})
            await client.say("Hello?")
            await client.idle()
            tools = {"tools": [{"functionDeclarations": [{"name": "look", "description": "Looks again."}]}]}
            await client.send({"contextUpdate": {"tools": tools}})
            await client.say("Please look.")
            (call,) = await client.call()
            answer = {"id": call["id"], "name": "look", "response": {"result": 1}}
            await client.send({"toolResponse": {"functionResponses": [answer]}})
            await client.idle()

        scripts["context update"] = update

    if family.media_chunks:

        async def chunks(client: Guest) -> None:
            await client.opened(family.setup())
            for at in range(0, len(SPEECH + SILENCE), 640):
                blob = {"data": url_safe((SPEECH + SILENCE)[at : at + 640]), "mime_type": "audio/pcm"}
                await client.send({"realtime_input": {"media_chunks": [blob]}})
            await client.idle()

        scripts["media chunks"] = chunks
    return scripts


def cut_scripts(family: Family) -> Mapping[str, Script]:
    """Those in which an answer is interrupted."""

    async def begun(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("A story, please.")
        await client.until(lambda message: "modelTurn" in content(message))

    async def typed_over(client: Guest) -> None:
        await begun(client)
        await client.say("Stop.")
        await client.until(lambda message: "interrupted" in content(message))
        await client.turn()
        await client.idle()

    async def spoken_over(client: Guest) -> None:
        await begun(client)
        half = len(SPEECH) // 2
        await client.hear(SPEECH[:half])
        await client.until(lambda message: "interrupted" in content(message))
        await client.turn()
        await client.hear(SPEECH[half:] + SILENCE)
        await client.idle()

    async def content_over(client: Guest) -> None:
        await begun(client)
        await client.send({"clientContent": {"turns": [user("Stop.")], "turnComplete": True}})
        await client.until(lambda message: "interrupted" in content(message))
        await client.turn()
        await client.idle()

    return {"typed over": typed_over, "spoken over": spoken_over, "content over": content_over}


def hidden_scripts(family: Family) -> Mapping[str, Script]:
    """Those in which functions of the operator are called."""

    async def ours(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("On which shelf?")
        await client.idle()
        await client.say("Thanks.")
        await client.idle()

    async def ours_then_own(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("At first this.")
        await answer(client, await client.call())
        await client.idle()

    async def mixed(client: Guest) -> None:
        await client.opened(family.setup())
        await client.say("Do both.")
        await answer(client, await client.call())
        await client.idle()
        await client.say("Thanks.")
        await client.idle()

    return {"ours": ours, "ours, then its own": ours_then_own, "mixed": mixed}


async def answer(client: Guest, calls: list[Message]) -> None:
    """All calls of one message together, in their order."""
    theirs = {each["id"]: each for each in client.answers(calls)}
    answers = [
        theirs.get(call["id"]) or {"id": call["id"], "name": call["name"], "response": {"result": "it"}}
        for call in calls
    ]
    await client.send({"tool_response": {"functionResponses": answers}})


def user(text: str) -> Message:
    return {"role": "user", "parts": [{"text": text}]}
