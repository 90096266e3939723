"""What crossed the wire of one connection, byte for byte, for tests that look at bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from .messages import Json


@dataclass(slots=True)
class Frames:
    """close: the code and the reason that the client closed with; None where it did not, or not yet."""

    path: str
    headers: Mapping[str, str]
    is_open: bool = True
    close: tuple[int, str] | None = None
    _frames: list[dict[str, Json]] = field(default_factory=list)

    def received(self, frame: str | bytes) -> None:
        self._frames.append({"by": "client", **_shown(frame)})

    def sent(self, frame: str | bytes) -> None:
        self._frames.append({"by": "simulator", **_shown(frame)})

    def closed(self, code: int | None, reason: str | None) -> None:
        self.is_open = False
        self.close = None if code is None else (code, reason or "")

    def status(self) -> dict[str, Json]:
        """For GET /frames."""
        return {
            "path": self.path,
            "headers": dict(self.headers),
            "open": self.is_open,
            "close": None if self.close is None else {"code": self.close[0], "reason": self.close[1]},
            "frames": list(self._frames),
        }


def _shown(frame: str | bytes) -> dict[str, Json]:
    return {"text": frame} if isinstance(frame, str) else {"binary": base64.b64encode(frame).decode()}
