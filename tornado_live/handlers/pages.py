"""The browser pages: the files of one folder, served as they are."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from tornado.routing import URLSpec
from tornado.web import HTTPError, StaticFileHandler

from tornado_live.errors import LiveError
from tornado_live.handlers.door import DoorHandler, House, exception

# Not from the machine's own table, which on some calls JavaScript plain text: modules would not load.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".ico": "image/vnd.microsoft.icon",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".wav": "audio/wav",
    ".wasm": "application/wasm",
}


class PageHandler(DoorHandler, StaticFileHandler):
    """One file below `folder`; a folder's own path is its index.html. Hidden files do not exist."""

    public = True

    def initialize(self, house: House, folder: Path) -> None:  # type: ignore[override]  # Tornado's hook
        DoorHandler.initialize(self, house)
        StaticFileHandler.initialize(self, str(folder), default_filename="index.html")

    def parse_url_path(self, url_path: str) -> str:
        inside = self.house.paths.inside(f"/{url_path}")[1:]
        # A proxy may have taken the base path off, and a folder of ours may have its name.
        if inside != url_path and os.path.isfile(self.get_absolute_path(self.root, url_path)):
            inside = url_path
        return super().parse_url_path(inside)

    def redirect(self, url: str, permanent: bool = False, status: int | None = None) -> None:
        paths = self.house.paths
        super().redirect(paths.told + paths.inside(url), permanent, status)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        asked = Path(absolute_path)
        hidden = any(part.startswith(".") for part in asked.parts[len(Path(root).parts) :])
        if hidden or "\0" in absolute_path:  # which no file name can hold, and the system calls raise for
            raise HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        # What Tornado refuses lies outside the folder or is no file: nobody needs to know which.
        outside = status_code == 403 and isinstance(exception(kwargs), HTTPError)
        super().send_error(404 if outside else status_code, **kwargs)

    def get_content_type(self) -> str:
        assert self.absolute_path is not None, "Tornado sets it before the headers"
        return CONTENT_TYPES.get(Path(self.absolute_path).suffix.lower(), "application/octet-stream")

    def compute_etag(self) -> str:
        """Of what the file holds now: Tornado's own keeps the first hash for ever."""
        assert self.absolute_path is not None, "Tornado sets it before the headers"
        return f'"{self.get_content_version(self.absolute_path)}"'

    def set_extra_headers(self, path: str) -> None:
        # Kept, but asked about each time: an upgrade shows at once, and an unchanged file costs no body.
        self.set_header("Cache-Control", "no-cache")

    def write_failure(self, failure: LiveError, status: int) -> None:
        title = "There is no such page" if status == 404 else "This did not work"
        message = "The page you asked for does not exist." if status == 404 else failure.message
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        start = html.escape(f"{self.house.paths.told}/")
        self.write(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
            f'<p>{html.escape(message)}</p><p><a href="{start}">To the start page</a></p></html>\n'
        )


class StartHandler(DoorHandler):
    """The base path without its slash, from which the page would look for its files one folder too high."""

    public = True

    async def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.redirect(f"{self.house.paths.told}/")

    head = get


def routes(house: House, folder: Path) -> list[URLSpec]:
    """Takes every path, with the base path and without; to be put last."""
    served = house.paths.served
    start = [URLSpec(re.escape(served), StartHandler, {"house": house}, name="start")] if served else []
    page = URLSpec(r"/(.*)", PageHandler, {"house": house, "folder": folder.resolve()}, name="page")
    return [*start, page]
