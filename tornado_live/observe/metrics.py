"""What Prometheus is told. docs/operations.md lists every series.

Labels are bounded: codes come from fixed tables, tool names are counted up to MAX_TOOLS and then `(other)`.
Children are looked up before the first message, so that counting one is an addition and no more.

Where several processes serve, each counts in memory that all of them can read (files that are mapped, below
PROMETHEUS_MULTIPROC_DIR, which the library reads), so that any of them can tell the sums.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tornado_live.errors import LIVE_ERRORS, InternalError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_TOOLS = 200

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory that is made in it is its owner's alone
_PREFIX: Final = "tornado-live-counters-"
_OWNED: Final = "owned"
_ROOM: Final = {"counter": 1 << 20, "histogram": 1 << 20, "gauge_livesum": 1 << 16}

DialOutcome = Literal["opened", "refused", "timeout", "failed"]

LIMITS: Final = (
    "connections_per_address",
    "handshakes_per_minute",
    "requests_per_minute",
    "denied_per_minute",
    "sessions_per_minute",
    "hello_timeout_s",
    "messages_per_s",
    "frames_per_s",
    "idle_timeout_s",
    "silent_timeout_s",
    "conversation_s",
    "cost_per_session",
    "conversations_per_user",
    "tool_calls_per_day",
    "audio_s_per_day",
    "talk_s_per_day",
    "tokens_per_day",
    "cost_per_day",
    "conversations_per_key",
    "cost_per_day_per_key",
    "conversations_in_all",
    "cost_per_day_in_all",
    "max_conversations",
    "queued_bytes",
)
"""The rows of access/limits.py, which stands above this module, that are counted here."""

_TOOL_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SOUND_SECONDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Where several processes count: in memory if the system has such a place, since a disk makes writers wait.

    One whose owner was killed is removed by the next one.
    """
    import fcntl  # not on every system, as sharing ports is not

    root = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for left in root.glob(f"{_PREFIX}*"):
        with suppress(OSError), (left / _OWNED).open("rb") as owned:
            fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its owner lives
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=root, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with (directory / "new").open("wb") as owned:
            fcntl.flock(owned, fcntl.LOCK_EX)
            (directory / "new").rename(directory / _OWNED)
            yield directory


@dataclass(frozen=True, slots=True)
class Counters:
    """Where process number `process` counts; DIRECTORY in its environment says the same."""

    directory: Path
    process: int

    def begin(self) -> None:
        """Before such a process starts: what one before it has counted stays, what was open in it is over.

        Raises OSError where there is no room.
        """
        mark_process_dead(self.process, str(self.directory))
        for kind, size in _ROOM.items():
            file = self.directory / f"{kind}_{self.process}.db"
            if not file.exists():
                file.write_bytes(
                    bytes(size)
                )  # who writes to a mapped file for which there is no room is killed


