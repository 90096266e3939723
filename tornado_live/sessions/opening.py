"""Which store the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from tornado_live.sessions.sqlite import SqliteSessionStore
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Settings


async def open_store(
    settings: Settings, *, mask: Callable[[str], None] = lambda secret: None
) -> SessionStore:
    """Redis where REDIS_URL names one, else the file in DATA_DIR. Raises ConfigError for what cannot be used.

    A Redis that is away is none of it: it may come. `mask` is told of the secrets that no log may show.
    """
    limits = settings.limits
    if settings.redis_url is None:
        return await SqliteSessionStore.open(
            settings.data_dir / "sessions.db",
            ttl_s=limits.session_ttl_s,
            memory_messages=limits.memory_messages,
            memory_message_bytes=limits.memory_message_bytes,
            memory_bytes=limits.memory_bytes,
        )
    # A fifth of a second that only those pay who use it.
    from tornado_live.sessions.redis import RedisSessionStore

    url = settings.redis_url.get_secret_value()
    for secret in _secrets(url):
        mask(secret)
    return RedisSessionStore(
        url,
        prefix=settings.redis_prefix,
        ttl_s=limits.session_ttl_s,
        memory_messages=limits.memory_messages,
        memory_message_bytes=limits.memory_message_bytes,
        memory_bytes=limits.memory_bytes,
    )


def _secrets(url: str) -> set[str]:
    """The passwords in an address, as they are written there and as they are."""
    parts = urlsplit(url)
    written = {parts.password or ""}
    for name in ("password", "ssl_password"):
        written |= set(parse_qs(parts.query).get(name, ()))
    return {secret for one in written for secret in (one, unquote(one)) if secret}
