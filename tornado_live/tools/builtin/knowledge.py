"""Search in folders of Markdown, text and HTML: passages ranked by SQLite's FTS5, with their file and heading."""

from __future__ import annotations

import html.parser
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import handler
from tornado_live.tools.result import Json, ToolCode, ToolError

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "source": {
            "type": "string",
            "default": "handbook",
            "description": "Name of a documents source of tools.yaml",
        },
        "max_passages": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
        "passage_chars": {"type": "integer", "minimum": 200, "maximum": 4000, "default": 900},
    },
    "additionalProperties": False,
}

_MARKDOWN: Final = frozenset({".md", ".markdown"})
_HTML: Final = frozenset({".html", ".htm"})
_SUFFIXES: Final = _MARKDOWN | _HTML | {".txt"}
_MOST_FILES: Final = 5_000
_LARGEST_FILE: Final = 2_000_000
_MOST_WORDS: Final = 32
# A hit in a heading says more about a passage than one in its text.
_RANK: Final = "bm25(passages, 4.0, 6.0, 1.0)"
_FILLERS: Final = frozenset(
    """
    a about an and any are can do does for from give have how i in information is it know me of on or our please
    search show tell that the there this to us we what when where which who why with you your
    """.split()  # noqa: SIM905 - a list of words
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one section. `heading` is the path of headings under the title, joined with " > "."""

    title: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when it was looked at: the index is made anew when one of these differs."""

    path: str
    name: str
    changed_ns: int
    size: int


@handler(options=OPTIONS)
def search(query: str, context: ToolContext, limit: int = 3) -> Json:
    """The best passages: `{"found", "passages": [{"title", "heading"?, "file", "text"}]}`."""
    words = _match(query)
    if not words:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "There is no word to search for in the query.")
    folders = _folders(str(context.options["source"]), context.sources)
    index = _index(tuple(_files(folders)), int(str(context.options["passage_chars"])))
    count = max(1, min(limit, int(str(context.options["max_passages"]))))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(index)
        rows = connection.execute(
            f"SELECT title, shown, file, text FROM passages WHERE passages MATCH ? ORDER BY {_RANK} LIMIT ?",  # noqa: S608
            (words, count),
        ).fetchall()
    passages: list[Json] = [
        {"title": title, **({"heading": heading} if heading else {}), "file": file, "text": text}
        for title, heading, file, text in rows
    ]
    answer: dict[str, Json] = {"found": len(passages), "passages": passages}
    if not passages:
        answer["note"] = "Nothing was found; try other or fewer words."
    return answer


def read_markdown(text: str, name: str, limit: int) -> Iterator[Passage]:
    """Passages of a Markdown text; a `#` inside a code fence is no heading."""
    title, fence = "", ""
    path: list[str] = []
    lines: list[str] = []
    sections: list[tuple[list[str], list[str]]] = []
    for line in _without_front_matter(text).splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence):
            fence = ""
        heading = None if fence else re.match(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$", line)
        if heading is None:
            lines.append(line)
            continue
        sections.append((path, lines))
        level, words = len(heading[1]), _inline(heading[2])
        lines = []
        if level == 1 and not title:
            title, path = words, []
        else:
            path = [*path[: max(level - 2, 0)], words]
    sections.append((path, lines))
    for headings, body in sections:
        for part in _parts("\n".join(body), limit):
            yield Passage(title or name, " > ".join(headings), _inline(part))


def read_html(text: str, name: str, limit: int) -> Iterator[Passage]:
    """Passages of what an HTML page shows; its first h1, else its title element, is the title."""
    reader = _HtmlReader()
    reader.feed(text)
    reader.close()
    title = next((words for level, words, _ in reader.sections if level == 1), reader.title) or name
    path: list[str] = []
    for level, words, body in reader.sections:
        if level:
            path = [] if words == title and level == 1 else [*path[: max(level - 2, 0)], words]
        for part in _parts(body, limit):
            yield Passage(title, " > ".join(path), part)


def visible_text(page: str) -> str:
    """What an HTML page shows, as plain text: no markup, scripts or styles."""
    reader = _HtmlReader()
    reader.feed(page)
    reader.close()
    return "\n\n".join(part for _, words, body in reader.sections for part in (words, body) if part)


class _HtmlReader(html.parser.HTMLParser):
    """Collects sections as (level of the heading or 0, heading, text)."""

    _HIDDEN: Final = frozenset({"script", "style", "template", "noscript", "svg"})
    _BLOCKS: Final = frozenset(
        {"p", "div", "li", "tr", "br", "section", "article", "pre", "table", "ul", "ol", "dd"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._sections: list[tuple[int, list[str], list[str]]] = [(0, [], [])]
        self._hidden = 0
        self._where = ""

    @property
    def sections(self) -> list[tuple[int, str, str]]:
        return [
            (level, _squeeze("".join(words)), _paragraphs("".join(body)))
            for level, words, body in self._sections
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        elif tag == "title":
            self._where = "title"
        elif re.fullmatch(r"h[1-6]", tag):
            self._where = "heading"
            self._sections.append((int(tag[1]), [], []))
        elif tag in self._BLOCKS:
            self._sections[-1][2].append("\n\n" if tag == "p" else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "title" or re.fullmatch(r"h[1-6]", tag):
            self._where = ""
        elif tag in self._BLOCKS:
            self._sections[-1][2].append("\n")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        match self._where:
            case "title":
                self.title = _squeeze(self.title + data)
            case "heading":
                self._sections[-1][1].append(data)
            case _:
                self._sections[-1][2].append(re.sub(r"\s+", " ", data))


def _read(file: _File, limit: int) -> Iterator[Passage]:
    path = Path(file.path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return  # deleted since it was listed; the next search will see that
    name = path.stem.replace("-", " ").replace("_", " ")
    if path.suffix.lower() in _MARKDOWN:
        yield from read_markdown(text, name, limit)
    elif path.suffix.lower() in _HTML:
        yield from read_html(text, name, limit)
    else:
        for part in _parts(text, limit):
            yield Passage(name, "", part)


@lru_cache(maxsize=8)
def _index(files: tuple[_File, ...], limit: int) -> bytes:
    """An FTS5 database in memory, as bytes: each search opens its own copy, so threads share nothing."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(
            "CREATE VIRTUAL TABLE passages USING fts5(title, heading, text, shown UNINDEXED, file UNINDEXED, "
            "tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        for file in files:
            # What stands before the first heading is about the title: most often it is the definition.
            connection.executemany(
                "INSERT INTO passages (title, heading, text, shown, file) VALUES (?, ?, ?, ?, ?)",
                [
                    (found.title, found.heading or found.title, found.text, found.heading, file.name)
                    for found in _read(file, limit)
                ],
            )
        connection.commit()
        return connection.serialize()


def _folders(name: str, sources: Mapping[str, Mapping[str, Json]]) -> list[Path]:
    source = sources.get(name)
    paths = source.get("paths") if source is not None and source.get("kind") == "documents" else None
    if not isinstance(paths, list):
        raise ToolError(ToolCode.FAILED, f'tools.yaml has no documents source "{name}".')
    return [Path(str(path)) for path in paths]


def _files(folders: list[Path]) -> Iterator[_File]:
    """Readable files in a steady order. Hidden names and symbolic links, which may lead out, are passed over."""
    count = 0
    for folder in folders:
        for path, name in _under(folder):
            if path.suffix.lower() not in _SUFFIXES or path.is_symlink():
                continue
            try:
                facts = path.stat()
            except OSError:
                continue
            if facts.st_size > _LARGEST_FILE:
                continue
            count += 1
            if count > _MOST_FILES:
                raise ToolError(ToolCode.TOO_LARGE, f"The folders hold more than {_MOST_FILES} files.")
            yield _File(str(path), name, facts.st_mtime_ns, facts.st_size)


def _under(folder: Path) -> Iterator[tuple[Path, str]]:
    if folder.is_file():
        yield folder, folder.name
        return
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(parent, name)
                yield path, (Path(folder.name) / path.relative_to(folder)).as_posix()


def _match(query: str) -> str:
    """An FTS5 expression of plain words: quoted, so that nothing in them is syntax, and joined with OR."""
    words = list(dict.fromkeys(re.findall(r"\w+", query.lower())))
    telling = [word for word in words if word not in _FILLERS] or words
    return " OR ".join(f'"{word}"' for word in telling[:_MOST_WORDS])


def _parts(text: str, limit: int) -> Iterator[str]:
    """Paragraphs joined up to `limit` characters; a longer one is cut at a sentence, else at a space."""
    held = ""
    for paragraph in re.split(r"\n\s*\n", text):
        rest = paragraph.strip()
        while rest:
            piece, rest = _cut(rest, limit)
            if held and len(held) + len(piece) + 2 > limit:
                yield held
                held = ""
            held = f"{held}\n\n{piece}" if held else piece
    if held:
        yield held


def _cut(text: str, limit: int) -> tuple[str, str]:
    if len(text) <= limit:
        return text, ""
    sentence = max(text.rfind(end, 0, limit) for end in (". ", "! ", "? ", ".\n"))
    at = sentence + 1 if sentence > limit // 2 else max(text.rfind(" ", 0, limit), text.rfind("\n", 0, limit))
    at = at if at > 0 else limit
    return text[:at].rstrip(), text[at:].lstrip()


def _without_front_matter(text: str) -> str:
    return re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL)


def _inline(text: str) -> str:
    """Markdown that is read aloud: links by their words, no emphasis marks, no comments, no wrapped lines."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    if "```" not in text and "~~~" not in text:
        text = re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=[^\W\d_]|[\"'(])", " ", text)
    return text.strip()


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _paragraphs(text: str) -> str:
    lines = "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
