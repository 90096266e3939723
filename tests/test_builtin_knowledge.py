from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builtin_context import context_for
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import ValidationError

from tornado_live.tools.builtin.knowledge import check_source, search
from tornado_live.tools.result import Json, ToolCode, ToolError

ROOT = Path(__file__).resolve().parent.parent


Find = Callable[..., list[dict[str, str]]]


@pytest.fixture(scope="session")
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Searches a folder as a tool does, with its index in a place of its own."""
    indexes = tmp_path_factory.mktemp("indexes")

    def find(folder: Path, query: str, limit: int = 3, **options: Json) -> list[dict[str, str]]:
        index = str(indexes / folder.as_posix().replace("/", "_"))
        sources = {"handbook": {"kind": "documents", "paths": [str(folder)], "index": index}}
        answer = search(query, context_for(search, sources, **options), limit)
        assert isinstance(answer, dict)
        passages = answer["passages"]
        assert isinstance(passages, list)
        assert answer["found"] == len(passages)
        return passages  # type: ignore[return-value]

    return find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pets.md").write_text(
        "# Pets\n\nAnimals at home.\n\n## Cats\n\nCats purr.\n\n## Dogs\n\nDogs bark.\n"
    )
    (tmp_path / "birds.html").write_text(
        "<title>B</title><h1>Birds</h1><p>They sing.<h2>Parrots</h2><p>They talk."
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "fish.txt").write_text("A goldfish swims in circles.")
    return tmp_path


def test_a_source_of_another_kind_is_a_mistake_of_the_file() -> None:
    sources = {
        "shop": {"kind": "sql", "url": "sqlite:////shop.db"},
        "handbook": {"kind": "documents", "paths": [], "index": "/index"},
    }
    assert list(check_source(context_for(search, sources).options, {}, sources)) == []
    assert list(check_source(context_for(search, sources, source="shop").options, {}, sources)) == [
        (("source",), 'tools.yaml has no documents source "shop"; it has: handbook.')
    ]


def test_an_answer_names_title_heading_and_file(find: Find, folder: Path) -> None:
    assert find(folder, "cats") == [
        {"title": "Pets", "heading": "Cats", "file": f"{folder.name}/pets.md", "text": "Cats purr."}
    ]
    assert find(folder, "do parrots talk") == [
        {"title": "Birds", "heading": "Parrots", "file": f"{folder.name}/birds.html", "text": "They talk."}
    ]
    assert find(folder, "goldfish")[0]["file"] == f"{folder.name}/notes/fish.txt"


def test_words_are_found_in_their_other_forms_and_without_accents(find: Find, folder: Path) -> None:
    assert find(folder, "barking dog")[0]["heading"] == "Dogs"
    (folder / "cafe.md").write_text("# Café\n\nCrème brûlée.\n")
    assert find(folder, "creme brulee")[0]["title"] == "Café"


def test_the_sample_articles_answer_the_original_question(find: Find) -> None:
    [first, *_] = find(ROOT / "knowledge", "information about AI")
    assert first["file"] == "knowledge/artificial-intelligence.md"
    assert first["text"].startswith("Artificial intelligence, AI for short, is")


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("What is the return policy?", "What is the return policy?"),
        ("when are you open on Saturday", "Opening hours"),
        ("how does function calling work", "How does function calling work?"),
        ("can I interrupt the assistant", "What is barge-in?"),
        ("cast iron pan care", "How do I care for a cast iron pan?"),
    ],
)
def test_the_sample_articles_answer_what_people_ask(find: Find, question: str, heading: str) -> None:
    assert heading in [passage.get("heading") for passage in find(ROOT / "knowledge", question)]


def test_changed_new_and_deleted_files_are_seen_by_the_next_search(find: Find, folder: Path) -> None:
    assert find(folder, "hamster") == []
    pets = folder / "pets.md"
    pets.write_text("# Pets\n\nA hamster runs.\n")
    os.utime(pets, ns=(1, 1))
    assert find(folder, "hamster")[0]["text"] == "A hamster runs."
    (folder / "new.txt").write_text("Another hamster.")
    assert len(find(folder, "hamster")) == 2
    pets.unlink()
    assert [each["title"] for each in find(folder, "hamster")] == ["new"]


def test_hidden_files_links_out_of_the_folder_and_other_kinds_are_passed_over(
    find: Find, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "private.txt"
    outside.write_text("walrus")
    (folder / "link.txt").symlink_to(outside)
    (folder / "linked").symlink_to(outside.parent)
    (folder / ".hidden.txt").write_text("walrus")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.txt").write_text("walrus")
    (folder / "data.json").write_text('"walrus"')
    assert find(folder, "walrus") == []


def test_words_that_people_say_for_one_another_are_the_operators_to_name(find: Find, folder: Path) -> None:
    assert find(folder, "hounds") == []
    synonyms = [["hound", "Dogs"], ["kitty", "cat"]]
    assert find(folder, "hounds", synonyms=synonyms)[0]["heading"] == "Dogs"
    assert find(folder, "Kitty", synonyms=synonyms)[0]["heading"] == "Cats"
    for wrong in ([["one"]], [["two words", "b"]], ["a", "b"]):
        with pytest.raises(ValidationError):
            find(folder, "x", synonyms=wrong)


def test_the_limit_is_kept_within_the_operators(find: Find, folder: Path) -> None:
    for number, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]):
        (folder / f"{number}.txt").write_text(f"A zebra called {word}.")
    assert len(find(folder, "zebra", 2)) == 2
    assert len(find(folder, "zebra", 9)) == 5
    assert len(find(folder, "zebra", 9, max_passages=7)) == 7


def test_nothing_found_is_an_answer_and_nothing_asked_an_error(find: Find, folder: Path) -> None:
    assert find(folder, "qwertz") == []
    with pytest.raises(ToolError) as caught:
        find(folder, "?!")
    assert caught.value.code is ToolCode.INVALID_ARGUMENTS
    with pytest.raises(ToolError, match='no documents source "handbook"'):
        search("x", context_for(search))


@given(st.text(min_size=1, max_size=60))
def test_no_query_is_read_as_syntax(find: Find, query: str) -> None:
    try:
        find(ROOT / "knowledge", query)
    except ToolError as error:
        assert error.code is ToolCode.INVALID_ARGUMENTS  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "query",
    ['"', "AND", "OR NOT", "NEAR(a b)", "title:ai", "ai*", "^ai", "a + b", "{title} : x", "a) OR (b", "--"],
)
def test_fts_syntax_is_only_words(find: Find, query: str) -> None:
    try:
        find(ROOT / "knowledge", query)
    except ToolError as error:
        assert error.message == "There is no word to search for in the query."  # noqa: PT017 - as above
