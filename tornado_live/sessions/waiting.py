"""The queue between running conversations and their store: what they say is gathered, and written in its order.

Writes are gathered for `BATCH_S` and go as one batch; whatever reads or waits sends the batch first. One batch is
in flight at a time. One that failed goes again as it was, with the number that it had, before what was queued
meanwhile: the order is kept, and a store that cannot know whether a batch was written may tell by its number.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event
from tornado_live.observe.logs import log_event
from tornado_live.sessions.store import Handle, MemoryItem, clip

BATCH_S = 0.05
RETRY_S = (0.5, 30.0)
EVENT_BYTES = 8192

logger = logging.getLogger(__name__)


class Unreachable(Exception):
    """A batch could not be written, and is to be tried again. Its cause is what the store itself said."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: seconds a session lives after its last activity, messages and bytes of its memory,
    its newest events, and writes that wait while the store cannot be written."""

    ttl_s: float
    memory_messages: int = 50
    memory_message_bytes: int = 8192
    memory_bytes: int = 262144
    events: int = 500
    waiting: int = 5000


class Remembered(NamedTuple):
    session: str
    item: MemoryItem


class Recorded(NamedTuple):
    """`data` is JSON; `turn` is 0 where the event names none."""

    session: str
    at: float
    kind: str
    data: str
    turn: int


class Touched(NamedTuple):
    """`at` by the store's clock; `shown` in epoch seconds."""

    at: float
    shown: float


class Holding(NamedTuple):
    session: str
    node: str


class Occupied(NamedTuple):
    counter: str
    place: str


@dataclass(slots=True)
class Batch:
    """Writes that go together, in the order of the fields. What is kept by name is what was said last of it.

    `purge_at` is when what had ended was due to go: that goes with the touches, which may keep a session.
    `number` counts the batches of a queue from 1; 0 while the batch is still being gathered.
    """

    touched: dict[str, Touched] = field(default_factory=dict)
    purge_at: float | None = None
    usage: dict[str, str] = field(default_factory=dict)
    items: deque[Remembered] = field(default_factory=deque)
    events: deque[Recorded] = field(default_factory=deque)
    handles: dict[str, Handle | None] = field(default_factory=dict)
    attended: dict[Holding, bool] = field(default_factory=dict)
    given_back: dict[str, int] = field(default_factory=dict)
    vacated: dict[Occupied, None] = field(default_factory=dict)
    released: dict[Holding, None] = field(default_factory=dict)
    number: int = 0

    def __bool__(self) -> bool:
        return len(self) > 0 or self.purge_at is not None

    def __len__(self) -> int:
        return sum(map(len, self.missed_least_first()))

    def missed_least_first(self) -> tuple[Writes, ...]:
        return (
            self.events,
            self.items,
            self.touched,
            self.usage,
            self.attended,
            self.given_back,
            self.vacated,
            self.handles,
            self.released,
        )


Writes = (
    deque[Remembered]
    | deque[Recorded]
    | dict[str, Touched]
    | dict[str, str]
    | dict[str, int]
    | dict[str, Handle | None]
    | dict[Holding, bool]
    | dict[Holding, None]
    | dict[Occupied, None]
)


