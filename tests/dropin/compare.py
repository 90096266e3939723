"""One script played directly to the service and through a gateway: what differs, and which words allow it.

`differences` compares what a client sees here, message by message, with what it sees there; what the simulator
makes by chance or by time is put aside by the rules of SET_ASIDE. `changed` compares the two ends of one
conversation through the gateway, byte by byte, in both directions. What may differ is in DOWN and UP.
"""

from __future__ import annotations

import base64
import difflib
import json
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dropin.wire import Frame, Guest, Message, content, guest
from tornado_live.simulator.testing import Frames, Simulator

Script: TypeAlias = "Callable[[Guest], Awaitable[None]]"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the allowances depend on: the operator's functions, and the transcriptions the client asked for."""

    hidden: frozenset[str] = frozenset()
    hears_user: bool = True
    hears_model: bool = True


@dataclass(frozen=True, slots=True)
class Allowed:
    """A difference that the contract asks for, in its words.

    shown: a message of the model side as a client may see it, None for one that it may not.
    """

    words: str
    shown: Callable[[Message, Terms], Message | None]


def _setup_complete(message: Message, terms: Terms) -> Message:
    return {"setupComplete": {}} if "setupComplete" in message else message


def _no_handles(message: Message, terms: Terms) -> Message | None:
    return None if "sessionResumptionUpdate" in message else message


def _no_go_away(message: Message, terms: Terms) -> Message | None:
    return None if "goAway" in message else message


def _own_calls(message: Message, terms: Terms) -> Message | None:
    calls = message.get("toolCall", {}).get("functionCalls", [])
    shown = [call for call in calls if call["name"] not in terms.hidden]
    if len(shown) == len(calls):
        return message
    return {**message, "toolCall": {**message["toolCall"], "functionCalls": shown}} if shown else None


def _asked_transcriptions(message: Message, terms: Terms) -> Message | None:
    unasked = {
        name
        for name, asked in (
            ("inputTranscription", terms.hears_user),
            ("outputTranscription", terms.hears_model),
        )
        if not asked
    }
    told = content(message)
    if not told.keys() & unasked:
        return message
    rest = {name: value for name, value in told.items() if name not in unasked}
    return {**message, "serverContent": rest} if rest or len(message) > 1 else None


DOWN: Mapping[str, Allowed] = {
    "session id": Allowed(
        "Java (stored version) also demands `setupComplete.sessionId`, so include or keep it", _setup_complete
    ),
    "handles": Allowed(
        "the client sees neither, unless it asked for `sessionResumption`, in which case it gets our handles",
        _no_handles,
    ),
    "goAway": Allowed("GoAway and reconnects are handled here: the client sees neither", _no_go_away),
    "hidden calls": Allowed(
        "function calls for the operator's tools are run here and never reach the client", _own_calls
    ),
    "memory": Allowed("the conversation has a session like any other: memory", _asked_transcriptions),
}
"""What a client may see otherwise than the model side has sent it."""

EARLY_END = "for a server-side tool on 2.x the proxy must swallow the toolCall and the turnComplete after it"
"""The one difference that no message shows by itself."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A kind of message that arrives at the model side otherwise than it was sent, and the words for it."""

    words: str
    is_so: Callable[[Message, Terms], bool]


def _is_mixed_answer(message: Message, terms: Terms) -> bool:
    return bool(terms.hidden and message.keys() & {"toolResponse", "tool_response"})


def _is_update_of_tools(message: Message, terms: Terms) -> bool:
    return "tools" in (message.get("contextUpdate") or message.get("context_update") or {})


UP: Mapping[str, Rewritten] = {
    "setup": Rewritten(
        "the tools of its toolset are appended to its `tools`, resumption and context compression are switched on",
        lambda message, terms: "setup" in message,
    ),
    "mixed answers": Rewritten("the answers held together upstream in the shape they came", _is_mixed_answer),
    "contextUpdate": Rewritten("the tools of its toolset are appended to its `tools`", _is_update_of_tools),
}
"""What may arrive at the model side otherwise than a client has sent it."""

SET_ASIDE: Mapping[str, str] = {
    "ids of calls": "made by chance: each is called by its place among the calls that the client saw",
    "figures of usage": "a prompt with more functions has more tokens: only their names are compared",
    "sound that was cut": "where a turn is interrupted its sound ends by time: runs of it are one, of any length",
}
"""What no two conversations with the simulator have in common."""


@dataclass(frozen=True, slots=True)
class Played:
    """One conversation as both its ends saw it: the client's frames, and each connection of the model side."""

    sent: tuple[Frame, ...]
    received: tuple[Frame, ...]
    upstream: tuple[Frames, ...]

    @property
    def asked(self) -> Message:
        setup: Message = json.loads(self.sent[0])["setup"]
        return setup

    @property
    def handles(self) -> list[str]:
        """Those that the client was given."""
        return _handles(self.received)

    def terms(self, hidden: frozenset[str]) -> Terms:
        asked = {name.replace("_", "").lower() for name in self.asked}
        hears = [f"{side}audiotranscription" in asked for side in ("input", "output")]
        return Terms(hidden, *hears)


async def play(
    script: Script, url: str, simulator: Simulator, answering: Mapping[str, object] | None = None
) -> Played:
    """The script at this address, behind which is this simulator, which serves nobody else meanwhile."""
    before: int = simulator.status()["connections"]
    async with guest(url, answering=answering) as client:
        await script(client)
        after: int = simulator.status()["connections"]
        upstream = tuple(simulator.frames(number) for number in range(before, after))
    return Played(tuple(client.sent), tuple(client.received), upstream)


