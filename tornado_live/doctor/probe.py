"""`tornado-live doctor --probe`: asks the real service what nobody could try without a key, within bounds.

It says before what it will take, stops at its bounds, keeps scrubbed recordings of every connection, and holds
what it saw against models.yaml. Nothing of it runs unasked.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tornado_live.doctor.line import INPUT_USD, OUTPUT_USD, Bench, Budget, Limits, Refused, Spent
from tornado_live.doctor.probes import PROBES, TEXTS, Finding, Probe, age, base_setup
from tornado_live.doctor.recording import Scrubber
from tornado_live.doctor.report import Report, explained
from tornado_live.errors import ConfigError, Problem
from tornado_live.live.upstream import GOOGLE
from tornado_live.observe.logs import Masker
from tornado_live.settings import Settings

MOST_MINUTES = 70.0
MOST_USD = 5.0
_MARGIN_S = 60.0


async def probe(
    settings: Settings,
    limits: Limits,
    say: Callable[[str], None],
    *,
    recordings: Path | None = None,
    pace: float = 1.0,
    probes: Sequence[Probe] = PROBES,
) -> int:
    """The exit code: 0 when the questions were asked, 1 when nothing opens. Raises ConfigError unasked.

    `recordings` is the directory for one file a connection, which has to be empty; None makes a new one in the
    data directory. `pace` divides what is waited for in vain. Broken off, it still tells what it has found.
    """
    key = _key(settings, limits)
    directory = _directory(recordings or settings.data_dir / time.strftime("probe-%Y%m%d-%H%M%S"))
    masker = Masker()
    masker.mask(key)
    report = Report(say, masker)
    assistant = settings.assistants["default"]
    facts = settings.models.of(assistant.model)
    began = time.monotonic()
    bench = Bench(
        base_url=settings.gemini_base_url or GOOGLE,
        key=key,
        version=settings.api_version,
        facts=facts,
        evidence=settings.models.evidence(assistant.model),
        budget=Budget(limits, began),
        scrubber=Scrubber(TEXTS, masker),
        ssl_context=ssl.create_default_context(),
        pace=pace,
    )
    _announce(report, bench, limits, probes, directory)
    try:
        async with bench.opened("first", base_setup(bench)):
            pass
    except Refused as refused:
        report.wrong("probe", f"{refused.words}: {explained(refused.cause)}")
        return 1
    except Spent as spent:
        report.wrong("probe", f"nothing could be asked: {spent}")
        return 1
    finally:
        _write(bench, directory)
    findings: list[tuple[str, Finding]] = []
    try:
        await _ask(bench, limits, probes, report, findings)
    finally:
        _write(bench, directory)
        _conclude(report, bench, findings)
        report.plain(
            f"It took {time.monotonic() - began:.0f} s and about ${bench.budget.spent_usd:.4f}; "
            f"{len(bench.recorded)} recordings are in {directory}, each for "
            "tornado-live simulate --recording FILE."
        )
    return 0


def _directory(path: Path) -> Path:
    """Made if it is not there; raises ConfigError where recordings would be lost or mixed with others."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = "is not empty; name a new directory" if any(path.iterdir()) else None
    except OSError as error:
        problem = f"cannot be used: {error.strerror or error}"
    if problem is not None:
        raise ConfigError([Problem("command line", None, f"--recordings {path}", problem)])
    return path


def _key(settings: Settings, limits: Limits) -> str:
    """The key to ask with; raises ConfigError where asking makes no sense."""
    mistakes = []
    if settings.vertex is not None:
        mistakes.append(Problem("command line", None, "--probe", "asks the Gemini API, not Vertex AI"))
    elif settings.upstream == "simulator" or settings.gemini_api_key is None:
        mistakes.append(
            Problem(
                "command line", None, "--probe", "asks the real service, so it needs GEMINI_API_KEY in .env"
            )
        )
    if not 0 < limits.minutes <= MOST_MINUTES:
        mistakes.append(
            Problem("command line", None, "--minutes", f"must be above 0, {MOST_MINUTES:g} at most")
        )
    if not 0 < limits.max_usd <= MOST_USD:
        mistakes.append(Problem("command line", None, "--max-usd", f"must be above 0, {MOST_USD:g} at most"))
    if mistakes:
        raise ConfigError(mistakes)
    assert settings.gemini_api_key is not None
    return settings.gemini_api_key.get_secret_value()


def _announce(report: Report, bench: Bench, limits: Limits, probes: Sequence[Probe], directory: Path) -> None:
    usd = sum(one.usd for one in probes)
    report.plain(
        f"Asks {bench.facts.path or bench.facts.name} at {bench.base_url} with your key: {len(probes)} questions, "
        f"at most {limits.minutes:g} minutes and ${_cents(limits.max_usd)}, by rough reckoning ${usd:.2f} "
        f"(${INPUT_USD * 1e6:g} a million tokens in, ${OUTPUT_USD * 1e6:g} out). Ctrl+C stops it."
    )
    report.plain(f"What goes over the wire is kept in {directory}, without key, sound and the model's words.")


def _cents(usd: float) -> str:
    return f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:g}"


async def _ask(
    bench: Bench,
    limits: Limits,
    probes: Sequence[Probe],
    report: Report,
    findings: list[tuple[str, Finding]],
) -> None:
    """Adds to `findings` what each probe found, with its name; those that do not fit into what is left say so."""
    if not bench.facts.converses:
        probes = [one for one in probes if not one.talks]
    waits = limits.minutes * 60 > bench.facts.connection_s + _MARGIN_S
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_one(bench, Probe("age", age, 0, 0.0))) if waits else None
        for one in probes:
            report.note("probe", one.name)
            findings += await _one(bench, one)
    if waiting is not None:
        findings += waiting.result()
        return
    minutes = (bench.facts.connection_s + 2 * _MARGIN_S) / 60
    why = f"not waited for: it needs --minutes {minutes:.0f}"
    findings.append(("age", Finding("connection_s", f"{bench.facts.connection_s:g}", why, "open")))


async def _one(bench: Bench, one: Probe) -> list[tuple[str, Finding]]:
    if not bench.budget.allows(one.seconds / bench.pace, one.usd, bench.now()):
        return [(one.name, Finding(one.name, "", "left out: not enough time or money left", "open"))]
    try:
        return [(one.name, finding) for finding in await one.ask(bench)]
    except (Spent, Refused, TimeoutError) as ended:
        why = f"broken off: {ended or 'no answer in time'}"
    except Exception as unforeseen:  # noqa: BLE001 - nobody knows what this service may send
        why = f"broken off by a message of a shape that is not known ({unforeseen!r})"
    return [(one.name, Finding(one.name, "", why, "open"))]


def _conclude(report: Report, bench: Bench, findings: Sequence[tuple[str, Finding]]) -> None:
    """The table: what was asked, what models.yaml says, what was seen, and what that means for it."""
    rows = [("", "fact", "models.yaml says", "seen")]
    rows += [(one.verdict, one.about, one.says or "-", one.seen) for _, one in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        report.plain(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + f"  {row[3]}"
        )
    unasked = bench.evidence.keys() - {one.about for _, one in findings}
    if unasked:
        report.plain(f"Nothing was seen of {', '.join(sorted(unasked))}.")
    refuted = sorted({one.about for _, one in findings if one.verdict == "refutes"})
    if refuted:
        report.plain(
            f"To be changed in config/models.yaml for {bench.facts.name}: {', '.join(refuted)}. "
            "Please report it with the recordings."
        )


def _write(bench: Bench, directory: Path) -> None:
    for name, recorder in bench.recorded.items():
        recorder.write(directory / f"{name}.jsonl")
