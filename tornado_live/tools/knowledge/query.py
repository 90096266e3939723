"""What a person said, as words to look for, and which passages they mean. Pure: an index is asked by callbacks."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MOST_WORDS: Final = 32
_LONGEST_WORD: Final = 60
_MOST_MISHEARD: Final = 6
"""For how many words other spellings are tried: a text of nonsense would take long."""
_CLOSE: Final = 4
"""How many other spellings of a word are tried."""
_FILLERS: Final = frozenset(
    """
    a about an and any anything are as at be been but by can could did do does doing don for from get gets give
    go goes going got had happen happens has have he her here him his how i if in info information into is it
    its just know let like ll m make me mean my need no not of on or our out please put re s say says shall she
    should show so some something t tell than that the their them then there these they thing this those to up
    us use uses ve want was we were what when where whether which while who whom whose why will with would you
    your
    """.split()  # noqa: SIM905 - a list of words
)


# Words that people say for one another. Each is as likely to be in a question as another one is in the article.
_SAME: Final = tuple(
    frozenset(group.split())
    for group in (
        "allow allowed permit permitted may",
        "answer reply respond response",
        "begin start",
        "broken damaged defective",
        "buy purchase order",
        "call phone ring telephone",
        "change edit modify",
        "choose pick select",
        "cost fee price",
        "danger dangerous risk safe safety",
        "delete erase remove",
        "delivery package parcel shipping",
        "end finish stop",
        "error failure fault mistake problem",
        "hear listen",
        "help support",
        "image photo picture",
        "money refund",
        "plant sow",
        "return returning returned",
        "say speak talk",
        "shop store",
        "voucher card",
    )
)

_PHRASES: Final = {
    ("give", "back"): "return",
    ("money", "back"): "refund",
    ("send", "back"): "return",
    ("switch", "off"): "disable",
    ("switch", "on"): "enable",
    ("turn", "off"): "disable",
    ("turn", "on"): "enable",
}


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to look for a word: an FTS5 expression, and how much a hit of it counts."""

    expression: str
    weight: float


@dataclass(frozen=True, slots=True)
class Term:
    """Something that was asked for, in each spelling that it may have in the documents."""

    spellings: tuple[Spelling, ...]
    weight: float = 1.0


def words(text: str, most: int | None = MOST_WORDS) -> list[str]:
    """The words of a question in their order, without those that say nothing; all of them if none says more."""
    spoken = [word[:_LONGEST_WORD] for word in re.findall(r"[^\W_]+", text.lower())]
    telling = [word for word in spoken if word not in _FILLERS and (len(word) > 1 or word.isdecimal())]
    return (telling or spoken)[:most]


def terms(
    text: str,
    known: Callable[[str], bool],
    near: Callable[[str], Iterable[str]],
    same: Sequence[frozenset[str]] = (),
) -> list[Term]:
    """What to look for. `known` says whether the documents have a word; `near` gives words that may be meant.

    `same` are further sets of words, in small letters, that stand for one another.
    """
    telling = list(dict.fromkeys(words(text)))
    spoken = re.findall(r"[^\W_]+", text.lower())[: 2 * MOST_WORDS]
    pairs = list(dict.fromkeys(pairwise(spoken)))
    # "web socket" is heard where websocket was said
    joined = {pair for pair in pairs if 4 < len("".join(pair)) <= _LONGEST_WORD and known("".join(pair))}
    split = {word for pair in joined for word in pair}
    found: list[Term] = []
    unknown = 0
    for word in telling:
        spellings = [Spelling(quoted(word), 1.0)]
        spellings += [Spelling(quoted(other), 0.5) for other in sorted(_same(word, (*_SAME, *same)))]
        if known(word):
            if len(word) >= 5:
                # describe finds description, which a stemmer keeps apart
                spellings.append(Spelling(f"{quoted(word[: max(5, len(word) - 2)])} *", 0.4))
        else:
            unknown += 1
            others = closest(word, near(word)) if unknown <= _MOST_MISHEARD else []
            spellings += [Spelling(quoted(other), 0.7) for other in others]
            if len(word) >= 4:
                spellings.append(Spelling(f"{quoted(word)} *", 0.6))
        found.append(Term(tuple(spellings), weight=0.5 if word in split else 1.0))
    said = [word for word in spoken if word in telling or word in ("off", "on")]
    for pair in pairwise(said):
        if pair in _PHRASES:
            found.append(Term((Spelling(quoted(_PHRASES[pair]), 1.0),)))
    for first, second in pairs:
        if (first, second) in joined:
            found.append(Term((Spelling(quoted(first + second), 1.0),)))
        if first in telling and second in telling:
            near_by = Spelling(f"NEAR({quoted(first)} {quoted(second)}, 3)", 1.0)
            found.append(Term((near_by,), weight=0.3))
    return found


def _same(word: str, groups: Sequence[frozenset[str]]) -> set[str]:
    forms = {word, word.removesuffix("s")}
    return {other for group in groups if forms & group for other in group - {word}}


def quoted(word: str) -> str:
    """A word as FTS5 takes it, so that nothing in it is syntax."""
    return '"' + word.replace('"', '""') + '"'


def closest(word: str, others: Iterable[str]) -> list[str]:
    """Those of `others` that are one slip away from `word`, or two if it is long; the nearest first."""
    allowed = 0 if len(word) < 4 else 1 if len(word) < 7 else 2
    ranked = sorted(
        (far, other)
        for other in others
        if (far := distance(word, other, allowed)) <= allowed and other != word
    )
    return [other for far, other in ranked if far == ranked[0][0]][:_CLOSE]


def distance(one: str, other: str, most: int) -> int:
    """Letters put in, left out, exchanged or swapped with their neighbour; `most + 1` for more than `most`."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, another in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != another))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == another:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def ranked(
    sought: Sequence[Term], lookup: Callable[[str], Mapping[int, float]], passages: int
) -> list[tuple[int, float]]:
    """Passages, the best first. `lookup` gives the worth of each passage that an expression finds.

    A passage that has most of what was asked for beats one that has a single word of it many times.
    """
    worth: defaultdict[int, float] = defaultdict(float)
    covered: defaultdict[int, float] = defaultdict(float)
    total = 0.0
    for term in sought:
        best: dict[int, float] = {}
        for spelling in term.spellings:
            for passage, value in lookup(spelling.expression).items():
                best[passage] = max(best.get(passage, 0.0), value * spelling.weight)
        rarity = term.weight * math.log(1 + (passages - len(best) + 0.5) / (len(best) + 0.5)) if best else 0.0
        if term.weight >= 1:
            total += rarity
        for passage, value in best.items():
            worth[passage] += term.weight * value
            if term.weight >= 1:
                covered[passage] += rarity
    scored = [
        (passage, value * (0.6 + 0.4 * (covered[passage] / total if total else 1.0)))
        for passage, value in worth.items()
    ]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def agreement(query: Collection[str], heading: str) -> float:
    """How well a question and a heading agree: 1 if all words of one are in the other, in whatever form."""
    asked = {_root(word) for word in query}
    told = {_root(word) for word in words(heading)}
    return len(asked & told) / min(len(asked), len(told)) if asked and told else 0.0


def _root(word: str) -> str:
    return word[: max(4, len(word) - 3)] if len(word) > 4 else word.removesuffix("s")


def is_repeated(text: str, others: Collection[frozenset[str]]) -> bool:
    """Whether nearly all words of `text` were in one of `others`, and the other way round."""
    mine = frozenset(words(text))
    return any(len(mine & other) > 0.85 * len(mine | other) for other in others)
