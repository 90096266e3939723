"""Answers that are good for a while: the same arguments of the same user get the one that is there. Pure."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from tornado_live.caller import Caller
from tornado_live.tools.answer import size
from tornado_live.tools.result import Json
from tornado_live.tools.tool import Tool

MOST_BYTES = 16 * 1024 * 1024
LARGEST_BYTES = 1024 * 1024
_OF_THE_TOKEN = frozenset({"exp", "iat", "nbf", "jti", "auth_time"})
_ENTRY_BYTES = 256
"""What an answer takes beside its arguments and itself."""


@dataclass(frozen=True, slots=True)
class _Kept:
    tool: Tool
    value: Json
    until: float
    bytes: int


class KeptAnswers:
    """At most MOST_BYTES of JSON in all; the longest unused goes first. A tool that was read anew has none."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()
        self._bytes = 0

    def get(self, tool: Tool, caller: Caller, arguments: Mapping[str, Json], now: float) -> tuple[bool, Json]:
        """Whether there is one that is still good, and it."""
        key = _key(tool, caller, arguments)
        kept = self._kept.get(key)
        if kept is None:
            return False, None
        if now >= kept.until or kept.tool is not tool:
            self._drop(key)
            return False, None
        self._kept.move_to_end(key)
        return True, kept.value

    def keep(
        self, tool: Tool, caller: Caller, arguments: Mapping[str, Json], value: Json, until: float
    ) -> None:
        """One that is larger than LARGEST_BYTES with its arguments is not kept."""
        key = _key(tool, caller, arguments)
        taken = size(value) + sum(len(part.encode()) for part in key) + _ENTRY_BYTES
        self._drop(key)
        if taken > LARGEST_BYTES:
            return
        self._kept[key] = _Kept(tool, value, until, taken)
        self._bytes += taken
        while self._bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.bytes


def _key(tool: Tool, caller: Caller, arguments: Mapping[str, Json]) -> tuple[str, str, str]:
    """A handler may answer by anything that is known of the caller, but for what each token has of its own."""
    claims = {name: claim for name, claim in caller.claims.items() if name not in _OF_THE_TOKEN}
    who = json.dumps([caller.user, sorted(caller.roles), claims], sort_keys=True, default=str)
    return tool.name, who, json.dumps(arguments, sort_keys=True)
