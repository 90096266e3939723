"""The questions to the real service, each a function of its own with a bounded time.

Each answers what nobody could try without a key, and says of the facts of models.yaml that it touches whether they
hold. A probe that is refused says so in its findings; it never ends the others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from websockets.exceptions import ConnectionClosed

from tornado_live.doctor.line import Bench, Line, Message, Refused, Spent, sizes_of_sound
from tornado_live.live.causes import Retry
from tornado_live.live.upstream import live_url
from tornado_live.wire import gemini

Verdict = Literal["confirms", "refutes", "new", "open"]

COUNT = "Say exactly these words and nothing else: one two three four five six seven eight"
AGAIN = "Now say exactly: nine ten"
WEATHER = "What is the weather in Berlin? Use the tool."
ENOUGH = "Never mind, stop."
INSTRUCTION = "You are a test. Answer in as few words as you can."
TEXTS = (COUNT, AGAIN, WEATHER, ENOUGH, INSTRUCTION, "Berlin", "sunny", "none")

_TURN_S = 20.0
_SILENCE = base64.b64encode(bytes(3_200)).decode()  # 100 ms of PCM16 at 16 kHz
_TOOL: Message = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """`says` is what models.yaml has, with its evidence; empty for what it has no fact for."""

    about: str
    says: str
    seen: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Probe:
    """`seconds` and `usd` are about what it takes; it is left out where less is left, and if it `talks` with a
    model that does not converse.
    """

    name: str
    ask: Callable[[Bench], Awaitable[list[Finding]]]
    seconds: float
    usd: float
    talks: bool = False


def _new(about: str, seen: str) -> Finding:
    return Finding(about, "", seen, "new")


def _open(about: str, why: str) -> Finding:
    return Finding(about, "", why, "open")


def judged(bench: Bench, fact: str, says: str, seen: str, holds: bool | None) -> Finding:
    """What was seen of a fact of models.yaml; `holds` None where it does not tell."""
    evidence = bench.evidence.get(fact)
    known = f"{says} ({evidence.kind})" if evidence is not None else says
    verdict: Verdict = "open" if holds is None else "confirms" if holds else "refutes"
    return Finding(fact, known, seen, verdict)


# --- the handshake


async def versions(bench: Bench) -> list[Finding]:
    """Which versions of the API take this setup."""
    found = []
    for version in ("v1", "v1beta", "v1alpha"):
        try:
            async with bench.opened(f"version-{version}", base_setup(bench), version=version):
                found.append(_new(f"version {version}", "serves Live"))
        except Refused as refused:
            found.append(_new(f"version {version}", refused.words))
    return found


async def compression(bench: Bench) -> list[Finding]:
    """Whether the answer to the upgrade agrees to compress."""
    try:
        async with bench.dialled("compression", compression="deflate") as line:
            answer = line.socket.response
            agreed = answer.headers.get("Sec-WebSocket-Extensions", "") if answer is not None else ""
            return [_new("permessage-deflate", f"agreed: {agreed}" if agreed else "not agreed")]
    except Refused as refused:
        return [_new("permessage-deflate", refused.words)]


async def refusals(bench: Bench) -> list[Finding]:
    """How a wrong key, no key and a wrong address are refused: at the upgrade, or after it."""
    found = []
    for name, key in (("bad-key", "AIza-not-a-key"), ("no-key", "")):
        try:
            async with bench.dialled(name, key=key) as line:
                await line.set_up(base_setup(bench))
                found.append(_new(name.replace("-", " "), "accepted"))
        except Refused as refused:
            found.append(_new(name.replace("-", " "), f"{refused.words}: {refused.cause.name}"))
    wrong = live_url(bench.base_url, bench.version).replace("BidiGenerateContent", "NoSuchMethod")
    try:
        async with bench.dialled("bad-path", url=wrong):
            found.append(_new("bad path", "HTTP 101"))
    except Refused as refused:
        found.append(_new("bad path", refused.words))
    return found


async def pongs(bench: Bench) -> list[Finding]:
    """How long pings take while nothing else happens."""
    try:
        async with bench.opened("pongs", base_setup(bench)) as line:
            took = [await _ping(line, bench) for _ in range(3)]
    except Refused as refused:
        return [_open("pong, idle", refused.words)]
    return [_pong("pong, idle", took)]


async def _ping(line: Line, bench: Bench) -> float | None:
    """Seconds to the pong; None where none came."""
    return await _answer(bench, await line.socket.ping())


async def _answer(bench: Bench, ping: Awaitable[float]) -> float | None:
    try:
        async with asyncio.timeout(bench.in_vain(30)):
            return await ping
    except (TimeoutError, ConnectionClosed):
        return None


def _pong(about: str, took: Sequence[float | None]) -> Finding:
    known = [one for one in took if one is not None]
    if len(known) < len(took):
        return _new(about, f"{len(took) - len(known)} of {len(took)} not answered within 30 s")
    return _new(about, f"{min(known) * 1000:.0f} to {max(known) * 1000:.0f} ms")


# --- setups


def base_setup(bench: Bench) -> Message:
    """What is known to be taken, and little of it."""
    made = gemini.conversation_setup(bench.facts, {"systemInstruction": INSTRUCTION}, [])
    setup: Message = json.loads(made.payload)["setup"]
    return setup


@dataclass(frozen=True, slots=True)
class _Variation:
    """A change of the setup, and whether it should be taken; `expected` None where models.yaml does not say."""

    fact: str
    words: str
    change: Callable[[Message], None]
    expected: bool | None


def _generation(name: str, value: Any) -> Callable[[Message], None]:
    def change(setup: Message) -> None:
        setup["generationConfig"][name] = value

    return change


def _top(name: str, value: Any) -> Callable[[Message], None]:
    def change(setup: Message) -> None:
        setup[name] = value

    return change


def _as_text(setup: Message) -> None:
    setup["generationConfig"]["responseModalities"] = ["TEXT"]
    setup["generationConfig"].pop("speechConfig", None)
    setup.pop("outputAudioTranscription", None)


def _without_thinking(setup: Message) -> None:
    setup["generationConfig"].pop("thinkingConfig", None)


def _calling(behavior: str | None) -> Callable[[Message], None]:
    """`behavior` None leaves it to the model."""
    tool = _TOOL if behavior is None else {**_TOOL, "behavior": behavior}
    return _top("tools", [{"functionDeclarations": [tool]}])


def _variations(bench: Bench) -> list[_Variation]:
    facts = bench.facts
    budget = {"budget": True, "none": False}.get(facts.thinking)
    level = {"level": True, "level_required": True, "none": False}.get(facts.thinking)
    return [
        _Variation("modalities", "TEXT", _as_text, "TEXT" in facts.modalities),
        _Variation("thinking", "a budget", _generation("thinkingConfig", {"thinkingBudget": 128}), budget),
        _Variation("thinking", "a level", _generation("thinkingConfig", {"thinkingLevel": "LOW"}), level),
        _Variation("thinking", "no level", _without_thinking, facts.thinking != "level_required"),
        _Variation(
            "affective_dialog",
            "true",
            _generation("enableAffectiveDialog", True),
            facts.affective_dialog == "optional",
        ),
        _Variation(
            "proactive_audio",
            "true",
            _top("proactivity", {"proactiveAudio": True}),
            facts.proactive_audio != "none",
        ),
        _Variation(
            "proactive_audio",
            "false",
            _top("proactivity", {"proactiveAudio": False}),
            {"optional": True, "always": False}.get(facts.proactive_audio),
        ),
        _Variation("calls", "BLOCKING", _calling("BLOCKING"), "BLOCKING" in facts.calls),
        _Variation("calls", "NON_BLOCKING", _calling("NON_BLOCKING"), "NON_BLOCKING" in facts.calls),
        _Variation("search", "googleSearch", _top("tools", [{"googleSearch": {}}]), facts.search),
        _Variation(
            "instruction",
            "a system instruction",
            _top("systemInstruction", {"parts": [{"text": INSTRUCTION}]}),
            facts.instruction or None,  # what is taken may still not be followed
        ),
        _Variation(
            "compression",
            "a sliding window",
            _top("contextWindowCompression", {"slidingWindow": {}}),
            facts.compression,
        ),
    ]


async def setups(bench: Bench) -> list[Finding]:
    """Which options the model takes. A setup costs nothing."""
    found = []
    for number, one in enumerate(_variations(bench), 1):
        setup = base_setup(bench)
        one.change(setup)
        about = f"setup-{number}-{one.fact}"
        says = _shown(bench, one.fact)
        try:
            async with bench.opened(about, setup):
                seen, taken = f"{one.words}: taken", True
        except Refused as refused:
            seen = f"{one.words}: {refused.words}"
            if refused.cause.retry is not Retry.NEVER:  # that was something else
                found.append(judged(bench, one.fact, says, seen, None))
                continue
            taken = False
        found.append(
            judged(bench, one.fact, says, seen, None if one.expected is None else one.expected == taken)
        )
    return found


def _shown(bench: Bench, fact: str) -> str:
    value = getattr(bench.facts, fact)
    return ", ".join(sorted(value)) or "none" if isinstance(value, frozenset) else str(value)


# --- turns


def _content(message: Message) -> Message:
    content: Message = message.get("serverContent") or {}
    return content


def _ends_turn(message: Message) -> bool:
    return bool(_content(message).get("turnComplete"))


def _as_realtime(text: str) -> Message:
    return {"realtimeInput": {"text": text}}


def _as_content(text: str) -> Message:
    return {"clientContent": {"turns": [{"role": "user", "parts": [{"text": text}]}], "turnComplete": True}}


async def turns(bench: Bench) -> list[Finding]:
    """A turn, what it is made of and how fast it comes; a second one, and a third with the other form of text."""
    found: list[Finding] = []
    forms = {"clientContent": _as_content, "realtimeInput": _as_realtime}
    first = bench.facts.typed
    second = next(form for form in forms if form != first)
    done = ""
    try:
        async with bench.opened("conversation", base_setup(bench)) as line:
            asked = line.elapsed()
            await line.send(forms[first](COUNT), "text")
            ping = await line.socket.ping()
            await line.until(_ends_turn, _TURN_S)
            done = "answered once, "
            found.append(_pong("pong, while it speaks", [await _answer(bench, ping)]))
            found += _anatomy(bench, line, asked)
            await line.listen(bench.in_vain(2))  # a handle comes after the turn
            said = len(line.received)
            await line.send(forms[first](AGAIN), "text")
            await line.until(_ends_turn, _TURN_S)
            found.append(judged(bench, "typed", first, f"{first}: answered in mid-conversation too", True))
            messages = [message for _, message in line.received]
            found.append(_usage(bench, messages[:said], messages[said:]))
            found += _numbers(line)
            found += await _other_form(line, second, forms[second](AGAIN))
    except Refused as refused:
        holds = False if refused.cause.name == "text_refused" else None
        found.append(judged(bench, "typed", first, f"{first}: {done}{refused.words}", holds))
    except TimeoutError:
        found.append(
            judged(bench, "typed", first, f"{first}: {done}no whole turn within {_TURN_S:g} s", None)
        )
    return found


async def _other_form(line: Line, form: str, message: Message) -> list[Finding]:
    about = f"{form} in mid-conversation"
    try:
        await line.send(message, "text")
        await line.until(_ends_turn, _TURN_S)
    except Refused as refused:
        return [_new(about, f"{refused.words}: {refused.cause.name}")]
    except TimeoutError:
        return [_new(about, f"no answer within {_TURN_S:g} s")]
    return [_new(about, "taken and answered")]


def _anatomy(bench: Bench, line: Line, asked: float) -> list[Finding]:
    """What a turn is made of."""
    sounds = [(at, size) for at, message in line.received for size in sizes_of_sound(message)]
    found: list[Finding] = []
    if sounds:
        first_ms = (sounds[0][0] - asked) * 1000
        late = first_ms > bench.facts.silent_s * 1000  # one that is in time proves no limit
        says, seen = f"{bench.facts.silent_s:g}", f"first sound after {first_ms:.0f} ms"
        found.append(judged(bench, "silent_s", says, seen, False if late else None))
        sizes = [size for _, size in sounds]
        gaps = [(later[0] - earlier[0]) * 1000 for earlier, later in pairwise(sounds)]
        found.append(
            _new(
                "chunks of sound",
                f"{len(sizes)}, of {min(sizes)} to {max(sizes)} bytes, median {statistics.median(sizes):g}",
            )
        )
        if gaps:
            wall = sounds[-1][0] - sounds[0][0]
            pace = f", {sum(sizes[:-1]) / 48_000 / wall:.1f} times as fast as it plays" if wall > 0 else ""
            found.append(_new("their spacing", f"median {statistics.median(gaps):.0f} ms{pace}"))
    generated = [at for at, message in line.received if _content(message).get("generationComplete")]
    ended = [at for at, message in line.received if _ends_turn(message)]
    if generated and ended:
        lag = (ended[0] - generated[0]) * 1000
        found.append(_new("generationComplete to turnComplete", f"{lag:.0f} ms"))
    elif ended:
        found.append(_new("generationComplete to turnComplete", "no generationComplete"))
    found += _transcripts(bench, line)
    idle = any(
        "interactionStatus" in message or "interactionStatus" in _content(message)
        for _, message in line.received
    )
    seen = "interactionStatus came" if idle else "no interactionStatus came"
    found.append(
        judged(bench, "idle", bench.facts.idle, seen, idle == (bench.facts.idle == "interaction_status"))
    )
    return found


def _usage(bench: Bench, first: Sequence[Message], second: Sequence[Message]) -> Finding:
    """What each of two turns says that its answer cost; the second says less than the first."""
    says = bench.facts.usage
    one, two = _answer_tokens(first), _answer_tokens(second)
    if one is None or two is None:
        return judged(bench, "usage", says, "not told of both turns", None)
    seen = f"{one} tokens of answer, then {two}"
    if one == two or sum(map(len, _spoken(second))) >= sum(map(len, _spoken(first))):
        return judged(bench, "usage", says, f"{seen}, which does not tell", None)
    form = "turn" if two < one else "cumulative"
    return judged(bench, "usage", says, f"{form}: {seen}", form == says)


def _answer_tokens(messages: Sequence[Message]) -> int | None:
    told = [message["usageMetadata"] for message in messages if message.get("usageMetadata")]
    counts = [one.get("responseTokenCount", one.get("candidatesTokenCount")) for one in told]
    return next((count for count in reversed(counts) if isinstance(count, int)), None)


def _spoken(messages: Sequence[Message]) -> list[str]:
    """The pieces of transcription of what the model said."""
    texts = ((_content(message).get("outputTranscription") or {}).get("text") for message in messages)
    return [str(text) for text in texts if text]


def _transcripts(bench: Bench, line: Line) -> list[Finding]:
    words = _spoken([message for _, message in line.received])
    if len(words) < 2:
        return []
    repeats = all(later.startswith(earlier) for earlier, later in pairwise(words))
    seen = "accumulated" if repeats else "pieces"
    return [
        judged(
            bench,
            "transcripts",
            bench.facts.transcripts,
            f"{len(words)} {seen}",
            seen == bench.facts.transcripts,
        )
    ]


def _numbers(line: Line) -> list[Finding]:
    """Whole numbers that come as text, as proto JSON writes those of 64 bits."""
    texts: set[str] = set()

    def look(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                look(f"{path}.{name}" if path else name, item)
        elif isinstance(value, list):
            for item in value:
                look(path, item)
        elif isinstance(value, str) and value.isdigit() and not path.endswith((".text", ".id", "Handle")):
            texts.add(path)

    for _, message in line.received:
        look("", message)
    index = [
        update.get("lastConsumedClientMessageIndex")
        for _, message in line.received
        if (update := message.get("sessionResumptionUpdate"))
    ]
    kinds = {type(one).__name__ for one in index if one is not None}
    found = []
    if kinds:  # unasked: transparent is for Vertex AI
        found.append(_new("lastConsumedClientMessageIndex", " and ".join(sorted(kinds))))
    if texts:
        found.append(_new("numbers as text", ", ".join(sorted(texts))))
    return found


async def several_fields(bench: Bench) -> list[Finding]:
    """Sound and text in one realtimeInput."""
    both = {
        "realtimeInput": {
            "audio": {"data": _SILENCE, "mimeType": "audio/pcm;rate=16000"},
            "text": AGAIN,
        }
    }
    about = "audio and text in one realtimeInput"
    try:
        async with bench.opened("several-fields", base_setup(bench)) as line:
            await line.send(both, "audio")
            await line.until(_ends_turn, _TURN_S)
    except Refused as refused:
        return [_new(about, f"{refused.words}: {refused.cause.name}")]
    except TimeoutError:
        return [_new(about, f"not refused, and no answer within {_TURN_S:g} s")]
    return [_new(about, "taken and answered")]


async def resumption(bench: Bench) -> list[Finding]:
    """Whether a handle comes and opens another connection, and how a made-up one is refused."""
    found: list[Finding] = []
    setup = {**base_setup(bench), "sessionResumption": {}}
    says = _shown(bench, "resumption")
    try:
        async with bench.opened("handle", setup) as line:
            await line.send(_typed(bench, AGAIN), "text")
            await line.until(_ends_turn, _TURN_S)
            patience = _TURN_S if bench.facts.resumption else bench.in_vain(3)
            await line.listen(patience, until=lambda _: bool(_handles(line)))
        handles = _handles(line)
        if handles:
            async with bench.opened("resumed", {**setup, "sessionResumption": {"handle": handles[-1]}}):
                found.append(
                    judged(bench, "resumption", says, "a handle opened it again", bench.facts.resumption)
                )
        else:
            found.append(judged(bench, "resumption", says, "no handle came", not bench.facts.resumption))
    except (Refused, TimeoutError) as failed:
        found.append(judged(bench, "resumption", says, str(failed) or "no whole turn", None))
    try:
        async with bench.opened("bad-handle", {**setup, "sessionResumption": {"handle": "no-such-handle"}}):
            found.append(_new("a made-up handle", "taken"))
    except Refused as refused:
        found.append(_new("a made-up handle", f"{refused.words}: {refused.cause.name}"))
    return found


def _handles(line: Line) -> list[str]:
    updates = [message.get("sessionResumptionUpdate") or {} for _, message in line.received]
    return [update["newHandle"] for update in updates if update.get("newHandle")]


def _typed(bench: Bench, text: str) -> Message:
    typed: Message = json.loads(gemini.typed(bench.facts, text))
    return typed


async def updates(bench: Bench) -> list[Finding]:
    """Another instruction in mid-session."""
    says = _shown(bench, "context_update")
    try:
        async with bench.opened("context-update", base_setup(bench)) as line:
            await line.send(json.loads(gemini.context_update(instruction=INSTRUCTION)), "text")
            await line.listen(bench.in_vain(3))
    except Refused as refused:
        holds = not bench.facts.context_update if refused.is_for_what_was_sent else None
        return [judged(bench, "context_update", says, refused.words, holds)]
    return [judged(bench, "context_update", says, "taken", bench.facts.context_update)]


async def memory(bench: Bench) -> list[Finding]:
    """What was said before, as initial history: whether it is taken, and is not answered."""
    says = bench.facts.seed
    setup = {**base_setup(bench), "historyConfig": {"initialHistoryInClientContent": True}}
    past = [{"role": role, "parts": [{"text": AGAIN}]} for role in ("user", "model")]
    try:
        async with bench.opened("history", setup) as line:
            await line.send({"clientContent": {"turns": past, "turnComplete": True}}, "history")
            spoken = [message for message in await line.listen(bench.in_vain(5)) if _speaks(message)]
    except Refused as refused:
        holds = says != "history" if refused.is_for_what_was_sent else None
        return [judged(bench, "seed", says, f"history: {refused.words}", holds)]
    seen = "history: taken, and answered" if spoken else "history: taken in, not answered"
    return [judged(bench, "seed", says, seen, not spoken if says == "history" else None)]


def _speaks(message: Message) -> bool:
    return "modelTurn" in _content(message) or "outputTranscription" in _content(message)


# --- calls


async def scheduling(bench: Bench) -> list[Finding]:
    """Whether the answer of a call may say when it is spoken of."""
    if not bench.facts.calls:
        return []
    says = _shown(bench, "scheduling")
    try:
        refused = await _answered(bench, "scheduling", scheduling="WHEN_IDLE")
        if refused is None:
            return [judged(bench, "scheduling", says, "WHEN_IDLE: taken", bench.facts.scheduling)]
        plain = await _answered(bench, "no-scheduling")
    except Refused as broken:
        return [judged(bench, "scheduling", says, broken.words, None)]
    except TimeoutError:
        return [judged(bench, "scheduling", says, f"no call within {_TURN_S:g} s", None)]
    seen = f"WHEN_IDLE: {refused.words}"
    if plain is not None:  # then it is not for the scheduling
        return [judged(bench, "scheduling", says, f"{seen}; without it: {plain.words}", None)]
    return [judged(bench, "scheduling", says, seen, not bench.facts.scheduling)]


async def _answered(bench: Bench, name: str, **more: str) -> Refused | None:
    """How a call's answer with these fields is refused, if it is."""
    setup = base_setup(bench)
    _calling(None if len(bench.facts.calls) == 1 else max(bench.facts.calls))(setup)
    async with bench.opened(name, setup) as line:
        call = await _called(bench, line)
        try:
            await line.send(_response(call, **more), "tool_response")
            await line.listen(bench.in_vain(4))
        except Refused as refused:
            return refused
    return None


