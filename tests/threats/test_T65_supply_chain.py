"""T65: what comes along with this package is watched, without asking anybody."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from audit import Licences, Pin, complaints, here, pins, wheel_complaints
from packaging.version import Version
from serving import ROOT

PIN = "tornado==6.6.1"
LOCK = "tests/guests/programs/package-lock.json"


@pytest.fixture(scope="module")
def installed() -> Mapping[str, Distribution]:
    return here()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What the audit reads, to be changed by a test."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / LOCK).parent.mkdir(parents=True)
    shutil.copy(ROOT / LOCK, tmp_path / LOCK)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(old, text)) > 0, f"{old!r} is not in {path.name}"
    path.write_text(re.sub(old, new, text), encoding="utf-8")


def package(folder: Path, name: str, version: str, *lines: str) -> Distribution:
    """An installed package that says this of itself."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines])
    )
    return PathDistribution(info)


@pytest.mark.proves("T65")
def test_what_is_installed_here_is_as_it_should_be() -> None:
    ended = subprocess.run(
        [sys.executable, "tests/audit.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.fullmatch(
        r"\d{2,} runtime packages are pinned, .*; \d{2} floors hold, read on \d{4}-\d\d-\d\d\n", ended.stdout
    )


@pytest.mark.proves("T65")
def test_tornado_is_not_older_than_what_bounds_the_fields_of_forms_and_queries() -> None:
    found = [
        pin
        for path in (ROOT / "requirements").glob("*.txt")
        for pin in pins(path.read_text(encoding="utf-8"))
        if isinstance(pin, Pin) and pin.name == "tornado"
    ]
    assert len(found) > 1
    assert all(Version(pin.version) >= Version("6.5.9") for pin in found)
    assert Version(here()["tornado"].version) >= Version("6.5.9")


@pytest.mark.proves("T65")
def test_an_old_tornado_is_complained_of(root: Path, installed: Mapping[str, Distribution]) -> None:
    for path in [root / "setup.py", *(root / "requirements").glob("*.txt")]:
        if "tornado==" in path.read_text():
            change(path, PIN, "tornado==6.5.7")
    found = list(complaints(root, installed, files_too=False))
    assert any("tornado 6.5.7 is below 6.5.9 (CVE-2026-103261" in line for line in found), found
    assert "tornado 6.6.1 is installed and 6.5.7 is pinned; run make" in found


@pytest.mark.proves("T65")
def test_a_missing_pin_is_complained_of(root: Path, installed: Mapping[str, Distribution]) -> None:
    runtime = root / "requirements/runtime.txt"
    change(runtime, r"(?m)^h11==(?:.|\n)*?\n(?=\S)", "")
    change(runtime, r"(?m)^redis==(?:.|\n)*?\n(?=\S)", "")
    found = list(complaints(root, installed, files_too=False))
    assert found == [
        "runtime.txt does not pin redis, which setup.py requires; run make requirements",
        "runtime.txt does not pin redis, which an installed package requires",
        "runtime.txt does not pin h11, which an installed package requires",
    ]


@pytest.mark.proves("T65")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"tornado==6\.6\.1 \\(\n    --hash=\S+( \\)?)+", "tornado==6.6.1", "tornado has no sha256 hash"),
        (r"(tornado==6\.6\.1 \\\n    --hash=sha256:)..", r"\1zz", "tornado has no sha256 hash"),
        (r"(?m)^tornado==", "tornado>=", "'tornado>=6.6.1"),
        (r"(?m)\A", "--index-url https://elsewhere.example/\n", "is no pin, such as name==1.2.3"),
        (r"(?m)\A", "git+https://elsewhere.example/tornado\n", "is no pin, such as name==1.2.3"),
        (r"(?m)^httpx==0\.28\.1", "httpx==0.28.2", "httpx is pinned differently"),
    ],
)
def test_what_is_no_pin_is_complained_of(
    root: Path, installed: Mapping[str, Distribution], old: str, new: str, said: str
) -> None:
    change(root / "requirements/runtime.txt", old, new)
    found = list(complaints(root, installed, files_too=False))
    assert any(said in line for line in found), found


