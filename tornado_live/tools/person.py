"""What a call may ask of the person at the other end, and of the page that they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from tornado_live.jsonvalue import Json

Asks: TypeAlias = Literal["confirm", "client"]

CONSENT_S = 30.0
"""A question that is not answered within so long is a no."""


@dataclass(frozen=True, slots=True)
class Consent:
    ok: bool


@dataclass(frozen=True, slots=True)
class ClientResult:
    """What the client's own function has returned."""

    response: Json


class Person(Protocol):
    """Both wait until somebody answers; who asks sets the deadline, and cancels."""

    async def confirm(self, args: Mapping[str, Json]) -> bool:
        """Whether the call may be made."""

    async def perform(self, args: Mapping[str, Json]) -> Json:
        """The result of the client's own function."""

    def slow(self, say: str) -> None:
        """The call takes long: whoever waits is told, and the model where it talks on meanwhile."""
