"""What docs/faults.md claims is proven, by the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from proofs import NUMBER, main, order, proofs, proofs_of
from serving import ROOT

FAULTS = ROOT / "docs" / "faults.md"


def claimed() -> dict[str, list[str]]:
    """Each number of the table with the files that it names."""
    rows: dict[str, list[str]] = {}
    for line in FAULTS.read_text(encoding="utf-8").splitlines():
        if re.match(r"\| [FT]\d+ \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0]] = re.findall(r"`([^`]+)`", cells[-1])
    return rows


def test_every_fault_that_the_documentation_claims_has_a_test() -> None:
    rows, found = claimed(), proofs()
    assert {number for number in rows if not found.get(number)} == set()
    assert {number for number in found if number.startswith("F") and number not in rows} == set()


def test_the_documentation_names_files_in_which_the_fault_is_proven() -> None:
    found = proofs()
    for number, files in claimed().items():
        assert files, number
        assert set(files) <= {test.partition("::")[0] for test in found[number]}, number


def test_the_table_is_in_order() -> None:
    numbers = list(claimed())
    assert numbers == sorted(numbers, key=order)
    assert numbers


def test_marks_are_found_where_pytest_finds_them(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(
        "import pytest\n"
        '@pytest.mark.proves("F1", "T14")\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.proves("F2"))])\n'
        "async def test_one(x): ...\n"
        '@pytest.mark.proves("F3")\n'
        "def helper(): ...\n"
    )
    assert list(proofs_of(path)) == [("F1", "test_one"), ("F2", "test_one"), ("T14", "test_one")]
    path.write_text('@pytest.mark.proves("X1")\ndef test_one(): ...\n')
    with pytest.raises(ValueError, match="line 1"):
        list(proofs_of(path))


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(proofs())} numbers, {sum(map(len, proofs().values()))} proofs"
    assert all(NUMBER.fullmatch(line[:4].strip()) or not line[:4].strip() for line in lines[:-1])
