"""Files are looked for at home first, then in the checkout, then in the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import ROOT

from tornado_live import resources
from tornado_live.tools.catalog import load_catalog


def test_the_home_directory_comes_first(tmp_path: Path) -> None:
    assert resources.find("config/development.yaml", home=tmp_path) == ROOT / "config/development.yaml"
    mine = tmp_path / "config/development.yaml"
    mine.parent.mkdir()
    mine.write_text("port: 1\n")
    assert resources.find("config/development.yaml", home=tmp_path) == mine


def test_what_is_ours_alone_is_not_taken_from_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    assert resources.find("config") == ROOT / "config"


def test_the_package_comes_last(tmp_path: Path) -> None:
    assert resources.roots(tmp_path) == (tmp_path, ROOT, ROOT / "tornado_live/_files")
    assert resources.roots(ROOT) == (ROOT, ROOT / "tornado_live/_files")


def test_what_is_nowhere_is_none_or_said_with_the_places(tmp_path: Path) -> None:
    assert resources.find("no-such-file", home=tmp_path) is None
    with pytest.raises(FileNotFoundError, match=f"no-such-file is in none of {tmp_path}, .*reinstall"):
        resources.require("no-such-file", home=tmp_path)


def test_a_new_home_has_the_schema_that_its_tools_name_and_gets_that_of_a_newer_version(
    tmp_path: Path,
) -> None:
    assert [name for name, written in resources.give(tmp_path) if written] == [
        "tools.yaml",
        "config/development.yaml",
        "knowledge",
        "tools.schema.json",
        ".env",
    ]
    first = (tmp_path / "tools.yaml").read_text().splitlines()[0]
    named = tmp_path / first.rpartition("$schema=")[2]
    assert named.read_bytes() == (ROOT / "tornado_live/tools/tools.schema.json").read_bytes()
    assert load_catalog(
        tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path / "data", environment={}
    ).tools
    assert [name for name, written in resources.give(tmp_path) if written] == []
    named.write_text("{}")
    assert [name for name, written in resources.give(tmp_path) if written] == ["tools.schema.json"]
    assert named.read_bytes() == (ROOT / "tornado_live/tools/tools.schema.json").read_bytes()


def test_tools_that_name_no_schema_at_home_get_none(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("version: 1\n")
    assert "tools.schema.json" not in [name for name, _ in resources.give(tmp_path)]
    assert not (tmp_path / "tools.schema.json").exists()
