"""What was said, from pieces to finished messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from tornado_live.sessions.store import Role

MAX_PIECES_CHARS = 64 * 1024


@dataclass(slots=True)
class _Side:
    """Pieces of one side, their length counted as they come."""

    pieces: list[str] = field(default_factory=list)
    chars: int = 0
    apart: bool = False

    def append(self, text: str) -> None:
        if self.chars + len(text) <= MAX_PIECES_CHARS:
            self.pieces.append(text)
            self.chars += len(text)

    def take(self, text: str, *, accumulated: bool) -> str:
        """Keeps `text`; what of it was not there before. An accumulated text that corrects what was told
        replaces it, and nothing is new: the whole will follow at the end."""
        if not accumulated:
            if self.apart and text:
                self.apart = False
                text = text if text[0].isspace() else f" {text}"
            self.append(text)
            return text
        so_far = "".join(self.pieces)
        if text.startswith(so_far):
            self.append(text[len(so_far) :])
            return text[len(so_far) :]
        self.pieces, self.chars = [], 0
        self.append(text)
        return ""

    def text(self) -> str:
        return "".join(self.pieces).strip()


@dataclass(slots=True)
class _Turn:
    user: _Side = field(default_factory=_Side)
    model: _Side = field(default_factory=_Side)
    tools: list[str] = field(default_factory=list)
    user_told: bool = False
    model_told: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """One side of a turn. `untold`: the client has pieces of it, and the whole is still to be sent."""

    role: Role
    text: str
    turn: int
    untold: bool


class Transcript:
    """Pieces of the open turns. Text beyond 64 KiB a side is not kept."""

    def __init__(self) -> None:
        self._turns: dict[int, _Turn] = {}

    def user_piece(self, turn: int, text: str, *, accumulated: bool = False) -> str:
        """What is new of the user's words. `accumulated`: `text` is all of them so far, not a piece.

        Words after the model side's own end mark are told: the whole will follow once more.
        """
        entry = self._turn(turn)
        entry.user_told = False
        return entry.user.take(text, accumulated=accumulated)

    def model_piece(self, turn: int, text: str, *, accumulated: bool = False) -> str:
        entry = self._turn(turn)
        entry.model_told = False
        return entry.model.take(text, accumulated=accumulated)

    def model_pauses(self, turn: int) -> None:
        """A thinking model has said one thing, and will say another in the same turn: the words stand apart."""
        if turn in self._turns and self._turns[turn].model.pieces:
            self._turns[turn].model.apart = True

    def so_far(self, turn: int) -> tuple[str, str]:
        """What user and model have said in an open turn."""
        entry = self._turns.get(turn)
        return (entry.user.text(), entry.model.text()) if entry is not None else ("", "")

    def user_typed(self, turn: int, text: str) -> None:
        """A typed message: the client knows it, so it is never sent back."""
        entry = self._turn(turn)
        entry.user.append(f"\n{text}" if entry.user.pieces else text)
        entry.user_told = True

    def model_said(self, turn: int, text: str) -> None:
        """Text of the TEXT modality, which the client gets as `text`."""
        entry = self._turn(turn)
        entry.model.append(text)
        entry.model_told = True

    def tool(self, turn: int, text: str) -> bool:
        """Keeps a tool's line for its place between user and model; False when that turn has ended."""
        if turn not in self._turns:
            return False
        self._turns[turn].tools.append(text)
        return True

    def user_ended(self, turn: int) -> str | None:
        """The whole of the user's side at the model side's own end mark, once."""
        return self._ended(turn, user=True)

    def model_ended(self, turn: int) -> str | None:
        return self._ended(turn, user=False)

    def close(self, turn: int) -> list[Finished]:
        """Everything of this turn, and of older ones left open, in memory order: user, tool, model."""
        finished: list[Finished] = []
        for number in sorted(self._turns):
            if number > turn:
                break
            entry = self._turns.pop(number)
            user, model = entry.user.text(), entry.model.text()
            if user:
                finished.append(Finished("user", user, number, not entry.user_told))
            finished.extend(Finished("tool", text, number, False) for text in entry.tools)
            if model:
                finished.append(Finished("model", model, number, not entry.model_told))
        return finished

    def _turn(self, turn: int) -> _Turn:
        return self._turns.setdefault(turn, _Turn())

    def _ended(self, turn: int, *, user: bool) -> str | None:
        entry = self._turns.get(turn)
        if entry is None or (entry.user_told if user else entry.model_told):
            return None
        text = (entry.user if user else entry.model).text()
        if not text:
            return None
        if user:
            entry.user_told = True
        else:
            entry.model_told = True
        return text
