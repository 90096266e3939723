"""What a client of Google's protocol sees of a conversation, and what the model side sees, by plain lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from modelling import MODELS

from tornado_live.errors import BadMessage, LiveError, Unauthenticated, Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.live.causes import LINE_LOST, UNREACHABLE, Cause, of_close, of_status
from tornado_live.live.commands import (
    FORWARD,
    CancelTool,
    CloseClient,
    Command,
    End,
    Enter,
    OpenModel,
    Record,
    Remember,
    SendToClient,
    SendToModel,
    Shown,
    Speech,
    StartTool,
    Timer,
    WakeAfter,
)
from tornado_live.live.conversation import Conversation, Phase
from tornado_live.live.dialects import GeminiDialect
from tornado_live.live.guest import guest_plan
from tornado_live.live.terms import Terms
from tornado_live.settings import Assistant, DropIn, Limits
from tornado_live.tools.policy import DEFAULT_POLICY, CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire import gemini

OURS = "our_weather"
ASSISTANTS = {"default": Assistant("default", "gemini-3.8-live", {}, None)}
FREE = DropIn(enabled=True, assistant="default", models={}, only_models=frozenset(), fields=None)
OWN = {"name": "open_door", "description": "Opens the door.", "behavior": "BLOCKING"}
WANTED: dict[str, Any] = {
    "model": "models/gemini-3.8-live",
    "tools": [{"functionDeclarations": [OWN]}],
    "outputAudioTranscription": {},
    "inputAudioTranscription": {},
}
OK = ToolResult(True, {"status": "ok", "result": 21}, 12, summary="21 degrees")
SOUND = {"modelTurn": {"parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "AQID"}}]}}
END = {"serverContent": {"turnComplete": True}}
GENERATED = {"serverContent": {"generationComplete": True}}
HANDLE = {"sessionResumptionUpdate": {"newHandle": "theirs", "resumable": True}}
LATER = 100.0


class Visit:
    """A guest in a conversation, and all that was said to either side since it was last asked."""

    def __init__(
        self,
        setup: Mapping[str, Any] = WANTED,
        *,
        handle: str | None = None,
        policies: Mapping[str, CallPolicy] = {},
    ) -> None:
        self.talk = Conversation(
            assistants=ASSISTANTS,
            assistant="default",
            allowed_options=frozenset(),
            declarations=lambda toolset: [{"name": OURS}],
            policy=lambda name: policies.get(name, DEFAULT_POLICY),
            upstream="gemini",
            limits=Limits(),
            models=MODELS,
            jitter=lambda: 0.5,
        )
        self.dialect = GeminiDialect()
        self.commands: list[Command] = []
        self.talk.client_came(0.0)
        self.come(setup, handle=handle)

    def come(
        self,
        setup: Mapping[str, Any] = WANTED,
        *,
        handle: str | None = None,
        lasts_s: float | None = None,
        now: float = 0.0,
    ) -> None:
        plan = guest_plan(setup, FREE, MODELS, ASSISTANTS)
        self._did(self.talk.vouched(Terms(lasts_s), now))
        self._did(self.talk.from_client(Enter(plan, "our-session", handle), now))

    def opened(self, answer: Mapping[str, Any] | None = None, now: float = 0.5) -> Visit:
        raw = json.dumps(answer if answer is not None else {"setupComplete": {}}).encode()
        self._did(self.talk.model_opened(now, raw))
        return self

    def says(self, message: Mapping[str, Any], now: float = 1.0) -> bytes:
        raw = json.dumps(message).encode()
        said = self.dialect.decode(raw, False)
        assert not isinstance(said, LiveError)
        commands = self.talk.from_client(said, now)  # type: ignore[arg-type]
        assert commands is not FORWARD or type(said) is Speech
        self._did([SendToModel(raw, "audio")] if commands is FORWARD else commands)  # type: ignore[arg-type]
        return raw

    def hears(self, message: Mapping[str, Any], now: float = 2.0) -> bytes:
        """A message of the model side."""
        raw = json.dumps(message).encode()
        commands = self.talk.from_model(gemini.decode(raw), now, raw)
        self._did([SendToClient(Shown(raw))] if commands is FORWARD else commands)
        return raw

    def finishes(self, call_id: str, now: float = 3.0) -> None:
        """A function of ours has run."""
        self._did(self.talk.tool_finished(call_id, OK, now))

    def loses(self, cause: Cause = LINE_LOST, now: float = 4.0) -> None:
        self._did(self.talk.model_closed(cause, now))

    def _did(self, commands: Sequence[Command]) -> None:
        self.commands += commands

    def of(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.commands if type(command) is kind]

    def shown(self) -> list[bytes]:
        """What the guest saw since the last question."""
        events = [command.event for command in self.of(SendToClient) if type(command.event) is Shown]
        self.commands = [command for command in self.commands if type(command) is not SendToClient]
        return [event.payload for event in events]

    def seen(self) -> list[Any]:
        return [json.loads(payload) for payload in self.shown()]

    def sent(self) -> list[bytes]:
        """What the model side was sent since the last question, but for the setup."""
        sent = [command.payload for command in self.of(SendToModel)]
        self.commands = [command for command in self.commands if type(command) is not SendToModel]
        return sent

    @property
    def setup(self) -> dict[str, Json]:
        """Of the latest dial."""
        made = json.loads(self.of(OpenModel)[-1].setup)["setup"]
        assert isinstance(made, dict)
        return made

    def remembered(self) -> list[tuple[str, str]]:
        return [(command.role, command.text) for command in self.of(Remember)]

    def recorded(self) -> list[str]:
        return [command.kind for command in self.of(Record)]


def live(
    setup: Mapping[str, Any] = WANTED,
    *,
    handle: str | None = None,
    policies: Mapping[str, CallPolicy] = {},
) -> Visit:
    visit = Visit(setup, handle=handle, policies=policies).opened()
    visit.shown()
    return visit


def calls(*wanted: tuple[str, str]) -> dict[str, Any]:
    return {
        "toolCall": {"functionCalls": [{"name": name, "args": {"at": 1}, "id": one} for one, name in wanted]}
    }


def answers(*ids: str, name: str = "open_door") -> dict[str, Any]:
    responses = [{"id": one, "name": name, "response": {"output": "done"}} for one in ids]
    return {"tool_response": {"functionResponses": responses}}


def typed(text: str, *, complete: bool = True) -> dict[str, Any]:
    turn = {"role": "user", "parts": [{"text": text}]}
    return {"client_content": {"turns": [turn], "turnComplete": complete}}


# Opening


def test_the_answer_to_the_setup_is_the_first_thing_a_guest_sees_with_its_session_here() -> None:
    visit = Visit()
    assert visit.seen() == []
    visit.opened({"setupComplete": {"sessionId": "theirs", "voiceConsentSignature": {"signature": "é"}}})
    (first,) = visit.shown()
    assert first.isascii()
    assert json.loads(first) == {
        "setupComplete": {"voiceConsentSignature": {"signature": "é"}, "sessionId": "our-session"}
    }


def test_a_guest_gets_the_operators_functions_beside_its_own() -> None:
    tools = Visit().setup["tools"]
    assert tools == [{"functionDeclarations": [OWN, {"name": OURS, "behavior": "BLOCKING"}]}]


def test_a_second_setup_and_a_message_that_is_none_close_with_googles_code() -> None:
    visit = live()
    visit.says({"setup": WANTED})
    (close,) = visit.of(CloseClient)
    assert visit.dialect.goodbye(close.error).code == 1007
    visit = live()
    visit._did(visit.talk.refused(BadMessage("not JSON"), 1.0))
    (close,) = visit.of(CloseClient)
    assert (visit.dialect.goodbye(close.error).code, visit.dialect.goodbye(close.error).frame) == (1007, None)


# Passing on


def test_what_either_side_says_is_passed_on_as_the_bytes_that_came() -> None:
    visit = live()
    for message in (
        {"realtime_input": {"audio": {"data": "AQI_", "mime_type": "audio/pcm;rate=16000"}}},
        {"realtimeInput": {"video": {"data": "AQI=", "mimeType": "image/jpeg"}}},
        typed("Hello"),
        {"realtimeInput": {"audioStreamEnd": True}},
        {"somethingNew": {"of": ["tomorrow"]}},
    ):
        raw = visit.says(message)
        assert visit.sent() == [raw]
    for answer in (
        {},
        {"serverContent": {"outputTranscription": {"text": "It is"}, **SOUND}, "newField": 1},
        {"serverContent": SOUND},
        {"serverContent": {"modelTurn": {"parts": [{"text": "Thinking", "thought": True}]}}},
        {"serverContent": {}},
        {"somethingElse": {"of": "tomorrow"}},
        {"voiceActivity": {"type": "ACTIVITY_START"}},
        {"usageMetadata": {"totalTokenCount": 7}},
        {"serverContent": {"turnComplete": True, "groundingMetadata": {}}, "usageMetadata": {}},
    ):
        raw = visit.hears(answer)
        assert visit.shown() == [raw]


def test_media_chunks_go_up_as_audio_and_video_where_the_model_refuses_them() -> None:
    dialect = GeminiDialect()
    dialect.media_chunks = False
    for key, chunks, meant in (
        (
            "mediaChunks",
            [{"mimeType": "audio/pcm;rate=24000", "data": "AQI_"}],
            {"audio": {"data": "AQI_", "mimeType": "audio/pcm;rate=24000"}},
        ),
        (
            "media_chunks",
            {"mime_type": "audio/pcm", "data": "AQI="},
            {"audio": {"data": "AQI=", "mimeType": "audio/pcm"}},
        ),
        (
            "media_chunks",
            [{"mime_type": "image/jpeg", "data": "AQI="}],
            {"video": {"data": "AQI=", "mimeType": "image/jpeg"}},
        ),
    ):
        said = dialect.decode(json.dumps({"realtime_input": {key: chunks}}).encode(), False)
        assert json.loads(said.payload) == {"realtimeInput": meant}  # type: ignore[union-attr]
    kept = json.dumps({"realtimeInput": {"audio": {"data": "AQI="}}}).encode()
    assert dialect.decode(kept, False).payload is kept  # type: ignore[union-attr]


def test_late_content_of_an_interrupted_turn_is_passed_on_too() -> None:
    visit = live()
    visit.says(typed("Hello"))
    visit.hears({"serverContent": SOUND})
    visit.hears({"serverContent": {"interrupted": True}})
    visit.shown()
    raw = visit.hears({"serverContent": SOUND})
    assert visit.shown() == [raw]


def test_transcriptions_that_were_not_asked_for_are_remembered_and_not_shown() -> None:
    visit = live({"model": "gemini-3.8-live"})
    assert visit.setup["inputAudioTranscription"] == visit.setup["outputAudioTranscription"] == {}
    visit.hears({"serverContent": {"inputTranscription": {"text": "Hello?"}}})
    assert visit.seen() == []
    visit.hears({"serverContent": {"outputTranscription": {"text": "Hello."}, **SOUND}})
    assert visit.seen() == [{"serverContent": SOUND}]
    raw = visit.hears(END)
    assert visit.shown() == [raw]
    assert visit.remembered() == [("user", "Hello?"), ("model", "Hello.")]


def test_handles_and_go_away_of_the_model_side_are_not_shown() -> None:
    visit = live()
    visit.hears(HANDLE)
    visit.hears({**HANDLE, "usageMetadata": {"totalTokenCount": 7}})
    assert visit.seen() == [{"usageMetadata": {"totalTokenCount": 7}}]
    visit.hears({"goAway": {"timeLeft": "50s"}})
    assert visit.seen() == []


def test_turns_of_the_user_are_joined_until_they_are_complete() -> None:
    visit = live()
    visit.says(typed("What time", complete=False))
    visit.says(typed("is it?", complete=False))
    assert not any(timer.timer is Timer.WATCH for timer in visit.of(WakeAfter))
    visit.says({"client_content": {"turns": [{"parts": [{"text": "."}]}], "turnComplete": True}})
    assert any(timer.timer is Timer.WATCH for timer in visit.of(WakeAfter))
    visit.hears({"serverContent": {"outputTranscription": {"text": "Noon."}}})
    visit.hears(END)
    assert visit.remembered() == [("user", "What time\nis it?"), ("model", "Noon.")]


def test_what_was_said_before_is_remembered_and_not_waited_for() -> None:
    visit = live({**WANTED, "historyConfig": {"initialHistoryInClientContent": True}})
    turns = [{"role": role, "parts": [{"text": text}]} for role, text in (("user", "A"), ("model", "B"))]
    visit.says({"clientContent": {"turns": turns, "turnComplete": True}})
    assert visit.remembered() == [("user", "A"), ("model", "B")]
    assert not any(timer.timer is Timer.WATCH for timer in visit.of(WakeAfter))


# Function calls


def test_a_guests_own_function_is_its_own_to_run() -> None:
    visit = live()
    raw = visit.hears(calls(("1", "open_door")))
    assert visit.shown() == [raw]
    assert visit.of(StartTool) == []
    raw = visit.says(answers("1"), 3.5)
    assert visit.sent() == [raw]
    (done,) = [record.data for record in visit.of(Record) if record.kind == "tool_call"]
    assert (done["client"], done["durationMs"]) == (True, 1500)


def test_a_function_that_nobody_declared_is_shown_to_the_guest() -> None:
    visit = live()
    raw = visit.hears(calls(("1", "who_knows")))
    assert visit.shown() == [raw]


def test_a_call_of_ours_is_never_shown() -> None:
    visit = live()
    visit.hears(calls(("1", OURS)))
    assert visit.seen() == []
    assert [started.name for started in visit.of(StartTool)] == [OURS]
    visit.finishes("1")
    (answer,) = visit.sent()
    assert json.loads(answer)["toolResponse"]["functionResponses"][0]["id"] == "1"


def test_what_comes_beside_a_call_of_ours_is_hidden_where_a_client_would_know_nothing_of_it() -> None:
    visit = live()
    visit.hears({**calls(("1", OURS)), "interactionStatus": "IN_PROGRESS"})
    visit.hears({**calls(("2", OURS)), "usageMetadata": {"totalTokenCount": 7}})
    assert visit.seen() == [{"usageMetadata": {"totalTokenCount": 7}}]


def test_the_end_of_a_hidden_calls_turn_is_hidden_where_the_model_ends_it_early() -> None:
    visit = live({**WANTED, "model": "models/gemini-2.5-flash-native-audio-preview-12-2025"})
    visit.hears(calls(("1", OURS)))
    visit.hears(GENERATED)
    visit.hears({**END, "usageMetadata": {"totalTokenCount": 7}})
    assert visit.seen() == [{"usageMetadata": {"totalTokenCount": 7}}]
    visit.finishes("1")
    visit.hears({"serverContent": SOUND})
    visit.hears(END)
    assert visit.seen() == [{"serverContent": SOUND}, END]


def test_the_early_end_of_a_call_of_its_own_is_shown() -> None:
    visit = live({**WANTED, "model": "models/gemini-2.5-flash-native-audio-preview-12-2025"})
    call, end = visit.hears(calls(("1", "open_door"))), visit.hears(END)
    assert visit.shown() == [call, end]


def test_what_is_said_while_a_call_of_its_own_is_open_has_its_end() -> None:
    visit = live({**WANTED, "model": "models/gemini-2.5-flash-native-audio-preview-12-2025"})
    visit.hears(calls(("1", "open_door")))
    visit.hears(END)
    visit.hears({"serverContent": SOUND})
    visit.shown()
    end = visit.hears(END)
    assert visit.shown() == [end]


@pytest.mark.parametrize("order", [("2", "1", "3"), ("1", "3", "2"), ("1", "2", "3")])
def test_calls_of_both_are_split_and_answered_together_in_their_order(order: tuple[str, ...]) -> None:
    visit = live()
    asked = calls(("1", OURS), ("2", "open_door"), ("3", OURS))
    asked["toolCall"]["functionCalls"][2]["args"] = {"at": 3}
    visit.hears(asked)
    (message,) = visit.seen()
    assert [one["id"] for one in message["toolCall"]["functionCalls"]] == ["2"]
    for call_id in order:
        assert visit.sent() == []
        if call_id == "2":
            visit.says(answers("2"))
        else:
            visit.finishes(call_id)
    (answer,) = visit.sent()
    responses = json.loads(answer)["toolResponse"]["functionResponses"]
    assert [one["id"] for one in responses] == ["1", "2", "3"]
    assert responses[1] == answers("2")["tool_response"]["functionResponses"][0]


def test_the_same_call_twice_beside_one_of_the_guests_is_run_once_and_answered_twice() -> None:
    visit = live()
    visit.hears(calls(("1", OURS), ("2", "open_door"), ("3", OURS)))
    assert len(visit.of(StartTool)) == 1
    visit.finishes("1")
    visit.says(answers("2"))
    (answer,) = visit.sent()
    assert [one["id"] for one in json.loads(answer)["toolResponse"]["functionResponses"]] == ["1", "2", "3"]


def test_calls_of_both_of_which_one_is_cancelled_are_answered_without_it() -> None:
    visit = live()
    visit.hears(calls(("1", OURS), ("2", "open_door")))
    visit.finishes("1")
    visit.sent()
    visit.hears({"toolCallCancellation": {"ids": ["2"]}})
    (answer,) = visit.sent()
    assert [one["id"] for one in json.loads(answer)["toolResponse"]["functionResponses"]] == ["1"]


def test_an_answer_without_an_id_is_that_of_the_open_call_of_its_name() -> None:
    visit = live()
    visit.hears({"toolCall": {"functionCalls": [{"name": "open_door", "args": {}}]}})
    (message,) = visit.seen()
    call_id = message["toolCall"]["functionCalls"][0]["id"]
    assert call_id, "clients wait for an id"
    visit.says({"toolResponse": {"functionResponses": [{"name": "open_door", "response": {"a": 1}}]}})
    (answer,) = visit.sent()
    assert json.loads(answer)["toolResponse"]["functionResponses"] == [
        {"name": "open_door", "response": {"a": 1}, "id": call_id}
    ]


def test_a_cancellation_names_only_the_guests_own_calls() -> None:
    visit = live()
    visit.hears(calls(("1", OURS), ("2", "open_door")))
    visit.shown()
    visit.hears({"toolCallCancellation": {"ids": ["1", "2"]}})
    assert visit.seen() == [{"toolCallCancellation": {"ids": ["2"]}}]
    assert [cancelled.id for cancelled in visit.of(CancelTool)] == ["1", "2"]
    visit.says(answers("2"))
    assert visit.sent() == [], "nobody waits for it"


def test_a_cancellation_that_comes_with_content_is_shown_with_it() -> None:
    visit = live()
    visit.hears(calls(("1", "open_door"), ("2", OURS)))
    visit.shown()
    visit.hears({"serverContent": {"interrupted": True}, "toolCallCancellation": {"ids": ["1", "2"]}})
    assert visit.seen() == [{"serverContent": {"interrupted": True}, "toolCallCancellation": {"ids": ["1"]}}]


def test_a_cancelled_call_that_runs_on_is_not_answered_with_the_others() -> None:
    visit = live(policies={OURS: CallPolicy(on_interrupt="finish")})
    visit.hears(calls(("1", OURS), ("2", "open_door")))
    visit.hears({"toolCallCancellation": {"ids": ["1"]}})
    visit.sent()
    visit.says(answers("2"))
    (answer,) = visit.sent()
    assert [one["id"] for one in json.loads(answer)["toolResponse"]["functionResponses"]] == ["2"]
    visit.finishes("1")
    assert not any(b'"id":"1"' in payload for payload in visit.sent())


def test_a_call_that_was_asked_for_twice_and_taken_back_once_is_answered_once() -> None:
    visit = live()
    visit.hears(calls(("1", OURS), ("2", "open_door"), ("3", OURS)))
    visit.finishes("1")
    visit.hears({"toolCallCancellation": {"ids": ["1", "2"]}})
    (answer,) = visit.sent()
    assert [one["id"] for one in json.loads(answer)["toolResponse"]["functionResponses"]] == ["3"]


def test_a_call_that_was_asked_for_twice_and_taken_back_twice_is_cancelled() -> None:
    visit = live()
    visit.hears(calls(("1", OURS), ("2", OURS)))
    visit.hears({"toolCallCancellation": {"ids": ["1", "2"]}})
    assert [cancelled.id for cancelled in visit.of(CancelTool)] == ["1"]


def test_a_part_of_an_answer_goes_up_and_the_call_stays_open() -> None:
    visit = live()
    visit.hears(calls(("1", "open_door")))
    part = answers("1")
    part["tool_response"]["functionResponses"][0]["will_continue"] = True
    raw = visit.says(part)
    assert visit.sent() == [raw]
    raw = visit.says(answers("1"))
    assert visit.sent() == [raw]


# Lost connections


def test_a_lost_connection_is_not_seen_and_the_answer_goes_on_in_the_same_turn() -> None:
    visit = live()
    visit.hears(HANDLE)
    visit.says(typed("Tell me a story"))
    visit.hears({"serverContent": {"outputTranscription": {"text": "Once upon"}, **SOUND}})
    visit.shown()
    visit.loses()
    assert visit.seen() == []
    assert visit.setup["sessionResumption"] == {"handle": "theirs"}
    visit.opened(now=5.0)
    assert visit.seen() == []
    assert any(b"Once upon" in payload for payload in visit.sent())
    visit.hears({"serverContent": {"outputTranscription": {"text": " a time."}, **SOUND}}, 6.0)
    visit.hears(END, 6.5)
    assert [list(message["serverContent"]) for message in visit.seen()][-1] == ["turnComplete"]


def test_an_answer_that_begins_with_silence_and_stalls_is_noticed() -> None:
    visit = live()
    silence = {"mimeType": "audio/pcm;rate=24000", "data": "A" * 3200}
    visit.hears({"serverContent": {"modelTurn": {"parts": [{"inlineData": silence}]}}})
    visit.hears({"serverContent": SOUND})
    assert any(timer.timer is Timer.WATCH for timer in visit.of(WakeAfter))


def test_a_turn_that_began_beside_a_hidden_call_is_ended() -> None:
    visit = live()
    visit.hears({"serverContent": SOUND, **calls(("1", OURS))})
    visit.finishes("1")
    visit.shown()
    visit.hears(GENERATED)
    visit.loses()
    assert visit.seen()[-1] == END


def test_a_turn_of_which_a_guest_that_came_back_hears_the_rest_is_ended() -> None:
    setup = {**WANTED, "sessionResumption": {}}
    visit = live(setup, handle="ours")
    visit.hears({"serverContent": SOUND})
    visit.talk.client_left(True, 2.0)
    visit.talk.client_came(3.0)
    visit.come({**WANTED, "sessionResumption": {"handle": "ours"}}, handle="ours", now=3.0)
    visit.hears({"serverContent": SOUND}, 3.5)
    visit.shown()
    visit.loses(now=4.0)
    assert END in visit.seen()


def test_a_turn_that_ends_with_a_mere_status_has_its_end() -> None:
    thinking = {"thinkingConfig": {"thinkingLevel": "LOW"}}
    visit = live({"model": "gemini-3.8-live-extended-thinking", "generationConfig": thinking})
    answer = {"serverContent": {**SOUND, "interactionStatus": "IDLE"}}
    visit.hears(answer)
    assert visit.seen() == [answer, END]


def test_what_was_asked_without_words_is_asked_for_again() -> None:
    visit = live()
    picture = {"inlineData": {"mimeType": "image/png", "data": "AQI="}}
    visit.says({"clientContent": {"turns": [{"role": "user", "parts": [picture]}], "turnComplete": True}})
    visit.sent()
    visit.loses()
    visit.opened(now=5.0)
    assert [b"please answer" in payload for payload in visit.sent()] == [True]


def test_a_turn_that_had_come_whole_is_ended_when_its_connection_is_lost() -> None:
    visit = live()
    visit.says(typed("Hello"))
    visit.hears({"serverContent": {"outputTranscription": {"text": "Hello."}, **SOUND}})
    visit.hears(GENERATED)
    visit.shown()
    visit.loses()
    assert visit.seen() == [END]


def test_a_call_of_its_own_outlives_the_connection_that_asked_for_it() -> None:
    visit = live()
    visit.says(typed("Open the door"))
    visit.hears(calls(("1", "open_door")))
    visit.loses()
    visit.opened(now=5.0)
    visit.sent()
    visit.says(answers("1"), 6.0)
    (told,) = visit.sent()
    assert b"open_door" in told, "the new session does not know the id, and is told in words"
    assert visit.of(CloseClient) == []


def test_a_call_of_its_own_that_was_answered_to_a_resumed_session_is_not_answered_twice_there() -> None:
    visit = live()
    visit.hears(calls(("1", "open_door")))
    visit.hears(HANDLE)
    visit.loses()
    visit.opened(now=5.0)
    visit.sent()
    raw = visit.says(answers("1"), 6.0)
    visit.hears(calls(("1", "open_door")), 7.0)
    assert visit.sent() == [raw]


def test_what_is_typed_while_calls_are_open_is_asked_again_with_their_results() -> None:
    visit = live(policies={OURS: CallPolicy(on_interrupt="finish")})
    visit.hears(calls(("1", OURS), ("2", "open_door")))
    visit.says(typed("And the window?"))
    visit.loses()
    visit.opened(now=5.0)
    visit.sent()
    visit.finishes("1", 6.0)
    assert visit.sent() == [], "no call is to be waited for any more"
    visit.says(answers("2"), 7.0)
    (told,) = visit.sent()
    assert all(words in told for words in (OURS.encode(), b"open_door", b"And the window?"))


@pytest.mark.parametrize("generated", [False, True])
def test_what_is_typed_into_an_answer_whose_connection_is_lost_is_what_is_asked_again(
    generated: bool,
) -> None:
    visit = live()
    visit.says(typed("Who are you?"))
    visit.hears({"serverContent": {**SOUND, "outputTranscription": {"text": "I am"}}})
    if generated:
        visit.hears(GENERATED)
    visit.says(typed("How warm is it?"))
    visit.loses()
    visit.sent()
    visit.opened(now=5.0)
    (told,) = visit.sent()
    assert b"How warm is it?" in told
    assert b"broke off" not in told, "nobody needs the rest of it"


def test_the_same_call_asked_again_by_the_next_connection_is_not_shown_twice() -> None:
    visit = live()
    visit.says(typed("Open the door"))
    visit.hears(calls(("1", "open_door")))
    visit.shown()
    visit.loses()
    visit.opened(now=5.0)
    visit.hears(calls(("2", "open_door")), 6.0)
    assert visit.seen() == []
    visit.sent()
    visit.says(answers("1"), 7.0)
    assert any(b'"id":"2"' in payload for payload in visit.sent())


def test_a_call_that_was_asked_for_twice_is_answered_when_the_next_connection_asks_once_more() -> None:
    visit = live()
    visit.says(typed("How warm is it?"))
    visit.hears(calls(("1", OURS), ("2", OURS)))
    visit.loses()
    visit.opened(now=5.0)
    visit.hears(calls(("2", OURS)), 6.0)
    visit.sent()
    visit.finishes("1", 7.0)
    assert any(b'"id":"2"' in payload for payload in visit.sent())


def test_what_is_said_while_there_is_no_model_side_follows_as_it_came() -> None:
    visit = live()
    visit.loses()
    raw = visit.says({"realtimeInput": {"text": "Hello?"}})
    assert visit.sent() == []
    visit.opened(now=5.0)
    assert raw in visit.sent()


def test_a_model_side_that_is_not_to_be_had_closes_in_our_own_words() -> None:
    visit = Visit()
    refused = of_close(
        1007,
        "Request contains an invalid argument: secret words.",
        facts=None,
        last_sent="setup",
        opened=False,
        resuming=False,
    )
    visit.loses(refused)
    (close,) = visit.of(CloseClient)
    goodbye = visit.dialect.goodbye(close.error)
    assert goodbye.code == 1007
    assert "secret" not in goodbye.reason


def refused(last_sent: str) -> Cause:
    return of_close(
        1007,
        "Request contains an invalid argument.",
        facts=None,
        last_sent=last_sent,
        opened=True,
        resuming=False,
    )


def test_a_message_that_the_model_side_refuses_is_told_with_googles_code() -> None:
    visit = live()
    visit.says({"realtimeInput": {"activityStart": {}}})
    visit.loses(refused("activity"))
    (close,) = visit.of(CloseClient)
    assert visit.dialect.goodbye(close.error).code == 1007


def test_a_quota_that_is_used_up_closes_with_a_code_that_clients_do_not_come_back_on_at_once() -> None:
    visit = Visit()
    visit.loses(of_status(429, 30))
    (close,) = visit.of(CloseClient)
    assert visit.dialect.goodbye(close.error).code == 1008


def test_sound_may_be_refused_once_for_no_reason() -> None:
    visit = live()
    visit.loses(refused("audio"), 4.0)
    assert visit.of(CloseClient) == []
    visit.opened(now=5.0)
    visit.loses(refused("audio"), 6.0)
    (close,) = visit.of(CloseClient)
    assert visit.dialect.goodbye(close.error).code == 1007


# Handles


def test_a_guest_that_wants_handles_gets_ours_in_the_place_of_theirs() -> None:
    visit = live({**WANTED, "sessionResumption": {}}, handle="ours")
    visit.hears(HANDLE)
    assert visit.seen() == [{"sessionResumptionUpdate": {"newHandle": "ours", "resumable": True}}]
    visit.hears({"sessionResumptionUpdate": {"resumable": False}})
    assert visit.seen() == [], "ours stays good"


def test_a_handle_follows_every_turn_where_the_model_side_sends_none() -> None:
    visit = live({**WANTED, "sessionResumption": {}}, handle="ours")
    for _ in range(2):
        visit.says(typed("Hello"))
        visit.hears({"serverContent": SOUND})
        visit.hears(END)
        assert visit.seen() == [
            {"serverContent": SOUND},
            END,
            {"sessionResumptionUpdate": {"newHandle": "ours", "resumable": True}},
        ]


def test_a_guest_without_a_handle_is_gone_when_it_closes_and_one_with_it_is_waited_for() -> None:
    visit = live()
    assert End() in visit.talk.client_left(False, LATER)
    visit = live({**WANTED, "sessionResumption": {}}, handle="ours")
    commands = visit.talk.client_left(True, LATER)
    assert End() not in commands
    assert any(type(one) is WakeAfter and one.timer is Timer.GRACE for one in commands)


def test_a_guest_that_comes_back_finds_its_connection_as_it_was() -> None:
    setup = {**WANTED, "sessionResumption": {}}
    visit = live(setup, handle="ours")
    visit.talk.client_left(True, 2.0)
    visit.talk.client_came(3.0)
    visit.come({**WANTED, "sessionResumption": {"handle": "ours"}}, handle="ours", now=3.0)
    assert visit.seen()[0] == {"setupComplete": {"sessionId": "our-session"}}
    assert len(visit.of(OpenModel)) == 1


def test_a_call_of_its_own_that_came_while_it_was_away_is_shown_when_it_is_back() -> None:
    visit = live({**WANTED, "sessionResumption": {}}, handle="ours")
    visit.talk.client_left(True, 2.0)
    visit.hears(calls(("1", "open_door"), ("2", OURS)))
    visit.shown()
    visit.talk.client_came(3.0)
    visit.come({**WANTED, "sessionResumption": {"handle": "ours"}}, handle="ours", now=3.0)
    first, second = visit.seen()
    assert "setupComplete" in first
    assert second == {"toolCall": {"functionCalls": [{"name": "open_door", "args": {"at": 1}, "id": "1"}]}}
    visit.finishes("2")
    visit.says(answers("1"))
    (answer,) = visit.sent()
    assert [one["id"] for one in json.loads(answer)["toolResponse"]["functionResponses"]] == ["1", "2"]


def test_a_guest_that_comes_back_with_another_setup_gets_another_connection_with_the_same_memory() -> None:
    visit = live({**WANTED, "sessionResumption": {}}, handle="ours")
    visit.hears(HANDLE)
    visit.shown()
    visit.talk.client_left(True, 2.0)
    visit.talk.client_came(3.0)
    again = {"model": WANTED["model"], "systemInstruction": {"parts": [{"text": "Be brief."}]}}
    visit.come({**again, "sessionResumption": {"handle": "ours"}}, handle="ours", now=3.0)
    assert visit.seen() == []
    assert visit.setup["systemInstruction"] == again["systemInstruction"]
    assert visit.setup["sessionResumption"] == {"handle": "theirs"}
    visit.opened(now=4.0)
    assert "setupComplete" in visit.seen()[0]


# Others


def test_the_end_of_a_token_ends_the_visit() -> None:
    visit = Visit()
    visit.come(lasts_s=60.0)
    assert visit.talk.woke(Timer.EXPIRY, 59.0) == ()
    (close,) = visit.talk.woke(Timer.EXPIRY, 60.0)
    assert isinstance(close, CloseClient)
    assert isinstance(close.error, Unauthenticated)


def test_a_model_that_does_not_answer_in_the_end_closes_with_a_code_to_come_back_on() -> None:
    visit = live()
    visit.says(typed("Hello"), 1.0)
    now = 1.0
    for _ in range(12):
        now += 60.0
        visit._did(visit.talk.woke(Timer.WATCH, now))
        if visit.talk.phase is Phase.SWITCHING:
            visit.opened(now=now)
        if visit.of(CloseClient):
            break
    (close,) = visit.of(CloseClient)
    assert isinstance(close.error, Unavailable)
    assert visit.dialect.goodbye(close.error).code == 1011


def test_an_answer_is_told_on_the_next_connection_after_a_turn_that_was_cut_and_one_that_was_not() -> None:
    visit = live({"model": "models/gemini-3.8-live"})
    visit.hears({"serverContent": {"outputTranscription": {"text": "Well"}}}, 2.0)
    visit.hears({"serverContent": {"interrupted": True}}, 2.1)
    visit.hears(calls(("1", "open_door")), 2.2)
    visit.loses(now=3.0)
    visit.opened(now=4.0)
    visit.sent()
    visit.says(answers("1"), 5.0)
    (told,) = visit.sent()
    assert b"open_door" in told


def test_a_mark_of_a_guest_that_marks_nothing_opens_no_activity_on_the_next_connection() -> None:
    visit = Visit(handle="ours").opened()
    visit.loses(now=1.0)
    end = visit.says({"realtimeInput": {"activityEnd": {}}}, 1.1)
    visit._did(visit.talk.client_left(False, 1.2))
    visit._did(visit.talk.dial_failed(UNREACHABLE, 1.3))
    visit._did(visit.talk.client_came(1.4))
    visit.come(handle="ours", now=1.4)
    visit.commands.clear()
    visit.opened(now=2.0)
    up = [command.payload for command in visit.commands if isinstance(command, SendToModel)]
    assert end in up
    assert gemini.ACTIVITY_START not in up
