"""A client that talks to the service directly and through the gateway sees and says the same, frame by frame."""

from __future__ import annotations

import pytest

from dropin.compare import changed, differences, leaks, play
from dropin.conftest import UPSTREAM_KEY, Gateway
from dropin.scripts import FAMILIES, OURS, SCENARIO, SHELF, all_scripts, cut_scripts, hidden_scripts
from tornado_live.simulator.testing import Simulator

PLAIN = [(family, name) for family in FAMILIES for name in all_scripts(FAMILIES[family])]
CUT = [(family, name) for family in FAMILIES for name in cut_scripts(FAMILIES[family])]
HIDDEN = [
    (family, name, turn_after_call)
    for family in FAMILIES
    for name in hidden_scripts(FAMILIES[family])
    for turn_after_call in (("same", "bare", "new") if family == "2.5" else ("same",))
]


@pytest.fixture(scope="module")
def scenario() -> object:
    return SCENARIO


def told(found: list[str]) -> str:
    return "\n".join(found)


@pytest.mark.parametrize(("family", "name"), PLAIN)
async def test_everything_is_the_same(
    service: Simulator, simulator: Simulator, gateway: Gateway, family: str, name: str
) -> None:
    script = all_scripts(FAMILIES[family])[name]
    direct = await play(script, service.url, service)
    ours = await play(script, gateway.url, simulator)
    assert told(differences(direct, ours)) == ""
    assert told(changed(ours, hidden=OURS)) == ""
    assert told(leaks(ours, UPSTREAM_KEY)) == ""
    assert bool(ours.handles) == ("sessionResumption" in ours.asked)


@pytest.mark.parametrize(("family", "name"), CUT)
async def test_an_interrupted_answer_is_the_same(
    service: Simulator, simulator: Simulator, gateway: Gateway, family: str, name: str
) -> None:
    script = cut_scripts(FAMILIES[family])[name]
    direct = await play(script, service.url, service)
    ours = await play(script, gateway.url, simulator)
    assert told(differences(direct, ours, cut=True)) == ""
    assert told(changed(ours, hidden=OURS)) == ""


@pytest.mark.parametrize(("family", "name", "turn_after_call"), HIDDEN)
async def test_the_operators_functions_are_not_seen(
    service: Simulator, simulator: Simulator, gateway: Gateway, family: str, name: str, turn_after_call: str
) -> None:
    script = hidden_scripts(FAMILIES[family])[name]
    for each in (service, simulator):
        each.control(switches={"turn_after_call": turn_after_call})
    try:
        direct = await play(script, service.url, service, answering=SHELF)
        ours = await play(script, gateway.url, simulator)
    finally:
        for each in (service, simulator):
            each.control(switches={"turn_after_call": None})
    assert told(differences(direct, ours, hidden=OURS)) == ""
    assert told(changed(ours, hidden=OURS)) == ""