class Metrics:
    """The series of one server, in a registry of its own; with `counters`, the sums of several processes."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        registry = self._registry = CollectorRegistry()
        if counters is not None:
            number = counters.process
            values.ValueClass = values.MultiProcessValue(lambda: number)  # a restarted one counts on
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, str(counters.directory))

        self._processes = Gauge(
            "tornado_live_processes",
            "Server processes that serve now",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._conversations = Gauge(
            "tornado_live_conversations",
            "Conversations that are open now",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._opened = Counter(
            "tornado_live_conversations_opened_total", "Conversations that were opened", registry=registry
        )
        self._turns = Counter("tornado_live_turns_total", "Turns that ended", registry=registry)
        self._barge_ins = Counter(
            "tornado_live_barge_ins_total", "Answers that the user interrupted", registry=registry
        )
        audio = Counter(
            "tornado_live_audio_seconds_total",
            "Audio passed on: in from clients, out to clients",
            ["direction"],
            registry=registry,
        )
        self._audio_in = audio.labels("in")
        self._audio_out = audio.labels("out")
        self._audio_dropped = Counter(
            "tornado_live_audio_dropped_seconds_total",
            "Accepted audio that could not be delivered",
            registry=registry,
        )
        messages = Counter(
            "tornado_live_messages_total",
            "WebSocket messages of clients: in from them, out to them",
            ["direction"],
            registry=registry,
        )
        self._messages_in = messages.labels("in")
        self._messages_out = messages.labels("out")
        self._tool_calls = Counter(
            "tornado_live_tool_calls_total",
            "Tool calls that ended; outcome is ok or a tool code",
            ["tool", "outcome"],
            registry=registry,
        )
        self._tool_seconds = Histogram(
            "tornado_live_tool_duration_seconds",
            "How long tool calls took",
            ["tool"],
            buckets=_TOOL_SECONDS,
            registry=registry,
        )
        self._tools: set[str] = set()
        reloads = Counter(
            "tornado_live_tools_reloads_total",
            "Readings of a changed tools.yaml: taken, or refused for a mistake",
            ["outcome"],
            registry=registry,
        )
        self._reloads = {True: reloads.labels("taken"), False: reloads.labels("refused")}
        self._first_sound = Histogram(
            "tornado_live_first_sound_seconds",
            "From the end of what the user said to the first sound of the answer",
            buckets=_SOUND_SECONDS,
            registry=registry,
        )
        errors = Counter(
            "tornado_live_errors_total", "Errors told to clients, by code", ["code"], registry=registry
        )
        self._errors = {error.code: errors.labels(error.code) for error in LIVE_ERRORS}
        limited = Counter(
            "tornado_live_limited_total",
            "Callers that were held back, by limit (docs/limits.md)",
            ["limit"],
            registry=registry,
        )
        self._limited = {limit: limited.labels(limit) for limit in LIMITS}
        dials = Counter(
            "tornado_live_upstream_dials_total",
            "Connections dialled to the model side, by outcome",
            ["outcome"],
            registry=registry,
        )
        outcomes: tuple[DialOutcome, ...] = ("opened", "refused", "timeout", "failed")
        self._dials = {outcome: dials.labels(outcome) for outcome in outcomes}
        self._lost = Counter(
            "tornado_live_upstream_losses_total",
            "Connections to the model side that were lost or given up, by cause (docs/troubleshooting.md)",
            ["cause"],
            registry=registry,
        )
        switches = Counter(
            "tornado_live_switches_total",
            "Changes to a new connection in mid-conversation: planned or after a loss, resumed or seeded anew",
            ["why", "how"],
            registry=registry,
        )
        self._switches = {
            (planned, resumed): switches.labels(
                "planned" if planned else "lost", "resumed" if resumed else "reseeded"
            )
            for planned in (True, False)
            for resumed in (True, False)
        }
        self._switch_gap = Histogram(
            "tornado_live_switch_gap_seconds",
            "How long a change of connection left the model side deaf",
            buckets=_SOUND_SECONDS,
            registry=registry,
        )
        self._watchdog = Counter(
            "tornado_live_watchdog_steps_total",
            "What was tried when a connected model side did not answer",
            ["step"],
            registry=registry,
        )
        self._unknown = Counter(
            "tornado_live_upstream_unknown_messages_total",
            "Messages of the model side that were passed over: unknown, or unreadable",
            registry=registry,
        )
        self._sessions = Counter(
            "tornado_live_sessions_created_total", "Sessions that were created", registry=registry
        )
        tokens = Counter(
            "tornado_live_tokens_total",
            "Tokens that the model side reported",
            ["direction"],
            registry=registry,
        )
        self._tokens_in = tokens.labels("input")
        self._tokens_out = tokens.labels("output")
        requests = Counter(
            "tornado_live_http_requests_total",
            "HTTP requests answered, by class of status",
            ["status"],
            registry=registry,
        )
        self._requests = {hundred: requests.labels(f"{hundred}xx") for hundred in (1, 2, 3, 4, 5)}
        self._left_behind = Gauge(
            "tornado_live_handlers_left_behind",
            "Handlers of tools that still run though nobody waits for them any more",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._paused = Gauge(
            "tornado_live_accept_paused",
            "Processes that take no new connections now, for want of file descriptors",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._pauses = Counter(
            "tornado_live_accept_pauses_total",
            "Times in which no new connections were taken, for want of file descriptors",
            registry=registry,
        )

    def serves(self) -> None:
        """This process takes clients from now on."""
        self._processes.set(1)

    def conversation_opened(self) -> None:
        self._conversations.inc()
        self._opened.inc()

    def conversation_closed(self) -> None:
        self._conversations.dec()

    def conversations(self) -> int:
        """How many are open now, in all processes."""
        [own] = self._conversations.collect()
        families = [own]
        if self._counters is not None:
            files = self._counters.directory.glob("gauge_livesum_*.db")
            families = MultiProcessCollector.merge([str(file) for file in files])
        return sum(round(family.samples[0].value) for family in families if family.name == own.name)

    def turn_ended(self) -> None:
        self._turns.inc()

    def barged_in(self) -> None:
        self._barge_ins.inc()

    def audio_dropped(self, seconds: float) -> None:
        self._audio_dropped.inc(seconds)

    def traffic(
        self, *, messages_in: int, messages_out: int, seconds_in: float, seconds_out: float, unknown: int = 0
    ) -> None:
        """Client messages, audio passed on, and messages of the model side passed over, since the last report."""
        self._unknown.inc(unknown)
        self._messages_in.inc(messages_in)
        self._messages_out.inc(messages_out)
        self._audio_in.inc(seconds_in)
        self._audio_out.inc(seconds_out)

    def tool_finished(self, name: str, ok: bool, seconds: float, error: str | None = None) -> None:
        """`error` is the tool code of a failure. The name of a tool that does not exist comes from the model
        and is not taken as a label."""
        outcome = "ok" if ok else error or "failed"
        tool = "(unknown)" if outcome == "unknown_tool" else self._tool_label(name)
        self._tool_calls.labels(tool, outcome).inc()
        self._tool_seconds.labels(tool).observe(seconds)

    def first_sound(self, seconds: float) -> None:
        self._first_sound.observe(seconds)

    def failed(self, code: str) -> None:
        """`code` is one of errors.py; another counts as `internal`."""
        self._errors.get(code, self._errors[InternalError.code]).inc()

    def limited(self, limit: str) -> None:
        """Somebody was held back by the limit of this name, a row of access/limits.py."""
        self._limited[limit].inc()

    def upstream_dialled(self, outcome: DialOutcome) -> None:
        self._dials[outcome].inc()

    def model_lost(self, cause: str) -> None:
        """`cause` is a name of live/causes.py."""
        self._lost.labels(cause).inc()

    def switched(self, *, planned: bool, resumed: bool, gap_s: float) -> None:
        self._switches[planned, resumed].inc()
        self._switch_gap.observe(gap_s)

    def watchdog(self, step: str) -> None:
        self._watchdog.labels(step).inc()

    def tools_reloaded(self, taken: bool) -> None:
        """A changed tools.yaml was read; it is not taken where it has a mistake."""
        self._reloads[taken].inc()

    def session_created(self) -> None:
        self._sessions.inc()

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        self._tokens_in.inc(input_tokens)
        self._tokens_out.inc(output_tokens)

    def handlers_left_behind(self, change: int) -> None:
        """So many more handlers run on after their deadline."""
        self._left_behind.inc(change)

    def accept_paused(self, paused: bool) -> None:
        """A time begins, or is over, in which new connections wait."""
        self._paused.set(int(paused))
        self._pauses.inc(int(paused))

    def http_answered(self, status: int) -> None:
        self._requests.get(status // 100, self._requests[5]).inc()

    def render(self) -> bytes:
        """The text that `GET /metrics` answers, of type CONTENT_TYPE."""
        lines = generate_latest(self._registry).splitlines(keepends=True)
        # The client library adds a time of creation to each counter and histogram: twice the series for nothing.
        return b"".join(line for line in lines if b"_created" not in _name(line))

    def _tool_label(self, name: str) -> str:
        if name not in self._tools:
            if len(self._tools) >= MAX_TOOLS:
                return "(other)"
            self._tools.add(name)
        return name


def _name(line: bytes) -> bytes:
    words = line.split(maxsplit=3)
    name = words[2] if line.startswith(b"# ") and len(words) > 2 else words[0] if words else b""
    name = name.partition(b"{")[0]
    return name if name.endswith(b"_created") else b""
