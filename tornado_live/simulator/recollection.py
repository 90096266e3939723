"""What was said in a conversation, and what a person may ask about that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .brain import Said

_MOST = 400
_LINE = re.compile(r"^(user|you|model|assistant|gemini)\s*:\s*", re.IGNORECASE)
_RESULT = re.compile(r"\b(?:result|answer|response|output|tool|function)\b", re.IGNORECASE)
_TOOL = re.compile(
    r"\b(?:of|from|tool|function)\s+(?:the\s+)?(?:(?:tool|function|call)\s+)?[`\"']?([A-Za-z_][\w.-]*)",
    re.IGNORECASE,
)
_BROKE_OFF = re.compile(r"\bheard up to [“\"](.*)[”\"]")

_OPENING = r"(?:(?:so|and|ok|okay|wait|sorry|pardon|excuse me),? )*"
_WHEN = r"(?: (?:before|just now|first|at first|last|earlier|previously|at the beginning|a moment ago))?"
_SINCE = r"(?: (?:that|this|we were cut off|the (?:connection|line) (?:was lost|broke)))?"
_OWN_WORDS = re.compile(
    rf"{_OPENING}(?:do you (?:still )?(?:remember|know) |(?:can|could) you tell me |tell me |repeat )?"
    r"what (?:did i|was it (?:that )?i|have i|had i|i|was i) (?:just )?"
    r"(?:said|say|asked|ask|told|tell|asking|saying|want|wanted)(?: you| to know| about)?(?: for)?"
    rf"{_WHEN}{_SINCE}"
    r"|what (?:was|is) my (?:first|last|previous|earlier) (?:question|sentence|message|request)"
    r"|what (?:were|are) we (?:just )?talking about|what have we talked about|where were we",
    re.IGNORECASE,
)
_ITS_WORDS = re.compile(
    rf"{_OPENING}what (?:did you|have you|was it you) (?:just )?(?:say|said|answer|answered|tell me|told me)"
    rf"(?: to that)?{_WHEN}{_SINCE}|(?:please )?(?:repeat|say) (?:that|it)(?: again)?(?:,? please)?",
    re.IGNORECASE,
)
_NAME_ASKED = re.compile(
    r"(?:do you (?:still )?(?:remember|know) )?(?:what(?:'s| is) my name|who (?:am i|i am)|my name)",
    re.IGNORECASE,
)
_NAME_TOLD = re.compile(r"\b(?:my name is|i am called|call me)\s+([A-Z]\w+(?: [A-Z]\w+)?)", re.IGNORECASE)


class Recollection:
    """Both sides' words in order; the oldest are forgotten."""

    def __init__(self, said: Iterable[Said] = ()) -> None:
        self._said = list(said)[-_MOST:]

    def copy(self) -> Recollection:
        return Recollection(self._said)

    def add(self, said: Iterable[Said]) -> None:
        without_notes = (
            Said(by_user=True, text=read_notes(each.text).question) if each.by_user else each for each in said
        )
        self._said = [*self._said, *(each for each in without_notes if each.text.strip())][-_MOST:]

    def read(self, instruction: str) -> None:
        """Takes in the lines of an instruction that tell what was said: `User: ...` and `You: ...`."""
        told: list[Said] = []
        for line in instruction.splitlines():
            speaker = _LINE.match(line.strip())
            if speaker is not None:
                by_user = speaker[1].lower() == "user"
                told.append(Said(by_user, line.strip()[speaker.end() :]))
            elif told and line.strip():
                told[-1] = Said(told[-1].by_user, f"{told[-1].text} {line.strip()}")
        if any(each.by_user for each in told):
            self.add(told)

    def last_question(self) -> str:
        """What the user said last."""
        return next((each.text for each in reversed(self._said) if each.by_user), "")

    def after(self, heard: str) -> str | None:
        """What followed these words when they were said; None if that is not known."""
        for each in reversed(self._said):
            if not each.by_user and heard and heard in each.text:
                return each.text.split(heard, 1)[1].strip() or None
        return None

    def answer(self, question: str) -> str | None:
        """What to say to a question about the conversation itself; None if it is none."""
        asked = question.strip(" .!?,")
        if _NAME_ASKED.fullmatch(asked):
            names = [
                name[1] for each in self._said if each.by_user for name in _NAME_TOLD.finditer(each.text)
            ]
            return f"Your name is {names[-1]}." if names else None
        own = _OWN_WORDS.fullmatch(asked)
        if own is not None:
            texts = [each.text for each in self._said if each.by_user]
            if not texts:
                return "You have said nothing before that."
            first = any(word in asked.lower() for word in ("first", "at the beginning"))
            return f'You said: "{texts[0] if first else texts[-1]}"'
        if _ITS_WORDS.fullmatch(asked):
            texts = [each.text for each in self._said if not each.by_user]
            return f'I said: "{texts[-1]}"' if texts else "I have said nothing before that."
        return None


@dataclass(frozen=True, slots=True)
class Notes:
    """What a client that lost its connection tells in a user's turn, and what the user asks in it.

    results: of tools whose call the session does not know. heard: the end of what the user heard of an answer.
    """

    results: tuple[tuple[str, Mapping[str, object]], ...]
    heard: str | None
    question: str


def read_notes(text: str) -> Notes:
    """Each note is a line, such as `(Result of get_time({}), which you asked for before: {"hour": 7})`."""
    results, rest = [], []
    heard = None
    for line in text.splitlines():
        result, broke_off = _result_in(line), _BROKE_OFF.search(line)
        if result is not None:
            results.append(result)
        elif broke_off is not None:
            heard = broke_off[1]
        else:
            rest.append(line)
    return Notes(tuple(results), heard, "\n".join(rest).strip())


def _result_in(line: str) -> tuple[str, Mapping[str, object]] | None:
    """The name of a tool and its result; the arguments, in parentheses after the name, are not it."""
    found = None
    at = line.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(line, at)
        except ValueError:
            end = at + 1
        else:
            if not line[:at].endswith("("):
                found = at, value
        at = line.find("{", end)
    if found is None or not isinstance(found[1], dict) or not _RESULT.search(line[: found[0]]):
        return None
    name = _TOOL.search(line[: found[0]])
    return name[1] if name else "", found[1]
