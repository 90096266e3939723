"""An index of folders in an SQLite file: what changed is read again, nothing else."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tornado_live.tools.knowledge.folders import (
    Content,
    Found,
    Remark,
    Unreadable,
    look,
    read,
)
from tornado_live.tools.knowledge.passages import Passage, read_document
from tornado_live.tools.knowledge.query import agreement, is_repeated, ranked, terms, words

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
_BATCH_FILES: Final = 100
_BATCH_CHARS: Final = 2_000_000
LOCK_S: Final = 10.0
"""How long others who write are waited for."""
_MOST_HITS: Final = 2_000
_LOOKED_AT: Final = 6
_HEADING: Final = 0.2
"""How much more a passage is worth whose heading was said whole."""
_AGAIN: Final = 0.6
"""What a further part of a long section is worth, beside sections that were not shown yet."""
_SHOWN_REMARKS: Final = 20
# title, heading, place, text: a hit in a heading says more about a passage than one in its text.
_RANK: Final = "bm25(passages, 2.0, 4.0, 1.0, 1.0)"
_TABLES: Final = """
CREATE TABLE files (
    path BLOB PRIMARY KEY, name TEXT NOT NULL, changed_ns INTEGER NOT NULL, size INTEGER NOT NULL,
    digest BLOB NOT NULL, remark TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE shown (id INTEGER PRIMARY KEY, file TEXT NOT NULL, heading TEXT NOT NULL);
CREATE VIRTUAL TABLE passages USING fts5(
    title, heading, place, text, tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TABLE spoken (word TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_NAMES: Final = ("files", "shown", "passages", "spoken")


class IndexUnusable(Exception):
    """The index cannot be written or read; the text says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an update found. `remarks` tell what was left out of the folders, or read otherwise than meant."""

    files: int
    passages: int
    added: int
    changed: int
    removed: int
    remarks: tuple[Remark, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    title: str
    heading: str
    file: str
    text: str
    score: float


class Index:
    """The passages of `folders`, each about `passage_chars` long, kept in the file `path`.

    Every thread and any process may call anything at any time. Raises IndexUnusable.
    """

    def __init__(self, path: Path, folders: Sequence[Path], passage_chars: int) -> None:
        self.path = path
        self.folders = tuple(folders)
        self.passage_chars = passage_chars
        self._lock = threading.Lock()
        self._running: Future[Report] | None = None
        self._told: tuple[Remark, ...] = ()

    def refresh(self, patience_s: float) -> Report | None:
        """What an update in a thread of its own comes to; None if it takes longer, and then it goes on."""
        with self._lock:
            if self._running is None:
                self._running = Future()
                threading.Thread(
                    target=self._work, args=(self._running,), name="knowledge-index", daemon=True
                ).start()
            running = self._running
        try:
            return running.result(patience_s)
        except TimeoutError:
            return None

    def _work(self, done: Future[Report]) -> None:
        try:
            report = self.update()
        except BaseException as error:  # noqa: BLE001 - belongs to whoever waits
            with self._lock:
                self._running = None
            done.set_exception(error)
            return
        with self._lock:
            self._running = None
        done.set_result(report)

    def update(self) -> Report:
        """Reads what was added or changed since the last time, and forgets what is gone."""
        started = time.monotonic()
        found, remarks = look(self.folders)
        with self._connected() as connection:
            known = {
                row[0]: row[1:]
                for row in connection.execute(
                    "SELECT path, changed_ns, size, digest, name, remark FROM files"
                )
            }
            added = changed = 0
            batch = _Batch(connection, self.passage_chars)
            for file in found:
                key = os.fsencode(file.path)
                before = known.pop(key, None)
                if (
                    before is not None
                    and before[0] == file.changed_ns
                    and before[1] == file.size
                    and before[3] == file.name
                ):
                    if before[4]:
                        remarks.append(Remark(file.name, before[4]))
                    continue
                try:
                    content = read(file, self.folders)
                except Unreadable as error:
                    remarks.append(Remark(file.name, str(error)))
                    if before is not None:
                        known[key] = before
                    continue
                if content.remark:
                    remarks.append(Remark(file.name, content.remark))
                if before is None:
                    added += 1
                elif before[2] != content.digest:
                    changed += 1
                batch.put(key, file, content)
            batch.write()
            for key in known:
                batch.drop(key)
            batch.write()
            files, passages = connection.execute(
                "SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM shown)"
            ).fetchone()
        report = Report(
            files=files,
            passages=passages,
            added=added,
            changed=changed,
            removed=len(known),
            remarks=tuple(remarks),
            seconds=time.monotonic() - started,
        )
        self._log(report)
        return report

    def forget(self) -> None:
        """Empties the index, so that the next update reads everything."""
        with self._connected() as connection, _transaction(connection):
            _make_tables(connection)

    def search(self, query: str, limit: int, same: Sequence[frozenset[str]] = ()) -> list[Answer]:
        """The best passages for what a person said, at most `limit`; none for a text without a word.

        `same` are sets of words that stand for one another in these documents.
        """
        if not words(query):
            return []
        with self._connected() as connection:
            rows = connection.execute("SELECT count(*) FROM shown").fetchone()[0]
            lookup = _Lookup(connection)
            order = ranked(terms(query, lookup.knows, lookup.near, same), lookup.hits, rows)
            return _told(connection, words(query), order, limit)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._open()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise IndexUnusable(f"The index cannot be used: {error}.") from error
            self._discard()
            try:
                connection = self._open()
            except (sqlite3.Error, OSError) as again:
                raise IndexUnusable(f"The index cannot be used: {again}.") from again
        except OSError as error:
            raise IndexUnusable(f"The index cannot be written: {error.strerror or error}.") from error
        with closing(connection):
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    self._discard()
                raise IndexUnusable(f"The index cannot be used: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The documents may be private; the files beside it get the rights of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(self.path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                connection.execute("PRAGMA journal_mode = WAL")
                with _transaction(connection):
                    if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
                        _make_tables(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _discard(self) -> None:
        """A damaged index is made anew: it holds nothing that the documents do not."""
        logger.warning(
            "the index %s is damaged and is made anew", self.path, extra={"event": "knowledge_damaged"}
        )
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _log(self, report: Report) -> None:
        if report.added or report.changed or report.removed:
            fields = {"files": report.files, "passages": report.passages, "added": report.added}
            fields |= {"changed": report.changed, "removed": report.removed}
            text = f"{self.path.stem}: {report.files} files, {report.passages} passages"
            logger.info("%s", text, extra={"event": "knowledge_indexed", "fields": fields})
        if report.remarks != self._told:
            self._told = report.remarks
            for remark in report.remarks[:_SHOWN_REMARKS]:
                logger.warning("%s", remark, extra={"event": "knowledge_remark"})


class _Batch:
    """Changes that are written together, so that others who write wait for a moment only."""

    def __init__(self, connection: sqlite3.Connection, passage_chars: int) -> None:
        self._connection = connection
        self._limit = passage_chars
        self._held: list[tuple[bytes, Found, Content, list[Passage]]] = []
        self._dropped: list[bytes] = []
        self._chars = 0

    def put(self, key: bytes, file: Found, content: Content) -> None:
        passages = list(read_document(content.text, file.path, self._limit))
        self._held.append((key, file, content, passages))
        self._chars += len(content.text)
        if len(self._held) >= _BATCH_FILES or self._chars >= _BATCH_CHARS:
            self.write()

    def drop(self, key: bytes) -> None:
        self._dropped.append(key)

    def write(self) -> None:
        if not self._held and not self._dropped:
            return
        with _transaction(self._connection):
            for key in self._dropped:
                self._remove(key)
            for key, file, content, passages in self._held:
                self._write(key, file, content, passages)
        self._held, self._dropped, self._chars = [], [], 0

    def _write(self, key: bytes, file: Found, content: Content, passages: Sequence[Passage]) -> None:
        execute = self._connection.execute
        row = execute("SELECT digest, name, first, last FROM files WHERE path = ?", (key,)).fetchone()
        if row is not None and row[:2] == (content.digest, file.name):
            first, last = row[2:]
        else:
            self._remove(key)
            first = execute("SELECT coalesce(max(id), 0) + 1 FROM shown").fetchone()[0]
            last = first + len(passages) - 1
            numbered = list(enumerate(passages, first))
            self._connection.executemany(
                "INSERT INTO shown (id, file, heading) VALUES (?, ?, ?)",
                [(number, file.name, passage.heading) for number, passage in numbered],
            )
            # What stands before the first heading is about the title: most often it is the definition.
            self._connection.executemany(
                "INSERT INTO passages (rowid, title, heading, place, text) VALUES (?, ?, ?, ?, ?)",
                [
                    (number, passage.title, passage.heading or passage.title, file.name, passage.text)
                    for number, passage in numbered
                ],
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO spoken (word) VALUES (?)",
                [
                    (word,)
                    for word in {
                        word
                        for passage in passages
                        for word in words(f"{passage.title} {passage.heading} {passage.text}", most=None)
                        if len(word) >= 3
                    }
                ],
            )
        execute(
            "INSERT OR REPLACE INTO files (path, name, changed_ns, size, digest, remark, first, last)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key, file.name, content.changed_ns, content.size, content.digest, content.remark, first, last),
        )

    def _remove(self, key: bytes) -> None:
        execute = self._connection.execute
        row = execute("SELECT first, last FROM files WHERE path = ?", (key,)).fetchone()
        if row is not None:
            execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", row)
            execute("DELETE FROM shown WHERE id BETWEEN ? AND ?", row)
            execute("DELETE FROM files WHERE path = ?", (key,))


class _Lookup:
    """What the index has of a word."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._hits: dict[str, Mapping[int, float]] = {}

    def hits(self, expression: str) -> Mapping[int, float]:
        if expression not in self._hits:
            self._hits[expression] = dict(
                self._connection.execute(
                    f"SELECT rowid, -{_RANK} FROM passages WHERE passages MATCH ? ORDER BY {_RANK} LIMIT ?",  # noqa: S608
                    (expression, _MOST_HITS),
                )
            )
        return self._hits[expression]

    def knows(self, word: str) -> bool:
        return bool(self.hits(f'"{word}"'))

    def near(self, word: str) -> list[str]:
        """Words of about this length that begin with the same letter."""
        rows = self._connection.execute(
            "SELECT word FROM spoken WHERE word >= ? AND word < ? AND length(word) BETWEEN ? AND ?",
            (word[0], chr(ord(word[0]) + 1), len(word) - 2, len(word) + 2),
        )
        return [row[0] for row in rows]


def _told(
    connection: sqlite3.Connection, query: Sequence[str], order: Sequence[tuple[int, float]], limit: int
) -> list[Answer]:
    """The first of `order`, without what says the same again, and of a long section the best parts only."""
    candidates: list[Answer] = []
    for number, score in order[: _LOOKED_AT * limit]:
        row = connection.execute(
            "SELECT passages.title, shown.heading, shown.file, passages.text FROM passages"
            " JOIN shown ON shown.id = passages.rowid WHERE passages.rowid = ?",
            (number,),
        ).fetchone()
        if row is not None:  # else it was removed since by somebody else
            title, heading, file, text = row
            said = agreement(query, heading.rpartition(" > ")[2] or title)
            candidates.append(Answer(title, heading, file, text, score * (1 + _HEADING * said)))
    answers: list[Answer] = []
    seen: list[frozenset[str]] = []
    sections: set[tuple[str, str]] = set()
    for found in sorted(candidates, key=lambda answer: -answer.score):
        if is_repeated(found.text, seen):
            continue
        seen.append(frozenset(words(found.text)))
        is_new = (found.file, found.heading) not in sections
        sections.add((found.file, found.heading))
        answers.append(found if is_new else replace(found, score=found.score * _AGAIN))
    return sorted(answers, key=lambda answer: -answer.score)[:limit]


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _make_tables(connection: sqlite3.Connection) -> None:
    for name in _NAMES:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    for statement in _TABLES.strip().split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_FORMAT}")
