from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.knowledge import commands

ROOT = Path(__file__).resolve().parent.parent
TOOLS = """\
version: 1
sources:
  handbook: {documents: {paths: [articles/]}}
  rules: {documents: {paths: [rules.txt]}}
  shop: {sql: {url: "sqlite:///${DATA_DIR}/shop.db"}}
tools:
  search_articles:
    description: Searches the articles.
    parameters: {type: object, properties: {query: {type: string}}, required: [query]}
    python: builtin.knowledge:search
    options: {source: handbook, passage_chars: 300}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles" / "pets.md").write_text(
        "# Pets\n\n## Cats\n\nCats purr.\n\n## Dogs\n\nDogs bark.\n"
    )
    (tmp_path / "articles" / "odd.md").write_bytes(b"\0")
    (tmp_path / "rules.txt").write_text("No barking at night.")
    (tmp_path / "tools.yaml").write_text(TOOLS)
    return tmp_path


def catalog(home: Path) -> ToolCatalog:
    return load_catalog(home / "tools.yaml", home=home, data_dir=home / "data", environment={})


def index(home: Path, name: str | None = None, *, anew: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    code = commands.make_index(catalog(home), name, anew=anew, out=out)
    return code, re.sub(r"[0-9.]+ s\)", "… s)", out.getvalue()).replace(str(home), "HOME")


def find(home: Path, query: str, name: str | None = None) -> tuple[int, str]:
    out = io.StringIO()
    code = commands.find(catalog(home), query, name, 5, out=out)
    return code, re.sub(r"\([0-9.]+\)", "(…)", out.getvalue())


def test_each_source_is_indexed_and_what_was_left_out_is_told(home: Path) -> None:
    assert index(home) == (
        0,
        "handbook: 1 file, 2 passages (1 new, … s)\n"
        "    kept in HOME/data/knowledge/handbook-300.db\n"
        "    articles/odd.md: holds bytes that no text has; left out\n"
        "rules: 1 file, 1 passage (1 new, … s)\n"
        "    kept in HOME/data/knowledge/rules-900.db\n",
    )
    assert index(home, "rules") == (
        0,
        "rules: 1 file, 1 passage (nothing changed, … s)\n    kept in HOME/data/knowledge/rules-900.db\n",
    )
    assert "1 new" in index(home, "rules", anew=True)[1]


def test_a_search_prints_passages_with_file_and_heading(home: Path) -> None:
    assert find(home, "do dogs bark", "handbook") == (0, "articles/pets.md > Dogs  (…)\n    Dogs bark.\n\n")
    code, text = find(home, "barking")
    assert code == 0
    assert "articles/pets.md > Dogs" in text
    assert "rules.txt > rules" in text


def test_nothing_found_is_told(home: Path) -> None:
    assert find(home, "zebra") == (1, "Nothing was found; try other or fewer words.\n")


def test_a_source_that_is_none_is_told_with_those_that_are(home: Path) -> None:
    wrong = '"handbok" is no documents source - did you mean "handbook"?; there are handbook, rules\n'
    assert index(home, "handbok") == (2, wrong)
    assert find(home, "dogs", "shop") == (2, '"shop" is no documents source; there are handbook, rules\n')
    (home / "tools.yaml").write_text("version: 1\ntools: {}\n")
    assert index(home)[0] == 2
    assert "tools.yaml has no documents source" in index(home)[1]


def test_an_index_that_cannot_be_written_is_a_failure(home: Path) -> None:
    (home / "data").write_text("")
    assert index(home, "rules") == (1, "rules: The index cannot be written: Not a directory.\n")


def test_the_command_line_has_both(home: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tornado_live", "knowledge", *arguments, "--home", str(home)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    made = run("index", "--source", "handbook")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("handbook: 1 file, 2 passages (1 new")
    found = run("search", "do cats purr")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("articles/pets.md > Cats")
