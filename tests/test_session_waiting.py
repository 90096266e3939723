"""The queue before a store: its order, its numbers, what it drops, and what becomes of a batch that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tornado_live.observe.events import Event
from tornado_live.sessions.store import Handle, MemoryItem
from tornado_live.sessions.waiting import Batch, Bounds, Touched, Unreachable, Waiting


class Written:
    """Where batches end: reachable or not, and held up as long as a test likes."""

    def __init__(self, bound: int = 100) -> None:
        self.reachable = True
        self.tried: list[tuple[int, Sequence[str]]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.begun = asyncio.Event()
        self.bug: Exception | None = None
        self.queue = Waiting(self._write, bounds=Bounds(60, waiting=bound), name="the test")

    async def _write(self, batch: Batch) -> None:
        self.begun.set()
        self.tried.append((batch.number, [item.text for _, item in batch.items]))
        await self.free.wait()
        if self.bug is not None:
            raise self.bug
        if not self.reachable:
            raise Unreachable from OSError("no way")

    def say(self, *texts: str) -> None:
        for text in texts:
            self.queue.remember("s", MemoryItem("user", text, 1, 1.0))


async def test_what_is_said_is_gathered_and_sent_when_somebody_waits_for_it() -> None:
    written = Written()
    written.say("a", "b")
    await written.queue.send()
    await written.queue.send()
    assert written.tried == [(1, ["a", "b"])]
    assert await written.queue.close() == 0


async def test_a_batch_that_failed_goes_again_as_it_was_before_what_came_later() -> None:
    written = Written()
    written.reachable = False
    written.say("a")
    await written.queue.send()
    written.say("b")
    await written.queue.send()
    assert written.queue.failing
    written.reachable = True
    await written.queue.send()
    assert not written.queue.failing
    assert written.tried == [(1, ["a"]), (1, ["a"]), (1, ["a"]), (2, ["b"])]
    assert await written.queue.close() == 0


async def test_one_batch_is_in_flight_at_a_time_and_nobody_waits_for_a_later_one() -> None:
    written = Written()
    written.free.clear()
    written.say("a")
    first = asyncio.get_running_loop().create_task(written.queue.send())
    await written.begun.wait()
    written.say("b")
    second = asyncio.get_running_loop().create_task(written.queue.send())
    await asyncio.sleep(0)
    assert written.tried == [(1, ["a"])]
    written.free.set()
    await asyncio.gather(first, second)
    assert written.tried == [(1, ["a"]), (2, ["b"])]


async def test_who_gives_up_waiting_does_not_stop_the_write() -> None:
    written = Written()
    written.free.clear()
    written.say("a")
    waiting = asyncio.get_running_loop().create_task(written.queue.send())
    await written.begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    written.free.set()
    await written.queue.send()
    assert written.tried == [(1, ["a"])]
    assert not written.queue.failing


async def test_a_mistake_of_ours_is_not_tried_again_and_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = Written()
    written.bug = TypeError("not JSON")
    written.say("a")
    await written.queue.send()
    written.bug = None
    written.say("b")
    await written.queue.send()
    assert written.tried == [(1, ["a"]), (2, ["b"])]
    assert [record.getMessage() for record in caplog.records] == ["store_refused"]


async def test_a_failure_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    written = Written()
    written.reachable = False
    written.say("a")
    for _ in range(3):
        await written.queue.send()
    written.reachable = True
    await written.queue.send()
    assert [record.getMessage() for record in caplog.records] == ["store_failed", "store_recovered"]


async def test_a_full_queue_drops_events_first_and_what_lets_others_go_on_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = Written(bound=5)
    written.reachable = False
    queue = written.queue
    queue.record("s", Event(1.0, "turn", {}))
    written.say("a", "b")
    await queue.send()
    queue.record("s", Event(2.0, "turn", {}))
    queue.release("s", node="n")
    queue.keep_handle("s", Handle("h", "", 1.0))  # six: the older event goes
    queue.give_back("calls", 1)  # the newer one
    queue.attend("s", node="n", connected=False)  # "a"
    queue.set_usage("s", {"totalTokens": 1})  # "b", though its batch has failed before
    queue.touch("s", Touched(1.0, 1.0))  # itself
    assert written.tried == [(1, ["a", "b"])]
    assert await queue.close() == 5
    assert [record.getMessage() for record in caplog.records] == [
        "store_failed",
        "store_overflow",
        "store_lost",
    ]


async def test_what_is_given_back_adds_up() -> None:
    written = Written()
    batches: list[Batch] = []

    async def write(batch: Batch) -> None:
        batches.append(batch)

    queue = Waiting(write, bounds=Bounds(60), name="the test")
    queue.give_back("calls", 2)
    queue.give_back("calls", 3)
    queue.attend("s", node="n", connected=True)
    queue.attend("s", node="n", connected=False)
    await queue.send()
    [batch] = batches
    assert batch.given_back == {"calls": 5}
    assert list(batch.attended.values()) == [False]
    assert await written.queue.close() == 0