async def _called(bench: Bench, line: Line) -> Message:
    await line.send(_typed(bench, WEATHER), "text")
    message = await line.until(_calls_something, _TURN_S)
    call: Message = message["toolCall"]["functionCalls"][0]
    return call


def _calls_something(message: Message) -> bool:
    call = message.get("toolCall")
    return isinstance(call, dict) and bool(call.get("functionCalls"))


def _response(call: Message, **more: str) -> Message:
    answer = {"id": call.get("id"), "name": call["name"], "response": {"output": "sunny"}, **more}
    return {"toolResponse": {"functionResponses": [answer]}}


async def calls(bench: Bench) -> list[Finding]:
    """A call in each way that the model has: what comes before the answer, and what an interruption does to it.

    Then one that leaves the way to the model, which an interruption tells where it tells the others apart.
    """
    found: list[Finding] = []
    cancelled: dict[str, bool] = {}
    for behavior in sorted(bench.facts.calls):
        try:
            findings, cancels = await _call(bench, behavior)
        except Refused as refused:
            found.append(_open(f"{behavior} call", f"{refused.words}: {refused.cause.name}"))
        except TimeoutError:
            found.append(_open(f"{behavior} call", f"no call within {_TURN_S:g} s"))
        else:
            found += findings
            if cancels is not None:
                cancelled[behavior] = cancels
    if len(bench.facts.calls) > 1:
        found.append(await _default_call(bench, cancelled))
    return found


