"""The session store of several machines: one Redis or Valkey, which every process asks by itself.

What can be raced for happens in scripts, in one step (redis_scripts.py has them, and the keys). What ends, ends by
Redis's own TTLs: no clock of ours decides. Each call is given up after 300 ms; what running conversations write
waits in the queue meanwhile (waiting.py).

Redis may lose what it was told: it is restarted empty, flushed, or another one that was behind takes its place.
What this process holds it writes again, from its copies (redis_copies.py). What was deleted is told from what was
lost by a mark that Redis keeps for as long as a session lives.

Redis Cluster is not supported. Several servers behind one address, of which one answers, are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from tornado_live.errors import Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event
from tornado_live.observe.logs import log_event
from tornado_live.sessions import redis_scripts as scripts
from tornado_live.sessions.redis_copies import COPIES_BYTES, Copies, Copy
from tornado_live.sessions.redis_line import DEADLINE_S, Argument, Away, Call, Line, Refused
from tornado_live.sessions.redis_records import (
    Unreadable,
    about_text,
    activity_text,
    body_of,
    body_text,
    event_of,
    event_text,
    handle_text,
    is_name,
    item_of,
    item_text,
    session_of,
    shown,
)
from tornado_live.sessions.redis_scripts import Script
from tornado_live.sessions.store import (
    LISTED,
    NODE_LIFE_S,
    Credential,
    Hold,
    Kept,
    MemoryItem,
    News,
    Session,
    Taken,
    cursor_of,
    digest_of,
    new_session,
    not_found,
    out_of_reach,
    place_in_memory,
    place_of,
    too_many,
)
from tornado_live.sessions.waiting import Batch, Bounds, Holding, Queueing, Touched, Unreachable, Waiting

RETRY_S: Final = (0.25, 1.0)
LISTEN_AGAIN_S: Final = 1.0
KEPT_MS: Final = 60_000
"""How long a credential that has expired is still known to have."""
LONGEST_MS: Final = 100 * 365 * 86_400_000
CHUNK: Final = 64
CHUNK_BYTES: Final = 256 * 1024
"""What goes to Redis at once, and has to be answered in time."""

_STATES: Final[Mapping[bytes, Literal["good", "used_up", "expired"]]] = {
    b"good": "good",
    b"used_up": "used_up",
    b"expired": "expired",
}

_EMPTIED: Final = (
    "make API keys again, and revoke again what is not to come back (docs/redis.md): Redis has lost its data"
)

Record = TypeVar("Record")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Said:
    """What a batch says of one session."""

    touched: Touched | None = None
    turn: int = 0
    usage: str = ""
    handle: str = ""
    items: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    attended: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)


class RedisSessionStore(Queueing):
    """A SessionStore (sessions/store.py has the contract) in the Redis at `url`, below `prefix`.

    Opening it asks nothing of Redis: one that is away is `healthy` when it is back. Raises ConfigError for a `url`
    that cannot be used. Logs never show it.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        ttl_s: float,
        memory_messages: int = 50,
        memory_message_bytes: int = 8192,
        memory_bytes: int = 262144,
        events: int = 500,
        waiting: int = 5000,
        deadline_s: float = DEADLINE_S,
        node_life_s: float = NODE_LIFE_S,
        copies_bytes: int = COPIES_BYTES,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds = Bounds(ttl_s, memory_messages, memory_message_bytes, memory_bytes, events, waiting)
        self._prefix = prefix
        self._node_life_ms = round(node_life_s * 1000)
        self._wall = wall
        self._steady = steady
        self._loop = asyncio.get_running_loop()
        self._line = Line(url, deadline_s=deadline_s)
        self._waiting = Waiting(self._write, bounds=self._bounds, name="redis", retry_s=RETRY_S)
        self._copies = Copies(self._bounds, copies_bytes)
        self._writer = secrets.token_hex(6)
        self._written = 0
        self._heard: dict[str, tuple[str, int]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._closed = False
        self.unreadable = 0
        """How many records could not be read since the start: written by somebody else, or broken."""

    async def create(
        self,
        *,
        user: str,
        assistant: str,
        metadata: Mapping[str, Json],
        label: str = "",
        node: str | None = None,
    ) -> Session:
        now, at = self._wall(), self._steady()
        session = new_session(user, assistant, metadata, label, at=now, ttl_s=self._bounds.ttl_s)
        listed = _list_name(user)
        await self._ask(
            scripts.CREATE,
            [self._key(session.id, "s"), self._prefix + "u:" + listed],
            self._prefix,
            session.id,
            self._ttl_ms,
            repr(session.created_at),
            listed,
            about_text(session),
            activity_text(session.last_active_at, session.expires_at),
            node or "",
            self._node_life_ms,
        )
        if node is not None:
            self._copies.keep(session, "{}", user=listed, node=node, holds=1, memory=(), at=at)
        return session

    async def get(self, id: str, *, user: str) -> Session:
        session, _ = await self._read(id, user, with_memory=False)
        return session

    async def list(
        self, user: str, *, limit: int = 50, after: str | None = None
    ) -> tuple[Sequence[Session], str | None]:
        score, before = (math.inf, "") if after is None else place_of(after)
        if math.isnan(score) or (before and not is_name(before)):
            return [], None  # nothing comes after a place that is none
        listed = self._prefix + "u:" + _list_name(user)
        found = await self._look(Call(scripts.LIST, [listed], (self._prefix, limit + 1, score, before))) or []
        sessions, behind = [], None
        for name, fields, score in found[:limit]:
            if not is_name(id := shown(name)):
                continue
            behind = cursor_of(float(score), id)  # whatever the record says of itself
            session = self._readable(session_of, id, fields)
            if session is not None and session.user == user:
                sessions.append(session)
        return sessions, behind if len(found) > limit else None

    async def memory(self, id: str) -> Sequence[MemoryItem]:
        return self._items(await self._of_session(id, scripts.ITEMS, "sm") or [])

    async def resume(self, id: str, *, user: str) -> tuple[Session, Sequence[MemoryItem]]:
        session, memory = await self._read(id, user, with_memory=True)
        return session, self._items(memory)

    async def events(self, id: str) -> Sequence[Event]:
        found = await self._of_session(id, scripts.ITEMS, "se") or []
        events = (self._readable(event_of, text) for text in found)
        return [event for event in events if event is not None]

    async def delete(self, id: str, *, user: str) -> None:
        await self._read(id, user, with_memory=False)
        keys = [self._key(id, part) for part in "smed"]
        deleted = await self._ask(scripts.DELETE, keys, self._prefix, id, self._ttl_ms, self._writer)
        self._copies.drop(id)
        if not deleted:
            raise not_found()

    async def keep_credential(
        self,
        name: str,
        *,
        uses: int | None,
        expires_at: float | None,
        body: Mapping[str, Json],
        kind: str = "",
        at_most: int | None = None,
    ) -> None:
        digest = digest_of(name).hex()
        lasts_ms: str | int = ""
        if expires_at is not None:
            lasts_ms = round(max(-LONGEST_MS, min(1000 * (expires_at - self._wall()), LONGEST_MS)))
        limited = await self._ask(
            scripts.KEEP,
            [f"{self._prefix}c:{digest}", f"{self._prefix}k:{kind}"],
            digest,
            body_text(body),
            "" if uses is None else uses,
            lasts_ms,
            KEPT_MS,
            kind,
            "" if at_most is None else at_most,
        )
        if limited:
            live, soonest_ms = limited
            raise too_many(live, math.inf if soonest_ms < 0 else soonest_ms / 1000)

    async def use_credential(self, name: str, *, spend: bool = True) -> Credential | None:
        key = f"{self._prefix}c:{digest_of(name).hex()}"
        found = await self._look(Call(scripts.USE, [key], ["1" if spend else "0", KEPT_MS]))
        return None if found is None else self._readable(_credential, *found)

    async def credentials(self, kind: str) -> Sequence[Kept]:
        key = f"{self._prefix}k:{kind}"
        found = await self._look(Call(scripts.CREDENTIALS, [key], [self._prefix, kind, LISTED])) or []
        kept = (self._readable(_kept, *one) for one in sorted(found, key=lambda one: one[0]))
        return [one for one in kept if one is not None]

    async def drop_credential(self, name: str) -> bool:
        digest = digest_of(name).hex()
        keys = [f"{self._prefix}c:{digest}"]
        dropped: int = await self._ask(scripts.DROP, keys, self._prefix, digest, KEPT_MS)
        return dropped == 1

    async def hold(self, id: str, *, node: str) -> Hold:
        found = await self._hold(id, node)
        if found == b"late":
            found = await self._hold(id, node)
        match found:
            case [
                fields,
                list() as memory,
                list() as leaving,
                int() as abandoned,
                int() as holds,
                int() as left_ms,
            ]:
                pass
            case None:
                raise not_found()
            case _:
                raise out_of_reach()
        session = self._readable(session_of, id, fields)
        if session is None:
            self.release(id, node=node)
            raise not_found()
        copy = self._copies.of(id, node=node)
        if copy is None or copy.holds != holds:
            usage, listed = json.dumps(session.usage), _list_name(session.user)
            touched_at = self._steady() - (self._bounds.ttl_s - left_ms / 1000)  # to hold is no activity
            self._copies.keep(
                session, usage, user=listed, node=node, holds=holds, memory=memory, at=touched_at
            )
        return Hold(frozenset(map(shown, leaving)), abandoned == 1)

    async def leaving(self, id: str, *, node: str) -> Hold:
        if not is_name(id):
            return Hold(frozenset(), abandoned=False)
        leaving, abandoned = await self._ask(scripts.LEAVING, [self._key(id, "s")], self._prefix)
        return Hold(frozenset(map(shown, leaving)), abandoned == 1)

    async def beat(self, node: str, held: Collection[str]) -> News:
        known = [id for id in held if is_name(id)]
        born, heard = self._heard.get(node, ("", 0))
        facts: list[str | int] = []
        for id in known:
            copy = self._copies.of(id, node=node)
            facts += [id, -1, 0] if copy is None else [id, copy.holds, copy.written]
        arguments = (self._prefix, node, self._node_life_ms, secrets.token_hex(6), heard, self._writer, born)
        born_now, number, revoked, became = await self._ask(scripts.BEAT, [], *arguments, *facts)
        self._heard[node] = shown(born_now), number
        if born and self._heard[node][0] not in (born, ""):
            log_event(logger, "redis_emptied", level=logging.ERROR, do=_EMPTIED)
        taken, ended = set(), set(held) - set(known)
        for name, word in became:
            id = shown(name)
            if word == b"taken":
                taken.add(id)
            elif word == b"deleted" or not await self._brought_back(id, node):
                ended.add(id)
        for id in taken | ended:
            self._copies.drop(id, node=node)
        left = {shown(subject): left_ms / 1000 for subject, left_ms in revoked}
        return News(frozenset(taken), frozenset(ended), left)

    def listen(self, look: Callable[[], None]) -> None:
        self._listener = self._loop.create_task(self._listen(look))

    async def leave(self, node: str) -> None:
        await self._ask(scripts.LEAVE, [f"{self._prefix}n:{node}"], self._ttl_ms)

    async def revoke(self, subject: str, *, lasts_s: float) -> None:
        await self._ask(
            scripts.REVOKE,
            [],
            self._prefix,
            subject.encode("utf-8", "surrogatepass"),
            min(round(1000 * lasts_s), LONGEST_MS),
            self._writer,
            secrets.token_hex(6),
        )

    async def take(self, counter: str, amount: int, *, limit: int, window_s: float) -> Taken:
        window = max(1, min(round(1000 * window_s), LONGEST_MS))
        got, left, ends_ms = await self._ask(
            scripts.TAKE, [self._key_of("t", counter)], amount, limit, window
        )
        return Taken(got, left, ends_ms / 1000)

    async def occupy(self, counter: str, place: str, *, limit: int, lasts_s: float) -> bool:
        self._waiting.occupied(counter, place)
        lasts = max(1, min(round(1000 * lasts_s), LONGEST_MS))
        named = place.encode("utf-8", "surrogatepass")
        keys = [self._key_of(part, counter) for part in "ow"]
        taken: int = await self._ask(scripts.OCCUPY, keys, named, limit, lasts, self._writer)
        return taken == 1

    async def flush(self) -> None:
        if self._closed:
            raise out_of_reach()
        await self._waiting.send()
        if self._waiting.failing:
            raise out_of_reach()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        await self._waiting.close()
        await self._line.close()

    async def healthy(self) -> bool:
        if self._closed:
            return False
        try:
            await self._ask(scripts.PROBE, [self._prefix + "probe"])
        except Unavailable:
            return False
        return not self._waiting.failing

    def touch(self, id: str) -> None:
        at = Touched(self._steady(), self._wall())
        copy = self._copies.of(id)
        if copy is not None and self._left_ms(copy.active) > 0:
            copy.active = at
        self._waiting.touch(id, at)

    # What is asked

    @property
    def _ttl_ms(self) -> int:
        return round(1000 * self._bounds.ttl_s)

    def _key(self, id: str, part: str) -> str:
        return f"{self._prefix}{{{id}}}:{part}"

    def _key_of(self, part: str, counter: str) -> bytes:
        return f"{self._prefix}{part}:{counter}".encode("utf-8", "surrogatepass")

    async def _sent(self, by: float) -> None:
        """Redis has everything that was queued, or cannot take it now. Raises Unavailable after `by`."""
        if self._closed:
            raise out_of_reach()
        try:
            async with asyncio.timeout_at(by):
                await self._waiting.send()
        except TimeoutError as error:
            raise out_of_reach() from error

    async def _ask(self, script: Script, keys: Sequence[str | bytes], *arguments: Argument) -> Any:
        """What the script answers, behind everything that was queued. Raises Unavailable."""
        by = self._line.deadline()
        await self._sent(by)
        try:
            return await self._line.ask(Call(script, keys, arguments), by=by)
        except Refused as refused:
            log_event(logger, "store_refused", level=logging.ERROR, error=refused, script=script.name)
            raise out_of_reach() from refused
        except Away as away:
            raise out_of_reach() from away

    async def _look(self, call: Call, *, by: float | None = None) -> Any:
        """As `_ask`, but None where the script finds something that it cannot read. With `by` all was sent."""
        if by is None:
            by = self._line.deadline()
            await self._sent(by)
        try:
            return await self._line.ask(call, by=by)
        except Refused as refused:
            self._not_read(refused)
            return None
        except Away as away:
            raise out_of_reach() from away

    async def _of_session(
        self, id: str, script: Script, parts: str, *arguments: Argument, by: float | None = None
    ) -> Any:
        """The same about one session, which is brought back where Redis has lost it. None for an unknown one."""
        if not is_name(id):
            return None
        call = Call(script, [self._key(id, part) for part in parts], arguments)
        answer = await self._look(call, by=by)
        if answer is None and await self._brought_back(id):
            answer = await self._look(call)
        return answer

    async def _read(self, id: str, user: str, *, with_memory: bool) -> tuple[Session, Sequence[bytes]]:
        begun = self._copies.applied
        found = await self._of_session(id, scripts.READ, "sm", self._prefix, "1" if with_memory else "0")
        if found is None:
            raise not_found()
        fields, memory = found
        session = self._readable(session_of, id, fields)
        if session is None or session.user != user:
            raise not_found()
        if with_memory and begun == self._written == self._copies.applied:
            # Whoever let go of the session may have remembered something after this process had taken it.
            self._copies.reread(id, memory)
        return session, memory

    async def _hold(self, id: str, node: str) -> Any:
        by = self._line.deadline()
        await self._sent(by)
        known = (self._writer, self._copies.applied)
        return await self._of_session(
            id, scripts.HOLD, "sm", self._prefix, id, node, self._node_life_ms, *known, by=by
        )

    def _items(self, memory: Sequence[object]) -> Sequence[MemoryItem]:
        items = (self._readable(item_of, text) for text in memory)
        return sorted((item for item in items if item is not None), key=place_in_memory)

    def _readable(self, read: Callable[..., Record], *values: object) -> Record | None:
        try:
            return read(*values)
        except Unreadable as error:
            self._not_read(error)
            return None

    def _not_read(self, error: Exception) -> None:
        self.unreadable += 1
        log_event(logger, "record_unreadable", level=logging.ERROR, record=str(error))

    # What is written

    async def _write(self, batch: Batch) -> None:
        self._copies.apply(batch)
        said = _gathered(batch)
        calls: list[tuple[str | None, Call]] = []
        for counter, amount in batch.given_back.items():
            arguments = (self._writer, batch.number, amount)
            calls.append((None, Call(scripts.GIVE_BACK, [self._key_of("t", counter)], arguments)))
        for counter, place in batch.vacated:
            named = (place.encode("utf-8", "surrogatepass"), self._writer)
            calls.append((None, Call(scripts.VACATE, [self._key_of(part, counter) for part in "ow"], named)))
        calls += [(id, self._writing(id, one, batch.number)) for id, one in said.items() if is_name(id)]
        try:
            for chunk in _chunks(calls):
                answers = await self._line.ask_all([call for _, call in chunk])
                for (id, call), answer in zip(chunk, answers, strict=True):
                    await self._wrote(id, call, answer, batch)
        except Away as away:
            raise Unreachable from away
        for id, node in batch.released:
            self._copies.drop(id, node=node)
        self._written = batch.number

    async def _wrote(self, id: str | None, call: Call, answer: object, batch: Batch) -> None:
        if isinstance(answer, Refused):
            log_event(logger, "store_refused", level=logging.ERROR, error=answer, script=call.script.name)
        elif id is not None and answer == b"deleted":
            self._copies.drop(id)
        elif id is not None and (copy := self._copies.of(id)) is not None:
            if answer == b"gone":
                held = Holding(id, copy.node) not in batch.released
                if await self._rewrite(id, copy, held=held) == b"there":
                    await self._line.ask_all([call])  # somebody was faster
            copy.written = batch.number

    def _writing(self, id: str, said: _Said, number: int) -> Call:
        ttl_ms, active = 0, ""
        if said.touched is not None:
            copy = self._copies.of(id)
            # Since the batch was closed there may have been more of it.
            touched = said.touched if copy is None else max(said.touched, copy.active)
            ttl_ms = self._left_ms(touched)
            active = activity_text(touched.shown, touched.shown + self._bounds.ttl_s)
        bounds = self._bounds
        items = said.items[-bounds.memory_messages :]
        events = said.events[-bounds.events :]
        arguments: list[Argument] = [self._prefix, self._writer, number, max(0, ttl_ms), active, said.turn]
        arguments += [said.usage, said.handle, bounds.memory_messages, bounds.memory_bytes, bounds.events]
        for several in (items, events, said.attended, said.released):
            arguments += [len(several), *several]
        return Call(scripts.WRITE, [self._key(id, part) for part in "smed"], arguments)

    def _left_ms(self, touched: Touched) -> int:
        return round(1000 * (self._bounds.ttl_s - (self._steady() - touched.at)))

    # What is written again

    async def _brought_back(self, id: str, node: str | None = None) -> bool:
        """Whether a session that Redis lost is there again, or may be yet."""
        copy = self._copies.of(id, node=node)
        if copy is None:
            return False
        try:
            return await self._rewrite(id, copy, held=True) in (b"rewritten", b"there")
        except Away:
            return True

    async def _rewrite(self, id: str, copy: Copy, *, held: bool) -> object:
        ttl_ms = self._left_ms(copy.active)
        if ttl_ms <= 0:
            return b"ended"
        number = self._copies.applied
        arguments: list[Argument] = [self._prefix, id, self._writer, number, copy.holds, ttl_ms]
        arguments += [repr(copy.created_at), copy.user, copy.about]
        arguments += [activity_text(copy.active.shown, copy.active.shown + self._bounds.ttl_s), copy.turn]
        arguments += [copy.usage, copy.handle, copy.node if held else "", "1" if copy.connected else "0"]
        arguments += [copy.size, *copy.memory]
        keys = [self._key(id, part) for part in "smd"]
        try:
            word = await self._line.ask(Call(scripts.REWRITE, keys, arguments))
        except Refused as refused:
            log_event(
                logger, "store_refused", level=logging.ERROR, error=refused, script=scripts.REWRITE.name
            )
            return b"refused"
        if word == b"rewritten":
            copy.written = number
            log_event(
                logger, "session_rewritten", level=logging.WARNING, session=id, messages=len(copy.memory)
            )
        return word

    # What is heard

    async def _listen(self, look: Callable[[], None]) -> None:
        """A hint sooner than the next beat, which tells all of it in any case."""
        while True:
            try:
                async with self._line.subscribed(self._prefix + "news") as connection:
                    look()  # for what was said before
                    while True:
                        match await connection.read_response(timeout=math.inf):
                            case [b"message", _, bytes() as told]:
                                self._hear(told, look)
            except Away:
                await asyncio.sleep(LISTEN_AGAIN_S)

    def _hear(self, told: bytes, look: Callable[[], None]) -> None:
        match told.decode("utf-8", "replace").split(" "):
            case [writer, word, id] if writer != self._writer and (word == "revoked" or id in self._copies):
                look()


def _gathered(batch: Batch) -> dict[str, _Said]:
    """What a batch says, by session."""
    said: defaultdict[str, _Said] = defaultdict(_Said)
    for id, touched in batch.touched.items():
        said[id].touched = touched
    for id, usage in batch.usage.items():
        said[id].usage = usage
    for id, item in batch.items:
        said[id].items.append(item_text(item))
        said[id].turn = max(said[id].turn, item.turn)
    for event in batch.events:
        said[event.session].events.append(event_text(event.at, event.kind, event.data))
        said[event.session].turn = max(said[event.session].turn, event.turn)
    for id, handle in batch.handles.items():
        said[id].handle = handle_text(handle) or "-"
    for (id, node), connected in batch.attended.items():
        said[id].attended += [node, "1" if connected else "0"]
    for id, node in batch.released:
        said[id].released.append(node)
    return said


def _chunks(calls: Sequence[tuple[str | None, Call]]) -> Iterator[Sequence[tuple[str | None, Call]]]:
    chunk: list[tuple[str | None, Call]] = []
    size = 0
    for one in calls:
        chunk.append(one)
        size += sum(len(argument) for argument in one[1].arguments if isinstance(argument, str))
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _credential(state: bytes, body: object = None, left_ms: int = 0) -> Credential:
    if state not in _STATES:
        raise Unreadable("credential")
    return Credential(body_of(body), _STATES[state], math.inf if left_ms < 0 else left_ms / 1000)


def _kept(_: int, digest: bytes, body: object, left_ms: int) -> Kept:
    return Kept(shown(digest), body_of(body), None if left_ms < 0 else left_ms / 1000)


def _list_name(user: str) -> str:
    return digest_of(user).hex()[:32]
