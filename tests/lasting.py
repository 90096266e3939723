"""What several tests share, though each of them has a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

Shared = TypeVar("Shared")


@contextlib.contextmanager
def lasting(context: AbstractAsyncContextManager[Shared, Any]) -> Iterator[Shared]:
    """Entered and left on a loop in a thread, which lasts as long as it: for fixtures of a module."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        shared = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result()
        try:
            yield shared
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
