from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tornado_live.tools.owned import Owned


class Thing:
    def __init__(self, name: str, closed: list[str]) -> None:
        self.name = name
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self.name)


def test_a_thing_is_made_once_for_all_threads_and_closed_with_the_rest_the_newest_first() -> None:
    owned, closed, made = Owned(), list[str](), list[Thing]()

    def make(name: str) -> Thing:
        made.append(Thing(name, closed))
        return made[-1]

    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda _: owned.get("first", lambda: make("first")), range(100)))
    assert len(made) == 1
    assert set(got) == set(made)
    assert owned.get("second", lambda: make("second")) is made[1]
    owned.close()
    owned.close()
    assert closed == ["second", "first"]
    with pytest.raises(RuntimeError, match="closed already"):
        owned.get("first", lambda: make("first"))
