"""Chooses among declared functions by the words of a sentence, in the place of a language model.

A function is judged by the words of its name, description, parameters and enum values, with a small thesaurus; its
arguments are filled by `arguments`. Nothing is tied to a function by name, so functions that nobody has seen
before work as well as their descriptions are written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from tornado_live.simulator import sql_query
from tornado_live.simulator.arguments import Filler, Filling, Kind, Parameter, Value, parameters
from tornado_live.simulator.english import (
    ASKS_FOR_FACTS,
    FACT_WORDS,
    MEDIUM_STEMS,
    OPPOSITES,
    STOP,
    WEAK_STEMS,
    name_words,
    related,
    stem,
    words,
)

# Below this a sentence is not about the function: a word of its description or a synonym of its name is enough.
ENOUGH = 1.0
# Nobody says more at once; what is typed beyond that is not read, so that no text takes long.
LONGEST_TEXT = 2000
MOST_CLAUSES = 8
# What a clause without a verb ("and the latest orders") must reach to be a call of its own.
ENOUGH_FOR_A_NOUN = 1.4
_WEIGHTS = {"name": 3.0, "enum": 2.0, "table": 2.0, "parameter": 1.2, "first": 1.5, "later": 0.6}
_SYNONYM = 0.75
_WEAK = 0.12
_MEDIUM = 0.5
# What is left of the score of a function that does the opposite.
_OPPOSITE = 0.2
# Among functions that score nearly as much as the best, one that the sentence can fill is meant.
_CLOSE = 0.6


@dataclass(frozen=True)
class Pending:
    """A question that was asked back: the function, what is known already, and the parameter that is missing."""

    name: str
    args: Mapping[str, Value]
    parameter: str
    others: tuple[tuple[str, Mapping[str, Value]], ...] = ()


@dataclass(frozen=True)
class Call:
    """Functions to call, at once when there are several."""

    calls: list[tuple[str, dict[str, Value]]]


@dataclass(frozen=True)
class AskBack:
    """A required argument was not said; the next utterance goes to `choose` with `pending`."""

    question: str
    pending: Pending


@dataclass(frozen=True)
class Say:
    """No function is meant."""

    text: str


Decision = Call | AskBack | Say


@dataclass(frozen=True)
class _Function:
    name: str
    description: str
    parameters: tuple[Parameter, ...]
    weights: Mapping[str, float]
    name_stems: frozenset[str]
    own: frozenset[str]

    @property
    def spoken(self) -> str:
        return " ".join(name_words(self.name))


class Chooser:
    """Decides what a sentence asks of the declared functions.

    `declarations` are Gemini's function declarations: name, description and `parameters` (types in either case) or
    `parametersJsonSchema`. `today` gives the day that "tomorrow" is counted from.
    """

    def __init__(
        self, declarations: Iterable[Mapping[str, object]], *, today: Callable[[], date] = date.today
    ) -> None:
        self._functions = {function.name: function for function in _functions(list(declarations))}
        self._today = today
        spread = Counter(one for function in self._functions.values() for one in function.weights)
        self._rarity = {one: count**-0.5 for one, count in spread.items()}

    def choose(self, text: str, pending: Pending | None = None) -> Decision:
        """What to do about an utterance; `pending` is the question that it may be the answer to."""
        text = " ".join(text[:LONGEST_TEXT].split())
        if pending is not None and pending.name in self._functions:
            return self._answer(text, pending)
        talk = _small_talk(text)
        if talk is not None and not self._clearly_meant(text):
            return Say(self._capabilities() if talk == "help" else talk)
        wanted: list[tuple[str, dict[str, Value]]] = []
        question: tuple[str, Filling] | None = None
        for clause, function in self._clauses(text):
            filling = self._filler(function).fill(clause)
            if filling.missing(function.parameters):
                question = question or (function.name, filling)
                continue
            wanted += [call for call in _expanded(function.name, filling) if call not in wanted]
        if question is not None:
            return self._ask(self._functions[question[0]], question[1].args, tuple(wanted))
        if wanted:
            return Call(wanted)
        return Say(
            "I am a local simulator, not a language model, so I can only use the declared tools"
            + (f": {self._list()}." if self._functions else ", and none are declared.")
        )

    # Which function

    def _scores(self, text: str) -> list[tuple[float, _Function]]:
        said = {
            word.stem: word.lower for word in words(text) if word.lower not in STOP or word.lower in _SIDES
        }
        facts = FACT_WORDS if ASKS_FOR_FACTS.match(text) else frozenset()
        scored = []
        for function in self._functions.values():
            score = 0.0
            for one in said:
                direct = function.weights.get(one, 0.0) * self._rarity.get(one, 1.0)
                close = max(
                    (
                        function.weights[other] * self._rarity[other] * _SYNONYM
                        for other in related(one)
                        if other in function.weights and other not in WEAK_STEMS
                    ),
                    default=0.0,
                )
                best = max(direct, close)
                score += best * (_WEAK if one in WEAK_STEMS else _MEDIUM if one in MEDIUM_STEMS else 1.0)
            if facts:
                hits = [function.weights[one] * self._rarity[one] for one in facts if one in function.weights]
                score += 0.5 * max(hits, default=0.0)
                # A proper name is the subject of an encyclopedia rather than of a handbook.
                if re.search(r"[a-z] (?:the )?[A-Z]\w+(?: \w+)*[.?!]*$", text):
                    score += 0.3 * function.weights.get("encyclopedia", 0.0)
            if self._is_opposite(function, {word.lower for word in words(text)}):
                score *= _OPPOSITE
            scored.append((score, function))
        return sorted(scored, key=lambda pair: -pair[0])

    def _is_opposite(self, function: _Function, said: set[str]) -> bool:
        """Whether the function does the opposite of what was said: "turn off" is not for `turn_on_lamp`."""
        own = {word for p in function.parameters for value in p.choices for word in name_words(str(value))}
        names = set(name_words(function.name))
        for pair in OPPOSITES:
            for one, other in (pair, pair[::-1]):
                if one in said and other not in said and other in names and not {one, other} <= names | own:
                    return True
        return False

    def _clearly_meant(self, text: str) -> bool:
        scores = self._scores(text)
        return bool(scores) and scores[0][0] >= 2 * ENOUGH

    def _best(self, text: str) -> tuple[float, _Function | None]:
        scores = self._scores(text)
        if not scores or scores[0][0] < ENOUGH:
            return 0.0, None
        top = scores[0][0]
        close = [function for score, function in scores if score > _CLOSE * top]
        if len(close) > 1:
            # Nearly equal: the one that the sentence can fill.
            close.sort(key=lambda f: self._lacks(f, text))
        return top, close[0]

    def _clauses(self, text: str) -> list[tuple[str, _Function]]:
        """The parts of a text that are each about a function, with that function."""
        pieces = _CLAUSE.split(text, maxsplit=MOST_CLAUSES - 1)
        parts, joints = pieces[::2], pieces[1::2]
        groups: list[tuple[str, _Function | None]] = []
        for position, part in enumerate(parts):
            score, function = self._best(part)
            alone = function is not None and self._stands_alone(part, score, position, joints)
            if alone and function is not None and groups and function is groups[-1][1]:
                # More about the same thing ("… is broken. Please report it."), unless it is complete in itself.
                alone = not self._lacks(function, part)
            before = groups[-1][1] if groups else None
            new = alone and before is not None and (function is not before or _BEGINS.match(part))
            if new and before is not None and function is not None and self._lacks(function, part):
                new = not self._completes(
                    before, groups[-1][0], f"{groups[-1][0]}{joints[position - 1]}{part}"
                )
            if not groups or new:
                groups.append((part, function))
            else:
                together = f"{groups[-1][0]}{joints[position - 1]}{part}"
                groups[-1] = (together, self._best(together)[1] or groups[-1][1])
        return [(part, function) for part, function in groups if function is not None]

    def _lacks(self, function: _Function, said: str) -> bool:
        return bool(self._filler(function).fill(said).missing(function.parameters))

    def _completes(self, function: _Function, said: str, more: str) -> bool:
        """Whether a further clause brings arguments that the function needs and has not got yet."""
        filler = self._filler(function)
        missing = len(filler.fill(said).missing(function.parameters))
        return missing > 0 and len(filler.fill(more).missing(function.parameters)) < missing

    def _stands_alone(self, part: str, score: float, position: int, joints: Sequence[str]) -> bool:
        if position and joints[position - 1].strip() in (".", "?", "!", ";"):
            return True
        return score >= (ENOUGH if _BEGINS.match(part.strip()) else ENOUGH_FOR_A_NOUN)

    # Its arguments

    def _filler(self, function: _Function) -> Filler:
        return Filler(
            function.parameters,
            function.own,
            function.name_stems,
            f"{function.spoken}. {function.description}",
            self._today(),
        )

    def _answer(self, text: str, pending: Pending) -> Decision:
        function = self._functions[pending.name]
        parameter = next((p for p in function.parameters if p.name == pending.parameter), None)
        if parameter is None:
            return self.choose(text)
        if _NEVER_MIND.fullmatch(text.strip(" .!")):
            return Say("All right, I leave it.")
        score, other = self._best(text)
        if other is not None and score >= 2 * ENOUGH and (_BEGINS.match(text) or text.endswith("?")):
            return self.choose(text)
        filling = self._filler(function).answer(text, parameter)
        args = {**filling.args, **pending.args}
        missing = Filling(args).missing(function.parameters)
        if (
            missing
            and parameter.name not in args
            and _small_talk(text) is None
            and other is not None
            and score >= ENOUGH
        ):
            return self.choose(text)
        if missing:
            return self._ask(function, args, pending.others)
        calls = [(name, dict(known)) for name, known in pending.others]
        return Call([*calls, *_expanded(function.name, Filling(args, filling.more))])

    def _ask(
        self,
        function: _Function,
        args: Mapping[str, Value],
        others: tuple[tuple[str, Mapping[str, Value]], ...],
    ) -> AskBack:
        parameter = Filling(dict(args)).missing(function.parameters)[0]
        return AskBack(
            _question(parameter, function), Pending(function.name, dict(args), parameter.name, others)
        )

    # About itself

    def _list(self) -> str:
        names = [function.spoken for function in self._functions.values()]
        if len(names) > 8:
            names = [*names[:8], f"{len(names) - 8} more"]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    def _capabilities(self) -> str:
        if not self._functions:
            return "I am a local simulator of Gemini Live, and no tools are declared that I could use."
        return f"I am a local simulator of Gemini Live. I can use these tools: {self._list()}."


_NOT_FOR = re.compile(r"\b(?:do not|don't|never) use\b|\buse another\b|\bnot for\b", re.IGNORECASE)
_SIDES = {word for pair in OPPOSITES for word in pair}
_CLAUSE = re.compile(
    r"((?:,|;)? +(?:and then|and also|and|then|also) +|[.?!;] +(?:and |also |then )*|, +)", re.IGNORECASE
)
_VERBS = (
    "what who where when how which is are do does did can could will would please tell show give get find "
    "search look list set turn switch play book reserve order send write create add make remove delete "
    "cancel convert translate remind schedule call open close lock unlock start stop run execute check "
    "track report log compare calculate put buy fetch query count restart reboot read take update change "
    "move wake ask describe explain i"
)
_BEGINS = re.compile(
    rf"(?:please |also |then |kindly )*(?:{'|'.join(_VERBS.split())})(?:'s|\b)", re.IGNORECASE
)
_NEVER_MIND = re.compile(
    r"(?:no|nope|never ?mind|forget (?:about )?it|cancel(?: that)?|stop|nothing|no thanks|no thank you)",
    re.IGNORECASE,
)

_HELLO = r"(?:hello|hi|hey|good (?:morning|afternoon|evening|day)|greetings)"
_NAME = r"(?: (?:there|gemini|simulator|computer|assistant|everybody|everyone))?"
_SMALL_TALK = [
    (
        rf"{_HELLO}{_NAME}(?:[, ]+(?:are you there|can you hear me|how are you(?: doing)?(?: today)?))?"
        r"|(?:gemini,? )?(?:are you there|can you hear me)",
        "Hello, I hear you. I am a local simulator of Gemini Live; ask me something that a tool can answer.",
    ),
    (
        r"how are you(?: doing)?(?: today)?|how is it going|how's it going",
        "I am fine, for a simulator. Ask me something that one of the tools can answer.",
    ),
    (
        r"(?:thank you|thanks|thank you very much|thanks a lot|many thanks|great|perfect|cool|nice)(?: .{0,20})?",
        "You are welcome.",
    ),
    (r"(?:good ?bye|bye|bye bye|see you(?: later)?|good night)(?: .{0,12})?", "Goodbye."),
    (
        r"what(?:'s| is) your name|who are you|what are you"
        r"|are you (?:a |an )?(?:real|human|robot|bot|gemini|ai|person)\b.*",
        "I am a local simulator of Gemini Live, not the real model. Set GEMINI_API_KEY to talk to Gemini itself.",
    ),
    (r"(?:help|help me|what can (?:you|i) (?:do|ask|say)(?: .{0,20})?|what (?:tools|functions) .*)", "help"),
]
_SMALL_TALK_PATTERNS = [(re.compile(pattern, re.IGNORECASE), answer) for pattern, answer in _SMALL_TALK]


def _small_talk(text: str) -> str | None:
    plain = text.strip(" .!?,")
    if not plain:
        return "I did not hear any words. Please say it again."
    return next((answer for pattern, answer in _SMALL_TALK_PATTERNS if pattern.fullmatch(plain)), None)


def _functions(declarations: Sequence[Mapping[str, object]]) -> list[_Function]:
    names = [str(declaration.get("name") or "") for declaration in declarations]
    referred: dict[str, list[str]] = {name: [] for name in names}
    for name, declaration in zip(names, declarations, strict=True):
        for sentence in _sentences(str(declaration.get("description") or "")):
            for other in names:
                if other != name and re.search(rf"\b{re.escape(other)}\b", sentence):
                    referred[other].append(sentence.replace(other, ""))
    return [
        _function(name, declaration, names, referred[name])
        for name, declaration in zip(names, declarations, strict=True)
    ]


def _sentences(description: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+|\n+", description.strip())


def _function(
    name: str, declaration: Mapping[str, object], names: Sequence[str], referred: Sequence[str]
) -> _Function:
    """`referred`: what the descriptions of others say that this one is for ("for figures, use get_analytics")."""
    description = str(declaration.get("description") or "")
    schema = next(
        (
            value
            for key in ("parametersJsonSchema", "parameters_json_schema", "parameters")
            if isinstance(value := declaration.get(key), Mapping)
        ),
        {},
    )
    declared = parameters(schema, f"{name} {description}")
    weights: dict[str, float] = {}

    def weigh(text_words: Iterable[str], kind: str) -> None:
        for word in text_words:
            if word not in STOP:
                one = stem(word)
                weights[one] = max(weights.get(one, 0.0), _WEIGHTS[kind])

    others = [other for other in names if other != name]
    first, *later = [
        sentence
        for sentence in _sentences(description)
        if not _NOT_FOR.search(sentence)
        and not any(re.search(rf"\b{re.escape(o)}\b", sentence) for o in others)
    ] or [""]
    weigh(name_words(name), "name")
    weigh((word.lower for word in words(first)), "first")
    weigh((word.lower for word in words(" ".join(later)) if "/" not in word.lower), "later")
    weigh((word.lower for word in words(" ".join(referred))), "first")
    for parameter in declared:
        weigh(parameter.words, "parameter")
        weigh((word.lower for word in words(parameter.description)), "later")
        for value in parameter.choices:
            weigh(name_words(str(value)), "enum")
        if parameter.kind is Kind.SQL:
            for table, declared_table in sql_query.tables(f"{description}\n{parameter.description}").items():
                weigh(name_words(table), "table")
                weigh((word for column in declared_table.columns for word in name_words(column)), "later")
    own_name = frozenset(stem(word) for word in name_words(name))
    told = frozenset(word.stem for word in words(first)) | frozenset(s for p in declared for s in p.stems)
    own = own_name | told | frozenset(other for one in own_name for other in related(one))
    return _Function(name, description, declared, weights, own_name, own)


def _expanded(name: str, filling: Filling) -> list[tuple[str, dict[str, Value]]]:
    """One call, or one for each value when a sentence names several ("in Paris and Rome")."""
    calls = [(name, dict(filling.args))]
    if filling.more is not None:
        parameter, values = filling.more
        calls += [(name, {**filling.args, parameter: value}) for value in values]
    return calls


def _question(parameter: Parameter, function: _Function) -> str:
    name = " ".join(parameter.words)
    match parameter.kind:
        case Kind.ENUM:
            choices = [str(choice).replace("_", " ") for choice in parameter.choices]
            listed = choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
            return f"Which {name}: {listed}?"
        case Kind.BOOLEAN:
            return f"{name.capitalize()}: yes or no?"
        case Kind.NUMBER:
            counted = parameter.description.lower().startswith("number of") or name.endswith("s")
            return f"How many {name}?" if counted else f"What {name} should it be?"
        case Kind.PLACE:
            return f"For which {name}?" if name not in ("where", "to", "from") else "For which place?"
        case Kind.DATE | Kind.PERIOD:
            return f"For which {name}?"
        case Kind.TIME:
            return "At what time?"
        case Kind.TOPIC:
            wanted = name in ("title", "subject", "topic", "term", "phrase")
            return f"Which {name}?" if wanted else "What should I look for?"
        case Kind.SQL:
            known = list(sql_query.tables(f"{function.description}\n{parameter.description}"))
            return f"From which table: {', '.join(known)}?" if known else "From which table?"
        case Kind.MESSAGE:
            return "What should it say?" if name != "text" else "What text?"
        case Kind.EMAIL:
            return "What is the email address?"
        case Kind.URL:
            return "Which web address?"
        case Kind.PERSON if name in ("to", "who"):
            return "To whom?" if name == "to" else "Who?"
        case _:
            return f"Which {name}?"
