"""The tools of a server: loaded as its settings say, watched, and every reload told to the log."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.observe.logs import Masker, log_event
from tornado_live.settings import Settings
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.watching import Reloaded, ToolFiles, WatchedCatalog, exposed

_log = logging.getLogger("tornado_live")


def watch_tools(
    settings: Settings, masker: Masker, *, counted: Callable[[bool], None], warn: Callable[[str], None]
) -> WatchedCatalog:
    """The tools now, and from `start` on whatever the files become.

    `counted` hears whether a reload was taken, `warn` once of each mistake that keeps the old set. Raises
    ConfigError for files that cannot be used now.
    """
    path = settings.tools_file or settings.home / "tools.yaml"
    files = ToolFiles(path, home=settings.home)
    seen = files.stamps()  # before they are loaded, so that no edit goes unseen
    if path not in seen:
        message = "There is no tools.yaml; the model has no tools."
        log_event(_log, "no_tools", level=logging.WARNING, message=message)
    for line in exposed(seen):
        log_event(_log, "tools_file_exposed", level=logging.WARNING, message=line)
    first = load_tools(settings, path, settings.environment) if path in seen else ToolCatalog.EMPTY
    _hide(masker, first)
    _tell_left_out(first)

    def load() -> ToolCatalog:
        started = time.monotonic()
        importlib.invalidate_caches()  # a module may have been saved together with the file
        catalog = load_tools(settings, path, settings.environment_now())
        _hide(masker, catalog)
        took_ms = round((time.monotonic() - started) * 1000)
        log_event(_log, "tools_loaded", level=logging.DEBUG, tools=len(catalog.tools), took_ms=took_ms)
        return catalog

    def told(news: Reloaded) -> None:
        counted(news.error is None)
        if news.error is None:
            before, now = set(watched.current.tools), set(news.catalog.tools)
            changes = {"added": sorted(now - before), "removed": sorted(before - now)}
            log_event(_log, "tools_reloaded", changes, tools=len(now))
            _tell_left_out(news.catalog)
        elif news.is_news:
            problems = news.cause.problems if isinstance(news.cause, ConfigError) else ()
            unforeseen = None if isinstance(news.cause, ConfigError) else news.cause
            log_event(
                _log,
                "tools_reload_failed",
                level=logging.ERROR,
                error=unforeseen,
                message=f"The tools stay as they were. {news.error}",
                mistakes=[str(problem) for problem in problems],
            )
            where = problems[0].file if problems else path.name
            warn(f"{where} has a mistake; the tools stay as they were. {news.error}")

    watched = WatchedCatalog(first, files, seen, load, told)
    return watched


def load_tools(settings: Settings, path: Path, environment: Mapping[str, str]) -> ToolCatalog:
    """Raises ConfigError, also for a tool that an assistant names and that is not there."""
    catalog = load_catalog(
        path,
        home=settings.home,
        data_dir=settings.data_dir,
        environment=environment,
        handler_prefixes=settings.handler_prefixes,
    )
    if problems := toolset_problems(settings, catalog):
        raise ConfigError(problems)
    return catalog


def toolset_problems(settings: Settings, catalog: ToolCatalog) -> list[Problem]:
    """Tools and toolsets that an assistant names and that do not exist."""
    problems: list[Problem] = []
    known = {*catalog.tools, *catalog.toolsets}
    left_out = {problem.path.partition(".")[0] for problem in catalog.left_out}
    for assistant in settings.assistants.values():
        path = f"assistants.{assistant.name}.toolset"
        for name in assistant.toolset or ():
            if name not in known | left_out:
                message = f'there is no tool "{name}" in tools.yaml{nearest(name, known)}'
                problems.append(settings.sources[path].problem(message))
    return problems


def _hide(masker: Masker, catalog: ToolCatalog) -> None:
    for secret in catalog.secrets:
        masker.mask(secret)


def _tell_left_out(catalog: ToolCatalog) -> None:
    for problem in catalog.left_out:
        log_event(_log, "tool_left_out", level=logging.ERROR, message=str(problem))
