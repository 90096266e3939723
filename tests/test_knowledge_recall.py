"""How good the search is: questions with the section that answers them, judged before it was tuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tornado_live.tools.knowledge.index import Index
from tornado_live.tools.knowledge.passages import read_markdown

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "knowledge", ROOT / "docs"]


@dataclass(frozen=True)
class Question:
    text: str
    answers: frozenset[str]
    held: bool
    misheard: bool


def questions() -> list[Question]:
    read: dict[str, list[dict[str, Any]]] = yaml.safe_load(
        (ROOT / "tests" / "knowledge_questions.yaml").read_text(encoding="utf-8")
    )
    return [
        Question(
            one["ask"],
            frozenset(answer.replace("`", "") for answer in one["answers"]),
            one.get("held", False),
            one.get("misheard", False),
        )
        for one in read["questions"]
    ]


def section(file: str, heading: str) -> str:
    last = heading.rpartition(" > ")[2].replace("`", "")
    return f"{file} > {last}" if last else file


def test_every_judged_section_is_there() -> None:
    there = {
        section(f"{folder.name}/{path.name}", found.heading)
        for folder in FOLDERS
        for path in folder.glob("*.md")
        for found in read_markdown(path.read_text(encoding="utf-8"), path.stem, 900)
    }
    assert {answer for question in questions() for answer in question.answers} <= there
    assert len(questions()) >= 40


def test_nine_of_ten_questions_find_their_section_among_the_first_five(
    tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Index(tmp_path / "index.db", FOLDERS, 900)
    index.update()
    ranks: list[tuple[Question, int]] = []
    for question in questions():
        found = [section(answer.file, answer.heading) for answer in index.search(question.text, 5)]
        ranks.append((question, next((at for at, one in enumerate(found, 1) if one in question.answers), 0)))
    figures = {
        "all": _figures(ranks),
        "tuned": _figures([one for one in ranks if not one[0].held]),
        "held": _figures([one for one in ranks if one[0].held]),
        "misheard": _figures([one for one in ranks if one[0].misheard]),
    }
    with capsys.disabled():
        for name, (recall, first, count) in figures.items():
            print(f"\nknowledge: {name}: recall@5 {recall:.3f}, first {first:.3f} of {count}", end="")
    missed = [question.text for question, rank in ranks if not rank]
    record_property("recall_at_5", round(figures["all"][0], 3))
    assert figures["all"][0] >= 0.9, missed
    assert figures["held"][0] >= 0.8, missed


def _figures(ranks: list[tuple[Question, int]]) -> tuple[float, float, int]:
    """Recall at five, at one, and of how many."""
    count = len(ranks)
    return sum(rank > 0 for _, rank in ranks) / count, sum(rank == 1 for _, rank in ranks) / count, count