class Waiting:
    """What waits for a store. `write` writes one batch: it raises Unreachable where it is to be tried again;
    whatever else it raises is a mistake of ours, which trying again does not mend.

    All of it happens on the event loop. `name` is the store's, for the log; `retry_s` is after how long a batch is
    tried again, at first and at most.
    """

    def __init__(
        self,
        write: Callable[[Batch], Awaitable[None]],
        *,
        bounds: Bounds,
        name: str,
        retry_s: tuple[float, float] = RETRY_S,
    ) -> None:
        self._write = write
        self._bounds = bounds
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._batch = Batch()
        self._failed: Batch | None = None
        self._number = 0
        self._dropped = 0
        self._failing: str | None = None
        self._patience = retry_s
        self._retry_s = retry_s[0]
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def failing(self) -> bool:
        """Whether the last batch could not be written."""
        return self._failing is not None

    def touch(self, id: str, at: Touched) -> None:
        self._batch.touched[id] = at
        self._queued()

    def remember(self, id: str, item: MemoryItem) -> None:
        text = clip(item.text, self._bounds.memory_message_bytes)
        self._batch.items.append(Remembered(id, MemoryItem(item.role, text, item.turn, item.at)))
        self._queued()

    def record(self, id: str, event: Event) -> None:
        turn = event.data.get("turn")
        data = _event_data(event.data)
        self._batch.events.append(
            Recorded(id, event.at, event.kind, data, turn if isinstance(turn, int) else 0)
        )
        self._queued()

    def set_usage(self, id: str, usage: Mapping[str, Json]) -> None:
        self._batch.usage[id] = json.dumps(usage)
        self._queued()

    def keep_handle(self, id: str, handle: Handle | None) -> None:
        self._batch.handles[id] = handle
        self._queued()

    def attend(self, id: str, *, node: str, connected: bool) -> None:
        self._batch.attended[Holding(id, node)] = connected
        self._queued()

    def release(self, id: str, *, node: str) -> None:
        self._batch.released[Holding(id, node)] = None
        self._queued()

    def give_back(self, counter: str, amount: int) -> None:
        self._batch.given_back[counter] = self._batch.given_back.get(counter, 0) + amount
        self._queued()

    def vacate(self, counter: str, place: str) -> None:
        self._batch.vacated[Occupied(counter, place)] = None
        self._queued()

    def occupied(self, counter: str, place: str) -> None:
        """Who left the place comes back to it, and is not to lose it by what is tried again later."""
        for batch in (self._failed, self._batch):
            if batch is not None:
                batch.vacated.pop(Occupied(counter, place), None)

    def purge(self, at: float) -> None:
        """Has what ended before `at` removed with the next batch."""
        self._batch.purge_at = at
        self._send_after(BATCH_S)

    async def send(self) -> None:
        """Returns when what is queued now was written, or could not be."""
        # Waited for but not awaited: who gives up waiting must not cancel the write.
        if self._writing is not None:
            await asyncio.wait([self._writing])
        behind = self._failed is not None
        for _ in range(2 if behind else 1):
            if (writing := self._start()) is not None:
                await asyncio.wait([writing])
            if self.failing:
                return

    async def close(self) -> int:
        """Tries once more to write everything. How many writes are lost; none is taken any more."""
        self._closed = True
        await self.send()
        if self._timer is not None:
            self._timer.cancel()
        lost = self._length()
        if lost:
            log_event(logger, "store_lost", level=logging.ERROR, writes=lost, store=self._name)
        return lost

    def _queued(self) -> None:
        if self._length() > self._bounds.waiting:
            self._drop_one()
        self._send_after(BATCH_S)

    def _length(self) -> int:
        return len(self._batch) + (0 if self._failed is None else len(self._failed))

    def _drop_one(self) -> None:
        """Drops what is missed least, the oldest of it."""
        if not self._dropped:
            log_event(logger, "store_overflow", level=logging.ERROR, waiting=self._bounds.waiting)
        self._dropped += 1
        batches = [batch for batch in (self._failed, self._batch) if batch is not None]
        for alike in zip(*(batch.missed_least_first() for batch in batches), strict=True):
            for writes in alike:
                if isinstance(writes, deque) and writes:
                    writes.popleft()
                    return
                if isinstance(writes, dict) and writes:
                    del writes[next(iter(writes))]
                    return

    def _send_after(self, seconds: float) -> None:
        """Plans the next write, unless one is planned, or is in flight: its end plans it."""
        if self._timer is None and self._writing is None and not self._closed:
            self._timer = self._loop.call_later(seconds, self._start)

    def _start(self) -> asyncio.Task[None] | None:
        """Has a batch in flight, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and (self._failed is not None or self._batch):
            batch = self._failed
            if batch is None:
                batch, self._batch = self._batch, Batch()
                self._number += 1
                batch.number = self._number
            self._failed = None
            self._writing = self._loop.create_task(self._try(batch))
        return self._writing

    async def _try(self, batch: Batch) -> None:
        try:
            await self._write(batch)
        except Unreachable as error:
            self._writing = None
            self._put_back(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the queue goes on
            log_event(logger, "store_refused", level=logging.ERROR, error=error, writes=len(batch))
        else:
            if self._failing is not None:
                log_event(logger, "store_recovered", dropped=self._dropped)
            self._failing, self._dropped, self._retry_s = None, 0, self._patience[0]
        self._writing = None
        if self._batch:
            self._send_after(BATCH_S)

    def _put_back(self, batch: Batch, error: Unreachable) -> None:
        said = error.__cause__ or error
        if str(said) != self._failing:
            log_event(logger, "store_failed", level=logging.ERROR, reason=said, store=self._name)
        self._failing = str(said)
        self._failed = batch
        while self._length() > self._bounds.waiting:
            self._drop_one()
        self._send_after(self._retry_s)
        self._retry_s = min(self._retry_s * 2, self._patience[1])


class Queueing:
    """What a SessionStore only queues. `_waiting` is the store's queue."""

    _waiting: Waiting

    def remember(self, id: str, item: MemoryItem) -> None:
        self._waiting.remember(id, item)

    def record(self, id: str, event: Event) -> None:
        self._waiting.record(id, event)

    def set_usage(self, id: str, usage: Mapping[str, Json]) -> None:
        self._waiting.set_usage(id, usage)

    def keep_handle(self, id: str, handle: Handle | None) -> None:
        self._waiting.keep_handle(id, handle)

    def attend(self, id: str, *, node: str, connected: bool) -> None:
        self._waiting.attend(id, node=node, connected=connected)

    def release(self, id: str, *, node: str) -> None:
        self._waiting.release(id, node=node)

    def give_back(self, counter: str, amount: int) -> None:
        self._waiting.give_back(counter, amount)

    def vacate(self, counter: str, place: str) -> None:
        self._waiting.vacate(counter, place)


def _event_data(data: Mapping[str, Json]) -> str:
    """The JSON of an event's data; members that make it too large are left out, and that is said."""
    encoded = json.dumps(data)
    if len(encoded) <= EVENT_BYTES:
        return encoded
    kept: dict[str, Json] = {"clipped": True}
    for name, value in data.items():
        kept[name] = value
        if len(json.dumps(kept)) > EVENT_BYTES:
            del kept[name]
    return json.dumps(kept)
