"""What handlers open once and share between calls: connection pools, indexes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


Thing = TypeVar("Thing", bound=Closable)


class Owned:
    """Things by a key, each made by the first call that needs it. Whoever runs the calls closes them at the end.

    May be used from any thread. The key is best a tuple that begins with the function that makes the thing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[Hashable, Closable] = {}
        self._closed = False

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """The thing of that key; `make` is called if there is none yet. It must be quick: it holds up others.

        Raises RuntimeError once closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("what handlers share is closed already")
            found = self._things.get(key)
            if found is None:
                found = self._things[key] = make()
            return found  # type: ignore[return-value]  # a key is always used with the same kind of thing

    def close(self) -> None:
        """Closes everything, the newest first, and makes nothing any more."""
        with self._lock:
            self._closed = True
            things = list(self._things.values())
            self._things.clear()
        for thing in reversed(things):
            thing.close()
