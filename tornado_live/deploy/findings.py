"""What is good and what is wrong, from what the probes saw. Pure: no connection, no clock."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal
from urllib.parse import urlsplit

from tornado_live.deploy import remedies
from tornado_live.deploy.remedies import Remedy
from tornado_live.deploy.seen import (
    Answer,
    Client,
    Closed,
    Echo,
    Idle,
    NoAnswer,
    Quiet,
    Reached,
    Returned,
    Secured,
    Seen,
)
from tornado_live.deploy.target import Target

DAYS_LEFT = 14
"""Certificates are renewed a month before their end; one that was not by now will not be."""
HELD_BACK_MS = 250.0
"""What a small message may take beyond the way there and back; a buffer holds it for as long or longer."""
FORGED = "203.0.113.7"
"""An address of nobody's (RFC 5737), which the check says it comes from."""
FOREIGN = "https://foreign.invalid"
LARGEST = 4 * 1024 * 1024 - 64

Verdict = Literal["ok", "note", "WRONG"]


@dataclass(frozen=True, slots=True)
class Finding:
    step: str
    verdict: Verdict
    text: str
    remedies: tuple[Remedy, ...] = ()


def ok(step: str, text: str) -> Finding:
    return Finding(step, "ok", text)


def note(step: str, text: str) -> Finding:
    return Finding(step, "note", text)


def wrong(step: str, text: str, *mending: Remedy) -> Finding:
    return Finding(step, "WRONG", text, mending)


def of_reached(seen: Reached, target: Target) -> Finding:
    if not seen.addresses:
        return wrong("dns", f"{target.host} has no address: {seen.words}")
    where = ", ".join(seen.addresses)
    if seen.connect_ms is None:
        text = f"{target.host} is {where}, and nothing listens on port {target.port} there ({seen.words})"
        return wrong("connect", text)
    return ok("connect", f"{target.host} is {where}; port {target.port} answers in {seen.connect_ms:.0f} ms")


def of_secured(seen: Secured | None, target: Target) -> list[Finding]:
    """`seen` is None for an address without TLS."""
    if seen is None:
        text = "without https a browser gives no page a microphone, and everybody on the way listens"
        if target.is_loopback:
            return [note("tls", f"none; on other names than this machine's own, {text}")]
        return [wrong("tls", text, remedies.TLS)]
    if seen.plain:
        return [wrong("tls", f"port {target.port} speaks no TLS ({seen.words})", remedies.TLS)]
    if seen.words:
        return [wrong("tls", f"no handshake: {seen.words}", remedies.TLS)]
    found = []
    if seen.distrusted:
        text = f"the certificate is not trusted: {seen.distrusted}."
        if (
            "issuer" in seen.distrusted
            or "self-signed" in seen.distrusted
            or "self signed" in seen.distrusted
        ):
            text += (
                " Its file must hold the certificate and then those between it and its authority"
                " (fullchain.pem); an authority of your own is given with --ca"
            )
        found.append(wrong("tls", text))
    if seen.version in ("SSLv3", "TLSv1", "TLSv1.1"):
        found.append(wrong("tls", f"{seen.version} is broken", remedies.TLS_VERSION))
    if seen.days_left is not None and seen.days_left < DAYS_LEFT and not seen.distrusted:
        text = f"the certificate ends in {seen.days_left:.0f} days; look why it was not renewed"
        found.append(wrong("tls", text))
    if not found:
        left = "" if seen.days_left is None else f", for {seen.days_left:.0f} more days"
        found.append(ok("tls", f"{seen.version}, certificate for {', '.join(seen.names)}{left}"))
    return found


def of_redirect(seen: Seen, target: Target, port: int) -> Finding:
    if isinstance(seen, NoAnswer):
        return note("http", f"port {port} does not answer, so http:// leads nowhere ({seen.words})")
    where = urlsplit(seen.headers.get("location", ""))
    if seen.status in (301, 302, 307, 308) and where.scheme == "https" and where.hostname == target.host:
        return ok("http", f"port {port} leads to https ({seen.status})")
    if seen.status >= 400 and not seen.is_ours:
        return note("http", f"port {port} answers {seen.status}; http:// leads nowhere")
    text = f"port {port} does not lead to https: {seen.shown}. What is sent there everybody can read"
    return wrong("http", text, remedies.REDIRECT)


