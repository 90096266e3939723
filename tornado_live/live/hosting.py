"""What a guest sees: the messages of the model side, but for what this server does in its place. Pure.

A guest is a client of Google's own protocol. Messages are passed on as the very bytes that came. Changed are only
those that hold what is not the guest's: calls for the operator's functions, handles and goAway of the model side's
connections, transcriptions that it did not ask for, and ends of turns that are none for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from tornado_live.jsonvalue import Json
from tornado_live.live.commands import Command, SendToClient, Shown
from tornado_live.live.dialogue import Happened
from tornado_live.live.guest import GuestPlan
from tornado_live.wire import gemini

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_NOTHING_HAPPENED = Happened()
_KNOWN = frozenset(gemini.ROOT_NAMES) - {"interactionStatus"}
"""A message of nothing that google-genai for Python knows ends its session with a TypeError (measured), so what an
edit leaves of a message must have one of these; interactionStatus it knows inside of serverContent only."""
_TURN_COMPLETE = _encoder.encode({"serverContent": {"turnComplete": True}})


class Hosting:
    """One guest in one conversation; `handle` is ours, None where the guest wants none.

    `call_hidden`: the model waits for a call that is none of the guest's.
    """

    def __init__(
        self, plan: GuestPlan, session_id: str, handle: str | None, *, call_hidden: bool = False
    ) -> None:
        self.plan = plan
        self.handle = handle
        self.history_due = plan.gives_history and plan.handle is None
        """Whether what it says first is what was said before."""
        self.turn_open = False
        """Whether it has seen something of a turn, and not its end."""
        self.welcome_due = True
        """Whether its setup is still to be answered."""
        self._session_id = session_id
        self._call_hidden = call_hidden
        """Whether the latest call was none that it saw: an end that belongs to it is none for the guest either."""
        self._handle_shown = False
        self._raw = b""
        self._message: gemini.ServerMessage | None = None
        self._cancelled: tuple[str, ...] = ()

    # --- the answer to the setup

    def welcome(self, answer: bytes) -> list[Command]:
        """`answer` is the model side's; the guest is told the id of its session here in it. Pure ASCII."""
        self.welcome_due = False
        root = cast("dict[str, Json]", _decoder.decode(answer or b"{}"))
        key = _key(root, "setupComplete")
        complete = root.get(key)
        told = (
            {name: value for name, value in complete.items() if name != _key(complete, "sessionId")}
            if (isinstance(complete, dict))
            else {}
        )
        told["sessionId"] = self._session_id
        payload = json.dumps({**root, key: told}, separators=(",", ":")).encode()
        commands = [_shown(payload)]
        if not self.plan.facts.resumption:
            commands += self._update()
        return commands

    def asked_meanwhile(self, calls: Sequence[Mapping[str, Json]]) -> list[Command]:
        """Calls of its own that came while it was away, as it is to see them."""
        if not calls:
            return []
        self.turn_open, self._call_hidden = True, False
        return [_shown(_encoder.encode({"toolCall": {"functionCalls": calls}}))]

    def going_away(self, left_s: float) -> Shown:
        """This server is about to stop; a guest with a handle comes back with it, as it would to Google."""
        return Shown(_encoder.encode({"goAway": {"timeLeft": f"{left_s:g}s"}}))

    # --- messages of the model side

    def look(self, raw: bytes, message: gemini.ServerMessage, *, cancelled: tuple[str, ...] = ()) -> None:
        """A message has come; `show` is asked once more is known of what it means.

        `cancelled`: the calls that it takes back and that are the guest's own.
        """
        self._raw, self._message, self._cancelled = raw, message, cancelled

    def show(
        self,
        happened: Happened = _NOTHING_HAPPENED,
        *,
        calls: tuple[tuple[int, str], ...] = (),
        cut_by_us: bool = False,
    ) -> list[Command]:
        """What the guest sees of the latest message; nothing when asked again.

        `calls`: those that are its own, as (place, id). `cut_by_us`: what the message interrupts or ends was begun
        by a text of ours.
        """
        message, self._message = self._message, None
        if message is None:
            return []
        content = message.server_content
        ends = content is not None and bool(content.turn_complete or content.generation_complete)
        hide_end = ends and (cut_by_us or (happened.ends_call and self._call_hidden))
        payload = self._edited(message, calls, hide_end=hide_end, cut_by_us=cut_by_us)
        commands = [_shown(payload)] if payload else []
        if message.tool_call is not None and message.tool_call.function_calls:
            self._call_hidden = not calls
        if calls or (content is not None and self._says(content)):
            self.turn_open = True
        if content is not None and content.turn_complete and not hide_end:
            self.turn_open = False
            if not self._handle_shown:
                commands += self._update()
            self._handle_shown = False
        return commands

    def _says(self, content: gemini.ServerContent) -> bool:
        """Whether the guest sees a part of an answer in it, late and thought ones too."""
        if content.model_turn is not None and content.model_turn.parts:
            return True
        words = content.output_transcription
        return self.plan.hears_model and words is not None and bool(words.text)

    def end_turn(self) -> list[Command]:
        """A turn is over of which the model side has not said so, or will not any more."""
        if not self.turn_open:
            return []
        self.turn_open = False
        return [_shown(_TURN_COMPLETE), *self._update()]

    def _update(self) -> list[Command]:
        if self.handle is None:
            return []
        self._handle_shown = True
        return [_shown(_encoder.encode({"sessionResumptionUpdate": self._ours()}))]

    def _ours(self) -> dict[str, Json]:
        return {"newHandle": self.handle, "resumable": True}

    # --- editing

    def _edited(
        self,
        message: gemini.ServerMessage,
        calls: tuple[tuple[int, str], ...],
        *,
        hide_end: bool,
        cut_by_us: bool,
    ) -> bytes:
        """The bytes that the guest sees, empty for none."""
        edits: list[Callable[[dict[str, Json]], None]] = []
        content = message.server_content
        if content is not None:
            hidden = self._hidden(content, hide_end=hide_end, cut_by_us=cut_by_us)
            if hidden:
                edits.append(lambda root: _without(root, "serverContent", hidden))
        asked = message.tool_call
        if asked is not None and asked.function_calls is not None:
            wanted = [(place, call.id) for place, call in enumerate(asked.function_calls)]
            if wanted != list(calls):
                edits.append(lambda root: _only_calls(root, calls))
        taken_back = message.tool_call_cancellation
        if taken_back is not None and tuple(taken_back.ids or ()) != self._cancelled:
            edits.append(lambda root: _only_ids(root, self._cancelled))
        update = message.session_resumption_update
        if update is not None:
            edits.append(self._put_handle)
        if message.go_away is not None:
            edits.append(lambda root: _drop(root, "goAway"))
        if not edits:
            return self._raw
        root = cast("dict[str, Json]", _decoder.decode(self._raw))
        for edit in edits:
            edit(root)
        return _encoder.encode(root) if any(gemini.camel_name(key) in _KNOWN for key in root) else b""

    def _hidden(self, content: gemini.ServerContent, *, hide_end: bool, cut_by_us: bool) -> tuple[str, ...]:
        names: list[str] = []
        if not self.plan.hears_user:
            if content.input_transcription is not None:
                names.append("inputTranscription")
            if content.interim_input_transcription is not None:
                names.append("interimInputTranscription")
        if not self.plan.hears_model and content.output_transcription is not None:
            names.append("outputTranscription")
        if hide_end:
            names += ["turnComplete", "generationComplete", "turnCompleteReason"]
        if content.interrupted and cut_by_us:
            names.append("interrupted")
        return tuple(names)

    def _put_handle(self, root: dict[str, Json]) -> None:
        """Ours is good at any time; google-adk forgets its handle at an update without one (measured)."""
        key = _key(root, "sessionResumptionUpdate")
        update = root.pop(key, None)
        if self.handle is not None and isinstance(update, dict) and update.get("resumable") is True:
            root[key] = self._ours()
            self._handle_shown = True


