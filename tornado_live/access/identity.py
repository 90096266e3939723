"""Who asks: the one place where a credential becomes a Caller, for REST, WebSockets and the drop-in endpoint."""

from __future__ import annotations

from typing import Final

from tornado_live.caller import Caller
from tornado_live.errors import Unauthenticated

LOCAL: Final = Caller(user="local")
"""Everybody, where callers are not asked who they are."""


class Identity:
    """`modes` empty: callers are not asked who they are."""

    def __init__(self, modes: frozenset[str] = frozenset()) -> None:
        self.modes = modes

    @property
    def required(self) -> bool:
        """Whether a caller has to show who it is."""
        return bool(self.modes)

    async def caller(
        self, credential: str | None, *, origin: str | None = None, session: str | None = None
    ) -> Caller:
        """Who shows this credential, None for none.

        Raises Unauthenticated for one that is wrong, expired or revoked, and where there has to be one;
        Unavailable where nobody can say.
        """
        if not self.modes:
            return LOCAL
        raise Unauthenticated("Show who you are: send an API key or a token as Authorization: Bearer.")
