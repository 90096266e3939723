"""What is open to whom, in words for whoever starts the server. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from tornado_live.settings import Auth, Settings, is_loopback

_MONEY = ("cost_per_session", "cost_per_day", "cost_per_day_per_key", "cost_per_day_in_all")
_DAY = ("tool_calls_per_day", "audio_s_per_day", "talk_s_per_day", "tokens_per_day")


def openness(settings: Settings) -> Sequence[str]:
    """Two to six lines; one for a server that nobody beyond this machine knows of, and that asks nobody."""
    if settings.auth.modes:
        lines = [
            f"Callers show {_shown(settings.auth)}.",
            "The pages and /health are open to everybody; /metrics to operators and to this machine.",
        ]
    else:
        lines = [
            f"Whoever reaches {_where(settings)} may talk: callers are not asked who they are (auth.modes)."
        ]
        if _at_home(settings):
            return lines
    return [*lines, *_origins(settings), *_way(settings), _money(settings)]


def _where(settings: Settings) -> str:
    return settings.public_url or settings.host


def _at_home(settings: Settings) -> bool:
    return is_loopback(settings.host) and not settings.public_url and not settings.trusted_proxies


def _shown(auth: Auth) -> str:
    ways = []
    if "api_key" in auth.modes:
        ways.append("an API key (tornado-live token)")
    if "jwt" in auth.modes:
        ways.append(f"a JWT of {auth.jwt_issuer} for {' or '.join(auth.jwt_audience)}")
    return " or ".join(ways)


def _origins(settings: Settings) -> Iterable[str]:
    parts = urlsplit(settings.public_url or "")
    own = f"{parts.scheme}://{parts.netloc}"
    if foreign := [origin for origin in settings.allowed_origins if origin != own]:
        yield f"Pages of {', '.join(foreign)} may use it too (allowed_origins)."


def _way(settings: Settings) -> Iterable[str]:
    """Whose word counts on the way, or who can listen."""
    if settings.trusted_proxies:
        named = ", ".join(map(_named, map(str, settings.trusted_proxies)))
        yield f"Who a client is says the proxy at {named} (trusted_proxies)."
    elsewhere = [network for network in settings.trusted_proxies if not network.is_loopback]
    is_plain = settings.port is not None or settings.ws_port is not None
    if not is_loopback(settings.host) and is_plain and not elsewhere:
        yield "What is sent crosses the network unencrypted (public_without_tls)."


def _named(network: str) -> str:
    """One address without the length of its network."""
    return network.removesuffix("/128" if ":" in network else "/32")


def _money(settings: Settings) -> str:
    if bounds := _written(settings, _MONEY):
        return f"Limits of money: {bounds}."
    days = _written(settings, _DAY)
    return f"No limit of money is set (limits.cost_per_day_in_all).{f' Of a day: {days}.' if days else ''}"


def _written(settings: Settings, names: Iterable[str]) -> str:
    found = {name: getattr(settings.limits, name) for name in names}
    return ", ".join(f"{name} {value:g}" for name, value in found.items() if value is not None)
