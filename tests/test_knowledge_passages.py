from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.tools.knowledge.passages import (
    SUFFIXES,
    Passage,
    read_document,
    read_html,
    read_markdown,
    visible_text,
)


def test_markdown_is_cut_at_its_headings_but_not_inside_code() -> None:
    text = (
        "---\nauthor: x\n---\n# Title #\nIntro\nwrapped.\n\n## A [link](http://x)\n"
        "```sh\n# no heading\n```\n### Deep\n"
        "- one\n- **two**\n## B\n<!-- hidden -->shown\n"
    )
    assert list(read_markdown(text, "file", 500)) == [
        Passage("Title", "", "Intro wrapped."),
        Passage("Title", "A link", "```sh\n# no heading\n```"),
        Passage("Title", "A link > Deep", "- one\n- two"),
        Passage("Title", "B", "shown"),
    ]


def test_a_long_section_is_cut_at_paragraphs_and_sentences() -> None:
    sentence = "This sentence has some fifty characters, more or so. "
    passages = list(read_markdown(f"# T\n\n{sentence * 20}\n\nLast paragraph.", "f", 300))
    assert all(len(passage.text) <= 300 for passage in passages)
    assert all(passage.text.endswith(".") for passage in passages)
    assert (
        " ".join(passage.text.replace("\n\n", " ") for passage in passages)
        == f"{sentence * 20}Last paragraph."
    )


def test_html_gives_what_is_shown() -> None:
    page = (
        "<html><head><title>T</title><style>p{}</style></head><body>Before"
        "<h1>Top &amp; more</h1><p>One <b>two</b></p>"
        "<script>alert('no')</script><ul><li>three</li></ul><h2>Sub</h2>four</body>"
    )
    assert list(read_html(page, "f", 500)) == [
        Passage("Top & more", "", "Before"),
        Passage("Top & more", "", "One two\n\nthree"),
        Passage("Top & more", "Sub", "four"),
    ]
    assert visible_text("<p>a</p><script>b</script>") == "a"


def test_an_underlined_line_is_a_heading_and_a_rule_or_a_table_is_none() -> None:
    text = "Title\n=====\nIntro.\n\nSub\n---\nBody\nmore\n---\n\n---\n\n| a |\n|---|\n| b |\n"
    assert [(found.title, found.heading) for found in read_markdown(text, "f", 500)] == [
        ("Title", ""),
        ("Title", "Sub"),
    ]


def test_each_part_of_a_long_table_has_the_names_of_its_columns() -> None:
    head = "| name | meaning |\n|---|---|"
    rows = [f"| row{number} | {'word ' * 12}|" for number in range(20)]
    passages = list(read_markdown("# T\n\n" + "\n".join([head, *rows]), "f", 400))
    assert len(passages) > 3
    assert all(passage.text.startswith(f"{head}\n| row") for passage in passages)
    assert [row for passage in passages for row in passage.text.split("\n")[2:]] == rows


def test_a_page_that_is_broken_off_gives_what_was_whole() -> None:
    assert visible_text("<p>one</p><!-- two") == "one"
    assert visible_text("<p>one</p><a href='two") == "one"
    assert visible_text('<p title="a > b">one</p> 1 < 2 <3') == "one\n1 < 2 <3"
    assert visible_text("<svg/><p>one</p><svg><p>two</p></svg>three<template>four") == "one\n\nthree"
    assert visible_text("<script>a</SCRIPT >one<style>b") == "one"
    assert visible_text("<![if x]>one<?php two ?>&amp;&nosuch;&#x41;") == "one&&nosuch;A"


@pytest.mark.proves("T40")
@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<a ",
        "<!--",
        "<![",
        "</",
        '<a x="',
        "<script>",
        "&#",
        "<div>",
        "[",
        "![](",
        "**a ",
        "_",
        "#\n",
        "a\n--\n",
    ],
)
def test_no_text_takes_longer_than_its_length_asks_for(piece: str) -> None:
    """Python's own parser of HTML takes minutes for the second of these, and holds up every thread meanwhile."""
    text = piece * (100_000 // len(piece))
    for suffix in (".html", ".md"):
        assert sum(len(found.text) for found in read_document(text, PurePath(f"x{suffix}"), 900)) <= 2 * len(
            text
        )


@given(st.text(alphabet="<>/!-ahp1 \"'=&;#|`~*_[]()\n\t", max_size=300), st.sampled_from(sorted(SUFFIXES)))
def test_any_text_can_be_read(text: str, suffix: str) -> None:
    for found in read_document(text, PurePath(f"x{suffix}"), 200):
        assert found.text.strip()


@given(
    st.lists(st.sampled_from(["word", "## ", "\n", "| a | b |\n", "|---|---|\n", "long" * 300, ". ", "- "]))
)
def test_no_passage_is_much_longer_than_it_may_be(pieces: list[str]) -> None:
    for found in read_markdown("".join(pieces), "f", 300):
        assert len(found.text) <= 300 + len("\n\n")
