"""What a conversation is opened with, whoever asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tornado_live.jsonvalue import Json
from tornado_live.wire.gemini import Setup
from tornado_live.wire.models import LiveModel


class Plan(Protocol):
    """`toolset` None means every tool. `manual`: the client marks its activity itself. `may_stay_silent`: the
    model may take speech for not being meant for it, or never answers any.
    """

    @property
    def assistant(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def facts(self) -> LiveModel: ...

    @property
    def toolset(self) -> tuple[str, ...] | None: ...

    @property
    def manual(self) -> bool: ...

    @property
    def may_stay_silent(self) -> bool: ...

    @property
    def identity(self) -> str:
        """The same for plans whose sessions may be gone on with by each other's handle, in whichever process."""

    def opening(
        self,
        declarations: Sequence[Mapping[str, Json]],
        *,
        background: frozenset[str],
        history: Sequence[tuple[str, str]],
        handle: str | None,
        first: bool,
    ) -> Setup:
        """The first message of a connection.

        `background` names the functions that are not waited for; `history` is what a fresh session is to know as
        (`user` or `model`, text), `handle` resumes one. `first`: the client is still to say what was said before.
        """
