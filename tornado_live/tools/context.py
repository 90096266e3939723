"""What a Python handler may know and use besides its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tornado_live.caller import Caller
from tornado_live.tools.owned import Owned
from tornado_live.tools.result import Json

if TYPE_CHECKING:
    import httpx


def _unheard(text: str) -> None:
    """Progress of a call that nobody watches, such as one made from the command line."""


def _never() -> bool:
    """Of a call that nobody ends."""
    return False


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Given to a handler parameter named `context`.

    `options` are the tool's checked options with the handler's defaults filled in.
    `sources` are the checked sources of tools.yaml, each `{"kind": "sql" | "http" | "documents", …}` with
    absolute paths; `source(name)` raises KeyError for an unknown one.
    `http` is the shared guarded client: identity encoding, no redirects, no environment proxies, addresses
    checked after resolution. A request may carry `extensions={"allow_private": True}` (a service of the
    operator's own, said so in YAML) and `extensions={"max_bytes": n}` (default 1 MiB). What the guard refuses,
    or what cannot be reached, is raised as ToolError.
    `idempotency_key` is the same for the same call: also where it was broken off and is made once more.
    `owned` keeps what handlers open once and share, such as connections.
    `progress(text)` tells the person who waits. Cancellation arrives as asyncio.CancelledError; a sync handler,
    which cannot be stopped, may ask `cancelled()` now and then, and return once nobody waits for it any more.
    """

    tool: str
    session_id: str
    caller: Caller
    options: Mapping[str, Json]
    sources: Mapping[str, Mapping[str, Json]]
    http: httpx.AsyncClient
    progress: Callable[[str], None] = field(default=_unheard)
    owned: Owned = field(default_factory=Owned)
    idempotency_key: str = ""
    cancelled: Callable[[], bool] = field(default=_never)

    def source(self, name: str) -> Mapping[str, Json]:
        return self.sources[name]
