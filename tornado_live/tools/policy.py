"""What a conversation does while a call runs and when it has ended, as the operator declared it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Wait: TypeAlias = Literal["blocking", "background"]
WhenDone: TypeAlias = Literal["interrupt", "when_idle", "silent"]
OnInterrupt: TypeAlias = Literal["cancel", "finish", "detach"]


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """`wait`: whether the model talks on while the call runs. `when_done`: how a background result reaches it.

    `on_interrupt`: a barge-in ends the call (`cancel`), leaves it to be delivered (`finish`), or to be finished
    and only remembered (`detach`). What each of these means on one model is decided in live/calls.py.
    `confirm`: the person is asked first. `client`: the page runs it. `slow_after_s`: when a call counts as slow,
    and `slow_say` what the model may say then. `side_effects`: it changes something. `show_args`: whether the page
    may see the arguments. `timeout_s` is the deadline of the whole call.
    """

    wait: Wait = "blocking"
    when_done: WhenDone = "when_idle"
    on_interrupt: OnInterrupt = "cancel"
    confirm: bool = False
    client: bool = False
    slow_after_s: float | None = None
    slow_say: str | None = None
    side_effects: bool = False
    timeout_s: float = 10.0
    show_args: bool = True

    @property
    def asks(self) -> bool:
        """Whether the client has to do something before it is run."""
        return self.confirm or self.client

    @property
    def background(self) -> bool:
        return self.wait == "background"


DEFAULT_POLICY: Final = CallPolicy()
