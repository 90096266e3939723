"""The path below which the server is served, and the one that its clients know it by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from tornado.routing import URLSpec

BELOW = "below:"
"""What the names of routes below the base path begin with: each name is there once."""


@dataclass(frozen=True, slots=True)
class Paths:
    """`served` is BASE_PATH. `told` begins each path that a client is told: it is the path of PUBLIC_URL, and
    BASE_PATH where that has none."""

    served: str = ""
    told: str = ""

    @classmethod
    def of(cls, base_path: str, public_url: str | None) -> Self:
        return cls(base_path, urlsplit(public_url or "").path.rstrip("/") or base_path)

    def inside(self, path: str) -> str:
        """Without the prefix, which a proxy may have taken off already."""
        return path[len(self.served) :] if self.served and path.startswith(f"{self.served}/") else path


def under(base_path: str, routes: Iterable[URLSpec]) -> list[URLSpec]:
    """The same routes with `base_path` before them; none where it is empty."""
    return [
        URLSpec(
            f"{re.escape(base_path)}(?:{route.regex.pattern})",
            route.handler_class,
            route.kwargs,
            name=f"{BELOW}{route.name}",
        )
        for route in routes
        if base_path
    ]
