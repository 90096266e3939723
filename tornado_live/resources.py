"""Where the configuration, pages, samples and articles are.

Three places, first found wins: the home directory (the operator's own files), the checkout that the package
is run from, and the copy that travels inside an installed package (`_files/`, made by setup.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PACKAGED = PACKAGE / "_files"


def checkout() -> Path | None:
    """The repository that this package is run from, or None for an installed package."""
    root = PACKAGE.parent
    return root if (root / "setup.py").is_file() and (root / "config").is_dir() else None


def roots(home: Path | None = None) -> tuple[Path, ...]:
    """The places to look in, best first, each absolute and only once."""
    places = (home, checkout(), PACKAGED)
    return tuple(dict.fromkeys(place.resolve() for place in places if place is not None))


def find(name: str, *, home: Path | None = None) -> Path | None:
    """The file or directory `name` (`tools.yaml`, `config/production.yaml`, `knowledge`), or None.

    Without `home` only our own files are found: a `static` directory that happens to be where the server
    was started is not ours to publish.
    """
    for root in roots(home):
        path = root / name
        if path.exists():
            return path
    return None


KEY_FILE = """\
# Without a key the built-in simulator answers. Take the # away and write yours, from aistudio.google.com/apikey:
# GEMINI_API_KEY=
"""


def give(home: Path) -> Iterator[tuple[str, bool]]:
    """Copies what operators edit into `home`, and a .env for the key: (name, whether it was written).

    What is there already, a folder included, is left as it is. Raises OSError.
    """
    for name in ("tools.yaml", "config/development.yaml", "knowledge"):
        target, source = home / name, require(name)
        if os.path.lexists(target):
            yield name, False
            continue
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=shutil.copyfile)
        else:
            _write(target, source.read_bytes(), 0o666)
        yield name, True
    written = not os.path.lexists(home / ".env")
    if written:
        _write(home / ".env", KEY_FILE.encode(), 0o600)  # a key is nobody else's business
    yield ".env", written


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def require(name: str, *, home: Path | None = None) -> Path:
    """As `find`, for what every installation has.

    Raises FileNotFoundError, which means a damaged installation.
    """
    path = find(name, home=home)
    if path is None:
        places = ", ".join(map(str, roots(home)))
        raise FileNotFoundError(f"{name} is in none of {places}; reinstall tornado-live")
    return path
