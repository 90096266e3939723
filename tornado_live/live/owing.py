"""What the model side still owes the user, and how it is asked for it. Pure."""

from __future__ import annotations

from tornado_live.live import recall
from tornado_live.live.calls import Calls, Delivery
from tornado_live.live.commands import Command, SendToModel, Upward
from tornado_live.live.dialogue import Dialogue
from tornado_live.live.recall import NOTHING_OWED, Owed
from tornado_live.live.turns import Speaking
from tornado_live.live.watchdog import Watchdog
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel

PLEASE_ANSWER = "(There was no answer; please answer now.)"


class Owing:
    """An answer that a connection took with it, and results that have to be told in words."""

    def __init__(self, dialogue: Dialogue, calls: Calls, watchdog: Watchdog) -> None:
        self._dialogue = dialogue
        self._calls = calls
        self._watchdog = watchdog
        self._owed = NOTHING_OWED
        self._asked = False
        """Whether this connection was asked for what is owed."""
        self._into_answer = False
        """Whether a text was sent while the model spoke, so that its answer is still to begin."""
        self._notes: list[str] = []
        self._prompted = False

    def expect(self, after: str, facts: LiveModel, now: float) -> list[Command]:
        """The model must say something to what it was just sent."""
        if after == "text" and self._dialogue.turns.speaking is Speaking.MODEL:
            self._into_answer = True
        self._watchdog.asked(after, facts.silent_s, now)
        return self._watchdog.watch(now)

    def settled(self) -> None:
        """It was answered, or nobody wants to know any more."""
        self._owed, self._prompted = NOTHING_OWED, False

    def prompted(self) -> None:
        """An answer is wanted to what has no words of its own: a picture, or a mere turnComplete."""
        self._prompted = True

    @property
    def asked_without_words(self) -> bool:
        return self._prompted

    def interrupted(self, facts: LiveModel, now: float) -> list[Command]:
        """Nobody wants to hear more of this answer; where a text has cut it, that is now to be answered."""
        self._watchdog.stop()
        if not self._into_answer:
            self.settled()
            return []
        self._into_answer = False
        return self.expect("text", facts, now)

    def turn_over(self, facts: LiveModel, now: float) -> list[Command]:
        """An answer has ended; what was typed into it is now to be answered."""
        self._into_answer = False
        typed = self._dialogue.turns.speaking is Speaking.USER
        return self.expect("text", facts, now) if typed else []

    def unanswered(self, owed: Owed) -> None:
        """The turn has ended without a word, and what it should have answered is to be asked again."""
        self._owed = Owed(owed.question or self._owed.question, owed.heard or self._owed.heard)

    def forget(self) -> None:
        """The model side is gone for good."""
        self.settled()
        self._into_answer = False
        self._notes.clear()
        self._watchdog.stop()

    @property
    def unsettled(self) -> bool:
        """Whether an answer that was begun, or a call's, is still to come."""
        return self._owed != NOTHING_OWED or bool(self._notes) or self._calls.unsettled

    # --- connections

    def connection_lost(self) -> None:
        self._owed = self._still_owed()
        self._asked = self._into_answer = False
        self._calls.asked_again()
        self._watchdog.stop()

    def connection_opened(self, facts: LiveModel, now: float, *, resumed: bool) -> list[Command]:
        """`resumed`: with the newest handle."""
        self._watchdog.guard(facts.converses)
        if not facts.converses:
            self.settled()
        commands: list[Command] = []
        for delivery in self._calls.reconnected(facts, resumed=resumed):
            commands += delivery.commands
            if delivery.note:
                self._notes.append(delivery.note)
        return commands + self._ask_again(facts, now)

    def _still_owed(self) -> Owed:
        """A question that was asked again is no turn of its own: it is kept until it is answered."""
        owed = self._dialogue.owed()
        if not self._dialogue.generated:
            owed = Owed(owed.question or self._owed.question, owed.heard or self._owed.heard)
        return Owed(PLEASE_ANSWER) if owed == NOTHING_OWED and self._prompted else owed

    # --- results

    def deliver(self, delivery: Delivery, facts: LiveModel, now: float) -> list[Command]:
        """What follows a result, beyond the commands of the delivery itself."""
        if delivery.reply and not self._calls.holding(self._dialogue.turns.number):
            return self.expect("tool_answer", facts, now)
        if not delivery.note:
            return self._ask_again(facts, now)
        if delivery.when == "silent":
            context = gemini.context(facts, [("user", delivery.note)])
            if context is not None:
                return [SendToModel(context, Upward.TEXT)]
        self._notes.append(delivery.note)
        if delivery.when == "interrupt" or (self._owed != NOTHING_OWED and not self._asked):
            return self._ask_again(facts, now)
        return self.tell_notes(facts, now)

    def tell_notes(self, facts: LiveModel, now: float, *, doubts: bool = False) -> list[Command]:
        """Results that had to wait until nobody speaks. `doubts`: and what may have been done."""
        if not self._dialogue.turns.quiet:
            return []
        if doubts:
            self._notes += self._calls.doubts()
        if not self._notes:
            return []
        return self._ask_again(facts, now)

    # --- asking

    def remind(self, facts: LiveModel, now: float) -> list[Command]:
        """The model does not answer: it is asked again, in general words where the question is not known."""
        self._owed, self._asked = self._still_owed(), False
        asked = self._ask_again(facts, now)
        if asked:
            return asked
        self._dialogue.asks_again()
        please = SendToModel(gemini.typed(facts, PLEASE_ANSWER), Upward.TEXT)
        return [please, *self.expect("text", facts, now)]

    def _ask_again(self, facts: LiveModel, now: float) -> list[Command]:
        """Tells the notes and asks what is owed, once no call is waited for any more."""
        if self._calls.outstanding:
            return []
        text = recall.ask_again(NOTHING_OWED if self._asked else self._owed, self._notes)
        if not text:
            return []
        self._asked = True
        self._notes.clear()
        self._calls.asked_again()
        if self._owed != NOTHING_OWED:
            self._dialogue.asks_again()
        return [SendToModel(gemini.typed(facts, text), Upward.TEXT), *self.expect("text", facts, now)]