def _shown(payload: bytes) -> Command:
    return SendToClient(Shown(payload))


def _key(mapping: Json, name: str) -> str:
    """How `name` is spelt there."""
    if not isinstance(mapping, dict) or name in mapping:
        return name
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return snake if snake in mapping else name


def _drop(root: dict[str, Json], name: str) -> None:
    root.pop(_key(root, name), None)


def _without(root: dict[str, Json], section: str, names: tuple[str, ...]) -> None:
    """A section of which nothing is left goes too."""
    key = _key(root, section)
    inner = root.get(key)
    if not isinstance(inner, dict):
        return
    for name in names:
        _drop(inner, name)
    if not inner:
        del root[key]


def _only_calls(root: dict[str, Json], calls: tuple[tuple[int, str], ...]) -> None:
    key = _key(root, "toolCall")
    asked = root.get(key)
    if not isinstance(asked, dict):
        return
    inner = _key(asked, "functionCalls")
    every = asked.get(inner)
    if not calls or not isinstance(every, list):
        del root[key]
        return
    kept: list[Json] = []
    for place, call_id in calls:
        call = every[place] if place < len(every) else None
        if isinstance(call, dict):
            kept.append({**call, "id": call_id})
    asked[inner] = kept


def _only_ids(root: dict[str, Json], ids: tuple[str, ...]) -> None:
    key = _key(root, "toolCallCancellation")
    if ids:
        root[key] = {"ids": list(ids)}
    else:
        root.pop(key, None)
