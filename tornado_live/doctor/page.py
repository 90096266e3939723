"""The table of causes as docs/troubleshooting.md shows it.

    python -m tornado_live.doctor.page docs/troubleshooting.md

writes it anew between its two marks; tests/test_causes.py holds the page against the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tornado_live.live.causes import CAUSES, Cause, Own, Retry, Seen, Status

BEGIN = "<!-- causes: made by python -m tornado_live.doctor.page -->"
END = "<!-- end of the causes -->"

_CHAPTERS = {
    (Retry.NEVER,): "Somebody has to mend something\n\nNothing is tried again; the client is told at once.",
    (
        Retry.LATER,
    ): "It passes, or has to be paid for\n\nThe client is told when to come back (`retryAfterMs`).",
    (Retry.RESUME, Retry.FRESH): (
        "The conversation goes on by itself\n\nThe client sees RECONNECTING at most. `resume` dials again "
        "with the model's own memory of the conversation, `fresh` without it, seeded with what was said. "
        "Only when that fails three times within a minute is the client told what stands here. Look into "
        "these when they are frequent."
    ),
}
_SENT = {
    "text": "a text",
    "history": "the memory",
    "audio": "sound",
    "video": "a picture",
    "tool_response": "a tool's answer",
    "activity": "a mark of who speaks",
}


def section() -> str:
    """Everything between the marks."""
    return "\n".join(_lines()).strip()


def _lines() -> Iterator[str]:
    for retries, chapter in _CHAPTERS.items():
        rows = [row for row in CAUSES if row.cause.retry in retries]
        both = len(retries) > 1
        yield f"### {chapter}\n"
        yield f"| cause |{' then |' if both else ''} seen | what it is, and what to do | known |"
        yield f"|---|{'---|' if both else ''}---|---|---|"
        for cause in dict.fromkeys(row.cause for row in rows):
            mine = [row for row in rows if row.cause == cause]
            seen = "<br>".join(dict.fromkeys(_seen(row.seen) for row in mine))
            known = ", ".join(dict.fromkeys(row.evidence for row in mine))
            then = f" {cause.retry.value} |" if both else ""
            yield f"| `{cause.name}` |{then} {seen} | {_told(cause)} | {known} |"
        yield ""


def _told(cause: Cause) -> str:
    what = cause.message.partition(";")[0].replace("{said}", "").replace(" (HTTP )", "").rstrip(".")
    return f"{what}. {cause.remedy}"


def _seen(seen: Seen | Status | Own) -> str:
    match seen:
        case Status(shown=shown):
            return shown
        case Own(words=words):
            return words
        case Seen():
            return " ".join(_words(seen))


def _words(seen: Seen) -> Iterator[str]:
    if seen.codes:
        yield _ranges(seen.codes)
    if seen.reason:
        yield f"{'such as ' if seen.pattern == '' else ''}“{seen.reason}”"
    elif not seen.codes:
        yield "anything else"
    if seen.opened is not None:
        yield "in conversation" if seen.opened else "while opening"
    if seen.resuming:
        yield "with a handle"
    if seen.sent:
        yield f"after {' or '.join(words for kind, words in _SENT.items() if kind in seen.sent)}"
    if seen.model is not None:
        yield str(seen.model.__doc__)


def _ranges(codes: tuple[int, ...]) -> str:
    """`1002, 1003, 3000 to 4999`."""
    starts = [codes[0], *(code for before, code in pairwise(codes) if code != before + 1)]
    ends = [*(before for before, code in pairwise(codes) if code != before + 1), codes[-1]]
    shown: list[str] = []
    for start, end in zip(starts, ends, strict=True):
        shown += [f"{start} to {end}"] if end - start > 3 else map(str, range(start, end + 1))
    return ", ".join(shown)


def written(page: str) -> str:
    """`page` with the table between its marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
