"""Whether what should be shut is, from what a stranger was answered. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tornado_live.deploy import remedies
from tornado_live.deploy.findings import FOREIGN, FORGED, Finding, note, ok, wrong
from tornado_live.deploy.seen import Answer, Closed, NoAnswer, Seen
from tornado_live.deploy.target import Target

REFUSALS = (401, 403, 429)

_CLOSED = (1006, 1008, 4401, 4403, 4429)
"""How a WebSocket ends for whoever is not let in. Another close is about what comes after that."""
_HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
_POLICY = ("default-src 'self'", "object-src 'none'", "frame-ancestors 'none'")
_UNSAFE = ("'unsafe-inline'", "'unsafe-eval'", "*", "https:", "http:")
_VERSION = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Tried:
    """A door and what it answered. `took` says of a WebSocket that it began a conversation."""

    door: str
    seen: Seen | Closed
    took: bool = False

    @property
    def is_open(self) -> bool:
        match self.seen:
            case Closed(code=code):
                return self.took or code not in _CLOSED
            case NoAnswer():
                return False
            case Answer(status=101):
                return self.took
            case Answer(status=status):
                return status not in REFUSALS


def of_strangers(without: Sequence[Tried], wrongly: Sequence[Tried]) -> list[Finding]:
    """Who shows nothing, and who shows a credential that is none."""
    found = []
    for who, tried in (("nobody in particular", without), ("whoever makes up a key", wrongly)):
        if doors := [one.door for one in tried if one.is_open]:
            text = f"{who} is let in at {', '.join(doors)}: write auth.modes: [api_key]"
            found.append(wrong("identity", text))
    if silent := [one.door for one in without if isinstance(one.seen, NoAnswer)]:
        found.append(wrong("identity", f"no answer from {', '.join(silent)}"))
    return found or [
        ok("identity", f"{len(without)} doors are shut to strangers, and to a key that is made up")
    ]


def of_token(seen: Seen) -> Finding:
    """What one's own credential got from a route of callers."""
    if isinstance(seen, Answer) and seen.status == 200:
        return ok("token", "the credential that was given is taken")
    return wrong("token", f"the credential that was given is not taken: {seen.shown}")


def of_operators(metrics: Seen, invoke: Seen, *, shows: bool, here: bool) -> list[Finding]:
    """The routes of operators. `shows`: asked with the credential that was given. `here`: on this machine itself,
    without a proxy, where metrics are open."""
    who = "the credential that was given" if shows else "anybody"
    found = []
    if isinstance(metrics, Answer) and metrics.status == 200:
        if shows:
            found.append(note("metrics", "the credential that was given reads them: it is an operator's"))
        elif here:
            found.append(note("metrics", "open to this machine, from which they were asked for"))
        else:
            text = "/metrics is open to anybody: does the proxy hide that it is one?"
            found.append(wrong("metrics", text, remedies.HEADERS))
    elif not shows:
        found.append(ok("metrics", "shut"))
    if isinstance(invoke, Answer) and invoke.status not in (*REFUSALS, 405) and not _is_of_a_proxy(invoke):
        if shows:
            found.append(note("invoke", "the credential that was given runs tools: it is an operator's"))
        else:
            found.append(wrong("invoke", f"{who} runs tools by POST /api/tools/…/invoke: write auth.modes"))
    elif not shows:
        found.append(ok("invoke", "shut"))
    return found


def _is_of_a_proxy(seen: Answer) -> bool:
    return not seen.is_ours and seen.status in (404, 405)


def of_foreign(rest: Seen, upgraded: Seen, preflight: Seen) -> list[Finding]:
    """What a page of FOREIGN was answered."""
    let_in = []
    if not (isinstance(rest, Answer) and rest.status == 403):
        let_in.append("REST")
    if isinstance(upgraded, Answer) and upgraded.status == 101:
        let_in.append("the WebSocket")
    if isinstance(preflight, Answer) and preflight.headers.get("access-control-allow-origin") in (
        FOREIGN,
        "*",
    ):
        let_in.append("what comes before a call of another origin")
    if let_in:
        text = f"a page of {FOREIGN} is not refused by {', '.join(let_in)}: look at ALLOWED_ORIGINS"
        return [wrong("origin", text, remedies.HEADERS)]
    return [ok("origin", "pages of other origins are refused")]


def of_headers(page: Seen, target: Target) -> list[Finding]:
    if not isinstance(page, Answer):
        return [wrong("headers", f"no page: {page.shown}")]
    missing = [
        name for name, value in _HEADERS.items() if page.headers.get(name, "").lower() != value.lower()
    ]
    policy = page.headers.get("content-security-policy", "")
    sources = policy.replace(";", " ").split()
    if not all(part in policy for part in _POLICY) or any(part in sources for part in _UNSAFE):
        missing.append("content-security-policy")
    missing += [name for name in ("permissions-policy",) if name not in page.headers]
    found = []
    if missing:
        text = (
            f"missing, or changed on the way: {', '.join(missing)}. Let the proxy pass them on and set none"
        )
        found.append(wrong("headers", text))
    told = [page.headers.get(name, "") for name in ("server", "x-powered-by")]
    if versions := [one for one in told if _VERSION.search(one)]:
        found.append(wrong("headers", f"tell a version: {', '.join(versions)}", remedies.TOKENS))
    if target.tls and "strict-transport-security" not in page.headers:
        text = "without Strict-Transport-Security the first visit of each person goes by http"
        found.append(note("headers", text))
    return found or [ok("headers", "as the server sets them; no version is told")]


def of_old_tls(version: str) -> Finding | None:
    """`version` is that below 1.2 which was agreed on, "" for none."""
    if not version:
        return None
    return wrong("tls", f"{version} is taken, which is broken", remedies.TLS_VERSION)


def of_plain(seen: Seen, port: int) -> Finding | None:
    """http:// beside https://: closed is as good as leading there, of which `of_redirect` tells."""
    if isinstance(seen, NoAnswer):
        return ok("http", f"port {port} is closed ({seen.words})")
    return None


def of_flood(count: int, limited: bool, address: str | None, *, exempt: bool) -> Finding:
    """`count` wrong credentials in a row. `exempt`: the server sees them come from where it does not count."""
    if limited:
        return ok("limits", "who keeps trying wrong credentials is told 429")
    if exempt and address == FORGED:
        return note("limits", "not tried while whoever likes may pass for another")
    if exempt:
        text = f"not tried: the server sees {address}, and addresses of its own machine are not counted"
        return note("limits", text)
    text = f"{count} wrong credentials in a row, and no 429: write limits.denied_per_minute"
    return wrong("limits", text)
