"""What `tornado-live knowledge index` and `search` do: text for people, and an exit code."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Final, TextIO

from tornado_live.errors import nearest
from tornado_live.tools.builtin.knowledge import PASSAGE_CHARS, index_of, same_words, search
from tornado_live.tools.catalog import ToolCatalog
from tornado_live.tools.knowledge.index import IndexUnusable, Report
from tornado_live.tools.result import Json

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2


def make_index(catalog: ToolCatalog, name: str | None, *, anew: bool, out: TextIO) -> int:
    """Brings the index of every documents source up to date, or of the one called `name`, and tells what it found.

    What was left out is told and is no failure; an index that cannot be written is.
    """
    names = _named(catalog, name, out)
    if names is None:
        return MISUSED
    code = OK
    for each in names:
        for chars in _lengths(catalog, each):
            index = index_of(each, catalog.sources, chars)
            try:
                if anew:
                    index.forget()
                report = index.update()
            except IndexUnusable as error:
                out.write(f"{each}: {error}\n")
                code = FAILED
                continue
            out.write(f"{each}: {_told(report)}\n    kept in {index.path}\n")
            for remark in report.remarks:
                out.write(f"    {remark}\n")
    return code


def find(catalog: ToolCatalog, query: str, name: str | None, limit: int, *, out: TextIO) -> int:
    """Prints the passages that a tool would answer `query` with, best first. 1 if there is none."""
    names = _named(catalog, name, out)
    if names is None:
        return MISUSED
    found = False
    for each in names:
        index = index_of(each, catalog.sources, _lengths(catalog, each)[0])
        try:
            index.update()
            answers = index.search(query, limit, _synonyms(catalog, each))
        except IndexUnusable as error:
            out.write(f"{each}: {error}\n")
            return FAILED
        for answer in answers:
            found = True
            heading = answer.heading or answer.title
            out.write(f"{answer.file} > {heading}  ({answer.score:.1f})\n")
            out.write(textwrap.indent(answer.text, "    ") + "\n\n")
    if not found:
        out.write("Nothing was found; try other or fewer words.\n")
    return OK if found else FAILED


def _named(catalog: ToolCatalog, name: str | None, out: TextIO) -> list[str] | None:
    known = [each for each, source in catalog.sources.items() if source["kind"] == "documents"]
    if name is None and known:
        return known
    if name in known:
        return [name]
    if not known:
        out.write(
            "tools.yaml has no documents source; write one below sources:, docs/builtin-tools.md says how.\n"
        )
    else:
        out.write(
            f'"{name}" is no documents source{nearest(str(name), known)}; there are {", ".join(known)}\n'
        )
    return None


def _lengths(catalog: ToolCatalog, name: str) -> list[int]:
    """The lengths of passage that tools cut this source into."""
    return sorted({int(str(each["passage_chars"])) for each in _uses(catalog, name)}) or [PASSAGE_CHARS]


def _synonyms(catalog: ToolCatalog, name: str) -> list[frozenset[str]]:
    return [group for each in _uses(catalog, name) for group in same_words(each)]


def _uses(catalog: ToolCatalog, name: str) -> list[Mapping[str, Json]]:
    """The options of every tool that searches this source."""
    return [
        tool.options
        for tool in catalog.tools.values()
        if tool.handler is not None and tool.handler.function is search and tool.options.get("source") == name
    ]


def _told(report: Report) -> str:
    what = [
        f"{number} {word}"
        for number, word in ((report.added, "new"), (report.changed, "changed"), (report.removed, "gone"))
        if number
    ]
    return (
        f"{_count(report.files, 'file')}, {_count(report.passages, 'passage')}"
        f" ({', '.join(what) or 'nothing changed'}, {report.seconds:.1f} s)"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
