"""How long a client may stay: by its credential, by length and cost of the conversation, by silence. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tornado_live.access.limits import nearly
from tornado_live.errors import Forbidden, LiveError, SessionEnded, TimedOut, Unauthenticated
from tornado_live.live.commands import Command, Timer, WakeAfter
from tornado_live.live.terms import Terms
from tornado_live.observe.usage import Usage

WARNED_S = 60.0
"""Before a conversation has lasted as long as it may its client is told, or with a fifth of it left."""

NEAR_SHARE = 0.8
_SOON_S = 0.001
"""A timer may be that much early."""


class Stay:
    """Of whoever is the client of one conversation. `idle_s` without a message is too long.

    Length of the conversation, which is the time with a model side, and what it cost are kept in its `usage`: a
    session has them wherever it goes on.
    """

    def __init__(self, usage: Usage, idle_s: float) -> None:
        self.active_at = 0.0
        """When the client last sent anything."""
        self._spoken_at = 0.0
        self._terms = Terms()
        self._expires_at: float | None = None
        self._usage = usage
        self._idle_s = idle_s
        self._talking_since: float | None = None
        self._warned = self._warned_of_cost = False

    # --- what happens

    def came(self, now: float) -> None:
        self.active_at = self._spoken_at = now

    def spoke(self, now: float) -> None:
        """There was a word, of either side."""
        self._spoken_at = now

    def vouched(self, terms: Terms, now: float) -> list[Command]:
        """The client is here on these terms from now on."""
        self._terms = terms
        self._expires_at = None if terms.lasts_s is None else now + terms.lasts_s
        commands: list[Command] = [] if terms.lasts_s is None else [WakeAfter(Timer.EXPIRY, terms.lasts_s)]
        if terms.silent_s is not None and terms.silent_s < self._idle_s:
            commands.append(WakeAfter(Timer.IDLE, terms.silent_s))
        return [*commands, *self.measured(now)]

    def talking(self, now: float) -> Sequence[Command]:
        """The model side is there, for the first time or again."""
        self._spoken_at = now
        if self._talking_since is None:
            self._talking_since = now
        return self.measured(now)

    def counted(self, now: float) -> Sequence[Command]:
        """The usage has grown, and is about to be told."""
        if self._talking_since is not None:
            self._usage.talked(now - self._talking_since)
            self._talking_since = now
        told = self._warned_of_cost and not self._spent(1.0)
        return (WakeAfter(Timer.LENGTH, 0.0),) if self._spent(NEAR_SHARE) and not told else ()

    def silenced(self, now: float) -> None:
        """The model side has gone."""
        self.counted(now)
        self._talking_since = None

    # --- what follows

    def check_assistant(self, name: str) -> None:
        """Raises Forbidden where the credential is for another one."""
        only = self._terms.assistant
        if only is not None and only != name:
            raise Forbidden(f'assistant: your credential is for "{only}" only.')

    def expired(self, now: float) -> LiveError | None:
        if self._expires_at is None or now < self._expires_at - _SOON_S:
            return None
        return Unauthenticated("Your credential has expired; come back with a new one.")

    def idle(self, now: float, *, talks: bool) -> WakeAfter | LiveError:
        """When to ask again, or that it was too long. `talks`: there is a model side, or will be."""
        left, most_s, limit = self.active_at + self._idle_s - now, self._idle_s, "idle_timeout_s"
        if talks and self._terms.silent_s is not None:
            silent = self._spoken_at + self._terms.silent_s - now
            if silent < left:
                left, most_s, limit = silent, self._terms.silent_s, "silent_timeout_s"
        if left > _SOON_S:
            return WakeAfter(Timer.IDLE, left)
        return TimedOut(f"Nothing was said for {most_s / 60:g} minutes.", limit=limit)

    def too_long(self, now: float) -> LiveError | None:
        """Why the conversation must be over, where it has lasted as long, or cost as much, as it may."""
        if self._spent(1.0):
            words = "This conversation has cost as much as it may; begin a new one."
            return SessionEnded(words, limit="cost_per_session")
        most_s = self._terms.conversation_s
        if most_s is None or self._left_s(most_s, now) > _SOON_S:
            return None
        lasted = f"{most_s / 60:g} minutes" if most_s >= 60 else f"{most_s:g} seconds"
        words = f"This conversation has lasted for {lasted}, as long as it may; begin a new one."
        return SessionEnded(words, limit="conversation_s")

    def nearly(self, now: float) -> str | None:
        """What the client is to be told, once, when little of the time, or of the money, is left."""
        if self._spent(NEAR_SHARE) and not self._warned_of_cost:
            self._warned_of_cost = True
            return nearly("cost_per_session")
        most_s = self._terms.conversation_s
        if most_s is None or self._warned or self._left_s(most_s, now) > _warned_s(most_s) + _SOON_S:
            return None
        self._warned = True
        left = max(0.0, self._left_s(most_s, now))
        return f"This conversation may go on for {left:.0f} more seconds; then it ends."

    def measured(self, now: float) -> Sequence[Command]:
        """When to ask `too_long` and `nearly` again."""
        most_s = self._terms.conversation_s
        if most_s is None or self._talking_since is None:
            return ()
        left = self._left_s(most_s, now)
        return (WakeAfter(Timer.LENGTH, max(0.0, left if self._warned else left - _warned_s(most_s))),)

    def _spent(self, share: float) -> bool:
        """Whether so much of the money is spent."""
        most = self._terms.cost
        return most is not None and self._usage.micro_cost >= share * most * 1_000_000

    def _left_s(self, most_s: float, now: float) -> float:
        since = now if self._talking_since is None else self._talking_since
        return most_s - self._usage.seconds - (now - since)


def _warned_s(most_s: float) -> float:
    return min(WARNED_S, most_s / 5)