async def _call(bench: Bench, behavior: str) -> tuple[list[Finding], bool | None]:
    """Also whether an interruption cancels it, if it came to that."""
    setup = base_setup(bench)
    _calling(None if len(bench.facts.calls) == 1 else behavior)(setup)  # with one way, the word is refused
    found: list[Finding] = []
    async with bench.opened(f"call-{behavior.lower()}", setup) as line:
        call = await _called(bench, line)
        meanwhile = await line.listen(bench.in_vain(3))
        if behavior == "BLOCKING":
            ended = any(map(_ends_turn, meanwhile))
            same = bench.facts.turn_after_call == "same"
            turn = "new turn" if ended else "same turn"
            found.append(judged(bench, "turn_after_call", bench.facts.turn_after_call, turn, same != ended))
            heard, gone = await _sound_during_call(bench, line)
            found.append(heard)
            if gone:
                return found, None
        after = await _interrupted(bench, line, 10 if behavior == "BLOCKING" else bench.in_vain(6))
        found.append(_new(f"{behavior} call, interrupted", _interruption(after, call.get("id"))))
        try:
            await line.send(_response(call), "tool_response")
            await line.listen(bench.in_vain(4))
            seen = "taken"
        except Refused as refused:
            seen = refused.words
        found.append(_new(f"{behavior} call, answered late", seen))
        return found, any("toolCallCancellation" in message for message in after)


