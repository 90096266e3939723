"""What a client says, on its way up: sent, held while the model side is being opened, or refused. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tornado_live.errors import BadMessage, Limited, LiveError
from tornado_live.live.commands import (
    FORWARD,
    CloseClient,
    Command,
    Failure,
    Frame,
    Gesture,
    Record,
    SendToClient,
    SendToModel,
    Speech,
    Upward,
    Warned,
)
from tornado_live.wire import gemini

HELD_SECONDS = 5.0
"""Microphone audio kept while the model side is being opened; older audio is dropped and counted."""

LEAST_HELD_SECONDS = 0.005
"""What a held message of speech counts at least, so that crumbs of audio cannot pile up."""

LONGEST_UTTERANCE_S = 15.0
"""Of what is said with push-to-talk, kept until the model side reacts."""

HELD_BYTES = 512 * 1024
GUEST_HELD_BYTES = 8 * 1024 * 1024
"""Of what has no duration (typed text, gestures, frames) kept for the same time. A guest's messages may be larger,
and it knows of nothing that it could wait for."""

FRAME_SHARE = 0.95
"""Of the time between two video frames: room for a camera's own unevenness."""

BAD_MESSAGES_A_MINUTE = 20


class Door(StrEnum):
    """Whether the model side can be spoken to."""

    SHUT = "shut"
    HELD = "held"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class _Held:
    """`seconds` is 0 but for speech; `mark` says what it does to the activity, None for nothing."""

    payload: bytes
    kind: Upward
    seconds: float = 0.0
    mark: Gesture | None = None


