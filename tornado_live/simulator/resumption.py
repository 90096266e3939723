"""What outlives a connection: sessions, and the handles that lead back to them. It has no clock of its own."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Generic, TypeVar

from .messages import Refused

HANDLE_LIFE_S = 2 * 3600.0
_HANDLES_OF_A_SESSION = 100

_State = TypeVar("_State")

# For `bad_handle`: how a handle is refused that is unknown, too old or replaced.
_BAD_HANDLE = {
    "invalid": Refused("Invalid session handle"),
    "session": Refused("BidiGenerateContent session not found", 1008),
    "entity": Refused("Requested entity was not found.", 1008),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Facts about resumption of which nobody is sure; each is a switch (SWITCHES says what they mean)."""

    bad_handle: str = "invalid"
    old_handles: str = "take"
    open_socket: str = "refuse"
    not_resumable: str = "empty"
    message_index: str = "string"
    resumed_instruction: str = "new"


@dataclass(frozen=True, slots=True)
class Switch:
    """values: the first is what the simulator does unless told otherwise."""

    values: tuple[str, ...]
    meaning: str
    evidence: str


SWITCHES: Mapping[str, Switch] = {
    "bad_handle": Switch(
        ("invalid", "session", "entity"),
        'an unknown or expired handle is closed with 1007 "Invalid session handle", 1008'
        ' "BidiGenerateContent session not found" or 1008 "Requested entity was not found."',
        "reported: each of the three by others",
    ),
    "old_handles": Switch(
        ("take", "refuse"),
        "whether a handle still leads back when a newer one was sent",
        "inferred from the documentation's words: a handle stands for one state",
    ),
    "open_socket": Switch(
        ("refuse", "take"),
        "whether a resume is closed with 1011 while the session's old connection is still open",
        "reported",
    ),
    "not_resumable": Switch(
        ("empty", "false"),
        'an update without a handle is {} or {"resumable": false}',
        "inferred: the service leaves out what is false",
    ),
    "message_index": Switch(
        ("string", "number"),
        "how lastConsumedClientMessageIndex is written (Vertex, transparent)",
        "inferred: int64 is text in the JSON of protocol buffers",
    ),
    "resumed_instruction": Switch(
        ("new", "old"),
        "whose system instruction a resumed session has: that of the new setup or its own",
        "documented: other settings may change; reported: the old one stays",
    ),
}
assert set(SWITCHES) == {each.name for each in fields(Rules)}


@dataclass(slots=True, eq=False)
class Line:
    """One session across its connections. ended_at: when the last one ended."""

    model: str
    connections: int = 0
    ended_at: float | None = None
    handles: deque[str] = field(default_factory=deque)

    @property
    def newest(self) -> str | None:
        return self.handles[-1] if self.handles else None

    def opened(self) -> None:
        self.connections += 1
        self.ended_at = None


@dataclass(frozen=True, slots=True)
class Resumed(Generic[_State]):
    line: Line
    state: _State


class Handles(Generic[_State]):
    """The store of one simulator. life_s: how long a handle leads back after its session's last connection."""

    def __init__(self, *, life_s: float) -> None:
        self._life_s = life_s
        self._kept: dict[str, Resumed[_State]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def issue(self, line: Line, state: _State) -> str:
        """A handle that leads back to this state of the session."""
        handle = str(uuid.uuid4())
        self._kept[handle] = Resumed(line, state)
        line.handles.append(handle)
        if len(line.handles) > _HANDLES_OF_A_SESSION:
            self._kept.pop(line.handles.popleft(), None)
        return handle

    def resume(self, handle: str, *, model: str, rules: Rules, now: float) -> Resumed[_State]:
        """The session behind a handle, ready for its next connection. Raises Refused."""
        self._expire(now)
        found = self._kept.get(handle)
        if found is None or (rules.old_handles == "refuse" and found.line.newest != handle):
            raise _BAD_HANDLE[rules.bad_handle]
        if found.line.model != model:
            raise Refused
        if found.line.connections and rules.open_socket == "refuse":
            raise Refused("Internal error encountered.", 1011)
        return found

    def ended(self, line: Line, now: float) -> None:
        """A connection of this session has ended; with its last one the handles begin to grow old."""
        line.connections -= 1
        if not line.connections:
            line.ended_at = now
        self._expire(now)

    def forget(self) -> int:
        """Loses every handle; how many there were."""
        count = len(self._kept)
        self._kept.clear()
        return count

    def _expire(self, now: float) -> None:
        ends = {handle: kept.line.ended_at for handle, kept in self._kept.items()}
        for handle, ended_at in ends.items():
            if ended_at is not None and now - ended_at > self._life_s:
                del self._kept[handle]
