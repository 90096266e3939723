"""The words between the parts of a conversation: what a client says, what is decided, what a client is told.

A dialect turns client bytes into FromClient; the Conversation answers with Commands; the Bridge performs them and
gives each ToClient to the dialect, which makes client bytes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from tornado_live.errors import LiveError
from tornado_live.jsonvalue import Json
from tornado_live.live.guest import GuestPlan
from tornado_live.sessions.store import Role
from tornado_live.tools.person import Asks, ClientResult, Consent
from tornado_live.tools.result import ToolResult
from tornado_live.wire.gemini import ServerMessage
from tornado_live.wire.gemini_client import ClientMessage
from tornado_live.wire.native import ConnectOptions

# --- from the client


class Speech(msgspec.Struct, frozen=True, gc=False):
    """Microphone audio as the message that goes up, and how long it sounds."""

    payload: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """`token` is the credential that came with it, which is not looked at in here."""

    options: ConnectOptions
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Typed:
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A camera or screen frame as the message that goes up."""

    payload: bytes


class Gesture(StrEnum):
    """What has no content of its own."""

    ACTIVITY_START = "activity_start"
    ACTIVITY_END = "activity_end"
    AUDIO_END = "audio_end"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client says to a call that asked it: consent, or the result of a function of its own."""

    id: str
    answer: Consent | ClientResult


@dataclass(frozen=True, slots=True)
class Enter:
    """A guest, a client of Google's own protocol, has come with its setup: for the first time or again.

    `handle` is the resumption handle of ours that it is given, None where it wants none.
    """

    plan: GuestPlan
    session_id: str
    handle: str | None


@dataclass(frozen=True, slots=True)
class Passed:
    """A guest's message, which goes up as it is where nothing has to be done about what it says."""

    payload: bytes
    said: ClientMessage


FromClient: TypeAlias = Speech | Open | Typed | Frame | Gesture | Answered | Enter | Passed

# --- to the client


@dataclass(frozen=True, slots=True)
class ModelMessage:
    """A message of the model side that carries content; the dialect takes the audio out of it."""

    message: ServerMessage


class Line(StrEnum):
    """The state of the model side as the client is told."""

    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    DRAINING = "DRAINING"
    DISCONNECTED = "DISCONNECTED"


@dataclass(frozen=True, slots=True)
class Status:
    """`facts` are the fields that CONNECTED adds (docs/protocol.md)."""

    line: Line
    facts: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Transcribed:
    """A piece, or with `final` the whole text, of one side of a turn."""

    text: str
    is_user: bool
    final: bool
    turn: int


@dataclass(frozen=True, slots=True)
class Said:
    """Model text of the TEXT modality."""

    text: str
    turn: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    turn: int


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """`usage` is what this turn cost, as far as the model side said it."""

    turn: int
    usage: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """`args` None: they are not for the client to see. `asks`: the client is to consent, or to run it.

    `same_as`: the call whose answer this one gets, without being made.
    """

    id: str
    name: str
    args: Mapping[str, Json] | None
    asks: Asks | None = None
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class ToolProgress:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    id: str
    name: str
    result: ToolResult
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCancelled:
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """Running totals of the session (docs/protocol.md, `usage`)."""

    totals: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Warned:
    code: str
    message: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    error: LiveError


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of Google's protocol for a guest, who understands nothing else of all this."""

    payload: bytes


ToClient: TypeAlias = (
    ModelMessage
    | Shown
    | Status
    | Transcribed
    | Said
    | Interrupted
    | TurnComplete
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | ToolCancelled
    | UsageTotals
    | Warned
    | Failure
)

# --- commands


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass on what you just gave me."""


@dataclass(frozen=True, slots=True)
class Agree:
    """The client's options hold from here on; the dialect follows them."""

    options: ConnectOptions


@dataclass(frozen=True, slots=True)
class OpenModel:
    """Dial after `delay` seconds and send `setup`, then `history` when it is complete.

    A connection that is still there is closed first: Google refuses to resume a session while its old socket is
    open (aicc2025/sip-to-ai#14).
    """

    setup: bytes
    history: bytes | None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class CloseModel:
    pass


class Upward(StrEnum):
    """Kinds of messages to the model side: what was sent last is part of why it closed (live/causes.py)."""

    NOTHING = ""
    SETUP = "setup"
    HISTORY = "history"
    AUDIO = "audio"
    TEXT = "text"
    VIDEO = "video"
    ACTIVITY = "activity"
    TOOL_RESPONSE = "tool_response"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SendToModel:
    payload: bytes
    kind: Upward


@dataclass(frozen=True, slots=True)
class SendToClient:
    event: ToClient


@dataclass(frozen=True, slots=True)
class StartTool:
    """`repeats`: the same call, which was taken back while it ran and may have been made."""

    id: str
    name: str
    args: Mapping[str, Json]
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerTool:
    """The client's answer, for the call that waits for it."""

    id: str
    answer: Consent | ClientResult


@dataclass(frozen=True, slots=True)
class CancelTool:
    id: str


@dataclass(frozen=True, slots=True)
class Remember:
    """One finished message for the memory of the session."""

    role: Role
    text: str
    turn: int


@dataclass(frozen=True, slots=True)
class KeepHandle:
    """What the model side gave to go on with its session, for a conversation that goes on elsewhere.

    It is good for a plan of this `identity`, and knows everything that was remembered before.
    """

    handle: str
    identity: str


@dataclass(frozen=True, slots=True)
class Record:
    """Something happened, for the session's events, the log and the metrics (kinds: docs/operations.md)."""

    kind: str
    data: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class WakeAfter:
    """Call `woke(timer)` in that many seconds; the same timer set again replaces the former."""

    timer: Timer
    seconds: float


class Timer(StrEnum):
    HELLO = "hello"
    IDLE = "idle"
    GRACE = "grace"
    ROTATE = "rotate"
    WATCH = "watch"
    EXPIRY = "expiry"
    LENGTH = "length"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Say `error` and close with its code; without one, with 1001, as a server that goes away."""

    error: LiveError | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Nobody is left on either side: the conversation leaves the registry; the session stays."""


Command: TypeAlias = (
    Forward
    | Agree
    | OpenModel
    | CloseModel
    | SendToModel
    | SendToClient
    | StartTool
    | AnswerTool
    | CancelTool
    | Remember
    | KeepHandle
    | Record
    | WakeAfter
    | CloseClient
    | End
)

FORWARD: Final[Sequence[Command]] = (Forward(),)
"""The common answer to audio: compared by identity, so that nothing is made or walked for it."""