def of_health(seen: Seen, target: Target) -> Finding:
    """The verdict is WRONG where the server cannot be spoken to; nothing further is to be tried then."""
    path = f"{target.prefix}/health"
    if isinstance(seen, NoAnswer):
        return wrong("health", f"{path}: {seen.shown}", remedies.UPSTREAM)
    if seen.status == 200 and seen.json.get("status") == "ok":
        known = seen.json
        return ok(
            "health",
            f"tornado-live {known.get('version', '?')}, model side {known.get('upstream', '?')},"
            f" {known.get('conversations', '?')} conversations",
        )
    if seen.status in (301, 302, 303, 307, 308):
        return wrong("health", f"{path} leads to {seen.headers.get('location', '?')}; check that address")
    if seen.status == 401 and not seen.is_ours:
        return wrong(
            "health", f"{seen.hop} asks for a password; give it with --header 'Authorization: Basic …'"
        )
    if seen.is_ours and seen.status == 404:
        text = (
            f"tornado-live itself has nothing at {path}: its BASE_PATH is another one,"
            " or the proxy takes the path away"
        )
        return wrong("health", text, remedies.PREFIX)
    if seen.status in (502, 503, 504) and not seen.is_ours:
        text = f"{seen.shown} for {path}: it does not reach the server. Does that run, and listen there?"
        return wrong("health", text, remedies.UPSTREAM)
    return wrong("health", f"{seen.shown} for {path}: the proxy sends this path elsewhere", remedies.PREFIX)


def of_ready(seen: Seen) -> Finding:
    if isinstance(seen, Answer) and seen.status == 200:
        return ok("ready", "a conversation can be started")
    return wrong("ready", f"no conversation can be started: {seen.shown}")


def of_upgrade(seen: Seen, target: Target) -> Finding:
    if isinstance(seen, NoAnswer):
        return wrong("upgrade", f"the WebSocket is not opened: {seen.shown}", remedies.HEADERS)
    if seen.status == 101:
        return ok("upgrade", f"{target.prefix}/ws is a WebSocket")
    if seen.is_ours and seen.status == 403:
        return wrong("upgrade", _not_known_by_its_name(seen, target), remedies.HEADERS, remedies.PUBLIC_URL)
    if seen.is_ours and seen.status in (400, 426):
        text = "the request for a WebSocket arrives as a plain one: the proxy drops Upgrade and Connection"
        return wrong("upgrade", text, remedies.HEADERS)
    return wrong("upgrade", f"the WebSocket is not opened: {seen.shown}", remedies.HEADERS)


def _not_known_by_its_name(seen: Answer, target: Target) -> str:
    return (
        f"the server does not know itself as {target.origin}: “{seen.message}”."
        " Either the proxy does not pass the Host header on, or PUBLIC_URL is not set"
    )


def of_origins(own: Seen, foreign: Seen, without: Seen) -> list[Finding]:
    """`own` is the upgrade with the page's own origin, which `of_upgrade` speaks of."""
    found = []
    if isinstance(foreign, Answer) and foreign.status == 101:
        text = (
            f"a page of {FOREIGN} may open a WebSocket. Is Origin taken away on the way,"
            " or is ALLOWED_ORIGINS too wide?"
        )
        found.append(wrong("origin", text, remedies.HEADERS))
    elif isinstance(foreign, Answer) and foreign.status == 403:
        found.append(ok("origin", f"pages of other origins are refused by {foreign.hop} (403)"))
    else:
        found.append(wrong("origin", f"a foreign origin should be refused with 403; {foreign.shown}"))
    if (
        isinstance(own, Answer)
        and own.status == 101
        and isinstance(without, Answer)
        and without.status == 101
    ):
        found.append(note("origin", "programs, which send no Origin, are let in, too"))
    return found


def of_host(seen: Seen, target: Target) -> Finding:
    """What a foreign name got from /api/tools; some proxies answer it themselves, with an empty 200."""
    if isinstance(seen, Answer) and seen.status < 300 and (seen.is_ours or "tools" in seen.json):
        text = (
            f"the server answers to any name ({seen.status} for Host: foreign.invalid), so that a foreign page can"
            " reach it by a name of its own. Pass the Host header on as it came, and look at ALLOWED_HOSTS"
        )
        return wrong("host", text, remedies.HEADERS)
    who = seen.hop if isinstance(seen, Answer) else "a closed line"
    return ok("host", f"other names than {target.netloc} are refused, by {who}")


