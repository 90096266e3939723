"""On which terms a client is here: for how long, with which assistant. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tornado_live.access.limits import value
from tornado_live.caller import Caller
from tornado_live.settings import Limits


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds; None is no end. `lasts_s` is what is left of the credential, `conversation_s` how long the session
    may talk in all, `silent_s` how long nobody may say a word. `assistant` None: any. `cost` is the money that the
    session may cost."""

    lasts_s: float | None = None
    assistant: str | None = None
    conversation_s: float | None = None
    silent_s: float | None = None
    cost: float | None = None


def terms(caller: Caller, limits: Limits, now: float) -> Terms:
    """`now` by `time.monotonic`."""
    return Terms(
        None if caller.until is None else max(0.0, caller.until - now),
        caller.assistant,
        value("conversation_s", limits, caller),
        value("silent_timeout_s", limits, caller),
        value("cost_per_session", limits, caller),
    )
