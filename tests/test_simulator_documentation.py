"""docs/simulator.md says what the simulator does: its tables are those of the code."""

from __future__ import annotations

import re

import pytest
from serving import ROOT

from tornado_live.simulator import profiles, resumption, switches
from tornado_live.simulator.__main__ import _parser
from tornado_live.simulator.faults import FAULTS, Kind
from tornado_live.simulator.profiles import PROFILES, VERTEX_PROFILES

TEXT = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
EVIDENCE = ("recorded", "documented", "reported", "inferred")


def table(head: str) -> list[str]:
    """The rows of the table whose first column is called so."""
    lines = TEXT.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith(f"| {head} |")) + 2
    end = next(at for at in range(begin, len(lines)) if not lines[at].startswith("|"))
    return lines[begin:end]


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def test_every_fault_is_in_its_table() -> None:
    assert table("fault") == [
        row(f"`{name}`", fault.takes, fault.kind.value, fault.meaning, fault.evidence)
        for name, fault in FAULTS.items()
    ]


def test_every_switch_is_in_its_table() -> None:
    assert table("switch of a model") == [
        row(f"`{name}`", meaning) for name, meaning in profiles.SWITCHES.items()
    ]
    assert table("switch of resumption") == [
        row(f"`{name}`", " or ".join(switch.values), switch.meaning, switch.evidence)
        for name, switch in resumption.SWITCHES.items()
    ]


@pytest.mark.parametrize(
    "meanings",
    [switches.MEANINGS, {name: fault.evidence for name, fault in FAULTS.items()}],
    ids=["switches", "faults"],
)
def test_each_has_its_evidence(meanings: dict[str, str]) -> None:
    missing = [name for name, meaning in meanings.items() if not any(each in meaning for each in EVIDENCE)]
    assert missing == []


def test_every_model_is_in_its_table_or_named_as_vertex_s() -> None:
    named = {name for line in table("model") for name in re.findall(r"`(gemini-[^`]+)`", line)}
    assert named == set(PROFILES)
    (paragraph,) = re.findall(r"^Vertex AI has.*?\n\n", TEXT, re.M | re.S)
    assert set(re.findall(r"`(gemini-[^`]+)`", paragraph)) == set(VERTEX_PROFILES)


def test_every_option_is_in_its_table() -> None:
    listed = {name for line in table("option") for name in re.findall(r"--[a-z-]+", line.split(" | ")[0])}
    known = {name for action in _parser()._actions for name in action.option_strings}
    assert listed == known - {"-h", "--help"}


def test_what_lasts_can_be_told_from_what_acts_once() -> None:
    assert {kind.value for kind in Kind} == {"once", "next", "lasting"}
    for kind in Kind:
        assert f"*{kind.value}*" in TEXT