def of_address(seen: Seen, session: Mapping[str, object], target: Target) -> list[Finding]:
    """How the server takes itself to be called: what it tells its clients to come back to."""
    if wants_token(seen):
        text = "callers are asked who they are; with --token KEY what they do is tried as well"
        return [note("sessions", text)]
    if isinstance(seen, NoAnswer) or seen.status != 201:
        return [wrong("sessions", f"no session is made: {seen.shown}")]
    told = urlsplit(str(session.get("wsUrl", "")))
    wanted = urlsplit(f"{target.ws_url}/ws")
    if (told.scheme, told.netloc, told.path) == (wanted.scheme, wanted.netloc, wanted.path):
        return [ok("sessions", f"clients are told to come to {wanted.geturl()}")]
    shown = f"{told.scheme}://{told.netloc}{told.path}"
    text = f"clients are told to come to {shown}, which should be {wanted.geturl()}"
    return [wrong("sessions", text, remedies.PUBLIC_URL)]


def wants_token(seen: Seen) -> bool:
    """Whether the server asks who is there, which nobody has said."""
    return isinstance(seen, Answer) and seen.is_ours and seen.status == 401


def of_body(seen: Seen) -> Finding:
    if isinstance(seen, Answer) and seen.status == 201:
        return ok("body", "a body of 60 KiB arrives")
    if isinstance(seen, Answer) and seen.status == 413 and not seen.is_ours:
        return wrong("body", f"{seen.shown} for 60 KiB; the server takes 64", remedies.BODY)
    return wrong("body", f"a body of 60 KiB does not arrive: {seen.shown}", remedies.BODY)


def of_client(seen: Client | None, target: Target) -> list[Finding]:
    """`seen` was asked for with forged headers, which say that the client is FORGED."""
    if seen is None:
        return [note("address", "the server does not say whom it sees; a newer version does")]
    found = []
    if seen.address == FORGED:
        text = (
            f"whoever says X-Forwarded-For: {FORGED} is believed: the proxy passes on what clients write."
            " Limits and logs then hold anybody"
        )
        found.append(wrong("address", text, remedies.HEADERS))
    elif seen.via == "untrusted":
        text = "the server does not believe this proxy's X-Forwarded-For, and takes everybody for the proxy"
        found.append(wrong("address", text, remedies.TRUSTED))
    elif seen.via == "direct" and not _may_be_ours(seen):
        text = "the proxy does not say whose request it is: the server takes everybody for the proxy"
        found.append(wrong("address", text, remedies.HEADERS, remedies.TRUSTED))
    elif seen.via == "direct":
        found.append(note("address", f"the server sees you as {seen.address}, without a word of a proxy"))
    else:
        found.append(ok("address", f"the server sees you as {seen.address}, whatever you say"))
    wanted = "https" if target.tls else "http"
    if seen.via != "direct" and seen.scheme != wanted and seen.address != FORGED:
        text = (
            f"the server takes your {wanted} for {seen.scheme}: X-Forwarded-Proto is missing or not believed"
        )
        found.append(wrong("address", text, remedies.HEADERS, remedies.TRUSTED))
    if seen.host != target.netloc:
        text = f"the server sees the name {seen.host!r}, which should be {target.netloc}"
        found.append(wrong("host", text, remedies.HEADERS))
    return found


def _may_be_ours(seen: Client) -> bool:
    """Whether the address may be that of this machine, or what stands for it outside."""
    try:
        return seen.address in seen.own_addresses or ipaddress.ip_address(seen.address or "").is_global
    except ValueError:
        return False


def of_echoes(seen: Sequence[Echo], connect_ms: float) -> list[Finding]:
    """Small messages first. The quickest of each counts: a busy moment is no buffer."""
    found = []
    lost = next((one for one in seen if len(one.took_ms) < one.wanted), None)
    allowed = HELD_BACK_MS + 3 * connect_ms
    held = next((one for one in seen if one.took_ms and min(one.took_ms) > allowed), None)
    if lost is not None:
        text = f"a message of {_size(lost.size)} did not come back: {lost.words}"
        found.append(wrong("frames", text, remedies.BUFFERING if lost is seen[0] else remedies.HEADERS))
    if held is not None:
        text = (
            f"a message of {_size(held.size)} takes {min(held.took_ms):.0f} ms there and back, where a connection"
            f" takes {connect_ms:.0f} ms: something holds it until more comes"
        )
        found.append(wrong("delay", text, remedies.BUFFERING))
    if not found:
        small, large = seen[0], seen[-1]
        found.append(
            ok(
                "delay",
                f"there and back: {_size(small.size)} in {median(small.took_ms):.0f} ms,"
                f" {_size(large.size)} in {median(large.took_ms):.0f} ms",
            )
        )
    return found


