"""tools.yaml as it is now: read again when it, what it includes or .env is saved; the last good set stays."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tornado_live.errors import ConfigError
from tornado_live.tools.catalog import ToolCatalog
from tornado_live.tools.tools_file import matching, patterns
from tornado_live.yamlfile import read_yaml

POLL_S: Final = 0.25
_LEAVE_S: Final = 2.0

Stamps: TypeAlias = Mapping[Path, tuple[int, ...]]
"""What tells one state of a file from another; a file that is not there has none."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading the files again. `error` is None where `catalog` is the new set.

    `is_news` is false for a mistake that was told before.
    """

    catalog: ToolCatalog
    error: str | None
    is_news: bool
    cause: Exception | None = None


class Settling:
    """When files that are being written are whole: they look the same twice. Pure."""

    def __init__(self, loaded: Stamps) -> None:
        self._loaded = self._seen = loaded

    def look(self, now: Stamps) -> bool:
        """Whether what is there `now` is new and whole; it counts as loaded then."""
        settled = now == self._seen and now != self._loaded
        self._seen = now
        if settled:
            self._loaded = now
        return settled


class ToolFiles:
    """The files that make the set of tools: tools.yaml, what it includes, and .env. For one thread at a time."""

    def __init__(self, path: Path, *, home: Path) -> None:
        self._path = path
        self._home = home
        self._patterns: list[str] = []
        self._read_at: tuple[int, ...] | None = None

    def stamps(self) -> Stamps:
        first = _stamp(self._path)
        if first != self._read_at:
            self._read_at = first
            try:
                data = read_yaml(self._path).data
            except ConfigError:
                pass  # half written: what it included before still counts
            else:
                self._patterns = patterns(data) if isinstance(data, dict) else []
        files = [self._path, self._home / ".env"]
        for pattern in self._patterns:
            files += matching(self._path, pattern, self._home)[0]
        stamps = ((file, _stamp(file)) for file in files)
        return {file: stamp for file, stamp in stamps if stamp is not None}


class WatchedCatalog:
    """`current` is the newest good set of tools and `error` what is wrong with the files now, in one line.

    `load` gives the set or raises; it runs in a thread of its own, since it may import and open whatever a tool
    needs. `told` hears of every attempt on the loop's thread, before `current` changes. A file counts as whole
    when it looked the same twice, `poll_s` apart.
    """

    def __init__(
        self,
        first: ToolCatalog,
        files: ToolFiles,
        seen: Stamps,
        load: Callable[[], ToolCatalog],
        told: Callable[[Reloaded], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self.current = first
        self.error: str | None = None
        self._files = files
        self._settling = Settling(seen)
        self._load = load
        self._told = told
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self._asked = self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="tools.yaml", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reload(self) -> None:
        """Reads the files again, whether they have changed or not."""
        self._asked = True
        self._wake.set()

    async def close(self) -> None:
        """A set that is being loaded is not waited for without end."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            await self._loop.run_in_executor(None, self._thread.join, _LEAVE_S)

    def _watch(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll_s)
            self._wake.clear()
            asked, self._asked = self._asked, False
            changed = self._settling.look(self._files.stamps())
            if self._stopped or not (asked or changed):
                continue
            catalog, error = None, None
            try:
                catalog = self._load()
            except Exception as raised:  # noqa: BLE001 - whatever it is, the tools that work stay
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._take, catalog, error)
            except RuntimeError:
                return  # the loop is closed

    def _take(self, catalog: ToolCatalog | None, raised: Exception | None) -> None:
        error = in_one_line(raised) if raised is not None else None
        news = Reloaded(catalog or self.current, error, error is None or error != self.error, raised)
        try:
            self._told(news)
        finally:
            self.current, self.error = news.catalog, news.error


def in_one_line(error: Exception) -> str:
    """The first mistake and how many more there are."""
    if not isinstance(error, ConfigError):
        return f"tools.yaml cannot be loaded: {type(error).__name__}"
    more = len(error.problems) - 1
    return f"{error.problems[0]}" + (f" (and {more} more)" if more else "")


def exposed(files: Iterable[Path]) -> list[str]:
    """Who else could change the files, and with them what the model may do: one line each."""
    if os.name != "posix":
        return []
    lines = []
    for file in files:
        try:
            about, folder = file.stat(), file.parent.stat()
        except OSError:
            continue
        why = exposure(about.st_mode, about.st_uid, folder.st_mode, os.geteuid())
        if why is not None:
            lines.append(f"{file.name} {why}")
    return lines


def exposure(mode: int, owner: int, folder_mode: int, own_user: int) -> str | None:
    """Why a file of this mode and owner, in a folder of that mode, is not only its owner's; None where it is."""
    if mode & stat.S_IWOTH:
        return "can be changed by every user of this machine; chmod o-w"
    if folder_mode & stat.S_IWOTH and not folder_mode & stat.S_ISVTX:
        return "can be replaced by every user of this machine; chmod o-w its folder"
    if owner not in (own_user, 0):
        return "belongs to another user of this machine, who can change what the model may do"
    return None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino
