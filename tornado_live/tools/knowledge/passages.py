"""Documents cut into passages, by their headings. Pure: text comes in, passages come out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

MARKDOWN: Final = frozenset({".md", ".markdown"})
HTML: Final = frozenset({".html", ".htm"})
SUFFIXES: Final = MARKDOWN | HTML | {".txt"}


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one section. `heading` is the path of headings under the title, joined with " > "."""

    title: str
    heading: str
    text: str


def read_document(text: str, path: PurePath, limit: int) -> Iterator[Passage]:
    """Passages of a file, by the suffix of its name; each text is at most about `limit` characters long."""
    name = path.stem.replace("-", " ").replace("_", " ")
    if path.suffix.lower() in MARKDOWN:
        yield from read_markdown(text, name, limit)
    elif path.suffix.lower() in HTML:
        yield from read_html(text, name, limit)
    else:
        for part in _parts(text, limit):
            yield Passage(name, "", part)


def read_markdown(text: str, name: str, limit: int) -> Iterator[Passage]:
    """Passages of a Markdown text; a `#` inside a code fence is no heading."""
    title, fence = "", ""
    path: list[str] = []
    lines: list[str] = []
    sections: list[tuple[list[str], list[str]]] = []
    for line in _without_comments(_without_front_matter(text)).splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence):
            fence = ""
        found = None if fence else _heading(line, lines)
        if found is None:
            lines.append(line)
            continue
        level, words = found
        sections.append((path, lines))
        lines = []
        if level == 1 and not title:
            title, path = words, []
        else:
            path = [*path[: max(level - 2, 0)], words]
    sections.append((path, lines))
    for headings, body in sections:
        for part in _parts("\n".join(body), limit):
            if told := _inline(part):
                yield Passage(title or name, " > ".join(headings), told)


def _heading(line: str, before: list[str]) -> tuple[int, str] | None:
    """Level and words, of `## words`, or of a line that is underlined, which is then taken from `before`."""
    marked = re.match(r" {0,3}(#{1,6})(?:\s+(.*))?$", line)
    if marked:
        return len(marked[1]), _inline(re.sub(r"(?:^|\s)#+\s*$", "", marked[2] or "").strip())
    underlined = re.match(r" {0,3}(=+|-{2,})\s*$", line)
    if not underlined or not before or not re.match(r" {0,3}[^\W_]", before[-1]):
        return None
    if len(before) > 1 and before[-2].strip():
        return None  # the end of a paragraph above a line
    return (1 if underlined[1][0] == "=" else 2), _inline(before.pop().strip())


def read_html(text: str, name: str, limit: int) -> Iterator[Passage]:
    """Passages of what an HTML page shows; its first h1, else its title element, is the title."""
    reader = _read_page(text)
    title = next((words for level, words, _ in reader.sections if level == 1), reader.title) or name
    path: list[str] = []
    for level, words, body in reader.sections:
        if level:
            path = [] if words == title and level == 1 else [*path[: max(level - 2, 0)], words]
        for part in _parts(body, limit):
            yield Passage(title, " > ".join(path), part)


def visible_text(page: str) -> str:
    """What an HTML page shows, as plain text: no markup, scripts or styles."""
    return "\n\n".join(part for _, words, body in _read_page(page).sections for part in (words, body) if part)


def _read_page(text: str) -> _Page:
    """Reads any text in time that grows with its length alone, which Python's own parser does not promise."""
    page = _Page()
    at = 0
    quotes_end = True
    while (begin := text.find("<", at)) >= 0:
        page.add(text[at:begin])
        if text.startswith("<!--", begin):
            end = text.find("-->", begin + 4)
            at = end + 3
        elif text.startswith(("<!", "<?"), begin):
            end = text.find(">", begin)
            at = end + 1
        elif (tag := _TAG.match(text, begin)) is None:
            page.add("<")
            end = at = begin + 1
        else:
            name = tag[2].lower()
            whole = _REST_OF_TAG.match(text, tag.end()) if quotes_end else None
            quotes_end = whole is not None  # of a quote that does not end only the first is looked for
            end = whole.end() - 1 if whole is not None else text.find(">", tag.end())
            at = end + 1
            if end >= 0 and name in _RAW and not tag[1]:
                closing = _RAW[name].search(text, at)
                inside, at = (
                    (text[at : closing.start()], closing.start()) if closing else (text[at:], len(text))
                )
                if name == "title":
                    page.title = page.title or _squeeze(html.unescape(inside))
            elif end >= 0 and tag[1]:
                page.close(name)
            elif end >= 0 and not (name in _HIDDEN and text[end - 1] == "/"):
                page.open(name)
        if end < 0:
            return page  # what was begun never ends
    page.add(text[at:])
    return page


