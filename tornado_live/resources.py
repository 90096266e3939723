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


SCHEMA = PACKAGE / "tools" / "tools.schema.json"
_NAMED_IN_CHECKOUT = b"$schema=./tornado_live/tools/tools.schema.json"
_NAMED_AT_HOME = b"$schema=./tools.schema.json"
KEY_FILE = """\
# Without a key the built-in simulator answers. Take the # away and write yours, from aistudio.google.com/apikey:
# GEMINI_API_KEY=
"""


def give(home: Path) -> Iterator[tuple[str, bool]]:
    """Copies what operators edit into `home`, and a .env for the key: (name, whether it was written).

    What is there already, a folder included, is left as it is, but for the schema by which editors complete
    tools.yaml: that one is ours, and of this version. Raises OSError.
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
            _write(target, source.read_bytes().replace(_NAMED_IN_CHECKOUT, _NAMED_AT_HOME), 0o666)
        yield name, True
    if _names_the_schema(home / "tools.yaml") and not _is_same(home / SCHEMA.name, SCHEMA):
        _write(home / SCHEMA.name, SCHEMA.read_bytes(), 0o666, anew=True)
        yield SCHEMA.name, True
    written = not os.path.lexists(home / ".env")
    if written:
        _write(home / ".env", KEY_FILE.encode(), 0o600)  # a key is nobody else's business
    yield ".env", written


def _names_the_schema(tools: Path) -> bool:
    try:
        return _NAMED_AT_HOME in tools.read_bytes()
    except OSError:
        return False


def _is_same(path: Path, original: Path) -> bool:
    return path.is_file() and path.read_bytes() == original.read_bytes()


def _write(path: Path, content: bytes, mode: int, *, anew: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_EXCL)
    with open(os.open(path, flags, mode), "wb") as file:
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
