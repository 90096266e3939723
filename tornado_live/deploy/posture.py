"""What of a server's own configuration lets in more than it should. Pure.

Each finding names the setting and says what to write. Where it is as it should be the finding says so too, so that
nobody wonders whether it was looked at.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado_live.deploy.findings import Finding, note, ok, wrong
from tornado_live.settings import Settings, is_loopback
from tornado_live.tools.watching import exposure

BOUNDS = (
    "connections_per_address",
    "handshakes_per_minute",
    "requests_per_minute",
    "denied_per_minute",
    "sessions_per_minute",
    "messages_per_s",
    "audio_factor",
    "conversations_per_user",
    "conversation_s",
    "silent_timeout_s",
)
"""Limits that no public server does without."""
_WIDEST = {4: 8, 6: 32}
"""A trusted network with a shorter prefix is no proxy of anybody's."""
_FREE_CHOICES = frozenset({"model", "systemInstruction"})
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
FOREVER_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FileSeen:
    """`private`: nobody but its owner may read it; the others are only not to be changed by others."""

    name: str
    mode: int
    owner: int
    folder_mode: int
    private: bool


@dataclass(frozen=True, slots=True)
class KeySeen:
    name: str
    operator: bool
    forever: bool


def of_settings(settings: Settings) -> Sequence[Finding]:
    return [
        *_identity(settings),
        *_public(settings),
        *_proxies(settings),
        *_origins(settings),
        *_money(settings),
        *_bounds(settings),
        *_choices(settings),
        *_model_side(settings),
        *_store(settings),
        *_running(settings),
    ]


def _identity(settings: Settings) -> Iterable[Finding]:
    if settings.auth.modes:
        yield ok("identity", f"callers show who they are: {' or '.join(sorted(settings.auth.modes))}")
    else:
        yield wrong("identity", "callers are not asked who they are: write auth.modes: [api_key]")


def _public(settings: Settings) -> Iterable[Finding]:
    found = []
    for name in ("public_without_auth", "public_without_tls"):
        if getattr(settings, name):
            found.append(wrong("public", f"{name} is on: take it out, and keep the server behind a proxy"))
    parts = urlsplit(settings.public_url or "")
    if settings.public_url is None:
        found.append(
            note("public", "PUBLIC_URL is not set: clients are told to come back to whatever Host says")
        )
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        found.append(
            wrong("public", "PUBLIC_URL is http: what people say can be heard on the way; write https")
        )
    yield from found or [ok("public", f"only {settings.public_url} leads here, and over TLS")]


def _proxies(settings: Settings) -> Iterable[Finding]:
    plain = not is_loopback(settings.host) and not (settings.port is None and settings.ws_port is None)
    wide = [one for one in settings.trusted_proxies if one.prefixlen < _WIDEST[one.version]]
    if wide:
        named = ", ".join(map(str, wide))
        yield wrong(
            "proxies", f"{named} in TRUSTED_PROXIES lets anybody pass for anybody: name the proxy alone"
        )
    elif plain and settings.trusted_proxies and all(one.is_loopback for one in settings.trusted_proxies):
        text = f"{settings.host} is open to others, and no proxy does TLS for them: write host: 127.0.0.1"
        yield wrong("proxies", text)
    elif plain and settings.trusted_proxies:
        named = ", ".join(map(str, settings.trusted_proxies))
        yield note(
            "proxies", f"let a firewall keep all but {named} from {settings.host}: it speaks no TLS there"
        )
    else:
        named = ", ".join(map(str, settings.trusted_proxies)) or "nobody"
        yield ok("proxies", f"believed about who a client is: {named}")


def _origins(settings: Settings) -> Iterable[Finding]:
    plain = [
        origin
        for origin in settings.allowed_origins
        if origin.startswith("http://") and not is_loopback(urlsplit(origin).hostname or "")
    ]
    own = [] if settings.public_url is None else [settings.public_url]
    if plain := [origin for origin in plain if origin not in own]:
        yield wrong(
            "origin",
            f"pages of {', '.join(plain)} can be changed on their way to people: let them be https, or take them"
            " out of ALLOWED_ORIGINS",
        )


def _money(settings: Settings) -> Iterable[Finding]:
    limits = settings.limits
    if limits.cost_per_day_in_all is None:
        yield wrong("money", "nothing bounds what a day can cost: write limits.cost_per_day_in_all")
    if limits.cost_per_day is None:
        yield wrong("money", "one user may spend what is there for all: write limits.cost_per_day")
    if limits.cost_per_day_in_all is not None and limits.cost_per_day is not None:
        text = f"a day costs at most {limits.cost_per_day_in_all:g}, {limits.cost_per_day:g} for one user"
        yield ok("money", text)
    for model in sorted({assistant.model for assistant in settings.assistants.values()}):
        if (unpriced := settings.prices.warning(model)) is not None:
            yield note("money", unpriced)