def of_largest(seen: Seen | Closed) -> Finding:
    """A frame as large as the server takes, which it answers by a close with words of its own."""
    if isinstance(seen, Closed) and seen.code in (1007, 1008) and seen.reason:
        return ok("frames", f"a frame of {_size(LARGEST)} arrives")
    if isinstance(seen, Closed):
        text = (
            f"a frame of {_size(LARGEST)} does not arrive: the line was closed with {seen.code} {seen.reason}"
        )
        return wrong("frames", f"{text.rstrip()}. Raise the limit of the proxy for WebSocket messages")
    return note("frames", f"large frames were not tried: {seen.shown}")


def of_drop_in(seen: Seen | Closed) -> Finding:
    if isinstance(seen, Closed) and seen.reason:
        return ok("drop-in", "Google's clients find their endpoint, repeated slashes included")
    if isinstance(seen, Answer) and seen.is_ours and seen.status == 404:
        return note("drop-in", "the server does not serve Google's clients (drop_in.enabled)")
    shown = f"closed with {seen.code}" if isinstance(seen, Closed) else seen.shown
    text = f"//ws/google.ai… of Google's clients does not reach the server: {shown}"
    return wrong("drop-in", text, remedies.SLASHES, remedies.HEADERS)


def of_idle(seen: Idle | Seen | Closed, tried_s: float) -> Finding:
    if isinstance(seen, Closed):
        text = f"the server closed with {seen.code} {seen.reason}".rstrip()
        return note("idle", f"a silent line was not tried, since no conversation could be opened: {text}")
    if not isinstance(seen, Idle):
        return note("idle", f"a silent line was not tried: {seen.shown}")
    line = seen.silent
    came = _what_came(line)
    if line.ended is None:
        if not line.pings and not line.messages and tried_s >= 60:
            text = (
                f"the line stayed open for {tried_s:.0f} s, but neither pings nor messages of the server came"
            )
            return wrong("idle", text, remedies.BUFFERING)
        return ok("idle", f"a silent line stayed open for all {tried_s:.0f} s; {came}")
    cut = f"a silent line was cut after {line.lasted_s:.1f} s (close {line.ended})"
    if seen.again is None:
        return note("idle", f"{cut}, and no other could be opened: {_whose(seen.answers)}")
    if seen.again.ended is None:
        text = f"{cut}, but the next one stayed open for {seen.again.lasted_s:.0f} s: it was not for its silence."
        return note("idle", f"{text} {_whose(seen.answers).capitalize()}")
    if seen.answers is False:
        text = f"{cut}, and so was the next one, and no timeout of a proxy did it: {_whose(False)}"
        return wrong("idle", text)
    limit = line.lasted_s - line.last_came_s
    helped = []
    if seen.by_pings is not None and seen.by_pings.ended is None:
        helped.append("pings")
    if seen.by_messages is not None and seen.by_messages.ended is None:
        helped.append("messages")
    kept = (
        f"{' and '.join(helped)} of the client keep it open"
        if helped
        else "nothing of the client's keeps it open"
    )
    text = (
        f"{cut}, {limit:.1f} s after the last thing that came, and the next one too; {came}; {kept}."
        " Let the proxy wait for 60 s: the server says something at least every 25 s"
    )
    return wrong("idle", text, remedies.READ_TIMEOUT)


def _whose(answers: bool | None) -> str:
    match answers:
        case True:
            return "the process that had it still answers; look whether the proxy was reloaded or restarted"
        case False:
            return "the process that had it does not answer any more; look into its log"
        case None:
            return "look into the logs whether a process or the proxy was restarted"


def _what_came(line: Quiet) -> str:
    count = len(line.pings) + len(line.messages)
    if not count:
        return "nothing came from the server"
    return f"{len(line.pings)} pings and {len(line.messages)} messages came from the server"


def of_returns(seen: Sequence[Returned]) -> Finding:
    lost = [one for one in seen if one.wrong]
    if lost:
        text = f"{len(lost)} of {len(seen)} times a client that came back did not find its session"
        return wrong("return", f"{text}: {lost[0].wrong}. The nodes must share one store", remedies.STORE)
    nodes = {one.node for one in seen if one.node is not None}
    came = f"came back to the same session {len(seen)} times"
    if not nodes:
        return note("return", f"{came}; who answered is not told, so it was maybe not tried on another node")
    if len(nodes) == 1:
        return note("return", f"{came}, always to the same process: not tried on another node")
    return ok("return", f"{came}, to {len(nodes)} processes")


def _size(count: int) -> str:
    if count >= 1_000_000:
        return f"{count / 1024 / 1024:.0f} MiB"
    return f"{count // 1024} KiB" if count >= 1024 else f"{count} bytes"
