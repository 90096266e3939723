"""Which turn of the model side is which turn of ours, where a call stands between."""

from __future__ import annotations

import pytest
from modelling import MODELS

from tornado_live.live.dialogue import Dialogue, zeros
from tornado_live.settings import Limits
from tornado_live.wire import gemini

GENERATED = b'{"serverContent": {"generationComplete": true}}'
ENDS = b'{"serverContent": {"turnComplete": true}}'
SAYS = b'{"serverContent": {"outputTranscription": {"text": "21 degrees."}}}'
HEARS = b'{"serverContent": {"inputTranscription": {"text": "How warm is it?"}}}'
CALLS, ANSWERED = b"calls", b"answered"

ORDERS = {
    "the call ends no turn": [HEARS, CALLS, ANSWERED, SAYS, GENERATED, ENDS],
    "the call ends its turn": [HEARS, CALLS, ENDS, ANSWERED, SAYS, GENERATED, ENDS],
    "as on Vertex AI": [HEARS, CALLS, GENERATED, ENDS, ANSWERED, SAYS, GENERATED, ENDS],
    "the answer is quicker than that end": [HEARS, CALLS, ANSWERED, GENERATED, ENDS, SAYS, GENERATED, ENDS],
    "two calls after each other": [HEARS, CALLS, ENDS, ANSWERED, CALLS, ENDS, ANSWERED, SAYS, ENDS],
    "two calls that end no turn": [HEARS, CALLS, ANSWERED, CALLS, ANSWERED, SAYS, ENDS],
    "words before the call": [HEARS, SAYS, CALLS, ENDS, ANSWERED, SAYS, ENDS],
}
MODELS_2 = ["gemini-2.5-flash-native-audio-preview-12-2025", "gemini-live-2.5-flash-preview"]


@pytest.mark.parametrize("model", MODELS_2)
@pytest.mark.parametrize("order", ORDERS)
def test_a_question_with_a_call_is_one_turn_whether_the_call_ends_the_model_sides_or_not(
    model: str, order: str
) -> None:
    dialogue, facts = Dialogue(Limits(), [], 0), MODELS.of(model)
    waiting, ended = False, []
    for twice in (1, 2):
        for now, step in enumerate(ORDERS[order], start=twice * 100):
            if step == CALLS:
                waiting = True
                assert dialogue.call_begins(waits=True) == twice
                continue
            if step == ANSWERED:
                waiting = False
                continue
            message = gemini.decode(step)
            assert message.server_content is not None
            _, happened = dialogue.content(message, message.server_content, facts, waiting=waiting, now=now)
            if happened.completed is not None:
                ended.append((happened.completed, now))
    length = len(ORDERS[order])
    assert ended == [(1, 99 + length), (2, 199 + length)]


def test_a_few_zeros_are_silence_only_behind_a_longer_one() -> None:
    few = [gemini.Part(inline_data=gemini.InlineData("audio/pcm;rate=24000", "AAAA"))]
    assert zeros(few) == 0
    assert 0 < zeros(few, few=True) < 0.001