async def _interrupted(bench: Bench, line: Line, patience: float) -> list[Message]:
    """What follows when the user has other words during a call."""
    await line.send(_typed(bench, ENOUGH), "text")
    after = await line.listen(patience, until=lambda message: "toolCallCancellation" in message)
    return after + await line.listen(bench.in_vain(2))


async def _default_call(bench: Bench, cancelled: dict[str, bool]) -> Finding:
    """`cancelled`: whether an interruption cancels a call, by its behavior."""
    says = bench.facts.default_call
    if len(set(cancelled.values())) < 2:
        return judged(bench, "default_call", says, "an interruption does not tell the two apart", None)
    setup = base_setup(bench)
    _calling(None)(setup)
    try:
        async with bench.opened("call-default", setup) as line:
            await _called(bench, line)
            after = await _interrupted(bench, line, bench.in_vain(10))
    except Refused as refused:
        return judged(bench, "default_call", says, refused.words, None)
    except TimeoutError:
        return judged(bench, "default_call", says, f"no call within {_TURN_S:g} s", None)
    cancels = any("toolCallCancellation" in message for message in after)
    like = next(behavior for behavior, each in cancelled.items() if each == cancels)
    return judged(bench, "default_call", says, f"interrupted like a {like} call", like == says)


async def _sound_during_call(bench: Bench, line: Line) -> tuple[Finding, bool]:
    """What came of it, and whether the connection is gone."""
    says, hears = _shown(bench, "hears_during_call"), bench.facts.hears_during_call
    blob = {"data": _SILENCE, "mimeType": "audio/pcm;rate=16000"}
    try:
        for _ in range(3):
            await line.send({"realtimeInput": {"audio": blob}}, "audio")
        await line.listen(bench.in_vain(2))
    except Refused as refused:
        seen = f"sound in a call: {refused.words}"
        holds = not hears if refused.is_for_what_was_sent else None
        return judged(bench, "hears_during_call", says, seen, holds), True
    # A refusal is not reported of every call, so that one call that goes well proves nothing.
    return judged(bench, "hears_during_call", says, "sound in a call: taken this time", None), False


