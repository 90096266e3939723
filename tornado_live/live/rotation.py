"""When to leave a connection of the model side, and how to come back. Pure.

A connection of the Live API lives for minutes and a conversation for hours. Google says goAway before the end, and
takes a resumption handle afterwards; neither can be relied on (docs/conversations.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tornado_live.live.causes import Cause, Retry

MAX_DIALS = 3
WINDOW_S = 60.0
"""So many dials in so long, without a turn in between, and the conversation gives up."""

DELAYS_S = (0.0, 0.3, 1.0)
SPREADS_S = (0.25, 0.4, 0.8)
"""Before the first, second and third dial after a loss, and how far chance stretches them: a server that drops a
thousand conversations at once must not see a thousand of them at once again."""

HANDLE_LIFE_S = 2 * 3600.0
"""DOC ai.google.dev/gemini-api/docs/live-api/session-management: two hours after the end of the session."""

SEEK_SHARE = 0.8
LATEST_SHARE = 0.95
"""Of the known age limit: from then on a quiet point is sought, and by then the connection is left."""

GO_AWAY_SHARE = 0.8
GO_AWAY_UNTOLD_S = 5.0
"""Of the time that a goAway leaves; a goAway that says none (or nonsense) is taken to leave so much."""

LONGEST_PAUSE_S = 10.0
"""Before a planned dial, where the model side sends each new connection away at once."""

LOOK_AGAIN_S = 0.25
REDIAL_S = 1.0
"""From one dial to the next at least: connect and disconnect in a loop must not hammer the operator's key."""


@dataclass(frozen=True, slots=True)
class Dial:
    """`handle` None: a fresh session, seeded from memory."""

    handle: str | None
    delay: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A handle that was kept when the session's last conversation ended, for plans of the same `identity`.

    `since`: what was remembered after it, as (role, text), which the session that it resumes lacks.
    """

    handle: str
    identity: str
    age_s: float
    since: Sequence[tuple[str, str]] = ()


class Rotation:
    """`jitter` gives chance, from 0 up to 1."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._handle: str | None = None
        self._handle_at = 0.0
        self._resumable = True
        self._refusals = 0
        self._dials: deque[float] = deque()
        self._dialled_at: float | None = None
        self._dialled: Dial | None = None
        self._seek_from: float | None = None
        self._deadline = 0.0

    @property
    def resuming(self) -> bool:
        """Whether the latest dial carried a handle."""
        return self._dialled is not None and self._dialled.handle is not None

    @property
    def has_handle(self) -> bool:
        return self._handle is not None

    @property
    def attempts(self) -> int:
        """Dials since the last turn, in the window."""
        return len(self._dials)

    # --- handles

    def told(self, handle: str | None, resumable: bool | None, now: float) -> bool:
        """A sessionResumptionUpdate; whether it brought a handle. Without one the last good one is kept."""
        self._resumable = resumable is True and bool(handle)
        if not self._resumable or handle is None:
            return False
        self._handle, self._handle_at, self._refusals = handle, now, 0
        return True

    def adopt(self, handle: str, age_s: float, now: float) -> None:
        """A handle of the conversation before this one."""
        self._handle, self._handle_at, self._resumable, self._refusals = handle, now - age_s, True, 0

    def forget(self) -> None:
        """The session is not to be gone on with: other options were chosen, or its memory was lost."""
        self._handle, self._resumable, self._refusals = None, True, 0

    # --- the age of a connection

    def opened(self, age_s: float, now: float) -> None:
        """The model side has answered; connections to it are known to live for `age_s`."""
        self._seek_from, self._deadline = now + age_s * SEEK_SHARE, now + age_s * LATEST_SHARE

    def go_away(self, left_s: float | None, now: float) -> None:
        """The nearest of all deadlines holds."""
        latest = now + (GO_AWAY_UNTOLD_S if left_s is None else left_s * GO_AWAY_SHARE)
        self._deadline = latest if self._seek_from is None else min(latest, self._deadline)
        self._seek_from = now

    def seeking(self, now: float) -> bool:
        """Whether a quiet point is being waited for."""
        return self._seek_from is not None and now >= self._seek_from

    def due(self, quiet: bool, now: float) -> bool:
        """Whether to leave the connection now."""
        return self.seeking(now) and (now >= self._deadline or (quiet and self._resumable))

    def wake_after(self, now: float) -> float | None:
        """When to ask `due` again."""
        if self._seek_from is None:
            return None
        if now < self._seek_from:
            return self._seek_from - now
        return max(0.0, min(LOOK_AGAIN_S, self._deadline - now))

    # --- dials

    def first(self, now: float) -> Dial:
        """A client wants the model side opened."""
        self._dials.clear()
        return self._dial(self._good_handle(now), 0.0, now)

    def planned(self, now: float) -> Dial:
        """The connection is left of our own will; later each time where no turn comes about in between."""
        self._drop_old_dials(now)
        often = len(self._dials) - MAX_DIALS
        delay = 0.0 if often < 0 else min(LONGEST_PAUSE_S, 2.0**often)
        return self._dial(self._good_handle(now), delay, now)

    def lost(self, cause: Cause, now: float, *, reached: bool = True) -> Dial | None:
        """The connection was lost, or a dial failed; None to give up. `reached`: the handle was looked at."""
        if cause.retry in (Retry.NEVER, Retry.LATER):
            return None
        self._drop_old_dials(now)
        done = len(self._dials)
        if done >= MAX_DIALS:
            return None
        if cause.retry is Retry.FRESH:
            if done and not self.resuming:
                return None  # the same bytes once more would meet the same refusal
            self.forget()
        elif self.resuming and done and reached:
            self._refusals += 1
            if self._refusals >= MAX_DIALS - 1:
                self.forget()  # the last try is not spent on a handle that did not help twice
        return self._dial(self._good_handle(now), DELAYS_S[done] + self._jitter() * SPREADS_S[done], now)

    def fresh(self, now: float) -> Dial:
        """The session itself does not work any more, though its connection does."""
        self.forget()
        return self._dial(None, 0.0, now)

    def well(self) -> None:
        """A turn was completed: what was lost before does not count any more."""
        self._dials.clear()
        self._refusals = 0

    def closed(self) -> None:
        """There is no connection whose age would count."""
        self._seek_from = None

    def _drop_old_dials(self, now: float) -> None:
        while self._dials and now - self._dials[0] > WINDOW_S:
            self._dials.popleft()

    def _good_handle(self, now: float) -> str | None:
        if self._handle is not None and now - self._handle_at > HANDLE_LIFE_S:
            self.forget()
        return self._handle

    def _dial(self, handle: str | None, delay: float, now: float) -> Dial:
        if self._dialled_at is not None:
            delay = max(delay, self._dialled_at + REDIAL_S - now)
        self._dialled_at = now + delay
        self._dials.append(self._dialled_at)
        self._seek_from = None
        self._dialled = Dial(handle, delay)
        return self._dialled
