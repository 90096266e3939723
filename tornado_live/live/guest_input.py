"""What a guest says, on its way up: passed on as it is, and followed, so that it outlives its connection. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tornado_live.live.calls import Calls
from tornado_live.live.commands import Command, Gesture, Passed, SendToModel, Upward
from tornado_live.live.dialogue import Dialogue
from tornado_live.live.hosting import Hosting
from tornado_live.live.input import Door, Input
from tornado_live.live.owing import Owing
from tornado_live.live.turns import Speaking
from tornado_live.wire import gemini
from tornado_live.wire.gemini_client import Answer, Content, Realtime
from tornado_live.wire.models import LiveModel


@dataclass(frozen=True, slots=True)
class Moment:
    """The state in which a message meets the conversation. `live`: there is a model side."""

    door: Door
    facts: LiveModel
    live: bool
    may_stay_silent: bool
    now: float


class GuestInput:
    """Beside Input, whose rules for what is held are a guest's too; the model side judges all else."""

    def __init__(self, input: Input, dialogue: Dialogue, calls: Calls, owing: Owing) -> None:
        self._input = input
        self._dialogue = dialogue
        self._calls = calls
        self._owing = owing

    def passed(self, message: Passed, hosting: Hosting, at: Moment) -> list[Command]:
        """Any message but a setup and a contextUpdate."""
        said = message.said
        if said.content is not None:
            return self._content(message.payload, said.content, hosting, at)
        if said.realtime is not None:
            return self._realtime(message.payload, said.realtime, at)
        if said.answers is not None:
            return self._answers(message.payload, said.answers, at)
        return list(self._input.send_up(message.payload, Upward.OTHER, at.door))

    def _content(self, payload: bytes, content: Content, hosting: Hosting, at: Moment) -> list[Command]:
        """The user's turns at the end ask something, once complete; those before them were said before."""
        commands = list(self._input.send_up(payload, Upward.TEXT, at.door))
        before, asked = list(content.turns), list[str]()
        if hosting.history_due:
            hosting.history_due = not content.complete
            return [*commands, *self._dialogue.given(before)]
        while before and before[-1][0] == "user":
            asked.insert(0, before.pop()[1])
        commands += self._dialogue.given(before)
        if asked:
            self._dialogue.typed("\n".join(asked), at.now)
        if not content.complete:
            return commands
        commands += self._asked(at)
        if self._dialogue.turns.speaking is not Speaking.USER and not self._dialogue.turns.queued:
            self._owing.prompted()
        return commands

    def _realtime(self, payload: bytes, said: Realtime, at: Moment) -> list[Command]:
        words = (said.text or "").strip()
        kind = Upward.VIDEO if said.picture else Upward.AUDIO if said.sound_s else Upward.ACTIVITY
        mark = None
        if said.activity_start or said.activity_end:
            mark = Gesture.ACTIVITY_START if said.activity_start else Gesture.ACTIVITY_END
            self._input.marked(mark)
        if not self._input.manual:
            mark = (
                None  # where the model side listens for itself it is one to refuse, and opens or ends nothing
            )
        commands = list(self._input.send_up(payload, Upward.TEXT if words else kind, at.door, mark=mark))
        if words:
            self._dialogue.typed(words, at.now)
            commands += self._asked(at)
        if said.activity_end:
            self._dialogue.asked(at.now)
            if at.live and not at.may_stay_silent:
                commands += self._owing.expect("activity", at.facts, at.now)
        return commands

    def _asked(self, at: Moment) -> list[Command]:
        if not at.live:
            return []
        self._owing.settled()
        return self._owing.expect("text", at.facts, at.now)

    def _answers(self, payload: bytes, answers: Sequence[Answer], at: Moment) -> list[Command]:
        """To calls of its own functions. What nobody waits for any more is dropped; what only the model side can
        know of goes up as it is."""
        open_ones = [
            (answer, self._calls.open_for(answer)) for answer in answers if not self._calls.is_over(answer)
        ]
        sent = [
            (answer, call_id)
            for answer, call_id in open_ones
            if at.live and (call_id is None or self._calls.goes_as_it_came(call_id))
        ]
        commands: list[Command] = []
        if len(sent) == len(answers) and all(answer.id for answer in answers):
            commands.append(SendToModel(payload, Upward.TOOL_RESPONSE))
        elif sent:
            entries = [{**answer.raw, "id": call_id} if call_id else answer.raw for answer, call_id in sent]
            commands.append(SendToModel(gemini.tool_responses(entries), Upward.TOOL_RESPONSE))
        for answer, call_id in open_ones:
            if call_id is None or answer.continues:
                continue
            alone = (answer, call_id) in sent
            turn, line, delivery = self._calls.guest_answered(
                call_id, answer, at.facts, at.now, live=at.live, sent=alone
            )
            commands += [*delivery.commands, *self._dialogue.tool_line(turn, line)]
            if at.live:
                commands += self._owing.deliver(delivery, at.facts, at.now)
        return commands
