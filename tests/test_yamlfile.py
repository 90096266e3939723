"""YAML files: data, lines, and everything that is refused."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_live.errors import ConfigError
from tornado_live.yamlfile import MAX_BYTES, YamlValue, parse_yaml, read_yaml, walk


def refusals(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "tools.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_scalars_follow_yaml_1_2() -> None:
    text = """
    switch: on
    answer: yes
    mode: 0777
    time: 1:30
    date: 2026-11-22
    price: 1_000
    nothing: ~
    empty:
    truth: true
    count: -12
    share: 1.5e3
    octal: 0o17
    hex: 0xff
    quoted: "12"
    infinite: .inf
    """
    assert parse_yaml(text, "x").data == {
        "switch": "on",
        "answer": "yes",
        "mode": "0777",
        "time": "1:30",
        "date": "2026-11-22",
        "price": "1_000",
        "nothing": None,
        "empty": None,
        "truth": True,
        "count": -12,
        "share": 1500.0,
        "octal": 15,
        "hex": 255,
        "quoted": "12",
        "infinite": ".inf",
    }


def test_keys_are_the_text_that_was_written() -> None:
    assert parse_yaml("on: 1\n1: 2\nnull: 3\n'<<': 4", "x").data == {"on": 1, "1": 2, "null": 3, "<<": 4}


def test_every_key_and_item_has_its_line_and_a_missing_one_that_of_its_parent() -> None:
    file = parse_yaml("tools:\n  a:\n    list:\n      - x\n      - {y: 1}\n", "x")
    assert file.line_of(("tools", "a", "list", 1, "y")) == 5
    assert file.line_of(("tools", "a", "list", 0)) == 4
    assert file.line_of(("tools", "a", "http", "method")) == 2
    assert file.line_of(()) == 1


def test_an_empty_file_is_none() -> None:
    assert parse_yaml("# only a comment\n", "x").data is None


@pytest.mark.proves("T61")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x", "tools.yaml:1: the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: !secret x", "tools.yaml:1: the tag !secret is not allowed; remove it"),
        ("a: &x 1\nb: 2", "tools.yaml:1: the anchor &x is not allowed; remove it"),
        ("a: 1\nb:\n  <<: {c: 1}", 'tools.yaml:3: b: the merge key "<<" is not allowed'),
        ("a: 1\nb: 2\na: 3", "tools.yaml:3: a: is there twice; the first is in line 1"),
        ("a: 1\n---\nb: 2", 'tools.yaml:2: a second document ("---") is not allowed'),
        ("? [a]\n: 1", "tools.yaml:1: a key must be one plain word or string"),
        ("a:\n\tb: 1", "tools.yaml:2: is indented with a tab; YAML takes spaces only"),
        ("a: b: c", 'tools.yaml:1: a ":" is not allowed here'),
        ("a: " + "9" * 5000, "tools.yaml:1: a: is too long for a number"),
        ("a: 1e999", "tools.yaml:1: a: is too big for a number"),
        ("a: \x01", "tools.yaml: holds a control character"),
        ("[" * 5000, "tools.yaml:1: is nested deeper than 20 levels"),
        ("a: '" + "x" * MAX_BYTES + "'", "tools.yaml: is bigger than 256 KiB"),
        ("a: \ud800", "tools.yaml:1: holds a character that is not text"),
    ],
)
def test_what_is_refused_names_its_line_and_the_way_out(text: str, message: str) -> None:
    assert refusals(text)[0].startswith(message)


@pytest.mark.proves("T61")
def test_alias_and_merge_bombs_are_refused_quickly() -> None:
    aliases = "a: &a [x]\n" + "\n".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(8)
    )
    merges = "a: &a {x: 1}\n" + "\n".join(f"k{n}: {{<<: [{', '.join(['*a'] * 9)}]}}" for n in range(9))
    started = time.process_time()  # what else the machine does meanwhile does not count
    assert all("not allowed" in line for line in refusals(aliases) + refusals(merges))
    assert time.process_time() - started < 1


def test_all_mistakes_are_told_at_once() -> None:
    found = refusals("a: &x 1\nb: *x\nc: 1\nc: 2\n")
    assert [line.split(":")[1] for line in found] == ["1", "2", "4"]


def test_a_file_that_is_missing_binary_or_a_folder_is_a_problem_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "bin.yaml").write_bytes(b"a: 1\nb: \xff\n")
    for name, line in (("no.yaml", "there is no such file"), ("", "cannot be read: Is a directory")):
        with pytest.raises(ConfigError, match=line):
            read_yaml(tmp_path / name)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "bin.yaml", name="bin.yaml")
    assert str(caught.value) == "bin.yaml:2: is not UTF-8; save the file in that encoding"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\n")
    assert read_yaml(tmp_path / "x.yaml").data == {"version": 1}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc<*&!", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_what_json_can_say_is_read_back_the_same(value: YamlValue) -> None:
    import json

    file = parse_yaml(json.dumps(value, ensure_ascii=False), "x")
    assert file.data == value
    assert all(path in file.lines for path, _ in walk(file.data))


@given(st.text("ab:-[]{}&*!|>'\"#\n\t ?,.0<~%@\\", max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_data_or_a_clear_refusal(text: str) -> None:
    try:
        data = parse_yaml(text, "x").data
    except ConfigError as error:
        data = [problem.message for problem in error.problems]
        assert all(data)
    assert not any(isinstance(value, float) and not math.isfinite(value) for _, value in walk(data))
