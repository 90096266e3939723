"""The function calls of one conversation: which are open, and which ids are settled for good."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .brain import FunctionCall
from .messages import Json

_PREFIXES = {"function-call": "function-call-", "fc": "fc_", "call": "call_"}


@dataclass(frozen=True, slots=True)
class OpenCall:
    """answer: what a turn waits for; None for a call that no turn waits for."""

    call: FunctionCall
    answer: asyncio.Future[dict[str, Json]] | None


class Calls:
    """A settled call is answered or cancelled; what still comes for it crossed that on its way."""

    def __init__(self, ids: str, opened: Mapping[str, str], settled: Iterable[str]) -> None:
        """opened: ids and names of calls that an earlier connection made."""
        self.open = {
            identifier: OpenCall(FunctionCall(name, {}), None) for identifier, name in opened.items()
        }
        self.settled = set(settled)
        self._ids = ids

    def ask(self, call: FunctionCall, answer: asyncio.Future[dict[str, Json]] | None) -> str:
        """The id of a call that is open from now on."""
        identifier = self._new_id()
        self.open[identifier] = OpenCall(call, answer)
        return identifier

    def ask_again(self, identifier: str) -> str:
        """The same call under a new id; the old one is settled."""
        again = self._new_id()
        self.open[again] = replace(self.open[identifier])
        self.settle([identifier])
        return again

    def settle(self, identifiers: Iterable[str]) -> None:
        for identifier in identifiers:
            self.open.pop(identifier, None)
            self.settled.add(identifier)

    def waited_for(self) -> list[str]:
        return [identifier for identifier, call in self.open.items() if call.answer is not None]

    def in_background(self) -> list[str]:
        return [identifier for identifier, call in self.open.items() if call.answer is None]

    def named(self, name: Json) -> str | None:
        """The oldest open call of this function."""
        return next((identifier for identifier, call in self.open.items() if call.call.name == name), None)

    def message(self, identifiers: Iterable[str]) -> dict[str, Json]:
        """The toolCall with these calls."""
        function_calls: list[Json] = [
            {"name": self.open[each].call.name, "args": self.open[each].call.args, "id": each}
            for each in identifiers
        ]
        return {"toolCall": {"functionCalls": function_calls}}

    def _new_id(self) -> str:
        if self._ids == "uuid":
            return str(uuid.uuid4())
        digits = random.randrange(10**18, 10**19)  # noqa: S311 - a name, not a secret
        return f"{_PREFIXES[self._ids]}{digits}"
