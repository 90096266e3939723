"""Who speaks, and which turn it is. Pure.

A turn opens with the user's words, or with the model's when it speaks first, and ends with the model side's
turnComplete. What a user says carries the turn that it opens.
"""

from __future__ import annotations

from enum import StrEnum

TAIL_SECONDS = 5.0
"""For so long after a barge-in may audio of the interrupted turn still arrive. Google ends an interrupted turn
with turnComplete at once (5 ms on gemini-3.8-live); the limit keeps a conversation from staying mute where that
message never comes."""

_NOTHING_HEARD = 0
"""In the place of a turn that was cut: the answer that was dropped had not begun, so its question stays open."""


class Speaking(StrEnum):
    NOBODY = "nobody"
    USER = "user"
    MODEL = "model"


class Turns:
    """`number` is the latest turn, counted from 1 in a session; 0 before the first."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.speaking = Speaking.NOBODY
        self._queued = False
        self._asked_again = False
        self.cut_by_us = False
        """Whether the turn that is being cut was cut by a text of ours, before anything of it was heard."""
        self._cut: int | None = None
        self._cut_at = 0.0
        self._ended = number

    def user_spoke(self) -> int:
        """The turn of words that were heard. Late words during the answer belong to the turn they opened."""
        if self.speaking is Speaking.NOBODY:
            self._open(Speaking.USER)
        return self.number

    def user_typed(self) -> int:
        """The turn of a typed message: always one that the model has not yet answered."""
        if self.speaking is Speaking.MODEL:
            self._queued = True
            return self.number + 1
        return self.user_spoke()

    def model_spoke(self) -> bool:
        """Whether this is the model's first content of the turn."""
        if self.speaking is Speaking.MODEL:
            return False
        if self.speaking is Speaking.NOBODY:
            self._open(Speaking.MODEL)
        self.speaking = Speaking.MODEL
        return True

    def interrupted(self, now: float) -> int | None:
        """The turn whose sound is to be dropped, or None when no turn has begun or the cut is known already."""
        if self._cut is not None or not self.number:
            return None
        if self._asked_again:
            self._asked_again, self.cut_by_us = False, True
            self._cut, self._cut_at = _NOTHING_HEARD, now
            return None
        if self.speaking is Speaking.NOBODY:
            return self.number  # its turnComplete has come already; there is no tail to mute
        if self.speaking is Speaking.USER:
            self._cut, self._cut_at = _NOTHING_HEARD, now
            return self.number - 1 or None  # a listener may still be hearing the turn before
        self._cut, self._cut_at = self.number, now
        self._close()
        return self._cut

    def completed(self) -> int | None:
        """The turn that turnComplete ends, or None when it ends nothing that is open."""
        if self._cut is not None:
            cut, self._cut, self.cut_by_us = self._cut, None, False
            return self._end(cut)
        if self.speaking is Speaking.NOBODY:
            return None
        done = self.number
        self._close()
        return self._end(done)

    def asked_again(self) -> None:
        """A text of ours asks once more for an answer. What cuts short what had not begun is no barge-in."""
        self._asked_again = True

    def answered(self) -> None:
        """The model says something: a text of ours has cut nothing short."""
        self._asked_again = False

    def muted(self, now: float) -> bool:
        """Whether model content that arrives now belongs to an interrupted turn."""
        if self._cut is None:
            return False
        if now - self._cut_at < TAIL_SECONDS:
            return True
        self._cut, self.cut_by_us = None, False
        return False

    @property
    def cut(self) -> bool:
        """Whether the next turnComplete ends what was interrupted before."""
        return self._cut is not None

    @property
    def stays_open(self) -> bool:
        """Whether the next turnComplete ends no turn of ours: what was cut short had not been heard."""
        return self._cut == _NOTHING_HEARD

    @property
    def queued(self) -> bool:
        """Whether a typed message waits for the turn after this one."""
        return self._queued

    @property
    def quiet(self) -> bool:
        """Whether no turn is open and none is being cut short."""
        return self.speaking is Speaking.NOBODY and self._cut is None

    def lost(self) -> None:
        """The model side is gone: open turns stay unfinished, and their numbers are used."""
        if self._queued:
            self.number += 1
        self.speaking, self._queued, self._cut = Speaking.NOBODY, False, None
        self._asked_again = self.cut_by_us = False

    def broken_off(self) -> list[int]:
        """The model side is gone, and another follows: the turns that end with it.

        A question that the model has not begun to answer stays open, since it will be asked again.
        """
        cut, self._cut, self._asked_again, self.cut_by_us = self._cut, None, False, False
        ended = [cut] if cut else []
        if self.speaking is Speaking.MODEL:
            ended.append(self.number)
            self._close()
        return [turn for turn in ended if self._end(turn) is not None]

    def _open(self, speaking: Speaking) -> None:
        self.number += 1
        self.speaking = speaking

    def _close(self) -> None:
        self.speaking = Speaking.NOBODY
        if self._queued:
            self._queued = False
            self._open(Speaking.USER)

    def _end(self, turn: int) -> int | None:
        if turn <= self._ended:
            return None
        self._ended = turn
        return turn
