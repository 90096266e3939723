"""Search in folders of Markdown, text and HTML: passages with their file and heading."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import Mistake, Sources, handler
from tornado_live.tools.knowledge.index import Index, IndexUnusable
from tornado_live.tools.knowledge.query import words
from tornado_live.tools.result import Json, ToolCode, ToolError

logger = logging.getLogger(__name__)

PASSAGE_CHARS: Final = 900
OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "source": {
            "type": "string",
            "default": "handbook",
            "description": "Name of a documents source of tools.yaml",
        },
        "max_passages": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
        "synonyms": {
            "type": "array",
            "maxItems": 500,
            "items": {
                "type": "array",
                "minItems": 2,
                "maxItems": 20,
                "items": {"type": "string", "pattern": r"^[\p{L}\p{N}]+$", "maxLength": 60},
            },
            "default": [],
            "description": "Lists of words that people say for one another",
        },
        "passage_chars": {"type": "integer", "minimum": 200, "maximum": 4000, "default": PASSAGE_CHARS},
    },
    "additionalProperties": False,
}

PATIENCE_S: Final = 4.0
"""How long a search waits for the index to be brought up to date."""


def check_source(options: Mapping[str, Json], _: Mapping[str, Json], sources: Sources) -> Iterator[Mistake]:
    """The mistake of a source that has no documents."""
    try:
        _documents(str(options["source"]), sources)
    except ToolError as error:
        yield ("source",), error.message


@handler(options=OPTIONS, check=check_source)
def search(query: str, context: ToolContext, limit: int = 3) -> Json:
    """The best passages: `{"found", "passages": [{"title", "heading"?, "file", "text"}], "note"?}`.

    Files that were added, changed or removed are seen by the next search. While a large folder is read for the
    first time, the answer comes from what was read so far, and says so.
    """
    if not words(query):
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "There is no word to search for in the query.")
    options = context.options
    index = index_of(str(options["source"]), context.sources, int(str(options["passage_chars"])))
    count = max(1, min(limit, int(str(options["max_passages"]))))
    lacking = ""
    try:
        if index.refresh(PATIENCE_S) is None:
            lacking = "The documents are still being read; a later search may find more."
    except IndexUnusable as error:  # a full disk, say: what was read before can be searched all the same
        logger.warning("%s", error, extra={"event": "knowledge_not_updated"})
        lacking = "The documents could not be read again; what changed lately is not among these."
    try:
        answers = index.search(query, count, same_words(options))
    except IndexUnusable as error:
        raise ToolError(
            ToolCode.FAILED, str(error), hint="Say that the documents cannot be searched now."
        ) from error
    passages: list[Json] = [
        {
            "title": found.title,
            **({"heading": found.heading} if found.heading else {}),
            "file": found.file,
            "text": found.text,
        }
        for found in answers
    ]
    answer: dict[str, Json] = {"found": len(passages), "passages": passages}
    if lacking:
        answer["note"] = lacking
    elif not passages:
        answer["note"] = "Nothing was found; try other or fewer words."
    return answer


def same_words(options: Mapping[str, Json]) -> list[frozenset[str]]:
    """The option `synonyms`, as the index takes it."""
    written = options["synonyms"]
    groups = written if isinstance(written, list) else []
    return [frozenset(str(word).lower() for word in group) for group in groups if isinstance(group, list)]


def index_of(name: str, sources: Sources, passage_chars: int) -> Index:
    """The index of a documents source. Raises ToolError for a name that is none."""
    base, paths = _documents(name, sources)
    # Passages of another length are another index: two tools may cut the same folders differently.
    return _index(Path(f"{base}-{passage_chars}.db"), paths, passage_chars)


def _documents(name: str, sources: Sources) -> tuple[str, tuple[Path, ...]]:
    """Where the index of a documents source lies, without its ending, and the source's files and folders."""
    source = sources.get(name)
    paths = source.get("paths") if source is not None and source.get("kind") == "documents" else None
    if source is None or not isinstance(paths, list):
        known = sorted(each for each, value in sources.items() if value.get("kind") == "documents")
        raise ToolError(
            ToolCode.FAILED,
            f'tools.yaml has no documents source "{name}"; it has: {", ".join(known) or "none"}.',
        )
    return str(source["index"]), tuple(Path(str(each)) for each in paths)


@lru_cache(maxsize=64)
def _index(path: Path, folders: tuple[Path, ...], passage_chars: int) -> Index:
    return Index(path, folders, passage_chars)