@pytest.mark.proves("T65")
def test_a_package_of_npm_without_its_hash_is_complained_of(
    root: Path, installed: Mapping[str, Distribution]
) -> None:
    change(root / LOCK, r'(?m)("node_modules/@google/genai": \{\n.*\n)\s*"integrity": ".*",\n', r"\1")
    found = list(complaints(root, installed, files_too=False))
    assert found == ["package-lock.json: node_modules/@google/genai has no sha512 hash"]


@pytest.mark.proves("T65")
@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("License-Expression: MIT", True),
        ("License-Expression: GPL-3.0-or-later OR MIT", True),
        ("License-Expression: (Apache-2.0 OR GPL-2.0-only) AND MIT", True),
        ("License: BSD-3-Clause", True),
        ("Classifier: License :: OSI Approved :: MIT License", True),
        ("License-Expression: GPL-3.0-or-later", False),
        ("License-Expression: MIT AND AGPL-3.0-only", False),
        ("License-Expression: (MIT AND GPL-2.0-only) OR LGPL-3.0-only", False),
        ("License: GNU General Public License", False),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("License-Expression: MPL-2.0", False),
        ("License: Proprietary", False),
        ("Summary: says nothing", False),
    ],
)
def test_a_licence_that_is_not_allowed_is_complained_of(
    root: Path, tmp_path: Path, installed: Mapping[str, Distribution], line: str, allowed: bool
) -> None:
    other = package(tmp_path, "tenacity", installed["tenacity"].version, line)
    found = [
        line
        for line in complaints(root, {**installed, "tenacity": other}, files_too=False)
        if "licence" in line
    ]
    assert (found == []) == allowed, found
    assert all(line.startswith("tenacity: the licence") for line in found)


@pytest.mark.proves("T65")
def test_an_exception_is_for_one_licence_of_one_package(
    root: Path, tmp_path: Path, installed: Mapping[str, Distribution]
) -> None:
    other = package(tmp_path, "certifi", installed["certifi"].version, "License-Expression: GPL-3.0-only")
    found = list(complaints(root, {**installed, "certifi": other}, files_too=False))
    assert found == ["certifi: its licence is 'GPL-3.0-only' now; licences.yaml allows 'MPL-2.0'"]
    assert Licences(frozenset(["MIT"]), {}, {}).allows("(MIT OR X) AND (MIT)")
    assert not Licences(frozenset(["MIT"]), {}, {}).allows("((MIT) AND (X OR Y))")


@pytest.mark.proves("T65")
def test_another_version_than_the_pinned_one_and_a_package_that_is_not_there_are_complained_of(
    root: Path, tmp_path: Path, installed: Mapping[str, Distribution]
) -> None:
    other = package(tmp_path, "tenacity", "0.1", "License-Expression: MIT")
    without = {name: one for name, one in installed.items() if name != "sniffio"}
    found = list(complaints(root, {**without, "tenacity": other}, files_too=False))
    assert [line.partition(" is ")[0] for line in found] == ["sniffio 1.3.1", "tenacity 0.1"]


@pytest.mark.proves("T65")
def test_a_file_that_was_changed_after_it_was_installed_is_complained_of(
    root: Path, tmp_path: Path, installed: Mapping[str, Distribution]
) -> None:
    original = installed["sniffio"]
    for file in original.files or []:
        copy = tmp_path / "site" / file
        copy.resolve().parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(original.locate_file(file)), copy)
    changed = PathDistribution(next((tmp_path / "site").glob("*.dist-info")))
    with (tmp_path / "site/sniffio/_impl.py").open("a") as file:
        file.write("import os\n")
    found = list(complaints(root, {**installed, "sniffio": changed}))
    assert found == ["sniffio: sniffio/_impl.py is not what was installed; install it anew"]


@pytest.mark.proves("T65")
def test_a_wheel_that_requires_something_else_is_complained_of() -> None:
    requires = [line for line in here()["tornado-live"].requires or [] if not line.startswith("tornado==")]
    assert list(wheel_complaints([*requires, "evil>=1"])) == [
        f"the wheel does not require {PIN}, which setup.py does",
        "the wheel requires evil>=1, which setup.py does not",
    ]


@pytest.mark.proves("T65")
def test_make_test_has_the_audit_in_it() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^test:.* audit\b", text, re.M)
    assert re.search(r"^audit:.*\n\t@\$\(BIN\)/python tests/audit\.py$", text, re.M)
    # What is installed by make is held to its hashes.
    installs = re.findall(r"\$\(PIP\)(?: --python \S+)? install .*", text)
    assert installs
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
