"""What the processes of one machine agree on without asking each other: a clock that does not jump, and which of
them still live."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Clocks:
    """`wall` gives epoch seconds, and jumps where it is set. `steady` does not: it gives the seconds since `boot`,
    those asleep included, to every process alike."""

    wall: Callable[[], float]
    steady: Callable[[], float]
    boot: str


def clocks() -> Clocks:
    """Those of this machine. Where it has no steady clock that its processes share, the wall's has to do."""
    boot = _boot("time")
    if boot is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return Clocks(time.time, time.time, "none")
    return Clocks(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME), boot)


def this_process() -> str:
    """A name that no other process of this machine ever has; empty where that cannot be told."""
    boot, started = _boot("pid"), _started(os.getpid())
    return "" if boot is None or started is None else f"{boot} {os.getpid()} {started}"


def gone(process: str) -> bool:
    """Whether the process of that name has ended. False where that cannot be told from here."""
    match process.split():
        case [boot, pid, started] if boot == _boot("pid"):
            pass
        case _:
            return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # somebody else's, so it lives
    now = _started(int(pid))
    return now is not None and now != started


@cache
def _boot(space: str) -> str | None:
    """This start of the machine, and what of it is seen from here: containers have processes of their own."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(_PROC / 'self/ns' / space)}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; "ended" for one that only waits to be collected."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(")") + 2 :].split()
    return "ended" if state in "ZX" else rest[18]
