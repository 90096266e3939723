"""Recordings of the wire, scrubbed: what `tornado-live simulate --recording FILE` plays and anybody may read.

JSON Lines, one file a connection: a header, then what went up, what came down and the close, each with its time.
Sound and pictures become their size, handles and sessions a made-up name, and words of the model stars, unless
they are the probe's own. What comes down is kept only where it is known to be harmless.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tornado_live.jsonvalue import Json
from tornado_live.observe.logs import Masker
from tornado_live.wire import gemini

_SECRET = ("newHandle", "handle", "sessionId")
# What Google says in words of its own vocabulary; any other text may be somebody's.
_VOCABULARY = (
    "mimeType",
    "role",
    "id",
    "ids",
    "name",
    "language",
    "languageCode",
    "timeLeft",
    "audioOffset",
    "type",
)
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*|-?\d+(\.\d+)?s?")
_LONG_NUMBER = re.compile(r"\d{6,}")
_LETTER = re.compile(r"\S")


@dataclass(slots=True)
class Scrubber:
    """`own` are texts that the recording may show, as are the parts of them."""

    own: tuple[str, ...]
    masker: Masker
    _named: dict[str, str] = field(default_factory=dict)

    def up(self, message: Json) -> Json:
        """A message of ours, which holds nothing but our own words."""
        return self._scrub(gemini.camel(message), "", down=False)

    def down(self, message: Json) -> Json:
        return self._scrub(gemini.camel(message), "", down=True)

    def reason(self, text: str) -> str:
        """The words of a close; numbers of projects and the like become zeros."""
        return _LONG_NUMBER.sub(lambda found: "0" * len(found[0]), self.masker.text(text))

    def _scrub(self, value: Json, key: str, *, down: bool) -> Json:
        match value:
            case dict():
                return {name: self._member(value, name, down=down) for name in value}
            case list():
                return [self._scrub(item, key, down=down) for item in value]
            case str():
                return self._text(value, key, down=down)
        return value

    def _member(self, parent: Mapping[str, Json], name: str, *, down: bool) -> Json:
        value = parent[name]
        if name == "data" and isinstance(value, str) and "mimeType" in parent:
            return {"$bytes": _decoded_size(value)}
        return self._scrub(value, name, down=down)

    def _text(self, text: str, key: str, *, down: bool) -> str:
        if key in _SECRET:
            return self._named.setdefault(text, f"{key.removeprefix('new').lower()}-{len(self._named) + 1}")
        known = (
            key in _VOCABULARY or _CONSTANT.fullmatch(text) or any(text.strip() in own for own in self.own)
        )
        if down and not known:
            return _LETTER.sub("*", text)
        return self.masker.text(text)


def _decoded_size(text: str) -> int:
    try:
        return len(base64.b64decode(text.translate(_STANDARD) + "=" * (-len(text) % 4)))
    except ValueError:
        return len(text) * 3 // 4


_STANDARD = str.maketrans("-_", "+/")


@dataclass(slots=True)
class Recorder:
    """One connection; times are seconds since it was opened. `began` is the wall clock's time as RFC 3339."""

    model: str
    version: str
    began: str
    scrubber: Scrubber
    lines: list[dict[str, Json]] = field(default_factory=list)

    def up(self, at: float, message: Json) -> None:
        self.lines.append({"t": round(at, 4), "up": self.scrubber.up(message)})

    def down(self, at: float, message: Json) -> None:
        self.lines.append({"t": round(at, 4), "down": self.scrubber.down(message)})

    def closed(self, at: float, code: int, reason: str, *, by: str) -> None:
        end: dict[str, Json] = {"code": code, "reason": self.scrubber.reason(reason), "by": by}
        self.lines.append({"t": round(at, 4), "close": end})

    def write(self, path: Path) -> None:
        header = {"recording": 1, "model": self.model, "version": self.version, "at": self.began}
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (header, *self.lines))
        # What was said is its owner's, whatever the umask lets others read.
        with open(
            path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            file.write(text)