def _interruption(messages: Sequence[Message], call_id: str | None) -> str:
    seen = []
    if any("toolCallCancellation" in message for message in messages):
        seen.append("toolCallCancellation")
    if any(_content(message).get("interrupted") for message in messages):
        seen.append("interrupted")
    again = [
        call.get("id")
        for message in messages
        for call in (message.get("toolCall") or {}).get("functionCalls") or ()
    ]
    if any(one != call_id for one in again):
        seen.append("the call again under another id")
    return ", ".join(seen) or "nothing"


# --- age


async def age(bench: Bench) -> list[Finding]:
    """When a connection is told to go, and when it is cut; takes as long as the model lets it live."""
    says = f"{bench.facts.connection_s:g}"
    told = ""
    began = bench.now()
    try:
        async with bench.opened("age", base_setup(bench)) as line:
            await line.until(lambda message: "goAway" in message, bench.budget.left_s(bench.now()))
            at, message = line.received[-1]
            told = f"goAway at {at:.0f} s, timeLeft {(message['goAway'] or {}).get('timeLeft')}"
            await line.listen(bench.budget.left_s(bench.now()))
    except Refused as refused:
        at = bench.now() - began
        seen = f"{told}; {refused.words} at {at:.0f} s" if told else f"{refused.words} at {at:.0f} s"
        near = abs(at - bench.facts.connection_s) <= 0.1 * bench.facts.connection_s
        return [judged(bench, "connection_s", says, seen, near)]
    except (Spent, TimeoutError):
        return [judged(bench, "connection_s", says, told or "neither goAway nor a close", None)]
    return [judged(bench, "connection_s", says, told, None)]


PROBES: tuple[Probe, ...] = (
    Probe("versions", versions, 10, 0.0),
    Probe("compression", compression, 3, 0.0),
    Probe("refusals", refusals, 10, 0.0),
    Probe("setups", setups, 25, 0.0),
    Probe("pongs", pongs, 15, 0.0),
    Probe("updates", updates, 5, 0.0),
    Probe("memory", memory, 8, 0.002, talks=True),
    Probe("turns", turns, 50, 0.010, talks=True),
    Probe("several fields", several_fields, 25, 0.004, talks=True),
    Probe("resumption", resumption, 30, 0.004, talks=True),
    Probe("scheduling", scheduling, 15, 0.008, talks=True),
    Probe("calls", calls, 60, 0.015, talks=True),
)
