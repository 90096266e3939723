"""The files of the folders that an operator named, and what is in them; never a file outside of them."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tornado_live.tools.knowledge.passages import HTML, SUFFIXES

MOST_FILES: Final = 20_000
LARGEST_FILE: Final = 2_000_000
_MOST_FOLDERS: Final = 20_000
_STILL_NS: Final = 2_000_000_000
"""A file that was changed less long ago than this may change again without another time or size."""
NEVER_NS: Final = -1
"""In the place of the time of a file that is to be read again."""
# Python knows other codecs, which do what no page means, or take for ever.
_CHARSET: Final = re.compile(
    r"utf-?8|iso-8859-\d+|windows-\d+|koi8-[ru]|gb\w+|big5|euc-\w+|shift_jis|us-ascii"
)


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be told of a file or folder: that it was left out, or read otherwise than meant."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was when its folder was looked at. `path` is the real one, `name` what people are told."""

    path: Path
    name: str
    changed_ns: int
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """What was read. `changed_ns` is NEVER_NS where the file may have changed since. `remark` may be empty."""

    text: str
    digest: bytes
    changed_ns: int
    size: int
    remark: str


class Unreadable(Exception):
    """The text says why, for the report."""


def look(folders: Sequence[Path]) -> tuple[list[Found], list[Remark]]:
    """Every document of `folders`, in a steady order, and what was left out of them and why.

    Hidden names are passed over silently. A symbolic link counts if it leads to something in one of the folders.
    """
    roots = [folder.resolve() for folder in folders]
    seen: set[tuple[int, int]] = set()
    found: list[Found] = []
    remarks: list[Remark] = []
    links: list[tuple[Path, str]] = []
    pending = [(root, root.name) for root in reversed(roots)]
    visited: set[tuple[int, int]] = set()
    while pending or links:
        # Links come last, so that a file that is there under two names has its own.
        is_link = not pending
        path, name = links.pop(0) if is_link else pending.pop()
        try:
            if is_link:
                path = path.resolve(strict=True)
            facts = path.stat()
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, on Python 3.11 and 3.12
            remarks.append(Remark(name, _reason(error)))
            continue
        if is_link and not _within(path, roots):
            remarks.append(Remark(name, "leads out of the folders; left out"))
            continue
        identity = (facts.st_dev, facts.st_ino)
        if stat.S_ISDIR(facts.st_mode):
            if identity in visited:
                continue  # a link back, or a folder that was named twice
            if len(visited) >= _MOST_FOLDERS:
                remarks.append(Remark(name, f"there are more than {_MOST_FOLDERS} folders; left out"))
                continue
            visited.add(identity)
            try:
                inside = list(_entries(path, name))
            except OSError as error:
                remarks.append(Remark(name, _reason(error)))
                continue
            pending += [(entry, shown) for entry, shown, link in reversed(inside) if not link]
            links += [(entry, shown) for entry, shown, link in inside if link]
        elif path.suffix.lower() not in SUFFIXES:
            if path in roots:
                remarks.append(Remark(name, f"is none of {', '.join(sorted(SUFFIXES))}; left out"))
        elif identity in seen:
            continue
        elif not stat.S_ISREG(facts.st_mode):
            remarks.append(Remark(name, "is no regular file; left out"))
        elif facts.st_size > LARGEST_FILE:
            megabytes = LARGEST_FILE // 1_000_000
            remarks.append(Remark(name, f"is larger than {megabytes} MB; left out"))
        elif len(found) >= MOST_FILES:
            remarks.append(
                Remark(name, f"there are more than {MOST_FILES} files; it and all after it are left out")
            )
            break
        else:
            seen.add(identity)
            found.append(Found(path, name, facts.st_mtime_ns, facts.st_size))
    return found, remarks


def _entries(folder: Path, name: str) -> Iterator[tuple[Path, str, bool]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if not entry.name.startswith("."):
                yield folder / entry.name, f"{name}/{_shown(entry.name)}", entry.is_symlink()


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _within(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def read(found: Found, folders: Sequence[Path]) -> Content:
    """What is in a file now. Raises Unreadable; never follows a link out of `folders`, waits for no pipe."""
    roots = [folder.resolve() for folder in folders]
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_CLOEXEC", 0)
    )
    try:
        descriptor = os.open(found.path, flags)
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(file.fileno())
            real = found.path.resolve()
            there = real.stat()
            if not _within(real, roots) or (there.st_dev, there.st_ino) != (before.st_dev, before.st_ino):
                raise Unreadable("leads out of the folders; left out")
            if not stat.S_ISREG(before.st_mode):
                raise Unreadable("is no regular file; left out")
            data = file.read(LARGEST_FILE + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise Unreadable(_reason(error)) from error
    if len(data) > LARGEST_FILE:
        raise Unreadable(f"is larger than {LARGEST_FILE // 1_000_000} MB; left out")
    moved = (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or len(
        data
    ) != after.st_size
    fresh = moved or abs(time.time_ns() - after.st_mtime_ns) < _STILL_NS
    text, remark = _decoded(data, found.path.suffix.lower() in HTML)
    if moved:
        remark = "was written to while it was read; it will be read again"
    return Content(
        text=text.replace("\r\n", "\n").replace("\r", "\n"),
        digest=hashlib.sha256(data).digest(),
        changed_ns=NEVER_NS if fresh else after.st_mtime_ns,
        size=after.st_size,
        remark=remark,
    )


def _decoded(data: bytes, is_page: bool) -> tuple[str, str]:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace"), ""
    if b"\0" in data:
        raise Unreadable("holds bytes that no text has; left out")
    declared = re.search(rb"<meta[^<>]{0,200}charset=[\"']?([\w-]{1,40})", data[:2048], re.IGNORECASE)
    if is_page and declared and _CHARSET.fullmatch(name := declared[1].decode("ascii", "replace").lower()):
        try:
            return data.decode(name, "replace"), ""
        except LookupError:
            pass  # a name that is none; what the bytes look like decides
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace"), "is not UTF-8; read as Windows-1252"


def _reason(error: OSError | RuntimeError) -> str:
    match error:
        case FileNotFoundError():
            return "is not there"
        case PermissionError():
            return "may not be read; left out"
        case RuntimeError():
            return "is a link that leads nowhere; left out"
        case OSError(errno=errno.ELOOP):
            return "is a link that leads nowhere; left out"
        case _:
            return f"cannot be read ({error.strerror or type(error).__name__}); left out"
