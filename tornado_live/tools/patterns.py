"""Patterns of JSON Schema, matched by RE2: none takes longer than in proportion to the text. Pure.

They are read as JSON Schema has it (ECMA-262, which is not what Python's own engine does): `\\d`, `\\w` and `\\b`
know ASCII only, `\\s` every kind of space, `.` no line break, and `$` is the end alone. What needs an engine that
tries again, such as lookahead, is refused in words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

_LONGEST_PATTERN: Final = 4_000
_MOST_BYTES: Final = 128 * 1024
_FEWEST_BYTES: Final = 1024
# Where a text keeps very many places of a pattern open at once, each of its bytes costs up to 8 ns for each step
# of the compiled pattern: under half a second in the worst case, and microseconds in all others.
_MOST_STEPS: Final = 50_000_000
_MEMORY_BYTES: Final = 4 * 1024 * 1024

_SPACE: Final = r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
_NO_SPACE: Final = (
    r"\x{0}-\x{8}\x{e}-\x{1f}!-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}"
    r"\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}"
)
_ANY: Final = r"[^\n\r\x{2028}\x{2029}]"
_AS_IT_IS: Final = frozenset("dDwWtnrfvxpPAz")
_HEX: Final = re.compile(r"u(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4}))")
_LIMITS: Final = re.compile(r"\{([0-9]+),([0-9]+)\}")
_LOW_HALF: Final = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")

# What follows "(?", what it is called, and what to write instead.
_GROUPS: Final = (
    ("=", "lookahead (?=", "write a second pattern, both under allOf"),
    ("!", "negative lookahead (?!", "write what is not allowed as a pattern under not"),
    ("<=", "lookbehind (?<=", "write the whole text into the pattern"),
    ("<!", "negative lookbehind (?<!", "write what is not allowed as a pattern under not"),
    (">", "an atomic group (?>", "write (?:"),
    ("(", "a condition (?(", "write the cases as patterns under anyOf"),
    ("P=", "a back-reference (?P=", "write what it may repeat as enum or anyOf"),
    ("P>", "a call of a group (?P>", "write the group out"),
    ("#", "a comment (?#", "remove it"),
)
_FLAGS: Final = re.compile(r"([A-Za-z-]+)[:)]")
_UNKNOWN_FLAG: Final = {"s": r"write [\s\S] for any character", "x": "write the pattern without spaces"}


class BadPattern(Exception):
    """The text says what is wrong with the pattern that was just shown, and what to write instead."""


class TooLong(Exception):
    """`text` is too long to be held against a pattern."""

    def __init__(self, text: str, size: int, longest: int) -> None:
        super().__init__(f"is too long for its pattern: {size} bytes, at most {longest}")
        self.text = text


@dataclass(frozen=True, slots=True)
class Pattern:
    """`longest`: how many bytes of UTF-8 it is matched against at most."""

    _engine: Any
    longest: int

    def is_in(self, text: str) -> bool:
        """Whether the pattern is found anywhere in `text`. Raises TooLong."""
        # Half a surrogate pair may stand in a JSON text; RE2 takes it for a character like others.
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > self.longest:
            raise TooLong(text, len(data), self.longest)
        return self._engine.search(data) is not None


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Pattern:
    """`pattern` ready to be matched. Raises BadPattern."""
    if len(pattern) > _LONGEST_PATTERN:
        raise BadPattern(f"is no pattern that can be used: longer than {_LONGEST_PATTERN} characters")
    translated = _translated(pattern)
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY_BYTES
    try:
        engine = re2.compile(translated.encode("utf-8", "surrogatepass"), options)
    except re2.error as error:
        raise BadPattern(_in_words(error.args[0])) from None
    steps = max(1, engine.programsize)
    return Pattern(engine, min(_MOST_BYTES, max(_FEWEST_BYTES, _MOST_STEPS // steps)))


def _impossible(what: str, instead: str) -> BadPattern:
    return BadPattern(f"has {what}, which patterns cannot have here; {instead}")


def _translated(pattern: str) -> str:
    """`pattern` in the syntax of RE2. Raises BadPattern for what RE2 cannot do or would read otherwise."""
    out: list[str] = []
    at, in_class = 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            piece, at = _escape(pattern, at + 1, in_class)
            out.append(piece)
            continue
        if in_class:
            in_class = char != "]"
            out.append(r"\[" if char == "[" else char)
        elif char == "[":
            opening = "[^" if pattern.startswith("[^", at) else "["
            if pattern.startswith("]", at + len(opening)):
                raise BadPattern(rf"has an empty {opening}]; write {opening}\]…] for the bracket itself")
            in_class = True
            out.append(opening)
            at += len(opening)
            continue
        elif char == ".":
            out.append(_ANY)
        else:
            if pattern.startswith("(?", at):
                _check_group(pattern, at + 2)
            out.append(char)
        at += 1
    return "".join(out)


def _check_group(pattern: str, at: int) -> None:
    for sign, what, instead in _GROUPS:
        if pattern.startswith(sign, at):
            raise _impossible(what, instead)
    flags = _FLAGS.match(pattern, at)
    for flag in flags[1] if flags is not None else "":
        if flag not in "im-":
            instead = _UNKNOWN_FLAG.get(flag, "only i and m are known")
            raise BadPattern(f"has the flag {flag}, which is not known; {instead}")


def _escape(pattern: str, at: int, in_class: bool) -> tuple[str, int]:
    """What stands for the escape whose letter is at `at`, and where the pattern goes on."""
    char = pattern[at : at + 1]
    after = at + 1
    if not char:
        raise BadPattern(r"ends with a single \; write \\ for the character itself")
    if char in "sS":
        if not in_class:
            return f"[{'^' * (char == 'S')}{_SPACE}]", after
        # A "-" that follows stands for itself, as it does after \s.
        dash = pattern.startswith("-", after) and not pattern.startswith("-]", after)
        return (_SPACE if char == "s" else _NO_SPACE) + r"\-" * dash, after + dash
    if char in "bB":
        return (r"\x{8}" if in_class and char == "b" else f"\\{char}"), after
    if char == "u":
        return _unicode(pattern, at)
    if char == "c":
        letter = pattern[after : after + 1]
        if not (letter.isascii() and letter.isalpha()):
            raise BadPattern(r"has \c without a letter; write \xHH for a control character")
        return rf"\x{{{ord(letter) % 32:x}}}", after + 1
    if char == "0" and not pattern[after : after + 1].isdigit():
        return r"\x{0}", after
    if char in "123456789" and not in_class:
        raise _impossible(f"a back-reference \\{char}", "write what it may repeat as enum or anyOf")
    if char.isdecimal():
        raise BadPattern(rf"has \{char}, which is not known; write \xHH for a character by its number")
    if char == "k":
        raise _impossible(r"a back-reference \k", "write what it may repeat as enum or anyOf")
    if char == "Z":
        raise BadPattern(r"has \Z, which is not known; write $ for the end")
    if char.isascii() and char.isalpha() and char not in _AS_IT_IS:
        raise BadPattern(rf"has \{char}, which is not known; write {char} for the letter itself")
    return (f"\\{char}" if char.isascii() else char), after


def _unicode(pattern: str, at: int) -> tuple[str, int]:
    r"""`\uXXXX`, two of them for one character, or `\u{X…}`."""
    match = _HEX.match(pattern, at)
    if match is None:
        raise BadPattern(r"has \u without a number; write four hexadecimal digits, such as \u00e9")
    code, after = int(match[1] or match[2], 16), match.end()
    if code > 0x10FFFF:
        raise BadPattern(rf"has \{match[0]}, which is no character; the greatest is \u{{10FFFF}}")
    low = _LOW_HALF.match(pattern, after)
    if match[2] is not None and 0xD800 <= code < 0xDC00 and low is not None:
        code = 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
        after = low.end()
    return rf"\x{{{code:x}}}", after


def _in_words(told: bytes) -> str:
    """What RE2 says of a pattern, for the person who wrote it."""
    kind, _, part = told.decode("utf-8", "replace").partition(": ")
    if kind == "missing )":
        return r"is no pattern: a ( has no ); write \( for the character itself"
    if kind == "unexpected )":
        return r"is no pattern: a ) has no (; write \) for the character itself"
    if kind == "missing ]":
        return r"is no pattern: a [ has no ]; write \[ for the character itself"
    if kind == "no argument for repetition operator":
        return rf"is no pattern: there is nothing before {part} to repeat; write \{part} for the character itself"
    if kind == "bad repetition operator" and part.endswith("+"):
        instead = f"write {part[:-1]}; nothing is ever tried again"
        return str(_impossible(f"a possessive {part}", instead))
    if kind == "bad repetition operator":
        return f"is no pattern: {part} repeats twice; remove one"
    if kind == "invalid repetition size":
        limits = _LIMITS.fullmatch(part)
        if limits is not None and int(limits[1]) > int(limits[2]):
            return f"is no pattern: {part} ends before it begins"
        return f"repeats {part}; all repetitions together are at most 1000, write maxLength for more"
    if kind == "invalid character class range" and part[:2] in (r"\p", r"\P"):
        return rf"has {part}, which is not known; write \p{{L}}, \p{{Lu}}, \p{{Nd}} or a script as in \p{{Greek}}"
    if kind == "invalid character class range":
        return f"is no pattern: {part} is not a range of characters"
    if kind == "invalid perl operator":
        return rf"is no pattern: {part} begins no group that is known; write (?: or \("
    if kind == "invalid named capture group":
        return f"is no pattern: {part} is no name of a group; write (?<name>…)"
    if kind.startswith("pattern too large"):
        return "is too large when its repetitions are written out; write maxLength for the length of the text"
    if kind == "nesting depth exceeded" or "nest" in kind:
        return "is no pattern that can be used: its groups are nested too deep"
    return f"is no pattern: {kind}{': ' * bool(part)}{part}"
