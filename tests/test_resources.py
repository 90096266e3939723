"""Files are looked for at home first, then in the checkout, then in the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import ROOT

from tornado_live import resources


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
