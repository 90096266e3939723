"""Every session store against a few plain dictionaries: whatever three processes do, both say the same of it.

What a process that has left in order does under its old name is nobody's business: it starts with a new one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from stores import PLACES, TTL, Given, Place, opened

from tornado_live.errors import SessionNotFound
from tornado_live.sessions.store import Handle, Hold, MemoryItem, News, SessionStore, Taken

STEPS = 200
DEEDS = """
create hold hold hold leaving attend attend release remember touch handle delete beat beat beat revoke take take
give_back occupy occupy vacate keep use use drop leave pass pass pass
""".split()  # noqa: SIM905 - easier to read


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with cast(Given, request.param)(tmp_path) as given_place:
        yield given_place


@dataclass
class Known:
    """What the model knows of a session."""

    ends: float
    holder: str | None
    connected: bool = False
    handle: Handle | None = None
    texts: list[str] = field(default_factory=list)
    left_by: set[str] = field(default_factory=set)
    """Who had it and has not let go."""
    told: set[str] = field(default_factory=set)
    """Of them, who was dead when a holder asked."""


class Model:
    def __init__(self, node_life_s: float) -> None:
        self.now = 0.0
        self.life = node_life_s
        self.sessions: dict[str, Known] = {}
        self.beats: dict[str, float] = {}
        self.revoked: list[tuple[str, float]] = []
        self.heard: dict[str, int] = {}
        self.counters: dict[str, tuple[int, float]] = {}
        self.places: dict[str, dict[str, tuple[float, str]]] = {"x": {}, "y": {}}
        self.credentials: dict[str, tuple[int | None, float, int]] = {}
        """Uses that are left, end, and how many were kept before."""
        self.kept = 0

    def lives(self, node: str) -> bool:
        return node in self.beats and self.now < self.beats[node] + self.life

    def there(self, id: str) -> bool:
        return id in self.sessions and self.now < self.sessions[id].ends

    def found(self, id: str) -> Hold:
        known = self.sessions[id]
        dead = {node for node in known.left_by if not self.lives(node)}
        known.told |= dead
        return Hold(frozenset(known.left_by - dead), abandoned=bool(dead))

    def hold(self, id: str, node: str) -> Hold:
        known = self.sessions[id]
        self.beats[node] = self.now
        if known.holder != node:
            known.left_by -= {one for one in known.told if not self.lives(one)} | {node}
            known.told &= known.left_by
            if known.holder is not None:
                known.left_by.add(known.holder)
            known.holder, known.connected = node, False
        return self.found(id)

    def release(self, id: str, node: str) -> None:
        known = self.sessions[id]
        known.left_by.discard(node)
        known.told.discard(node)
        if known.holder == node:
            known.holder, known.connected = None, False

    def leave(self, node: str) -> None:
        for id in self.sessions:
            self.release(id, node)
        self.beats.pop(node, None)

    def beat(self, node: str, ids: list[str]) -> News:
        self.beats[node] = self.now
        new = self.revoked[self.heard.get(node, 0) :]
        self.heard[node] = len(self.revoked)
        there = {id for id in ids if self.there(id)}
        return News(
            taken=frozenset(id for id in there if self.sessions[id].holder != node),
            ended=frozenset(ids) - there,
            revoked={
                subject: pytest.approx(ends - self.now, abs=60) for subject, ends in new if self.now < ends
            },
        )

    def revoke(self, subject: str, lasts_s: float) -> None:
        """Never for less long than it is already."""
        ends = [ends for one, ends in self.revoked if one == subject]
        self.revoked.append((subject, max(self.now + lasts_s, *ends, 0.0)))

    def take(self, counter: str, amount: int, limit: int, window_s: float) -> Taken:
        taken, ends = self.counters.get(counter, (0, 0.0))
        if self.now >= ends:
            taken, ends = 0, self.now + window_s
        got = max(min(amount, limit - taken), 0)
        if got:
            self.counters[counter] = taken + got, ends
        return Taken(got, max(limit - taken - got, 0), pytest.approx(ends - self.now, abs=60))

    def occupy(self, counter: str, place: str, limit: int, lasts_s: float, node: str) -> bool:
        taken = {name for name, (ends, _) in self.places[counter].items() if self.now < ends}
        if place not in taken and len(taken) >= limit:
            return False
        self.places[counter][place] = self.now + lasts_s, node
        return True

    def vacate(self, counter: str, place: str, node: str) -> None:
        _, holder = self.places[counter].get(place, (0.0, ""))
        if holder == node:
            del self.places[counter][place]

    def use(self, name: str) -> str:
        """`good`, `used_up` or `gone`."""
        uses, ends, at = self.credentials.get(name, (0, self.now, 0))
        if self.now >= ends:
            return "gone"
        if uses is not None:
            self.credentials[name] = max(uses - 1, 0), ends, at
        return "used_up" if uses == 0 else "good"

    def listed(self) -> list[str]:
        live = {name: at for name, (_, ends, at) in self.credentials.items() if self.now < ends}
        return sorted(live, key=lambda name: live[name])

    def give_back(self, counter: str, amount: int) -> None:
        taken, ends = self.counters.get(counter, (0, 0.0))
        self.counters[counter] = max(taken - amount, 0), ends

    def may_pass(self, seconds: float) -> bool:
        """Whether nothing would end so near to then that it could be either way."""
        then = self.now + seconds
        near = [known.ends for known in self.sessions.values()]
        near += [at + self.life for at in self.beats.values()]
        near += [ends for _, ends in self.revoked] + [ends for _, ends in self.counters.values()]
        near += [ends for taken in self.places.values() for ends, _ in taken.values()]
        near += [ends for _, ends, _ in self.credentials.values()]
        return all(abs(end - then) > self.life / 10 for end in near)


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_processes_do_in_turn_they_are_told_what_became_of_it(place: Place, seed: int) -> None:
    dice = random.Random(seed)
    model = Model(place.node_life_s)
    done: list[str] = []
    async with AsyncExitStack() as stack:
        stores = {node: await stack.enter_async_context(opened(place)) for node in "abc"}
        for _ in range(STEPS):
            node = dice.choice(list(stores))
            if (deed := dice.choice(DEEDS)) == "leave":
                await stores[node].leave(node)
                model.leave(node)
                done.append(f"{node}: leave, and {node}+ starts")
                stores[f"{node}+"] = stores.pop(node)
            else:
                done.append(await step(dice, deed, place, model, stores[node], node, done))
            for id, known in model.sessions.items():
                await agrees(dice.choice(list(stores.values())), model, id, known, done)


async def step(
    dice: random.Random,
    what: str,
    place: Place,
    model: Model,
    store: SessionStore,
    node: str,
    done: list[str],
) -> str:
    """One thing that a process does; how it is said to whoever reads a failure."""
    there = [id for id in model.sessions if model.there(id)]
    id = dice.choice(there) if there else ""
    said = f"{node}: {what} {id[:4]}"
    told = "\n".join([*done, said])
    match what:
        case "create":
            holder = dice.choice((node, None))
            session = await store.create(user="ann", assistant="default", metadata={}, node=holder)
            model.sessions[session.id] = Known(model.now + TTL, holder)
            if holder is not None:
                model.beats[holder] = model.now
            return f"{said} {session.id[:4]} held by {holder}"
        case "beat":
            ids = dice.sample(sorted(model.sessions), dice.randint(0, len(model.sessions)))
            news = model.beat(node, ids)
            assert await store.beat(node, ids) == news, told
        case "revoke":
            subject, lasts_s = f"key {dice.randint(1, 3)}", dice.choice((model.life, 5 * model.life))
            await store.revoke(subject, lasts_s=lasts_s)
            model.revoke(subject, lasts_s)
        case "take":
            counter, amount, limit = dice.choice("xy"), dice.randint(1, 5), dice.randint(3, 12)
            taken = model.take(counter, amount, limit, 5 * model.life)
            assert await store.take(counter, amount, limit=limit, window_s=5 * model.life) == taken, told
        case "occupy":
            counter, named, limit = dice.choice("xy"), dice.choice("pqrs"), dice.randint(1, 3)
            occupied = model.occupy(counter, named, limit, 3 * model.life, node.rstrip("+"))
            assert await store.occupy(counter, named, limit=limit, lasts_s=3 * model.life) == occupied, told
        case "vacate":
            counter, named = dice.choice("xy"), dice.choice("pqrs")
            store.vacate(counter, named)
            model.vacate(counter, named, node.rstrip("+"))
        case "keep":
            named, uses, lasts = dice.choice("kln"), dice.choice((None, 1, 2)), dice.choice((2, 6, None))
            ends = None if lasts is None else place.now() + lasts * model.life
            await store.keep_credential(named, uses=uses, expires_at=ends, body={"name": named}, kind="key")
            model.kept += 1
            until = math.inf if lasts is None else model.now + lasts * model.life
            model.credentials[named] = uses, until, model.kept
        case "use":
            found = await store.use_credential(named := dice.choice("kln"))
            state = "gone" if found is None or found.state == "expired" else found.state
            assert state == model.use(named), told
            assert [kept.body["name"] for kept in await store.credentials("key")] == model.listed(), told
        case "drop":
            named = dice.choice("kln")
            assert await store.drop_credential(named) == (named in model.listed()), told
            model.credentials.pop(named, None)
        case "give_back":
            counter, amount = dice.choice("xy"), dice.randint(1, 3)
            store.give_back(counter, amount)
            model.give_back(counter, amount)
        case "pass":
            seconds = dice.choice((0.3, 0.3, 0.7, 1.5, 0.31 * TTL / model.life)) * model.life
            if not model.may_pass(seconds):
                return f"{said}: no"
            await place.pass_time(seconds)
            model.now += seconds
            return f"{said} {seconds}"
        case _ if not id:
            return f"{said}: nothing there"
        case "hold":
            assert await store.hold(id, node=node) == model.hold(id, node), told
            store.touch(id)  # as whoever opens a conversation does
            model.sessions[id].ends = model.now + TTL
        case "leaving":
            if model.sessions[id].holder == node:
                assert await store.leaving(id, node=node) == model.found(id), told
        case "attend":
            connected = dice.random() < 0.7
            store.attend(id, node=node, connected=connected)
            if model.sessions[id].holder == node:
                model.sessions[id].connected = connected
        case "release":
            store.release(id, node=node)
            model.release(id, node)
        case "remember":
            model.sessions[id].texts.append(f"{node} {len(model.sessions[id].texts)}")
            store.remember(id, MemoryItem("user", model.sessions[id].texts[-1], 1, 1.0))
        case "touch":
            store.touch(id)
            model.sessions[id].ends = model.now + TTL
        case "handle":
            handle = dice.choice((None, Handle(str(dice.random()), "identity", 1.0)))
            store.keep_handle(id, handle)
            model.sessions[id].handle = handle
        case "delete":
            if dice.random() < 0.3:
                await store.delete(id, user="ann")
                model.sessions[id].ends = model.now
    await store.flush()
    return said


async def agrees(store: SessionStore, model: Model, id: str, known: Known, done: list[str]) -> None:
    history = "\n".join(done)
    if not model.there(id):
        try:
            await store.get(id, user="ann")
        except SessionNotFound:
            return
        raise AssertionError(f"{id[:4]} is still there after\n{history}")
    session, memory = await store.resume(id, user="ann")
    connected = known.connected and known.holder is not None and model.lives(known.holder)
    assert (session.connected, session.handle) == (connected, known.handle), history
    assert [item.text for item in memory] == known.texts[-50:], history
