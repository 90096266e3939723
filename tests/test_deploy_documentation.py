"""docs/deployment.md has every line of config/nginx.conf, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nginx import CONFIGURATION
from serving import ROOT

PAGE = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
_TOKEN = re.compile(r"""#[^\n]*|'[^']*'|"[^"]*"|[{};]|[^\s{};]+""")
# They only hold others together.
PLAIN_BLOCKS = {"events", "http"}


def directives(text: str) -> Iterator[str]:
    """Each directive with its arguments; the entries of a map, which are no directives, are left out."""
    words: list[str] = []
    inside: list[str] = []
    for token in _TOKEN.findall(text):
        if token.startswith("#"):
            continue
        if token in ("{", ";"):
            if words and "map" not in inside and words[0] not in PLAIN_BLOCKS:
                yield " ".join(words)
            if token == "{":
                inside.append(words[0])
            words = []
        elif token == "}":
            inside.pop()
        else:
            words.append(token)


def explained() -> list[str]:
    """The lines that the table has, each the beginning of a directive."""
    table = PAGE.split("## nginx.conf, line by line")[1].split("\n## ")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    return [line for row in rows for line in re.findall(r"`([^`]+)`", row)]


def begins(directive: str, line: str) -> bool:
    return directive == line or directive.startswith(f"{line} ")


def test_every_line_of_the_file_is_explained() -> None:
    lines = explained()
    found = set(directives(CONFIGURATION.read_text(encoding="utf-8")))
    assert [one for one in sorted(found) if not any(begins(one, line) for line in lines)] == []


def test_nothing_is_explained_that_is_not_in_the_file() -> None:
    found = set(directives(CONFIGURATION.read_text(encoding="utf-8")))
    assert [line for line in explained() if not any(begins(one, line) for one in found)] == []


def test_the_settings_that_the_page_names_exist() -> None:
    settings = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for block in re.findall(r"```\n((?:[A-Z_]+=.*\n)+)```", PAGE):
        for name in re.findall(r"^([A-Z_]+)=", block, re.M):
            assert f"`{name}`" in settings, name


def test_every_step_of_the_check_is_explained() -> None:
    source = (ROOT / "tornado_live/deploy/findings.py").read_text(encoding="utf-8")
    steps = set(re.findall(r"\b(?:ok|note|wrong)\(\s*\"([a-z-]+)\"", source))
    table = PAGE.split("| step | what is tried |")[1].split("\n\n")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    assert {step for row in rows for step in re.findall(r"`([^`]+)`", row)} == steps


def test_the_page_installs_what_make_installs() -> None:
    (commands,) = re.findall(r"```sh\n(sudo useradd.*?)```", PAGE, re.S)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"pip install (.*)", commands):
        assert command.removesuffix(" .") in makefile, command