_TAG: Final = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
_REST_OF_TAG: Final = re.compile(r"(?:[^\"'>]++|\"[^\"]*+\"|'[^']*+')*+>")
_RAW: Final = {
    name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "title", "textarea")
}
_HIDDEN: Final = frozenset({"template", "noscript", "svg"})
_BLOCKS: Final = frozenset(
    {"p", "div", "li", "tr", "br", "section", "article", "pre", "table", "ul", "ol", "dd"}
)


class _Page:
    """Collects sections as (level of the heading or 0, heading, text)."""

    def __init__(self) -> None:
        self.title = ""
        self._sections: list[tuple[int, list[str], list[str]]] = [(0, [], [])]
        self._hidden = 0
        self._in_heading = False

    @property
    def sections(self) -> list[tuple[int, str, str]]:
        return [
            (level, _squeeze("".join(words)), _paragraphs("".join(body)))
            for level, words, body in self._sections
        ]

    def open(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif re.fullmatch(r"h[1-6]", tag):
            self._in_heading = True
            self._sections.append((int(tag[1]), [], []))
        elif tag in _BLOCKS:
            self._sections[-1][2].append("\n\n" if tag == "p" else "\n")

    def close(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif re.fullmatch(r"h[1-6]", tag):
            self._in_heading = False
        elif tag in _BLOCKS:
            self._sections[-1][2].append("\n")

    def add(self, markup: str) -> None:
        if not markup or self._hidden:
            return
        data = html.unescape(markup)
        if self._in_heading:
            self._sections[-1][1].append(data)
        else:
            self._sections[-1][2].append(re.sub(r"\s+", " ", data))


def _parts(text: str, limit: int) -> Iterator[str]:
    """Paragraphs joined up to `limit` characters; a longer one is cut where it reads best."""
    held = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        for piece in _pieces(paragraph.strip("\n").rstrip(), limit):
            if held and len(held) + len(piece) + 2 > limit:
                yield held
                held = ""
            held = f"{held}\n\n{piece}" if held else piece
    if held:
        yield held


def _pieces(paragraph: str, limit: int) -> Iterator[str]:
    """A table by its rows, each part under the names of the columns; anything else by lines or sentences."""
    if len(paragraph) <= limit:
        if paragraph.strip():
            yield paragraph.strip()
        return
    lines = paragraph.strip().split("\n")
    head = ""
    if len(lines) > 2 and lines[0].startswith("|") and "-" in lines[1] and not lines[1].strip("|:- \t"):
        head = f"{lines[0]}\n{lines[1]}\n"
        rows = "\n".join(lines[2:])
    else:
        rows = paragraph.strip()
    room = limit - len(head) if len(head) < limit // 2 else limit
    while rows:
        piece, rows = _cut(rows, room)
        yield f"{head}{piece}" if room < limit else piece


def _cut(text: str, limit: int) -> tuple[str, str]:
    if len(text) <= limit:
        return text, ""
    row = max(text.rfind(end, 0, limit) for end in ("\n|", "\n- ", "\n* "))
    sentence = max(text.rfind(end, 0, limit) for end in (". ", "! ", "? ", ".\n"))
    if row > 0:
        at = row
    elif sentence > limit // 2:
        at = sentence + 1
    else:
        at = max(text.rfind(" ", 0, limit), text.rfind("\n", 0, limit))
    at = at if at > 0 else limit
    return text[:at].rstrip(), text[at:].lstrip()


def _without_front_matter(text: str) -> str:
    if not text.startswith("---\n"):
        return text
    end = text.find("\n---\n", 3)
    return text if end < 0 else text[end + 5 :]


def _without_comments(text: str) -> str:
    """Without `<!-- … -->`, in one pass however many are never closed."""
    if "<!--" not in text:
        return text
    shown: list[str] = []
    at = 0
    while (begin := text.find("<!--", at)) >= 0 and (end := text.find("-->", begin)) >= 0:
        shown.append(text[at:begin])
        at = end + 3
    return "".join([*shown, text[at:]])


def _inline(text: str) -> str:
    """Markdown that is read aloud: links by their words, no emphasis marks, no wrapped lines."""
    text = re.sub(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s[^()]*)?\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)([^\n]+?)(?<=\S)\1", r"\2", text)
    if "```" not in text and "~~~" not in text:
        text = re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=[^\W\d_]|[\"'(])", " ", text)
    return text.strip()


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _paragraphs(text: str) -> str:
    lines = "\n".join(re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
