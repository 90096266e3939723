"""Notices a model side that is connected and does nothing, and says what to try next. Pure.

A model may be silent by right: nobody asked, or it thinks that nobody spoke to it. So only what must be answered
is watched: typed text, the end of push-to-talk, speech that a model without proactive audio has written down, an
answered call; and an answer that has begun. Nothing is watched while nobody is there to hear it.
"""

from __future__ import annotations

from enum import StrEnum

from tornado_live.live.commands import Command, Timer, WakeAfter

STALLED_S = 10.0
"""An answer that has begun and neither goes on nor ends. Models send faster than they speak, so a pause of so long
is none that a listener would take for one."""

ENDLESS_S = 10.0
"""After all of an answer was heard: its turnComplete, which Google sends about then, will not come."""

ZEROS_S = 3.0
"""So much digital silence in one answer: no voice pauses in exact zeros for so long
(google-gemini/gemini-live-api-examples#40)."""

_LEAST_WAIT_S = 0.05


class Step(StrEnum):
    """What is tried, one after the other, until the model answers."""

    NUDGE = "nudge"
    RESUME = "resume"
    RESEED = "reseed"
    GIVE_UP = "give_up"
    END_TURN = "end_turn"  # no help is needed: all was said, only the end of the turn does not come


_LADDER = (Step.NUDGE, Step.RESUME, Step.RESEED, Step.GIVE_UP)


class _State(StrEnum):
    IDLE = "idle"
    ASKED = "asked"
    ANSWERING = "answering"
    SPOKEN = "spoken"  # all of the answer was sent; its turnComplete comes when a listener has heard it


class Watchdog:
    def __init__(self) -> None:
        self._state = _State.IDLE
        self._after = ""
        self._since = 0.0
        self._allowed = 0.0
        self._step = 0
        self._zeros = 0.0
        self._wanted = True
        self._asleep = self._timer = False

    @property
    def after(self) -> str:
        """What was not answered: text, activity, speech, tool_answer; or answer, silence, empty_turn."""
        return self._after

    def asked(self, after: str, allowed_s: float, now: float) -> None:
        """The model side must now say something within `allowed_s`."""
        self._state, self._after, self._since, self._allowed = _State.ASKED, after, now, allowed_s

    def sounded(self, zeros_s: float, now: float) -> None:
        """Content came; `zeros_s` of it is digital silence (0: none, so all is well again)."""
        self._since = now
        if zeros_s:
            self._zeros += zeros_s
            if self._state is _State.ASKED:
                self._state, self._allowed = _State.ANSWERING, STALLED_S
            return
        self._zeros, self._step = 0.0, 0
        if self._state is not _State.SPOKEN:
            self._state, self._allowed = _State.ANSWERING, STALLED_S

    def calling(self) -> None:
        """The model waits for a call; its own deadline is the tool's."""
        self._state = _State.IDLE

    def generated(self, heard_at: float, now: float) -> None:
        """All of the answer has come; a listener has heard it at `heard_at`, and then it is to be over."""
        self._state, self._since = _State.SPOKEN, now
        self._allowed = max(0.0, heard_at - now) + ENDLESS_S

    def over(self, *, empty: bool) -> Step | None:
        """The turn was completed. An `empty` one that was asked for is no answer."""
        asked, self._state, self._zeros = self._state is _State.ASKED, _State.IDLE, 0.0
        if empty and asked and self._on:
            self._after = "empty_turn"
            return self._next()
        return None

    def stop(self) -> None:
        """Nobody waits for an answer any more: the user spoke again, or the connection is gone."""
        self._state, self._zeros = _State.IDLE, 0.0

    def guard(self, wanted: bool) -> None:
        """A connection is open; whether its model owes answers at all."""
        self._wanted = wanted

    def sleep(self) -> None:
        """Nobody is there; what is owed meanwhile is watched when somebody is."""
        self._asleep = True

    def wake(self, now: float) -> list[Command]:
        self._asleep, self._zeros, self._since = False, 0.0, max(self._since, now)
        return self.watch(now)

    @property
    def attentive(self) -> bool:
        """Whether sound needs no timer that does not run yet."""
        return self._timer or not self._on

    def mute(self, now: float) -> Step | None:
        """Asked with each digital silence: it has lasted too long."""
        if self._zeros < ZEROS_S or not self._on:
            return None
        self._after, self._state, self._zeros = "silence", _State.IDLE, 0.0
        return self._next()

    def watch(self, now: float) -> list[Command]:
        """The timer that calls `woke`: one at most, which is set again where it wakes too early."""
        if self._timer or not self._waiting:
            return []
        self._timer = True
        return [WakeAfter(Timer.WATCH, max(_LEAST_WAIT_S, self._since + self._allowed - now))]

    def put_off(self, now: float) -> list[Command]:
        """Instead of `woke`, while the user speaks: the time begins anew."""
        self._timer, self._since = False, now
        return self.watch(now)

    def woke(self, now: float) -> Step | None:
        self._timer = False
        if not self._waiting or now < self._since + self._allowed - 0.001:
            return None
        state, self._state = self._state, _State.IDLE
        if state is _State.SPOKEN:
            self._after = "turn_complete"
            return Step.END_TURN
        if state is _State.ANSWERING:
            self._after = "answer"
        return self._next()

    @property
    def _on(self) -> bool:
        return self._wanted and not self._asleep

    @property
    def _waiting(self) -> bool:
        return self._on and self._state is not _State.IDLE

    def _next(self) -> Step:
        step = _LADDER[self._step]
        self._step = (self._step + 1) % len(_LADDER)
        return step
