"""Whose turn it is: what is said next, and what a barge-in ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Protocol, cast

from .brain import Answer, Brain, Prompt
from .messages import Json
from .turn import Conversation, Turn

_REISSUED_AFTER_S = 0.65

_Respond = Callable[[Turn], Coroutine[None, None, None]]


class MakeTurn(Protocol):
    def __call__(self, conversation: Conversation, at: float, *, silent: bool) -> Turn: ...


class Floor:
    """One turn of the model at a time; prompts and results that come meanwhile wait for it, or end it.

    own: runs a task for the conversation. free: whether the user neither speaks nor has said something that is not
    understood yet. new_state: called when a turn has ended. turn: the one that runs.
    """

    def __init__(
        self,
        conversation: Conversation,
        brain: Brain,
        *,
        own: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        free: Callable[[], bool],
        new_state: Callable[[], None],
        turn: MakeTurn,
    ) -> None:
        self.turn: Turn | None = None
        self._conversation = conversation
        self._profile = conversation.profile
        self._pace = conversation.pace
        self._calls = conversation.calls
        self._brain = brain
        self._own = own
        self._free = free
        self._new_state = new_state
        self._make_turn = turn
        self._waiting: deque[tuple[_Respond, float]] = deque()
        self._results: list[Answer] = []
        self._delivering: list[Answer] = []
        self._settling: asyncio.Task[None] | None = None

    @property
    def audible(self) -> bool:
        return self.turn is not None and self.turn.audible

    @property
    def free_of_speech(self) -> bool:
        """Whether the model says nothing and prepares nothing: at most it waits for a call, its turn ended."""
        return self.turn is None or (bool(self._calls.open) and self.turn.between)

    @property
    def more_to_come(self) -> bool:
        return bool(self._results or self._waiting)

    def begin(self) -> None:
        """What the model says before anybody else; nothing, as a rule."""
        self._start(self._brain.begin, time.monotonic(), silent=True)

    def prompt(self, prompt: Prompt, at: float) -> None:
        """The user has said something; `at` is when it ended."""
        if self._conversation.setup.interruptible:
            self.interrupt()
        self._waiting.append((lambda turn: self._brain.respond(prompt, turn), at))
        self.go_on()

    def deliver(self, spoken: Sequence[Answer], urgent: Sequence[Answer]) -> None:
        """What calls have answered that no turn waits for; what is not urgent waits until nothing is said."""
        self._results += spoken
        if urgent and (self._profile.interrupt_over_user or self._free()):
            self.interrupt()
            self._waiting.appendleft((self._delivery(urgent), time.monotonic()))
        else:
            self._results += urgent
        self.go_on()
        if self.turn is None:
            self._conversation.tell_idle()

    def go_on(self) -> None:
        """Starts what is next: a prompt, then results, unless the user speaks."""
        if self.turn is not None:
            return
        if self._waiting:
            self._conversation.counts["turns"] += 1
            self._start(*self._waiting.popleft())
        elif self._results and self._free():
            self._delivering, self._results = self._results, []
            self._conversation.counts["turns"] += 1
            sooner = self._pace.first_audio(self._profile) - self._pace.seconds(self._profile.after_tool_s)
            self._start(self._delivery(self._delivering), time.monotonic() - sooner, silent=True)

    def interrupt(self) -> bool:
        """Ends the running turn at once: `interrupted`, the calls it waits for, then turnComplete.

        Whether a client could see it.
        """
        turn = self.turn
        if turn is None:
            return False
        waited_for = self._calls.waited_for()
        if waited_for and self._profile.input_during_call == "waits":
            return False
        again = bool(waited_for) and self._profile.input_during_call == "reissues"
        if not again:
            self.turn = None
            turn.task.cancel()
        delivering, self._delivering = self._delivering, []
        if turn.silent:
            self._results[:0] = delivering  # nobody has heard anything of them yet
            return False
        self._conversation.counts["interrupted"] += 1
        visible = not turn.between
        if visible:
            self._conversation.send_content({"interrupted": True})
        if again:
            renewed = [self._calls.ask_again(identifier) for identifier in waited_for]
            self._own(self._ask_again(turn, renewed, visible=visible))
            return visible
        self._cancel(waited_for)
        if visible:
            self._settling = self._own(self._settle(turn, after=self._settling))
        return visible

    def _cancel(self, waited_for: Sequence[str]) -> None:
        cancelled = [*waited_for]
        if self._profile.barge_in_cancels_background_calls:
            cancelled += self._calls.in_background()
        self._calls.settle(cancelled)
        if cancelled and self._profile.input_during_call != "forgets":
            ids = cast("list[Json]", cancelled)
            self._conversation.wire.send({"toolCallCancellation": {"ids": ids}})

    def _delivery(self, answers: Iterable[Answer]) -> _Respond:
        told = list(answers)
        return lambda turn: self._brain.deliver(told, turn)

    def _start(self, respond: _Respond, at: float, *, silent: bool = False) -> None:
        self.turn = turn = self._make_turn(self._conversation, at, silent=silent)
        self._conversation.changed()
        turn.task = self._own(self._run(turn, respond))

    async def _run(self, turn: Turn, respond: _Respond) -> None:
        if self._settling is not None:
            # The end of that turn comes even if this one is cut short too.
            await asyncio.shield(self._settling)
        await respond(turn)
        await turn.complete()
        if self.turn is turn:
            self.turn = None
            self._delivering = []
            self._new_state()
            self.go_on()

    async def _settle(self, turn: Turn, after: asyncio.Task[None] | None = None) -> None:
        if after is not None:
            await asyncio.shield(after)
        if self._profile.late_audio == "after_interrupted":
            turn.late_sound()
        await asyncio.sleep(self._pace.seconds(self._profile.turn_complete_after_interrupted_s))
        self._conversation.send_turn_complete(turn, in_progress=self._conversation.in_progress)
        self._new_state()

    async def _ask_again(self, turn: Turn, identifiers: Sequence[str], *, visible: bool) -> None:
        """The interrupted turn ends, and the model makes the same calls again."""
        if visible:
            turn.between = True
            await self._settle(turn)
        await asyncio.sleep(self._pace.seconds(_REISSUED_AFTER_S))
        still_open = [identifier for identifier in identifiers if identifier in self._calls.open]
        if still_open:
            turn.between = False
            await self._conversation.send_calls(still_open)
