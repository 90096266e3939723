"""What the guests are installed from is pinned, and what is installed is that."""

from __future__ import annotations

import json
import re

from serving import ROOT

from guests.conftest import Stage
from guests.guesting import MODULES, PROGRAMS, PYTHON


def test_the_packages_for_python_are_pinned_with_hashes_and_name_no_index() -> None:
    text = (ROOT / "requirements/guests.txt").read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|trusted-host|https?://|file://", text)
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n|^\s*# .*\n", "", text, flags=re.M)):
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_the_packages_for_node_are_locked_with_hashes_and_name_no_registry() -> None:
    lock = json.loads((PROGRAMS / "package-lock.json").read_text(encoding="utf-8"))
    for path, package in lock["packages"].items():
        assert "resolved" not in package, f"{path}: npm config set omit-lockfile-registry-resolved true"
        assert not path or package["integrity"].startswith("sha512-")


def test_the_guests_are_those_that_are_pinned(stage: Stage) -> None:
    """`stage` says so where they are not installed."""
    wanted = json.loads((PROGRAMS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for name, version in wanted.items():
        package = json.loads((MODULES / name / "package.json").read_text(encoding="utf-8"))
        assert package["version"] == version
    (pinned,) = re.findall(r"==(\S+)", (ROOT / "requirements/guests.in").read_text(encoding="utf-8"))
    (installed,) = PYTHON.parent.parent.glob("lib/*/site-packages/google_genai-*.dist-info")
    assert installed.name == f"google_genai-{pinned}.dist-info"
