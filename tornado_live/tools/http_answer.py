"""What an HTTP answer says: refusals by its headers, JSON as JSON, text as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from tornado_live.tools.http_retry import HttpError
from tornado_live.tools.result import Json, ToolCode, ToolError

_HINTS: Mapping[int, str] = {
    404: "There is nothing of that name; another wording may help.",
    410: "There is nothing of that name; another wording may help.",
    429: "The service is busy; wait before trying again.",
}
# Python knows encodings that take quadratic time (punycode) or mean something else than characters.
_CHARSET = re.compile(
    r"utf-?(8|16(le|be)?)|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1|windows-\d{3,4}|cp\d{3,4}|koi8-[ru]"
    r"|shift_jis|euc-(jp|kr)|iso-2022-jp|gb2312|gbk|gb18030|big5"
)


def refusal(headers: Mapping[str, str], limit: int) -> ToolError | None:
    """Why an answer with these headers is not read at all: it is compressed, or longer than `limit` bytes."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        return ToolError(ToolCode.BAD_ANSWER, "The service sent a compressed answer that nobody asked for.")
    length = headers.get("content-length", "")
    return too_large() if length.isdecimal() and int(length[:20]) > limit else None


def too_large() -> ToolError:
    return ToolError(ToolCode.TOO_LARGE, "The service's answer is too large.", hint="Ask for less.")


def http_error(status: int, retry_after_s: float | None) -> HttpError:
    """What is told of an answer with `status`, which is not 2xx."""
    if 300 <= status < 400:
        message = f"The service sent a redirect (HTTP {status}), which is not followed."
    else:
        message = f"The service answered with HTTP {status}."
    return HttpError(status, message, hint=_HINTS.get(status, ""), retry_after_s=retry_after_s)


def parse_answer(content_type: str, body: bytes, expect: Sequence[str] = ()) -> Json:
    """JSON as JSON, text as text, nothing as None. Raises ToolError(bad_answer) for anything else.

    `expect` are the content types that the operator takes (`text/*` for all of text); without it HTML is refused,
    since it is what a service shows people who should log in.
    """
    if not body.strip():
        return None
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if expect and not any(fnmatchcase(kind, wanted) for wanted in expect):
        raise _not_understood(" or ".join(expect))
    if kind in ("", "application/json", "text/json") or kind.endswith("+json"):
        try:
            value: Json = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if kind:
                raise _not_understood("valid JSON") from None
        else:
            return value
    if not expect and (kind == "text/html" or (kind and not kind.startswith("text/"))):
        raise _not_understood("JSON or plain text")
    charset = re.search(r"charset=\"?([\w-]+)", rest, re.IGNORECASE)
    name = charset[1].lower() if charset else "utf-8"
    if not _CHARSET.fullmatch(name):
        raise _not_understood("readable text")
    try:
        return body.decode(name)
    except (UnicodeDecodeError, LookupError):
        raise _not_understood("readable text") from None


def _not_understood(expected: str) -> ToolError:
    return ToolError(ToolCode.BAD_ANSWER, f"The service's answer is not {expected}.")
