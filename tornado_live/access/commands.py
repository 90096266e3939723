"""What the commands of `tornado-live token` do: text for people, and an exit code.

They speak to the store alone, so that they work while the server runs, and while it does not.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TextIO
from urllib.parse import urlsplit

from tornado_live.access.identity import is_user, own_limits
from tornado_live.access.keys import Key, keep_key, list_keys, make_key, revoke_key
from tornado_live.access.limits import OWN
from tornado_live.errors import ConfigError, LiveError, Problem, nearest
from tornado_live.observe.events import rfc3339
from tornado_live.sessions.opening import open_store
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Settings

OK: Final = 0
FAILED: Final = 1
BLOCKED: Final = "24h"
"""How long a user or a signed token is kept out where nothing else is said."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_ROLE = re.compile(r"[^\s,]{1,256}")
_LENGTH = re.compile(r"([1-9][0-9]{0,8})([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST_S = 3650 * 86_400
_OWN_ROLES = {
    "operator": "metrics, every tool by REST",
    "backend": "makes sessions for users that it names",
}
_COLUMNS = ("ID", "NAME", "ACTS FOR", "ROLES", "ASSISTANT", "LIMITS", "MADE", "ENDS")


@dataclass(frozen=True, slots=True)
class Asked:
    """What `create` was asked for, as typed."""

    name: str
    user: str | None = None
    roles: Sequence[str] = ()
    assistant: str | None = None
    expires: str | None = None
    limits: Sequence[str] = ()


async def create(settings: Settings, asked: Asked, out: TextIO, told: TextIO) -> int:
    """The key alone goes to `out`, so that it can be piped; what it may do to `told`. Raises ConfigError."""
    shown, key = _made(settings, asked)
    expires_at = None if key.left_s is None else key.created_at + key.left_s
    try:
        async with _opened(settings) as store:
            if any(key.name == other.name for other in await list_keys(store)):
                raise _mistake(
                    "--name", f'there is a key "{key.name}" already - choose another name, or revoke it first'
                )
            await keep_key(store, key, expires_at)
    except LiveError as error:
        return _failed(error, told)
    out.write(f"{shown}\n")
    out.flush()
    told.write(f'This is the API key "{key.name}". It is shown once: only a hash of it is kept.\n')
    for what, value in _described(settings, key):
        told.write(f"  {what:<10} {value}\n")
    if "api_key" not in settings.auth.modes:
        told.write("warning: auth.modes has no api_key, so a server with these settings takes no API keys.\n")
    return OK


async def show_all(settings: Settings, out: TextIO, told: TextIO) -> int:
    """A table of the keys that have not ended, and no secret."""
    try:
        async with _opened(settings) as store:
            found = await list_keys(store)
    except LiveError as error:
        return _failed(error, told)
    if not found:
        out.write(f"There are no API keys in {_place(settings)}.\n")
        return OK
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")
    return OK


async def revoke(settings: Settings, named: str, out: TextIO, told: TextIO) -> int:
    """The key of this id or name; the key itself will do."""
    found = re.fullmatch(r"tl_([a-z0-9]{12})_.*", named, re.ASCII)
    wanted = found[1] if found else named
    try:
        async with _opened(settings) as store:
            kept = await list_keys(store)
            key = next((key for key in kept if key.id == wanted), None)
            key = key or next((key for key in kept if key.name == wanted), None)
            if key is None:
                names = [*(one.name for one in kept), *(one.id for one in kept)]
                hint = nearest(wanted, names) or " that has not ended"
                told.write(f'There is no API key "{_plain(wanted)}"{hint.rstrip("?")}.\n')
                return FAILED
            await revoke_key(store, key)
    except LiveError as error:
        return _failed(error, told)
    out.write(f'The API key "{_plain(key.name)}" ({_plain(key.id)}) is revoked.')
    out.write(" Whoever talks with it is sent away within seconds.\n")
    return OK


async def block(
    settings: Settings, subjects: Mapping[str, str], lasts: str, out: TextIO, told: TextIO
) -> int:
    """Keeps out who comes as one of `subjects` (`user`, `jwt`), whatever is shown. Raises ConfigError."""
    lasts_s = _seconds("--for", lasts)
    if not all(subjects.values()):
        raise _mistake("--user", "is empty")
    try:
        async with _opened(settings) as store:
            for kind, name in subjects.items():
                await store.revoke(f"{kind}:{name}", lasts_s=lasts_s)
    except LiveError as error:
        return _failed(error, told)
    who = {"user": "the user", "jwt": "the token with jti"}
    for kind, name in subjects.items():
        out.write(f"Nobody comes in as {who[kind]} {_plain(name)} until {rfc3339(time.time() + lasts_s)}.")
        out.write(" Whoever talks so is sent away within seconds.\n")
    return OK


def _made(settings: Settings, asked: Asked) -> tuple[str, Key]:
    """Raises ConfigError with every mistake there is."""
    problems: list[Problem] = []

    def refuse(option: str, message: str) -> None:
        problems.append(Problem("command line", None, option, message))

    if not _NAME.fullmatch(asked.name):
        refuse("--name", "is letters, digits, dots, dashes and underscores, at most 63")
    if asked.user is not None and not is_user(asked.user):
        refuse("--user", "is a name of at most 256 characters, and neither local nor key:…")
    for role in asked.roles:
        if not _ROLE.fullmatch(role):
            refuse("--role", f'"{_plain(role)}" is no role: one word each, such as operator')
    if asked.assistant is not None and asked.assistant not in settings.assistants:
        hint = nearest(asked.assistant, settings.assistants)
        known = hint or f"; known are {', '.join(settings.assistants)}"
        refuse("--assistant", f'there is no assistant "{_plain(asked.assistant)}"{known}')
    limits: dict[str, float] = {}
    for text in asked.limits:
        name, _, value = text.partition("=")
        if name not in OWN:
            known = nearest(name, OWN) or f"; a key may have {', '.join(sorted(OWN))}"
            refuse("--limit", f'there is no limit "{_plain(name)}" of a key{known}')
        elif not isinstance(number := _number(value), int | float) or not 0 <= number < float("inf"):
            refuse("--limit", f'"{_plain(text)}" is not NAME=NUMBER, 0 or more')
        else:
            limits |= own_limits({name: number})
    left_s = None
    try:
        left_s = None if asked.expires is None else _seconds("--expires", asked.expires)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    shown, key = make_key(
        asked.name,
        now=time.time(),
        user=asked.user,
        roles=frozenset(asked.roles),
        assistant=asked.assistant,
        limits=limits,
    )
    return shown, replace(key, left_s=left_s)


def _described(settings: Settings, key: Key) -> Sequence[tuple[str, str]]:
    rights = (f"{role} ({_OWN_ROLES[role]})" if role in _OWN_ROLES else role for role in sorted(key.roles))
    return (
        ("id", key.id),
        ("acts for", key.caller.user),
        ("roles", ", ".join(rights) or "none"),
        ("assistant", key.assistant or "any"),
        ("limits", _limits(key) or "those of the server"),
        ("ends", _end(key, key.created_at)),
        ("kept in", _place(settings)),
    )


def _row(key: Key) -> tuple[str, ...]:
    cells = (
        key.id,
        key.name,
        key.caller.user,
        ", ".join(sorted(key.roles)) or "-",
        key.assistant or "-",
        _limits(key) or "-",
        rfc3339(key.created_at)[:10],
        _end(key, time.time()),
    )
    return tuple(map(_plain, cells))


def _limits(key: Key) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in sorted(key.limits.items()))