def _bounds(settings: Settings) -> Iterable[Finding]:
    off = [f"limits.{name}" for name in BOUNDS if getattr(settings.limits, name) is None]
    if off:
        yield wrong("limits", f"off: {', '.join(off)}; take the line out, the default bounds it")
    else:
        yield ok("limits", "each that has a default is on")


def _choices(settings: Settings) -> Iterable[Finding]:
    if free := sorted(_FREE_CHOICES & settings.allow_client_options):
        yield note(
            "options",
            f"clients may choose {' and '.join(free)}, and so use the model for what they like:"
            " take it out of ALLOW_CLIENT_OPTIONS",
        )
    if not settings.drop_in.enabled:
        yield ok("drop-in", "Google's own clients are not served")
    elif not settings.drop_in.only_models:
        yield wrong(
            "drop-in",
            f"Google's own clients may use any model: write drop_in.only_models: [{settings.gemini_live_model}]",
        )
    else:
        yield ok("drop-in", f"Google's own clients may use {', '.join(sorted(settings.drop_in.only_models))}")


def _model_side(settings: Settings) -> Iterable[Finding]:
    if settings.upstream == "simulator":
        yield wrong("model", "the simulator answers: write upstream: gemini, and GEMINI_API_KEY into .env")
    if settings.mock_tools == "always":
        yield wrong("model", "tools answer with sample data: write mock_tools: never")
    elif settings.mock_tools == "unreachable" and settings.upstream != "simulator":
        yield note(
            "model", "a tool that cannot reach its service answers with sample data: mock_tools: never"
        )


def _store(settings: Settings) -> Iterable[Finding]:
    if settings.redis_url is None:
        return
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme == "unix":
        return
    far = not is_loopback(parts.hostname or "")
    if parts.password is None and "password" not in parts.query:
        yield (wrong if far else note)("store", "Redis asks for no password: give it one, and REDIS_URL too")
    elif far and parts.scheme == "redis" and not _private(parts.hostname or ""):
        yield wrong("store", "what people say crosses the network to Redis unencrypted: write rediss://")
    else:
        yield ok("store", "Redis asks for a password")


def _private(host: str) -> bool:
    """A network of one's own, or a name, of which nobody can tell."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return True


def _running(settings: Settings) -> Iterable[Finding]:
    if settings.log_level == "DEBUG":
        yield wrong("log", "at DEBUG libraries log what goes over the wire: write log_level: info")
    else:
        yield ok("log", f"level {settings.log_level.lower()}")
    if not settings.limits.drain_s:
        yield note("drain", "limits.drain_s is 0: a restart cuts people off in mid-word")
    else:
        yield ok(
            "drain",
            f"a restart lets a turn go on for {settings.limits.drain_s:g} s, a cut line waits for"
            f" {settings.limits.grace_s:g} s",
        )


def of_files(seen: Sequence[FileSeen], user: int) -> Sequence[Finding]:
    """`user` is whom the server runs as."""
    found = []
    for one in seen:
        if one.private and one.mode & _OTHERS:
            option = "o-rwx"
            found.append(wrong("files", f"{one.name} is open to every user of this machine; chmod {option}"))
            continue
        why = exposure(one.mode, one.owner, one.folder_mode, user)
        if why is not None:
            found.append(wrong("files", f"{one.name} {why}"))
    return found or [ok("files", f"others cannot change, nor read what is private: {_listed(seen)}")]


def _listed(seen: Sequence[FileSeen]) -> str:
    return ", ".join(one.name for one in seen)


def of_keys(seen: Sequence[KeySeen], *, alone: bool) -> Sequence[Finding]:
    """`alone`: there is no other way to show who one is."""
    if not seen and alone:
        return [note("keys", "there is none, so nobody can come in: tornado-live token create --name web")]
    operators = sum(one.operator for one in seen)
    said = f"API keys: {len(seen)}, of operators {operators}"
    forever = [one.name for one in seen if one.forever]
    if not forever:
        return [ok("keys", f"{said}; each has an end")]
    names = ", ".join(forever[:FOREVER_SHOWN]) + (" …" if len(forever) > FOREVER_SHOWN else "")
    return [note("keys", f"{said}; {len(forever)} without an end ({names}): make others with --expires 90d")]
