"""Every link between the pages of the project leads somewhere, to the very heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from serving import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)


def links(text: str) -> Iterator[str]:
    """Where a page leads to, but for addresses with a scheme; what is code is no link."""
    prose = _CODE.sub("`", _FENCE.sub("", text))
    found = [*_LINK.findall(prose), *re.findall(r"""(?:href|src)="([^"]+)\"""", prose)]
    return (one for one in found if not re.match(r"[a-z][a-z0-9+.-]*:|//", one))


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings, and those that are written out."""
    found: set[str] = set(re.findall(r"""<[^>]+\b(?:id|name)="([^"]+)\"""", text))
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", _FENCE.sub("", text), re.M):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(numbered)
    return found


def astray(page: Path) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
        if not target.exists():
            yield f"{link}: there is no such file"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(astray(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One\n\n## What `it` is, and why\n\n# One\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md#what-it-is-and-why) [b](other.md#one-1) [c](#here) [d](https://example.com/x)\n"
        "[e](other.md#two) [f](#there) ![g](no.png) `[h](code.md)`\n```\n[i](code.md)\n```\n"
    )
    assert [one.partition(":")[0] for one in astray(page)] == ["other.md#two", "#there", "no.png"]