def differences(
    direct: Played, ours: Played, *, hidden: frozenset[str] = frozenset(), cut: bool = False
) -> list[str]:
    """Lines of a diff of what the client saw; none when it saw the same.

    hidden: the operator's functions. cut: whether a turn was interrupted.
    """
    seen = [list(_told(played.received, played.terms(hidden), cut=cut)) for played in (direct, ours)]
    return list(difflib.unified_diff(*seen, "directly", "through the gateway", lineterm="", n=3))


def changed(ours: Played, *, hidden: frozenset[str] = frozenset()) -> list[str]:
    """What did not arrive as the very bytes that were sent, in either direction, and may not differ."""
    terms = ours.terms(hidden)
    return [*_changed_down(ours, terms), *_changed_up(ours, terms)]


def leaks(ours: Played, key: str) -> list[str]:
    """The key of the model side, and its handles, wherever a client could find them."""
    secrets = [key, *(handle for line in ours.upstream for handle in _handles(line.of("simulator")))]
    return [
        f"{secret} in {frame!r:.200}"
        for secret in secrets
        for written in spellings(secret)
        for frame in ours.received
        if written in _bytes(frame)
    ]


def spellings(secret: str) -> Iterator[bytes]:
    """Every way to write it that hides nothing: as it is, as in a URL, in base64 wherever in it it begins."""
    data = secret.encode()
    yield data
    yield urllib.parse.quote(secret, safe="").encode()
    for before in range(3):
        coded = base64.b64encode(bytes(before) + data)
        # The first and the last letters hold bits of what is beside the secret.
        middle = coded[4 if before else 0 : -4]
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))


def _told(frames: Iterable[Frame], terms: Terms, *, cut: bool) -> Iterator[str]:
    """The messages that are compared, each as a line."""
    ids: dict[str, str] = {}
    before = ""
    for frame, message in _shown(frames, terms):
        for call in message.get("toolCall", {}).get("functionCalls", []):
            call["id"] = ids.setdefault(call["id"], f"call {len(ids)}")
        cancelled = message.get("toolCallCancellation", {})
        if cancelled:
            cancelled["ids"] = [ids.setdefault(each, f"call {len(ids)}") for each in cancelled["ids"]]
        if "usageMetadata" in message:
            message["usageMetadata"] = sorted(message["usageMetadata"])
        line = f"{'text' if isinstance(frame, str) else 'binary'} {json.dumps(_with_short_sound(message))}"
        if cut and _is_sound(message):
            line = "sound"
        if line != "sound" or before != "sound":
            yield line
        before = line


def _shown(frames: Iterable[Frame], terms: Terms) -> Iterator[tuple[Frame, Message]]:
    """The frames that a client may see, each with the message as it may see it."""
    in_hidden_call = False
    for frame in frames:
        message: Message | None = json.loads(frame)
        for allowed in DOWN.values():
            if message is not None:
                message = allowed.shown(message, terms)
        if message is None:
            in_hidden_call = in_hidden_call or "toolCall" in json.loads(frame)
            continue
        ends = content(message).keys() & {"generationComplete", "turnComplete"}
        if in_hidden_call and ends:  # see EARLY_END
            message.pop("serverContent")
            if not message:
                continue
        if message.keys() & {"toolCall"} or content(message).keys() & {"modelTurn", "outputTranscription"}:
            in_hidden_call = False
        yield frame, message


def _changed_down(ours: Played, terms: Terms) -> Iterator[str]:
    due = _shown((frame for line in ours.upstream for frame in line.of("simulator")), terms)
    for frame in ours.received:
        message = json.loads(frame)
        if "sessionResumptionUpdate" in message:
            continue
        sent, shown = next(due, (None, None))
        while shown == {"setupComplete": {}} and "setupComplete" not in message:
            sent, shown = next(due, (None, None))
        if sent is None or shown is None:
            yield f"nobody sent {frame!r:.300}"
        elif "setupComplete" not in message and (
            frame != sent if json.loads(sent) == shown else message != shown
        ):
            yield f"{sent!r:.300} came as {frame!r:.300}"


def _changed_up(ours: Played, terms: Terms) -> Iterator[str]:
    """Every frame that is not rewritten arrives, in order, and nothing else does."""

    def kept(frames: Iterable[Frame]) -> list[bytes]:
        return [
            _bytes(frame)
            for frame in frames
            if not any(rewritten.is_so(json.loads(frame), terms) for rewritten in UP.values())
        ]

    sent = kept(ours.sent)
    got = kept(frame for line in ours.upstream for frame in line.of("client"))
    for frame, arrived in zip(sent, got, strict=False):
        if frame != arrived:
            yield f"{frame!r:.300} arrived as {arrived!r:.300}"
    for frame in sent[len(got) :]:
        yield f"{frame!r:.300} did not arrive"
    for frame in got[len(sent) :]:
        yield f"nobody sent {frame!r:.300}"


def _with_short_sound(message: Message) -> Message:
    """For people to read: how long the sound is, and which."""
    for part in content(message).get("modelTurn", {}).get("parts", []):
        if "inlineData" in part:
            data = base64.b64decode(part["inlineData"]["data"], validate=True)
            part["inlineData"]["data"] = f"{len(data)} bytes, {zlib.crc32(data):08x}"
    return message


def _is_sound(message: Message) -> bool:
    return any("inlineData" in part for part in content(message).get("modelTurn", {}).get("parts", []))


def _handles(frames: Sequence[Frame]) -> list[str]:
    updates = (json.loads(frame).get("sessionResumptionUpdate", {}) for frame in frames)
    return [update["newHandle"] for update in updates if update.get("newHandle")]


def _bytes(frame: Frame) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame
