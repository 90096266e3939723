"""The comparison itself: two conversations with the service differ in nothing, and what differs is found."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dropin.compare import Played, changed, differences, leaks, play
from dropin.scripts import FAMILIES, OURS, SCENARIO, SHELF, all_scripts, cut_scripts, hidden_scripts
from dropin.wire import Frame
from tornado_live.simulator import testing
from tornado_live.simulator.testing import Simulator

HANDLE = "95e91930-b35b-482b-8880-17efc49ec2f2"
READY = {"setupComplete": {}}
WORD = {"serverContent": {"outputTranscription": {"text": "Yes."}}}
END = {"serverContent": {"turnComplete": True}, "usageMetadata": {"totalTokenCount": 7}}
UPDATE = {"sessionResumptionUpdate": {"newHandle": HANDLE, "resumable": True}}
SETUP = {"setup": {"model": "models/gemini-3.8-live", "output_audio_transcription": {}}}
ASKED = {"realtimeInput": {"text": "Well?"}}


@pytest.fixture(scope="module")
def scenario() -> object:
    return SCENARIO


async def test_two_conversations_with_the_service_differ_in_nothing(service: Simulator) -> None:
    kind = FAMILIES["3.8"]
    for scripts, cut in (
        (all_scripts(kind), False),
        (cut_scripts(kind), True),
        (hidden_scripts(kind), False),
    ):
        for name, script in scripts.items():
            first, second = [await play(script, service.url, service, answering=SHELF) for _ in range(2)]
            assert differences(first, second, hidden=OURS, cut=cut) == [], name
            # Its own answers to functions of the operator are no part of the script.
            assert scripts.keys() == hidden_scripts(kind).keys() or changed(first) == [], name


def played(received: list[Any], upstream: list[Any] | None = None, sent: list[Any] | None = None) -> Played:
    """A conversation of which both ends have the same, unless told otherwise."""
    asked = [frame(SETUP).decode(), frame(ASKED).decode()] if sent is None else sent
    lines = [testing.Frame("client", each) for each in (frame(SETUP), frame(ASKED))]
    lines += [
        testing.Frame("simulator", frame(each)) for each in (received if upstream is None else upstream)
    ]
    line = testing.Frames("/", {}, tuple(lines), is_open=True, close=None)
    return Played(tuple(asked), tuple(map(frame, received)), (line,))


def frame(message: Any) -> Any:
    return message if isinstance(message, bytes | str) else (json.dumps(message, indent=2) + "\n").encode()


def test_handles_goodbyes_and_figures_of_usage_are_no_difference() -> None:
    other = {**END, "usageMetadata": {"totalTokenCount": 9}}
    seen = [{"setupComplete": {"sessionId": "s"}}, WORD, {"goAway": {"timeLeft": "50s"}}, other]
    assert differences(played([READY, UPDATE, WORD, END, UPDATE]), played(seen)) == []


@pytest.mark.parametrize(
    "seen",
    [
        [READY, END],
        [READY, WORD, WORD, END],
        [READY, END, WORD],
        [READY, frame(WORD).decode(), END],
        [READY, {"serverContent": {"outputTranscription": {"text": "Yes!"}}}, END],
        [READY, WORD, {"toolCall": {"functionCalls": [{"name": "shelf", "id": "1"}]}}, END],
        [READY, WORD, {**END, "usageMetadata": {}}],
    ],
    ids=["lost", "doubled", "swapped", "another kind of frame", "changed", "a call", "without usage"],
)
def test_anything_else_is(seen: list[Any]) -> None:
    assert differences(played([READY, WORD, END]), played(seen)) != []


@pytest.mark.parametrize(
    ("received", "upstream"),
    [
        ([READY, json.dumps(WORD).encode(), END], [READY, WORD, END]),
        ([READY, END], [READY, WORD, END]),
        ([READY, WORD, {"notice": {}}, END], [READY, WORD, END]),
        ([READY, frame(WORD).decode(), END], [READY, WORD, END]),
    ],
    ids=["other spaces", "lost", "made up", "another kind of frame"],
)
def test_a_frame_that_is_not_the_same_bytes_is_found(received: list[Any], upstream: list[Any]) -> None:
    assert changed(played(upstream)) == []
    assert changed(played(received, upstream)) != []


def test_a_hidden_call_and_the_early_end_of_its_turn_may_be_missing_and_no_other() -> None:
    call = {"toolCall": {"functionCalls": [{"name": "shelf", "id": "1"}]}}
    upstream = [READY, call, END, WORD, END]
    left = {"usageMetadata": END["usageMetadata"]}
    assert changed(played([READY, left, WORD, END], upstream), hidden=OURS) == []
    assert changed(played([READY, END, WORD, END], upstream), hidden=OURS) != []
    assert changed(played([READY, WORD, END], upstream)) != []


@pytest.mark.parametrize("sent", [[], [b'{"realtimeInput": {"text":"Well?"}}'], [frame(ASKED), frame(ASKED)]])
def test_a_message_of_the_client_that_did_not_arrive_as_it_was_is_found(sent: list[Frame]) -> None:
    assert changed(played([READY], sent=[frame(SETUP), *sent])) != []


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_a_handle_or_a_key_is_found_wherever_it_is(before: str) -> None:
    hidden = base64.urlsafe_b64encode(f"{before}{HANDLE}.more".encode()).decode()
    for told in (HANDLE, hidden):
        seen = played([READY, {"x": told}], [READY, UPDATE])
        assert leaks(seen, "no key") != []
    assert leaks(played([READY, {"x": "7"}], [READY, UPDATE]), "no key") == []
    assert leaks(played([READY, {"x": hidden}]), HANDLE) != []
