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
from collections.abc import Callable, Mapping
from typing import Any, TextIO, TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

import re2  # type: ignore[import-untyped]

from tornado_live.observe.events import rfc3339

Pattern: TypeAlias = Any
Found: TypeAlias = Any
"""Of RE2, which tells no types."""

MASK = "***"
MAX_TEXT = 4096
MAX_TRACEBACK = 16384
_MAX_MEMBERS = 100
_MAX_DEPTH = 6
_HALF_A_SECRET = 512

# What looks like a credential, whoever issued it. Groups stay in the line. It is matched by RE2, on bytes: in time
# that grows with the text alone, so that nobody is held up by whoever sends a long one.
_CREDENTIALS = (
    r"AIza[\w-]{8,}",  # Google API key
    r"\bAQ\.[\w-]{8,}",  # Google API key, newer form
    r"\bya29\.[\w.-]{8,}",  # Google OAuth token
    r"\bsk-[\w-]{16,}",
    r"\btlt?_[\w-]{12,}",  # API key and ticket of this server
    r"\bauth_tokens/[\w.-]{8,}",  # ephemeral token
    r"\beyJ[\w-]{4,}\.[\w-]{4,}\.[\w.-]*",  # JSON Web Token
    r"\beyJ[\w-]{12,}\.eyJ[\w.-]*",  # the same, cut
    r"-----BEGIN[ A-Z]*PRIVATE KEY-----[^-]*(?:-----END[ A-Z]*KEY-----)?",
    r"(\b(?:bearer|token|basic)[ +]+|\bbearer\.)[\w.~+/=-]{8,}",  # of Authorization and Sec-WebSocket-Protocol
    r"((?:^|[?&;#])[\w.-]*(?:key|token|secret|passw(?:or)?d|signature|sig|ticket|jwt|auth|authorization"
    r"|credentials?)=)[^&;\s\"'<>]+",
    r"(\b(?:authorization|x-goog-api-key|x-api-key|cookie)[\"']?\s*[:=]\s*[\"']?)"
    r"(?:(?:bearer|basic|token)\s+)?[^\s\"',}]+",
    r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+(@)",
)
_ENCODED = r"[^\s\"'<>]*%[0-9A-Fa-f]{2}[^\s\"'<>]*"
_MOST_ENCODED = 3  # times, one around the other
_SECRET_FIELD = re.compile(
    r"(?:^|_|-)(?:api_?key|key|token|secret|password|authorization|cookie)$", re.IGNORECASE
)


class Masker:
    """Replaces secrets in text: those that were registered, and whatever looks like a credential."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._pattern: Pattern | None = None
        self._any = _ANY_PATTERN

    def mask(self, secret: str) -> None:
        """Registers a secret: from now on it shows as `***`, also percent-encoded, in base64 and in JSON.

        One of fewer than 6 characters is ignored: it would mask parts of plain words.
        """
        if len(secret) < 6:
            return
        raw = secret.encode("utf-8", "surrogatepass")
        written = json.dumps(secret)[1:-1]
        twice = json.dumps(written)[1:-1]  # JSON in a text of JSON
        forms = {raw, quote_from_bytes(raw, safe="").encode(), written.encode(), twice.encode()}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(raw).rstrip(b"="))
            for before in range(3):
                # In the middle of something longer, whose bits its first and last characters share.
                first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
                forms.add(encode(bytes(before) + raw)[first:last])
        if not forms <= self._known:
            self._known |= forms
            longest_first = sorted(self._known, key=len, reverse=True)
            known = "|".join(re2.escape(form).decode("latin-1") for form in longest_first)
            self._pattern, self._any = _compiled(known), _compiled(f"{known}|{_ANY}")

    def text(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        if self._any.search(raw) is None:  # nearly always
            return text
        masked = self._masked(raw)
        if b"%" in masked:
            masked = _substituted(_ENCODED_PATTERN, self._decoded, masked)
        return text if masked is raw else masked.decode("utf-8", "surrogatepass")

    def _masked(self, text: bytes) -> bytes:
        if self._pattern is not None:
            text = _substituted(self._pattern, lambda found: MASK.encode(), text)
        return _substituted(_CREDENTIALS_PATTERN, _kept, text)

    def _decoded(self, found: Found) -> bytes:
        """What was percent-encoded, decoded, if a credential comes to light by it; else as it is."""
        whole: bytes = found[0]
        text, hides = whole, False
        for _ in range(_MOST_ENCODED):
            decoded = unquote_to_bytes(text)
            if decoded == text:
                break
            text = self._masked(decoded)
            hides |= text is not decoded
        return text.decode("utf-8", "replace").encode() if hides else whole


def _compiled(pattern: str) -> Pattern:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode("latin-1"), options)


def _substituted(pattern: Pattern, by: Callable[[Found], bytes], text: bytes) -> bytes:
    """`text` itself where nothing is found."""
    if pattern.search(text) is None:
        return text
    substituted: bytes = pattern.sub(by, text)
    return substituted


def _kept(found: Found) -> bytes:
    """The mask, between what stands before and after a credential."""
    before, after = b"", b""
    for group in found.groups():
        if group == b"@":
            after = group
        else:
            before += group or b""
    return before + MASK.encode() + after


_CREDENTIALS_PATTERN = _compiled(f"(?i:{'|'.join(_CREDENTIALS)})")
_ENCODED_PATTERN = _compiled(_ENCODED)
_ANY = f"(?i:{'|'.join(_CREDENTIALS)})|%"
_ANY_PATTERN = _compiled(_ANY)


_masker = Masker()


def masked(text: str) -> str:
    """`text` as the log of this process would show it: for the words of others that somebody is told."""
    return _masker.text(text)


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
        # Masked before it is cut, so that no half of a secret is left; but no more of it than may be shown, for
        # whoever sends a long text. Where that ends, half a secret may be what is not known by its looks.
        window = 2 * limit
        bounded = len(text) > window
        text = self._masker.text(text[-window:] if from_end else text[:window])
        if bounded:
            text = text[_HALF_A_SECRET:] if from_end else text[:-_HALF_A_SECRET]
        elif len(text) <= limit:
            return text
        return f"…{text[1 - limit :]}" if from_end else f"{text[: limit - 1]}…"


class JsonLines(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs."""


def configure(level: str, stream: TextIO, *, process: int | None = None) -> Masker:
    """Sends the whole process's log to `stream` as JSON lines of `level` (a name, any case) and above.

    Replaces what an earlier call installed. Secrets given to `mask` of the answer never show. Python's
    warnings become log lines. `process` is the number in every line, where several processes write.
    """
    global _masker
    _masker = masker = Masker()
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