def _end(key: Key, now: float) -> str:
    return "never" if key.left_s is None else f"{rfc3339(now + key.left_s)[:16].replace('T', ' ')} UTC"


def _place(settings: Settings) -> str:
    if settings.redis_url is None:
        return str(settings.data_dir)
    url = urlsplit(settings.redis_url.get_secret_value())
    return f"Redis at {url.hostname or url.path}" + (f":{url.port}" if url.port else "")


def _seconds(option: str, text: str) -> float:
    found = _LENGTH.fullmatch(text.strip())
    seconds = 0 if found is None else int(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= _LONGEST_S:
        raise _mistake(option, f'"{_plain(text)}" is no length of time: 12h, 90d, at most 3650d')
    return seconds


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _plain(text: str) -> str:
    """Without what a terminal would obey: what is in the store may be anybody's."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _mistake(option: str, message: str) -> ConfigError:
    return ConfigError([Problem("command line", None, option, message)])


def _failed(error: LiveError, told: TextIO) -> int:
    told.write(f"{error.message}\n")
    return FAILED


def _check_owner(settings: Settings) -> None:
    """A file that root makes in the directory of the server's user, the server cannot open. Raises ConfigError."""
    if settings.redis_url is not None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    if (settings.data_dir / "sessions.db").exists():
        return
    try:
        owner = settings.data_dir.stat().st_uid
    except OSError:
        return
    if owner != 0:
        try:
            name = settings.data_dir.owner()
        except KeyError:  # known by its number alone, as in a container
            name = f"#{owner}"
        message = f"{settings.data_dir} belongs to {name}, not to root - run the command as sudo -u {name}"
        raise ConfigError([Problem("command line", None, "data_dir", message)])


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[SessionStore]:
    """Raises ConfigError."""
    _check_owner(settings)
    store = await open_store(settings)
    try:
        yield store
    finally:
        await store.close()
