"""What docs/redis.md says can be done as it says."""

from __future__ import annotations

import re
from pathlib import Path

from redis_server import NEEDS_REDIS, running
from serving import ROOT

from tornado_live.observe.events import Event
from tornado_live.sessions import redis_line, redis_scripts
from tornado_live.sessions.redis import RedisSessionStore
from tornado_live.sessions.redis_scripts import Script
from tornado_live.sessions.store import Handle, MemoryItem

pytestmark = NEEDS_REDIS
PAGE = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")


def the_user() -> list[str]:
    found = re.search(r"^ACL (SETUSER .*)$", PAGE, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_user_may_do_what_the_scripts_do_and_nothing_else() -> None:
    texts = [script.text for script in vars(redis_scripts).values() if isinstance(script, Script)]
    used = {name.lower() for text in texts for name in re.findall(r"redis\.p?call\('(\w+)'", text)}
    given = {word[1:] for word in the_user() if word.startswith("+")}
    assert given - {"evalsha", "eval", "subscribe", "select"} == used


def test_every_cause_is_on_the_page() -> None:
    causes = {known.cause for known in redis_line._CAUSES} | {"unreachable", "timeout", "refused"}
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ", PAGE, re.MULTILINE)
    assert causes <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}


async def test_the_user_of_the_page_can_do_all_that_a_store_does(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        client.execute_command("ACL", *the_user())
        url = server.url_of("tornado-live", "PASSWORD")[:-1] + "3"
        store = RedisSessionStore(url, prefix="tornado-live:", ttl_s=1800, deadline_s=30.0)
        try:
            store.listen(lambda: None)
            id = (await store.create(user="ann", assistant="a", metadata={}, node="a")).id
            store.remember(id, MemoryItem("user", "hello", 1, 1.5))
            store.record(id, Event(1.5, "turn", {"turn": 1}))
            store.set_usage(id, {"totalTokens": 1})
            store.keep_handle(id, Handle("v", "i", 1.5))
            store.attend(id, node="a", connected=True)
            store.touch(id)
            await store.resume(id, user="ann")
            await store.events(id)
            await store.list("ann")
            await store.hold(id, node="b")
            await store.leaving(id, node="b")
            store.release(id, node="a")
            await store.revoke("s", lasts_s=60)
            assert (await store.beat("b", [id])).revoked.keys() == {"s"}
            await store.take("c", 1, limit=2, window_s=60)
            store.give_back("c", 1)
            for name in ("one", "two"):
                await store.keep_credential(name, uses=1, expires_at=4e9, body={}, kind="k", at_most=2)
            await store.use_credential("one")
            await store.keep_credential("key", uses=None, expires_at=None, body={}, kind="k")
            assert len(await store.credentials("k")) == 3
            assert await store.drop_credential("key")
            assert await store.occupy("c", "p", limit=1, lasts_s=60)
            store.vacate("c", "p")
            await store.flush()
            await store.leave("a")
            client.flushall()
            assert (await store.beat("b", [id])).ended == frozenset()
            await store.delete(id, user="ann")
            assert await store.healthy()
        finally:
            await store.close()
