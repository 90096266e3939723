"""The log: one JSON object a line, which holds no secret.

    {"time": "2026-11-22T10:00:00.000Z", "level": "info", "event": "turn", "logger": "…", "turn": 3}

`event` is a snake_case word; what the line is about are its fields. Lines of other packages have the event
`message` and their text in the field `message`.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import re
import traceback
from collections.abc import Mapping
from typing import TextIO
from urllib.parse import quote

from tornado_live.observe.events import rfc3339

MASK = "***"
MAX_TEXT = 4096
MAX_TRACEBACK = 16384
_MAX_MEMBERS = 100
_MAX_DEPTH = 6

# What looks like a credential, whoever issued it. Groups named `keep` stay in the line.
_CREDENTIALS = re.compile(
    r"""
      AIza[\w-]{8,}                                                         # Google API key
    | \bAQ\.[\w-]{8,}                                                       # Google API key, newer form
    | \bya29\.[\w.-]{8,}                                                    # Google OAuth token
    | \bsk-[\w-]{16,}
    | \beyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*                                     # JSON Web Token
    | (?P<scheme>\b(?:bearer|token|basic)[ ]+)[\w.~+/=-]{8,}
    | (?P<parameter>[?&;](?:[\w-]*(?:key|token|secret|password|signature))=)[^&;\s"'<>]+
    | (?P<header>\b(?:authorization|x-goog-api-key|x-api-key|cookie)["']?\s*[:=]\s*["']?)
      (?:(?:bearer|basic|token)\s+)?[^\s"',}]+
    | (?P<userinfo>\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+(?=@)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_KEPT = ("scheme", "parameter", "header", "userinfo")
_SECRET_FIELD = re.compile(
    r"(?:^|_|-)(?:api_?key|key|token|secret|password|authorization|cookie)$", re.IGNORECASE
)


class Masker:
    """Replaces secrets in text: those that were registered, and whatever looks like a credential."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def mask(self, secret: str) -> None:
        """Registers a secret: from now on it shows as `***`, also percent-encoded and in base64.

        One of fewer than 6 characters is ignored: it would mask parts of plain words.
        """
        if len(secret) < 6:
            return
        encoded = secret.encode("utf-8", "surrogatepass")
        forms = {secret, quote(secret, safe="", errors="replace")}
        forms |= {code(encoded).decode().rstrip("=") for code in (base64.b64encode, base64.urlsafe_b64encode)}
        self._known |= forms
        longest_first = sorted(self._known, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _CREDENTIALS.sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    return "".join(found[name] or "" for name in _KEPT) + MASK


class JsonFormatter(logging.Formatter):
    """One record as one line of ASCII JSON: no control character and no line break gets through."""

    def __init__(self, masker: Masker, process: int | None = None) -> None:
        super().__init__()
        self._masker = masker
        self._process = {} if process is None else {"process": process}

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None)
        fields: Mapping[str, object] = getattr(record, "fields", {})
        line: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "event": event if isinstance(event, str) else "message",
            "logger": record.name,
            **self._process,
        }
        if event is None:
            line["message"] = self._text(record.getMessage(), MAX_TEXT)
        for name, value in fields.items():
            line[name if name not in line else f"{name}_"] = self._field(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self._text(_one_line(record.exc_info[1]), MAX_TEXT)
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            line["traceback"] = self._text(trace, MAX_TRACEBACK, from_end=True)
        return json.dumps(line)

    def _field(self, name: str, value: object) -> object:
        if isinstance(value, str) and value and _SECRET_FIELD.search(name):
            return MASK
        return self._plain(value, _MAX_DEPTH)

    def _plain(self, value: object, depth: int) -> object:
        """`value` as JSON, bounded in depth, members and text; what JSON does not know becomes text."""
        match value:
            case None | bool() | int():
                # A huge whole number would be a huge line; digits beyond this mean nothing to a reader.
                return value if value is None or abs(value) < 1 << 64 else str(hex(value))[:40] + "…"
            case float():
                return value if math.isfinite(value) else None
            case str():
                return self._text(value, MAX_TEXT)
            case BaseException():
                return self._text(_one_line(value), MAX_TEXT)
            case Mapping() if depth:
                members = list(value.items())[:_MAX_MEMBERS]
                return {
                    self._text(str(name), 200): (
                        MASK
                        if isinstance(member, str) and member and _SECRET_FIELD.search(str(name))
                        else self._plain(member, depth - 1)
                    )
                    for name, member in members
                }
            case list() | tuple() | set() | frozenset() if depth:
                return [self._plain(member, depth - 1) for member in list(value)[:_MAX_MEMBERS]]
        return self._text(str(value), MAX_TEXT)

    def _text(self, text: str, limit: int, *, from_end: bool = False) -> str:
        # Masked before it is cut, so that no half of a secret is left; but not without bound.
        window = 16 * limit
        text = self._masker.text(text[-window:] if from_end else text[:window])
        if len(text) <= limit:
            return text
        return f"…{text[1 - limit :]}" if from_end else f"{text[: limit - 1]}…"


class JsonLines(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs."""


def configure(level: str, stream: TextIO, *, process: int | None = None) -> Masker:
    """Sends the whole process's log to `stream` as JSON lines of `level` (a name, any case) and above.

    Replaces what an earlier call installed. Secrets given to `mask` of the answer never show. Python's
    warnings become log lines. `process` is the number in every line, where several processes write.
    """
    masker = Masker()
    handler = JsonLines(stream)
    handler.setFormatter(JsonFormatter(masker, process))
    root = logging.getLogger()
    for installed in root.handlers[:]:
        if isinstance(installed, JsonLines):
            root.removeHandler(installed)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # httpx and httpcore log every request with its URL; tools have their own lines.
    for chatty in ("httpx", "httpcore", "asyncio", "websockets"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    return masker


def log_event(
    logger: logging.Logger,
    event: str,
    facts: Mapping[str, object] | None = None,
    /,
    *,
    level: int = logging.INFO,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """One line with `facts` and `fields`. `error` adds its text and its traceback.

    Fields named as secrets (`…key`, `…token`) are masked.
    """
    if logger.isEnabledFor(level):
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        logger.log(
            level,
            "%s",
            event,
            exc_info=exc_info,
            extra={"event": event, "fields": {**(facts or {}), **fields}},
        )


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