class Input:
    """One client's side of a conversation; it lives as long as the conversation."""

    def __init__(self, frames_per_s: float = 1.0) -> None:
        self._frame_s = FRAME_SHARE / frames_per_s
        often = "one frame" if frames_per_s == 1 else f"{frames_per_s:g} frames"
        self._frames_told = f"video: at most {often} a second."
        self.manual = False
        self.activity_open = False
        self._guest = False
        """Whether the model side judges what is said, and nothing but a close tells the client of a failure."""
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._dropped: list[float] = []
        self._told_unheard = False
        self._framed_at: float | None = None
        self._told_frames = False
        self._bad: deque[float] = deque()
        self._utterance: deque[Speech] = deque()
        self._utterance_s = 0.0

    # --- episodes

    def begin(self, *, manual: bool, guest: bool = False) -> None:
        """A conversation is opened; `manual`: the client marks its activity itself."""
        self.manual, self._guest = manual, guest
        self._told_unheard = self.activity_open = False
        self.understood()

    def client_came(self) -> None:
        self._told_unheard = False

    def end_activity(self, door: Door) -> Sequence[Command]:
        """A line that is cut, or taken over, ends what its client was saying."""
        if not self.activity_open:
            return ()
        self.activity_open = False
        return self.send_up(gemini.ACTIVITY_END, Upward.ACTIVITY, door)

    def client_gone(self, door: Door) -> list[Command]:
        """Nobody speaks until a client is back."""
        commands = list(self.end_activity(door))
        if door is Door.OPEN and not self.manual:
            commands.append(SendToModel(gemini.AUDIO_STREAM_END, Upward.ACTIVITY))
        return commands

    def release(self, why: str = "The connection took long") -> list[Command]:
        """The model side is open: what was held, in its order, and how much of it was lost.

        An activity that was begun on a connection that is gone is begun again, before what was held.
        """
        commands: list[Command] = [SendToModel(held.payload, held.kind) for held in self._held]
        self._held.clear()
        self._held_bytes = 0
        return commands + self._tell_dropped(f"{why}; the oldest seconds of speech were not heard.")

    def understood(self) -> None:
        """The model side reacts to what was said with push-to-talk: it need not be said again."""
        self._utterance.clear()
        self._utterance_s = 0.0

    def switched(self, *, lost: bool) -> list[Command]:
        """A new connection follows, which does not know of an activity that is open.

        `lost`: the old one broke, and took along what was said with push-to-talk and not reacted to. It is said
        again to the new one; more than LONGEST_UTTERANCE_S of it is given up and told.
        """
        again = list(self._utterance) if lost else []
        too_long = lost and self._utterance_s > LONGEST_UTTERANCE_S
        self.understood()
        if too_long:
            self._dropped += [speech.seconds for speech in again]
            again = []
        first = next((held.mark for held in self._held if held.mark is not None), None)
        still_open = first is Gesture.ACTIVITY_END or (first is None and self.activity_open)
        before = [_Held(speech.payload, Upward.AUDIO) for speech in again]
        if again or still_open:
            before.insert(0, _Held(gemini.ACTIVITY_START, Upward.ACTIVITY, mark=Gesture.ACTIVITY_START))
        if again and not still_open:
            before.append(_Held(gemini.ACTIVITY_END, Upward.ACTIVITY, mark=Gesture.ACTIVITY_END))
        self._held.extendleft(reversed(before))
        return self._tell_dropped(
            "The connection broke while you spoke, and it was too much to send again; please say it once more."
        )

    def forget(self, why: str) -> list[Command]:
        """What was held is not heard any more."""
        self._dropped += [held.seconds for held in self._held if held.seconds]
        self._held.clear()
        self._held_bytes = 0
        self.activity_open = self._told_unheard = False
        return self._tell_dropped(why)

    # --- messages

    def speech(self, speech: Speech, door: Door) -> Sequence[Command]:
        if door is Door.SHUT:
            return self._unheard(
                "Audio before connect, or after disconnect, is not heard; send connect first."
            )
        if self.manual and not self.activity_open and not self._guest:
            return self._unheard("activity is manual: send activity_start before audio.")
        if door is Door.OPEN:
            if self.manual and self.activity_open:
                self._keep(speech)
            return FORWARD
        self._hold_speech(speech)
        return ()

    def frame(self, frame: Frame, door: Door, now: float) -> Sequence[Command]:
        """A frame too many is dropped and told, once until one is taken again; the line stays open."""
        if self._framed_at is not None and now - self._framed_at < self._frame_s:
            if self._told_frames:
                return ()
            self._told_frames = True
            wait = round((self._framed_at + self._frame_s - now) * 1000)
            return (
                SendToClient(Failure(Limited(self._frames_told, retry_after_ms=wait, limit="frames_per_s"))),
            )
        self._framed_at, self._told_frames = now, False
        return self.send_up(frame.payload, Upward.VIDEO, door)

    def gesture(self, gesture: Gesture, door: Door, now: float) -> Sequence[Command]:
        if gesture is Gesture.AUDIO_END:
            if self.manual and self.activity_open:
                gesture = Gesture.ACTIVITY_END
            elif self.manual:
                return ()
            else:
                return self.send_up(gemini.AUDIO_STREAM_END, Upward.ACTIVITY, door, silent=True)
        if not self.manual:
            return self.refused(
                BadMessage(f"{gesture} is for push-to-talk; connect with activity: manual first."), now
            )
        if (gesture is Gesture.ACTIVITY_START) is self.activity_open:
            state = "already open; end it first" if self.activity_open else "not open; start it first"
            return self.refused(BadMessage(f"{gesture}: the activity is {state}."), now)
        self.activity_open = gesture is Gesture.ACTIVITY_START
        if self.activity_open:
            self.understood()
        self._told_unheard = False
        mark = gemini.ACTIVITY_START if self.activity_open else gemini.ACTIVITY_END
        return self.send_up(mark, Upward.ACTIVITY, door, mark=gesture)

    def marked(self, gesture: Gesture) -> None:
        """A guest's message says where its activity begins or ends; whether it may, the model side judges."""
        self.activity_open = self.manual and gesture is Gesture.ACTIVITY_START
        if self.activity_open:
            self.understood()

    def send_up(
        self,
        payload: bytes,
        kind: Upward,
        door: Door,
        *,
        silent: bool = False,
        mark: Gesture | None = None,
    ) -> Sequence[Command]:
        """Anything but speech. `silent`: not worth an error where nobody hears it."""
        match door:
            case Door.OPEN:
                return (SendToModel(payload, kind),)
            case Door.SHUT:
                return (
                    ()
                    if silent
                    else self._unheard(f"{kind} before connect is not heard; send connect first.")
                )
            case Door.HELD:
                if self._held_bytes + len(payload) > (GUEST_HELD_BYTES if self._guest else HELD_BYTES):
                    wait = "Too much was sent before CONNECTED; wait for it, then send this again."
                    return (self._failure(Limited(wait, retry_after_ms=1000)),)
                self._held_bytes += len(payload)
                self._held.append(_Held(payload, kind, mark=mark))
                return ()

    def refused(self, error: LiveError, now: float) -> Sequence[Command]:
        """A message that could not be taken. Twenty a minute get a message each; then the line is closed."""
        self._bad.append(now)
        while self._bad and now - self._bad[0] > 60.0:
            self._bad.popleft()
        if len(self._bad) > BAD_MESSAGES_A_MINUTE:
            many = f"More than {BAD_MESSAGES_A_MINUTE} wrong messages in a minute; the last: {error.message}"
            return (CloseClient(BadMessage(many)),)
        return (self._failure(error),)

    # --- its own

    def _failure(self, error: LiveError) -> Command:
        return CloseClient(error) if self._guest else SendToClient(Failure(error))

    def _unheard(self, message: str) -> Sequence[Command]:
        """One error per episode; it never counts towards a close."""
        if self._told_unheard:
            return ()
        self._told_unheard = True
        return (self._failure(BadMessage(message)),)

    def _keep(self, speech: Speech) -> None:
        """What is being said with push-to-talk; beyond what would be sent again, only its length."""
        self._utterance_s += speech.seconds
        if self._utterance_s <= LONGEST_UTTERANCE_S:
            self._utterance.append(speech)

    def _hold_speech(self, speech: Speech) -> None:
        """The oldest speech goes first; what has no duration stays in its place."""
        self._held.append(_Held(speech.payload, Upward.AUDIO, max(speech.seconds, LEAST_HELD_SECONDS)))
        while sum(held.seconds for held in self._held) > HELD_SECONDS:
            index = next(i for i, held in enumerate(self._held) if held.seconds)
            self._dropped.append(self._held[index].seconds)
            del self._held[index]

    def _tell_dropped(self, why: str) -> list[Command]:
        """Tells of speech that was held and is not heard."""
        if not self._dropped:
            return []
        seconds = round(sum(self._dropped), 3)
        count, self._dropped = len(self._dropped), []
        return [
            SendToClient(Warned("audio_dropped", why, count)),
            Record("audio_dropped", {"seconds": seconds}),
        ]
