"""What the processes of a machine know of each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tornado_live.sessions.machine import clocks, gone, this_process

NAME_ITSELF = (
    "from tornado_live.sessions.machine import this_process; print(this_process(), flush=True); input()"
)


def test_a_process_is_gone_once_it_has_ended_and_before_anybody_collected_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAME_ITSELF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert not gone(name)
        other.send_signal(signal.SIGSTOP)
        assert not gone(name)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert gone(name)
        other.wait()
        assert gone(name)


def test_a_process_that_has_the_number_of_one_before_is_another_one() -> None:
    boot, pid, started = this_process().split()
    assert not gone(this_process())
    assert gone(f"{boot} {pid} {int(started) - 1}")


def test_of_another_boot_or_container_nothing_is_known() -> None:
    _, pid, started = this_process().split()
    for name in ("", "nonsense", f"another-boot/pid:[1] {pid} {int(started) - 1}"):
        assert not gone(name)


def test_every_process_reads_the_same_steady_clock() -> None:
    program = (
        "from tornado_live.sessions.machine import clocks; c = clocks(); print(c.boot); print(c.steady())"
    )
    before = clocks().steady()
    boot, other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert boot == clocks().boot
    assert before < float(other) < clocks().steady()
