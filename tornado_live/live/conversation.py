"""One conversation between a client and the model side: everything that must be decided, nothing performed. Pure.

Every event returns the commands that it causes, in their order. Time comes in as `now`, in seconds of a clock
that never goes back. This module only composes: what goes up (input), what is said (dialogue), function calls
(calls), when to change the connection (rotation), whether the model side still answers (watchdog). The phases:

    IDLE -- Open --> CONNECTING -- model_opened --> LIVE <-- model_opened -- SWITCHING
      ^                  |                           |  --- lost or left -->    |
      +--- given up, DISCONNECT, grace over ---------+--------------------------+
    CLOSED after End: nothing is decided any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import assert_never

from tornado_live.errors import BadMessage, LiveError, TimedOut
from tornado_live.jsonvalue import Json
from tornado_live.live import recall
from tornado_live.live.bounds import Bounds
from tornado_live.live.calls import Calls
from tornado_live.live.causes import UNREADABLE, WENT_SILENT, Blame, Cause
from tornado_live.live.commands import (
    FORWARD,
    Agree,
    Answered,
    AnswerTool,
    CloseClient,
    CloseModel,
    Command,
    End,
    Enter,
    Failure,
    Frame,
    FromClient,
    Gesture,
    KeepHandle,
    Line,
    Open,
    OpenModel,
    Passed,
    Record,
    SendToClient,
    SendToModel,
    Speech,
    Status,
    Timer,
    ToClient,
    Typed,
    Upward,
    UsageTotals,
    WakeAfter,
    Warned,
)
from tornado_live.live.dialogue import Dialogue, Happened
from tornado_live.live.draining import Draining
from tornado_live.live.guest import merged_update
from tornado_live.live.guest_input import GuestInput, Moment
from tornado_live.live.hosting import Hosting
from tornado_live.live.input import Door, Input
from tornado_live.live.options import plan
from tornado_live.live.owing import Owing
from tornado_live.live.plan import Plan
from tornado_live.live.quiet import is_loud
from tornado_live.live.rotation import Dial, Kept, Rotation
from tornado_live.live.stay import Stay
from tornado_live.live.terms import Terms
from tornado_live.live.turns import Speaking
from tornado_live.live.watchdog import Step, Watchdog
from tornado_live.observe.usage import Usage
from tornado_live.settings import Assistant, Limits
from tornado_live.tools.person import Asks
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.result import ToolResult
from tornado_live.wire import fitting, gemini
from tornado_live.wire.models import LiveModel, Models
from tornado_live.wire.native import ConnectOptions

QUIET_S = 2.0
"""After the last loud sound of the microphone, before the moment counts as a quiet one."""

UNREADABLE_IN_A_ROW = 3

WORDS_LOST = (
    "The server that carried this conversation stopped without a word;"
    " what was said in its last second may be missing from its memory."
)
WRAP_UP = (
    "(Not from the user: there is little time left for this conversation. Bring it to a friendly end soon, and say"
    " so when you next speak.)"
)
SPEECH_LOST = "The connection broke while you spoke; if no answer comes, please say it once more."


class Phase(StrEnum):
    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    SWITCHING = "switching"
    CLOSED = "closed"


_DOORS: Mapping[Phase, Door] = {
    Phase.IDLE: Door.SHUT,
    Phase.CONNECTING: Door.HELD,
    Phase.LIVE: Door.OPEN,
    Phase.SWITCHING: Door.HELD,
    Phase.CLOSED: Door.SHUT,
}


class Conversation:
    """`declarations` gives the function declarations of a toolset (None: all), `policy` what the operator said of
    one. `history` is the memory of the session as (role, text), oldest first; `turn` its latest turn. `upstream`
    is what CONNECTED says. `jitter` gives chance, from 0 up to 1. `kept` is the handle that the session's last
    conversation has left.
    """

    def __init__(
        self,
        *,
        assistants: Mapping[str, Assistant],
        assistant: str,
        allowed_options: frozenset[str],
        declarations: Callable[[tuple[str, ...] | None], Sequence[Mapping[str, Json]]],
        policy: Callable[[str], CallPolicy],
        upstream: str,
        limits: Limits,
        models: Models,
        jitter: Callable[[], float],
        history: Sequence[tuple[str, str]] = (),
        turn: int = 0,
        usage: Usage | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._phase = Phase.IDLE
        self.plan: Plan | None = None
        self.hosting: Hosting | None = None
        """Where the client is a guest."""
        self._setup_answer = b""
        self._aside: bytes | None = None
        """What the model is to know, once nobody speaks."""
        self.dialogue = Dialogue(limits, history, turn)
        bounds = Bounds(limits.tool_calls_per_turn, limits.tool_calls_per_minute)
        self.calls = Calls(self._policy_of, self._is_guests, bounds)
        self.rotation = Rotation(jitter)
        self._kept = kept
        self.draining = Draining()
        self.watchdog = Watchdog()
        self.owing = Owing(self.dialogue, self.calls, self.watchdog)
        self.input = Input(limits.frames_per_s)
        self.guest_input = GuestInput(self.input, self.dialogue, self.calls, self.owing)
        self.usage = usage if usage is not None else Usage()
        self.stay = Stay(self.usage, limits.idle_timeout_s)
        self._assistants = assistants
        self._assistant = assistant
        self._allowed = allowed_options
        self._declarations = declarations
        self._policy = policy
        self._upstream = upstream
        self._limits = limits
        self._models = models
        self._options: ConnectOptions | None = None
        self._memory: recall.Recalled = "none"
        self._greeted = self._resumed = False
        self._client_here = True
        self._parked = self._planned = False
        self._opened_at = 0.0
        self._gap_from: float | None = None
        self._seeking = False
        self._loud_at = 0.0
        self._unreadable = 0
        self._speaking = False
        """Whether the model side has heard speech that it has not reacted to."""
        self._deaf = False
        """Whether the model takes nothing in while it waits for a call. A guest minds its own calls itself."""
        self._fitted: tuple[str, ...] = ()

    @property
    def phase(self) -> Phase:
        """Changed by `_enter` alone, which keeps it CLOSED for ever."""
        return self._phase

    def _enter(self, phase: Phase) -> None:
        assert self._phase is not Phase.CLOSED, "nothing is decided after the end"
        self._phase = phase

    @property
    def _door(self) -> Door:
        return Door.HELD if self._deaf and self._phase is Phase.LIVE else _DOORS[self._phase]

    @property
    def _facts(self) -> LiveModel:
        assert self.plan is not None, "there is a plan from the first connect on"
        return self.plan.facts

    @property
    def is_guests(self) -> bool:
        """Whether its client speaks Google's protocol."""
        return self.hosting is not None

    # --- the client's side

    def client_came(self, now: float) -> Sequence[Command]:
        """A socket was opened for this conversation, for the first time or again."""
        taken_over, self._client_here = self._client_here, True
        self.stay.came(now)
        self.input.client_came()
        self._greeted = self.phase is not Phase.IDLE
        commands: list[Command] = [WakeAfter(Timer.IDLE, self._limits.idle_timeout_s)]
        commands += self.watchdog.wake(now)
        commands += self.input.end_activity(self._door)
        if self._greeted and self._options is not None:
            self._resumed = True
            if self._memory == "none" and self.dialogue.history:
                self._memory = "restored"  # it began without any, and knows what was said since
            commands += [Agree(self._options), SendToClient(self._line()), *self.calls.questions()]
            commands.append(Record("client_replaced" if taken_over else "client_back", {}))
            commands += self._unpark(now)
        else:
            commands.append(WakeAfter(Timer.HELLO, self._limits.hello_timeout_s))
        return commands

    def vouched(self, terms: Terms, now: float) -> Sequence[Command]:
        """The client is here on these terms from now on."""
        return self.stay.vouched(terms, now)

    def client_left(self, clean: bool, now: float) -> Sequence[Command]:
        """The socket is gone. `clean`: the client said goodbye, so nobody is waited for."""
        self._client_here = False
        if self.phase is Phase.CLOSED:
            return ()
        if self.hosting is not None:
            # Guests close with any code, and only those with a handle come back.
            clean = self.hosting.handle is None
        if clean or self.phase is Phase.IDLE:
            return self._end(now)
        commands = self.input.client_gone(self._door)
        self.watchdog.sleep()
        commands.append(Record("client_lost", {}))
        commands.append(WakeAfter(Timer.GRACE, self._limits.grace_s))
        return commands

    def from_client(self, message: FromClient, now: float) -> Sequence[Command]:
        self.stay.active_at = now
        if isinstance(message, Speech):
            if self._phase is Phase.LIVE and not (self.input.manual or self._seeking or self._deaf):
                return FORWARD
            if self._seeking and is_loud(message.payload):
                self._loud_at = now
            return self.input.speech(message, self._door)
        match message:
            case Open():
                return self._connect(message.options, now)
            case Typed():
                return self._typed(message.text, now)
            case Frame():
                return self.input.frame(message, self._door, now)
            case Answered():
                return self._answered(message, now)
            case Passed():
                return self._passed(message, now)
            case Enter():
                return self._guest_came(message, now)
            case Gesture.DISCONNECT:
                return self._disconnect(now)
            case Gesture.ACTIVITY_START | Gesture.ACTIVITY_END | Gesture.AUDIO_END:
                return self._gesture(message, now)
            case _:
                assert_never(message)

    def refused(self, error: LiveError, now: float) -> Sequence[Command]:
        """A message that could not be taken. Twenty a minute get a message each; then the line is closed."""
        return self.input.refused(error, now)

    def woke(self, timer: Timer, now: float) -> Sequence[Command]:
        if self.phase is Phase.CLOSED:
            return ()
        match timer:
            case Timer.HELLO:
                if self._greeted or not self._client_here:
                    return ()
                seconds = self._limits.hello_timeout_s
                late = f"No conversation was opened within {seconds:g} s; send connect at once."
                return (CloseClient(TimedOut(late, limit="hello_timeout_s")),)
            case Timer.IDLE:
                if not self._client_here:
                    return ()
                idle = self.stay.idle(now, talks=self._phase is not Phase.IDLE)
                return (CloseClient(idle) if isinstance(idle, LiveError) else idle,)
            case Timer.GRACE:
                return () if self._client_here else [Record("client_gone", {}), *self._end(now)]
            case Timer.ROTATE:
                return self._rotate(now)
            case Timer.WATCH:
                if self.input.activity_open:
                    return self.watchdog.put_off(now)
                if self.calls.holding(self.dialogue.turns.number) or self.calls.outstanding:
                    self.watchdog.calling()  # sound of before the call may have come after it
                step = self.watchdog.woke(now)
                return self._help(step, now) if step is not None else self.watchdog.watch(now)
            case Timer.DRAIN:
                return self._drain(now)
            case Timer.LENGTH:
                return self._measure(now)
            case Timer.EXPIRY:
                expired = self.stay.expired(now)
                return () if expired is None else (CloseClient(expired),)
            case _:
                assert_never(timer)

    def _connect(self, options: ConnectOptions, now: float) -> Sequence[Command]:
        self._greeted = True
        if self.phase is not Phase.IDLE:
            if options != self._options:
                return self.refused(
                    BadMessage("Already connected with other options; send disconnect first."), now
                )
            return (SendToClient(self._line()),)
        if (over := self.stay.too_long(now)) is not None:
            return (CloseClient(over),)
        try:
            chosen = plan(options, self._assistants, self._assistant, self._allowed, self._models)
            self.stay.check_assistant(chosen.assistant)
        except LiveError as error:
            self._greeted = False
            return self.refused(error, now)
        if chosen != self.plan:
            self.rotation.forget()
        self.plan, self._options = chosen, options
        self._take_up(now)
        self.input.begin(manual=options.activity == "manual")
        self._resumed = False
        self._enter(Phase.CONNECTING)
        opening = self._open(self.rotation.first(now))
        return (Agree(options), SendToClient(Status(Line.CONNECTING)), *opening)

    def _take_up(self, now: float) -> None:
        """The handle of the conversation before this one is of use to the first plan only, if at all."""
        kept, self._kept = self._kept, None
        if kept is not None and self.plan is not None and kept.identity == self.plan.identity:
            self.rotation.adopt(kept.handle, kept.age_s, now)
            self.dialogue.unsaved.extend(kept.since)

    # --- a guest

    def _guest_came(self, guest: Enter, now: float) -> Sequence[Command]:
        """With a setup like the one before it finds its connection as it is; with another one it gets another."""
        if (over := self.stay.too_long(now)) is not None:
            return (CloseClient(over),)
        before = self.hosting
        hidden = self.calls.awaited_here
        self.hosting = Hosting(guest.plan, guest.session_id, guest.handle, call_hidden=hidden)
        self._greeted = True
        was, self.plan = self.plan, guest.plan
        if was is None or was.facts.path != guest.plan.facts.path:
            self.rotation.forget()
        self._take_up(now)
        if self.phase is Phase.IDLE:
            self.input.begin(manual=guest.plan.manual, guest=True)
            self._enter(Phase.CONNECTING)
            return self._open(self.rotation.first(now))
        commands: list[Command] = [Record("client_back", {})]
        same = before is not None and before.plan.asked == guest.plan.asked
        if same and self._parked:
            return commands + self._unpark(now)
        if same:
            return commands + (self._told_setup(self.hosting) if self.phase is Phase.LIVE else [])
        self.input.begin(manual=guest.plan.manual, guest=True)
        if self.phase is Phase.LIVE:
            self._planned = True
            return commands + self._leave(self.rotation.planned, now)
        self._parked = False
        return commands + self._open(self.rotation.planned(now))

    def _told_setup(self, hosting: Hosting) -> list[Command]:
        """The guest's setup is answered, and what was asked of it meanwhile follows."""
        return [*hosting.welcome(self._setup_answer), *hosting.asked_meanwhile(self.calls.unseen())]

    def _passed(self, message: Passed, now: float) -> Sequence[Command]:
        assert self.hosting is not None, "only guests pass messages"
        said = message.said
        if said.setup is not None:
            return self.refused(BadMessage("setup comes once, as the first message."), now)
        if said.context_update is not None:
            return self._context_update(message.payload, said.context_update, now)
        moment = Moment(self._door, self._facts, self.phase is Phase.LIVE, self._may_stay_silent, now)
        commands = self.guest_input.passed(message, self.hosting, moment)
        if said.answers is None:
            return commands
        commands += self._listen()
        return commands + self._rotate(now) if self._seeking else commands

    def _context_update(self, payload: bytes, update: Mapping[str, Json], now: float) -> Sequence[Command]:
        """Another instruction, or other tools, which the next connection is opened with too."""
        assert self.hosting is not None
        try:
            self.hosting.plan = self.plan = self.hosting.plan.with_update(update)
        except LiveError as error:
            return self.refused(error, now)
        if "tools" in update:
            functions, _ = fitting.declared(self._facts, self._declared(), self._background())
            payload = merged_update(update, functions)
        return self.input.send_up(payload, Upward.OTHER, self._door)

    def _declared(self) -> Sequence[Mapping[str, Json]]:
        """The operator's functions. A guest's own of the same name counts; it cannot be asked for consent."""
        assert self.plan is not None
        declared = self._declarations(self.plan.toolset)
        if self.hosting is None:
            return declared
        own = self.hosting.plan.functions
        names = [(one, str(one.get("name"))) for one in declared]
        return [one for one, name in names if name not in own and not self._policy(name).asks]

    def _background(self) -> frozenset[str]:
        """The operator's functions that are not waited for."""
        names = [str(one.get("name")) for one in self._declared()]
        return frozenset(name for name in names if self._policy(name).background)

    def _is_guests(self, name: str) -> bool:
        if self.hosting is None:
            return False
        return all(one.get("name") != name for one in self._declared())

    def _policy_of(self, name: str) -> CallPolicy:
        if not self._is_guests(name):
            return self._policy(name)
        assert self.hosting is not None
        waits = self.hosting.plan.waits_for(name)
        return CallPolicy(wait="blocking" if waits else "background")

    def _disconnect(self, now: float) -> Sequence[Command]:
        commands: list[Command] = []
        if self.phase is not Phase.IDLE:
            commands += self._hang_up(now)
            commands.append(CloseModel())
        commands.append(SendToClient(Status(Line.DISCONNECTED)))
        return commands

    def _typed(self, text: str, now: float) -> Sequence[Command]:
        if not text.strip():
            return self.refused(BadMessage("text is empty; put the words into data.text."), now)
        if self.phase is Phase.IDLE:
            return self.refused(BadMessage("text before connect is not heard; send connect first."), now)
        if not self._facts.takes_text:
            return self.refused(BadMessage("text: this model writes down what it hears; speak instead."), now)
        self.stay.spoke(now)
        sent = self.input.send_up(gemini.typed(self._facts, text), Upward.TEXT, self._door)
        if self.phase is Phase.LIVE or not sent:
            self.dialogue.typed(text, now)
        if self.phase is not Phase.LIVE:
            return sent
        self.owing.settled()
        return [*sent, *self.owing.expect("text", self._facts, now)]

    def _gesture(self, gesture: Gesture, now: float) -> Sequence[Command]:
        was_open = self.input.activity_open
        commands = self.input.gesture(gesture, self._door, now)
        if not was_open or self.input.activity_open:
            return commands
        self.dialogue.asked(now)
        if self.phase is Phase.LIVE and not self._may_stay_silent:
            return [*commands, *self.owing.expect("activity", self._facts, now)]
        return commands

    # --- the model's side

    def model_opened(self, now: float, answer: bytes = b"") -> Sequence[Command]:
        """The model side has answered the setup, with `answer`."""
        self._setup_answer = answer
        if self.phase is Phase.CONNECTING:
            return self._opened("connected", now)
        if self.phase is Phase.SWITCHING and not self._parked:
            return self._opened("switched", now)
        return (CloseModel(),)

    def dial_failed(self, cause: Cause, now: float) -> Sequence[Command]:
        """The model side was not reached: no handshake came about."""
        return self._not_opened(cause, now, reached=False)

    def model_closed(self, cause: Cause, now: float) -> Sequence[Command]:
        """The model side has gone, or refused the setup."""
        match self.phase:
            case Phase.LIVE:
                return self._lost(cause, now)
            case _:
                return self._not_opened(cause, now, reached=True)

    def _not_opened(self, cause: Cause, now: float, *, reached: bool) -> Sequence[Command]:
        """`reached`: the model side has seen the setup."""
        if self.phase not in (Phase.CONNECTING, Phase.SWITCHING) or self._parked:
            return ()
        failed = Record("dial_failed", {"cause": cause.name, "attempt": self.rotation.attempts})
        if not self._client_here:
            return [failed, *self._park()]
        dial = self.rotation.lost(cause, now, reached=reached)
        return [failed, *(self._open(dial) if dial is not None else self._given_up(cause, now))]

    def unreadable(self, now: float) -> Sequence[Command]:
        """A frame of the model side that is no message. One is passed over; a row of them is a broken line."""
        self._unreadable += 1
        if self._unreadable < UNREADABLE_IN_A_ROW or self.phase is not Phase.LIVE:
            return ()
        return [CloseModel(), *self._lost(UNREADABLE, now)]

    def from_model(self, message: gemini.ServerMessage, now: float, raw: bytes = b"") -> Sequence[Command]:
        """`raw` is the message as it came."""
        if self._phase is not Phase.LIVE:
            return ()
        self._unreadable = 0
        content = message.server_content
        if content is not None and (data := self.dialogue.plain_speech(message, content)):
            if self.hosting is not None:
                self.hosting.turn_open = True
            if self.dialogue.turns.muted(now):
                return () if self.hosting is None else FORWARD
            if self.watchdog.attentive:
                self.watchdog.sounded(0.0, now)
                self.dialogue.sound_chars += len(data)
                return FORWARD
        if self.hosting is not None:
            taken_back = message.tool_call_cancellation
            ids = taken_back.ids if taken_back is not None else None
            self.hosting.look(raw, message, cancelled=self.calls.guests_own(ids or ()))
        commands: list[Command] = []
        if content is not None:
            commands += self._content(message, content, now)
        elif message.interaction_status is not None:
            commands += self._content(message, gemini.ServerContent(), now)
        if message.voice_activity is not None:
            self._speaking = True
            if message.voice_activity.type == "ACTIVITY_END":
                self.dialogue.asked(now)
        if message.tool_call is not None:
            commands += self._tool_calls(message.tool_call, now)
        if message.tool_call_cancellation is not None:
            if self.hosting is not None:
                commands += self.hosting.show()
            commands += self.calls.cancelled(message.tool_call_cancellation.ids or [], self._facts)
            commands += self._broken_off_lines()
            commands += self._listen()
        if message.usage_metadata is not None:
            self.usage.add(message.usage_metadata, cumulative=self._facts.usage == "cumulative")
            told = self.stay.counted(now)
            commands += [SendToClient(UsageTotals(self.usage.as_json())), *told]
        update = message.session_resumption_update
        if update is not None and self.rotation.told(update.new_handle, update.resumable, now):
            self.dialogue.unsaved.clear()
            self.calls.saved()
            if self.plan is not None and update.new_handle is not None:
                commands.append(KeepHandle(update.new_handle, self.plan.identity))
        if self.hosting is not None:
            commands += self.hosting.show()
        if message.go_away is not None:
            left_s = gemini.seconds(message.go_away.time_left)
            self.rotation.go_away(left_s, now)
            commands.append(Record("go_away", {"timeLeft": message.go_away.time_left}))
            commands += self._rotate(now)
        elif self._seeking and self.phase is Phase.LIVE:
            commands += self._rotate(now)
        if self.draining.begun and self.phase is Phase.LIVE:
            commands += self._drain(now)  # the next question would come before the timer
        return commands

    def _content(
        self, message: gemini.ServerMessage, content: gemini.ServerContent, now: float
    ) -> list[Command]:
        waiting = self.calls.holding(self.dialogue.turns.number)
        cut_by_us = self.dialogue.turns.cut_by_us
        commands, happened = self.dialogue.content(message, content, self._facts, waiting=waiting, now=now)
        if self.hosting is not None and message.tool_call is None:
            cut_by_us = cut_by_us or self.dialogue.turns.cut_by_us
            commands += self.hosting.show(happened, cut_by_us=cut_by_us)
            if happened.completed is not None:
                commands += self.hosting.end_turn()  # a model that thinks may say that it is idle and no more
        return commands + self._after(happened, now)

    def _after(self, happened: Happened, now: float) -> list[Command]:
        """What a message of content means for the watchdog, for what is owed, and for the notes that wait."""
        commands: list[Command] = []
        step: Step | None = None
        self.stay.spoke(now)
        if happened.interrupted:
            self.rotation.well()  # an answer that was heard until the user had enough
            commands += self.owing.interrupted(self._facts, now)
        if happened.heard and self.dialogue.turns.speaking is Speaking.USER:
            self.owing.settled()
            if not self._may_stay_silent:
                commands += self.owing.expect("speech", self._facts, now)
        if happened.heard or happened.content or happened.completed is not None:
            self.input.understood()
            self._speaking = False
        if happened.content:
            self.watchdog.sounded(happened.zeros_s, now)
            step = self.watchdog.mute(now)
        if self.dialogue.generated:
            self.watchdog.generated(self.dialogue.heard_at, now)
            self.owing.settled()
        if happened.pauses and not self.calls.holding(self.dialogue.turns.number):
            commands += self.owing.expect("answer", self._facts, now)
        if happened.completed is not None:
            if not happened.cut:
                step = self.watchdog.over(empty=happened.empty) or step
                if not happened.empty:
                    self.owing.settled()
                    self.rotation.well()
                elif step is not None:
                    self.owing.unanswered(happened.owed)
                commands += self.owing.turn_over(self._facts, now)
            if step is None:
                self.calls.turn_over(untold=happened.cut and happened.untold)
                # Whoever has cut the answer is about to say something.
                commands += self.owing.tell_notes(self._facts, now, doubts=not happened.cut)
                commands += self._tell_aside()
        if step is not None:
            return commands + self._help(step, now)
        return commands + self.watchdog.watch(now)

    @property
    def _may_stay_silent(self) -> bool:
        assert self.plan is not None
        return self.plan.may_stay_silent

    # --- function calls

    def _tool_calls(self, asked: gemini.ToolCallMessage, now: float) -> list[Command]:
        wanted = asked.function_calls or []
        waits = any(not self._policy_of(call.name).background for call in wanted)
        turn = self.dialogue.call_begins(waits=waits)
        asked_for = self.calls.asked(wanted, turn, self._facts, now, here=self._client_here)
        commands = list(asked_for.commands)
        if self.hosting is not None:
            commands = [*self.hosting.show(calls=asked_for.shown), *commands]
        self._deaf = not self._facts.hears_during_call and self.calls.awaited_here
        if self.calls.holding(turn):
            self.watchdog.calling()
        else:
            commands += self.owing.expect("tool_answer", self._facts, now)
        return commands

    def tool_asks(self, call_id: str, asks: Asks, args: Mapping[str, Json], now: float) -> Sequence[Command]:
        """A call needs the person's consent, or is the client's to run."""
        return self.calls.asks(call_id, asks, args)

    def _answered(self, message: Answered, now: float) -> Sequence[Command]:
        if (why := self.calls.answered(message.id, message.answer)) is not None:
            return self.refused(BadMessage(f'"{message.id[:60]}": {why}'), now)
        return (AnswerTool(message.id, message.answer),)

    def tool_progress(self, call_id: str, text: str, now: float) -> Sequence[Command]:
        return self.calls.progress(call_id, text)

    def tool_slow(self, call_id: str, say: str, now: float) -> Sequence[Command]:
        """The call takes long; `say` is what the model may say meanwhile."""
        if self.phase is Phase.CLOSED or self.plan is None:
            return ()
        return self.calls.slow(call_id, say, self._facts, live=self.phase is Phase.LIVE)

    def tool_finished(self, call_id: str, result: ToolResult, now: float) -> Sequence[Command]:
        """Nothing, when the call was cancelled. Also after the end, where it was to be finished all the same."""
        if self.plan is None:
            return ()
        live = self.phase is Phase.LIVE
        done = self.calls.finished(call_id, result, self._facts, live=live)
        if done is None:
            return ()
        turn, line, delivery = done
        commands = [*delivery.commands, *self.dialogue.tool_line(turn, line)]
        if live:
            if delivery.reply:
                self.dialogue.call_answered()
            commands += self.owing.deliver(delivery, self._facts, now)
            commands += self._listen()
        if self._seeking:
            commands += self._rotate(now)
        return commands

    def _broken_off_lines(self) -> list[Command]:
        lines = self.calls.broken_off()
        return [command for turn, line in lines for command in self.dialogue.tool_line(turn, line)]

    def _listen(self) -> list[Command]:
        """What was held while the model could not take it in, once no call is open any more."""
        if not self._deaf or self.calls.awaited_here:
            return []
        self._deaf = False
        return self.input.release("A tool took long")

    # --- changing the connection

    def _rotate(self, now: float) -> list[Command]:
        """Leaves the connection at a quiet point, or when it is time; else says when to look again."""
        if self.phase is not Phase.LIVE:
            return []
        if self.rotation.seeking(now) and not self._seeking:
            self._seeking, self._loud_at = True, self.stay.active_at  # until now nobody listened for loudness
        commands: list[Command] = []
        if self._seeking and self._may_stay_silent and self.dialogue.unheeded_s(now) > self._facts.silent_s:
            commands += self.dialogue.passed_over()
        if self.rotation.due(self._quiet(now), now):
            self._planned = True
            commands.append(Record("switch_planned", {"quiet": self._quiet(now)}))
            return commands + self._leave(self.rotation.planned, now)
        after = self.rotation.wake_after(now)
        return commands if after is None else [*commands, WakeAfter(Timer.ROTATE, after)]

    def _quiet(self, now: float) -> bool:
        """Whether nobody speaks, no call runs, and the newest handle knows of everything that was said."""
        return self._saved and self._resting(now)

    @property
    def _saved(self) -> bool:
        return not (self.dialogue.unsaved and self.rotation.has_handle)

    def _resting(self, now: float) -> bool:
        return (
            self.dialogue.turns.quiet
            and not self.calls.running
            and not self.input.activity_open
            and now - self._loud_at >= QUIET_S
        )

    def _lost(self, cause: Cause, now: float) -> list[Command]:
        self._planned = False
        age_s = round(now - self._opened_at, 1)
        facts: dict[str, Json] = {"cause": cause.name, "code": cause.error.code, "ageS": age_s}
        commands: list[Command] = [Record("model_lost", facts)]
        if not self._client_here:
            self.rotation.closed()
            return commands + self._park()
        again = cause.blames is Blame.LIKELY and self.rotation.attempts > 0
        blamed = self.hosting is not None and (again or cause.blames is Blame.MESSAGE)
        dial = None if blamed else self.rotation.lost(cause, now)
        if dial is None:
            return commands + self._given_up(cause, now)
        return commands + self._leave(lambda _: dial, now)

    def _leave(self, dial: Callable[[float], Dial], now: float) -> list[Command]:
        """From LIVE to SWITCHING: what was open is finished, or kept to be asked again; the next is dialled."""
        if not self._client_here:
            return self._park()
        return [*self._break_off(now), *self._open(dial(now))]

    def _park(self) -> list[Command]:
        """Nobody is there to talk to: the model side is dialled when the client is back."""
        self._parked = True
        return [*self._break_off(None), CloseModel()]

    def _unpark(self, now: float) -> list[Command]:
        if not self._parked:
            return []
        self._parked = False
        self._gap_from = now
        return self._open(self.rotation.planned(now))

    def _break_off(self, now: float | None) -> list[Command]:
        self._enter(Phase.SWITCHING)
        self._gap_from = now
        self.owing.connection_lost()
        self._seeking = self._deaf = False
        self.rotation.closed()
        commands: list[Command] = [SendToClient(Status(Line.RECONNECTING))]
        if self.hosting is not None and not self.owing.unsettled:
            commands += self.hosting.end_turn()
        commands += self.input.switched(lost=not self._planned)
        if self._speaking and not self._planned and not self.input.manual:
            commands += [SendToClient(Warned("audio_dropped", SPEECH_LOST)), Record("speech_lost", {})]
        self._speaking = False
        return [*commands, *self.dialogue.broken_off()]

    def _open(self, dial: Dial) -> list[Command]:
        assert self.plan is not None
        facts = self.plan.facts
        seed: Sequence[tuple[str, str]] = ()
        self._memory = "restored"
        if dial.handle is None:
            seed, self._memory = recall.seed(self.dialogue.history)
            if facts.seed == "instruction" and not facts.instruction:
                seed, self._memory = (), "none"  # models that translate or write down take nothing to know
        first = self.hosting is not None and self.hosting.history_due
        setup = self.plan.opening(
            self._declared(), background=self._background(), history=seed, handle=dial.handle, first=first
        )
        history = gemini.history(facts, seed) if seed else None
        commands: list[Command] = [OpenModel(setup.payload, history, dial.delay)]
        if setup.changes and setup.changes != self._fitted:
            self._fitted = setup.changes
            commands.append(Record("setup_fitted", {"model": facts.name, "changes": list(setup.changes)}))
        return commands

    def _opened(self, how: str, now: float) -> list[Command]:
        """From CONNECTING or SWITCHING to LIVE: what was owed is asked, what was held is sent."""
        if self.phase is Phase.CONNECTING:
            self.rotation.well()
        self._enter(Phase.LIVE)
        self._opened_at = now
        facts, resuming = self._facts, self.rotation.resuming
        self._resumed = resuming
        model = self.plan.model if self.plan else facts.name
        self.usage.connection_opened(resumed=resuming, model=model)
        self.rotation.opened(self._limits.connection_s or facts.connection_s, now)
        lacking = [item for item in self.dialogue.unsaved if item[0] != "tool"] if resuming else []
        context = gemini.context(facts, lacking) if lacking and facts.converses else None
        if lacking and context is None and self._memory == "restored":
            self._memory = "partial"
        told: dict[str, Json] = {
            "model": model,
            "resumed": resuming,
            "memory": self._memory,
        }
        if self._gap_from is not None:
            told["gapMs"] = round((now - self._gap_from) * 1000)
        if how == "switched":
            told |= {"planned": self._planned, "attempts": self.rotation.attempts}
        commands: list[Command] = [SendToClient(self._connected(told.get("gapMs")))]
        if self.hosting is not None and self.hosting.welcome_due:
            commands += self._told_setup(self.hosting)
        self._gap_from = None
        if context is not None:
            commands.append(SendToModel(context, Upward.HISTORY))
        commands += self.owing.connection_opened(facts, now, resumed=resuming)
        commands += self.input.release()
        asked = self.dialogue.turns.speaking is Speaking.USER or self.owing.asked_without_words
        if asked and not self.calls.outstanding:
            commands += self.owing.expect("text", facts, now)
        commands.append(Record(how, told))
        return [*commands, *self.stay.talking(now), *self._rotate(now)]

    def _given_up(self, cause: Cause, now: float) -> list[Command]:
        """The model side is not to be had: the client is told why, and closed with the code of it."""
        failure = cause.failure() if self.hosting is None else cause.guests_failure()
        commands = self._hang_up(now)
        commands.append(Record("model_given_up", {"cause": cause.name, "code": failure.code}))
        if not self._client_here:
            return commands + self._end(now)
        return [*commands, CloseClient(failure)]

    # --- what it may cost

    def denied(self, error: LiveError, now: float) -> Sequence[Command]:
        """The model side was not dialled: the client may not talk now."""
        if self.phase not in (Phase.CONNECTING, Phase.SWITCHING):
            return ()
        commands = self._hang_up(now)
        commands.append(Record("denied", {"code": error.code}))
        return [*commands, CloseClient(error)] if self._client_here else [*commands, *self._end(now)]

    def budget_near(self, message: str, now: float) -> Sequence[Command]:
        """Little is left of what the client may use up: it hears `message`, and the model is to come to an end."""
        if self.phase is Phase.CLOSED:
            return ()
        commands: list[Command] = [SendToClient(Warned("budget_near", message))]
        commands.append(Record("budget_near", {"message": message}))
        if self.plan is not None and self._facts.converses:
            self._aside = gemini.context(self._facts, [("user", WRAP_UP)])
        return commands + self._tell_aside()

    def _tell_aside(self) -> list[Command]:
        """Only while nobody speaks: it would break off an answer."""
        if self._aside is None or self.phase is not Phase.LIVE or not self.dialogue.turns.quiet:
            return []
        aside, self._aside = self._aside, None
        return [SendToModel(aside, Upward.HISTORY)]

    def _measure(self, now: float) -> Sequence[Command]:
        """Whether the conversation has lasted as long as it may, or almost."""
        if self.phase is Phase.IDLE or not self._client_here:
            return ()
        if (over := self.stay.too_long(now)) is not None:
            return self.close(over, now)
        nearly = self.stay.nearly(now)
        told = () if nearly is None else self.budget_near(nearly, now)
        return [*told, *self.stay.measured(now)]

    # --- silence

    def _help(self, step: Step, now: float) -> list[Command]:
        """The model side is connected and does not answer."""
        facts: dict[str, Json] = {"step": step.value, "after": self.watchdog.after}
        commands: list[Command] = [Record("watchdog", facts)]
        self._planned = False
        match step:
            case Step.NUDGE:
                return commands + self.owing.remind(self._facts, now)
            case Step.RESUME:
                return commands + self._leave(self.rotation.planned, now)
            case Step.RESEED:
                return commands + self._leave(self.rotation.fresh, now)
            case Step.END_TURN:
                self.calls.turn_over()
                ended = self.hosting.end_turn() if self.hosting is not None else []
                return [
                    *commands,
                    *ended,
                    *self.dialogue.end_turn(),
                    *self.owing.turn_over(self._facts, now),
                    *self.owing.tell_notes(self._facts, now),
                ]
            case Step.GIVE_UP:
                self.owing.settled()
                commands += [*self.dialogue.broken_off(), *self.dialogue.ended()]
                if self.hosting is not None:
                    return [*commands, CloseClient(WENT_SILENT.failure())]
                return [*commands, SendToClient(Failure(WENT_SILENT.failure()))]
            case _:
                assert_never(step)

    # --- both

    def _line(self) -> Status:
        """The state of the model side, for a client that is new or asks."""
        match self.phase:
            case Phase.LIVE:
                return self._connected()
            case Phase.CONNECTING:
                return Status(Line.CONNECTING)
            case Phase.SWITCHING:
                return Status(Line.RECONNECTING)
            case Phase.IDLE | Phase.CLOSED:
                return Status(Line.DISCONNECTED)
            case _:
                assert_never(self.phase)

    def _connected(self, gap_ms: Json = None) -> Status:
        assert self.plan is not None
        facts: dict[str, Json] = {
            "model": self.plan.model,
            "assistant": self.plan.assistant,
            "upstream": self._upstream,
            "resumed": self._resumed,
            "memory": self._memory,
        }
        if gap_ms is not None:
            facts["gapMs"] = gap_ms
        return Status(Line.CONNECTED, facts)

    def _hang_up(self, now: float) -> list[Command]:
        """The model side goes, or has gone, for good: open turns are finished as far as they came."""
        self.stay.silenced(now)
        self._aside = None
        commands = self.calls.end()
        commands += self._broken_off_lines()
        commands += self.dialogue.ended()
        commands += self.input.forget(
            "The conversation was not opened; what you said meanwhile was not heard."
        )
        self._enter(Phase.IDLE)
        self.owing.forget()
        self.rotation.closed()
        self._seeking = self._parked = self._deaf = False
        self._gap_from = None
        return commands

    def abandoned(self, now: float) -> Sequence[Command]:
        """The process that had this session's conversation ended without a word."""
        return [Record("taken_up_abandoned", {}), SendToClient(Warned("memory_incomplete", WORDS_LOST))]

    def drain(self, spread_s: float, most_s: float, now: float) -> Sequence[Command]:
        """The server is about to stop: the turn may end, for `most_s` at most.

        Not before `spread_s` after it could, so that clients do not all come back to another server at once.
        """
        if not self._client_here or self.phase in (Phase.IDLE, Phase.CLOSED):
            return self.close(None, now)
        self._seeking, self._loud_at = True, self.stay.active_at  # until now nobody listened for loudness
        quiet_in_s = max(0.0, self._loud_at + QUIET_S - now)
        self.draining.begin(quiet_in_s + spread_s, most_s, now)
        told: ToClient = Status(Line.DRAINING)
        if self.hosting is not None and self.hosting.handle is not None:
            told = self.hosting.going_away(most_s)
        return [SendToClient(told), Record("draining", {}), *self._drain(now)]

    def _drain(self, now: float) -> Sequence[Command]:
        if not self.draining.begun:
            return ()
        if self.draining.due(self.phase is Phase.LIVE and self._resting(now), now, saved=self._saved):
            return self.close(None, now)
        return (WakeAfter(Timer.DRAIN, self.draining.wake_after(now)),)

    def close(self, error: LiveError | None, now: float) -> Sequence[Command]:
        """The session was deleted, or the server stops: both sides are closed."""
        if self.phase is Phase.CLOSED:
            return ()
        return self._end(now, [CloseClient(error)] if self._client_here else [])

    def _end(self, now: float, goodbye: Sequence[Command] = ()) -> list[Command]:
        """What was open is finished, and told, before the goodbye."""
        commands = self._hang_up(now)
        self._enter(Phase.CLOSED)
        return [*commands, *goodbye, CloseModel(), End()]
