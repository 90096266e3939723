"""The packages that run beside this one: pinned, hashed, licensed, without known holes, and as they came.

It asks nobody: it reads setup.py, requirements/ and what is installed. `make audit` prints what is wrong.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

# Which of setup.py's lists are resolved in which file.
RESOLVED = {
    "runtime": ("DEPENDENCIES",),
    "voice": ("DEPENDENCIES", "VOICE"),
    "dev": ("DEPENDENCIES", "POSTGRES", "TESTING", "DEV"),
}
# What may lack on a machine for which there are no wheels; all of it, or nothing.
OPTIONAL = "voice"

_ENTRY = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;([^\\\n]*))?")
_HASH = re.compile(r"--hash=(\S+)")


@dataclass(frozen=True, slots=True)
class Pin:
    name: str
    version: str
    marker: str
    hashes: Sequence[str]

    @property
    def wanted(self) -> bool:
        """On this machine."""
        marker = Requirement(f"{self.name}; {self.marker}").marker if self.marker else None
        return marker is None or marker.evaluate()


def pins(text: str) -> Iterator[Pin | str]:
    """Of a requirements file: each entry, or the line that is none."""
    text = re.sub(r"^\s*#.*\n|\s+#.*$", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        found = _ENTRY.match(line)
        if found is None:
            yield line.strip()
        else:
            name, version, marker = found.groups()
            marker = (marker or "").partition("--hash")[0].strip()
            yield Pin(canonicalize_name(name), version, marker, _HASH.findall(line))


def lists(setup: str) -> Mapping[str, Sequence[str]]:
    """The lists of requirements at the top of setup.py, which is not run for it."""
    found: dict[str, Sequence[str]] = {}
    for node in ast.parse(setup).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper() and name not in ("ROOT", "FILES"):
                code = compile(ast.Expression(node.value), "setup.py", "eval")
                found[name] = eval(code, {"__builtins__": {}}, dict(found))
    return found


@dataclass(frozen=True, slots=True)
class Licences:
    allowed: frozenset[str]
    written: Mapping[str, str]
    packages: Mapping[str, Mapping[str, str]]

    def of(self, package: Distribution) -> str:
        """As an expression where one can be made of what the package says."""
        expression = package.metadata.get("License-Expression")
        if expression:
            return str(expression)
        text = (package.metadata.get("License") or "").strip()
        if text and len(text) < 100:
            return self.written.get(text, text)
        classifiers = package.metadata.get_all("Classifier") or []
        names = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License :: ")]
        return " OR ".join(self.written.get(name, name) for name in names)

    def allows(self, expression: str) -> bool:
        """AND binds more than OR; what cannot be read is not allowed."""
        inner = re.compile(r"\(([^()]*)\)")
        while found := inner.search(expression):
            made = "MIT" if self.allows(found[1]) else "not-allowed"
            expression = f"{expression[: found.start()]}{made}{expression[found.end() :]}"
        return any(
            all(part.strip() in self.allowed for part in choice.split(" AND "))
            for choice in expression.split(" OR ")
        )


def complaints(root: Path, installed: Mapping[str, Distribution], *, files_too: bool = True) -> Iterator[str]:
    """What is wrong, one line each. `installed` by canonical name, their files left out without `files_too`."""
    texts = {path.stem: path for path in sorted((root / "requirements").glob("*.txt"))}
    pinned: dict[str, dict[str, Pin]] = {}
    for stem, path in texts.items():
        pinned[stem] = {}
        for pin in pins(path.read_text(encoding="utf-8")):
            if isinstance(pin, str):
                yield f"{path.name}: {pin[:60]!r} is no pin, such as name==1.2.3 with its hashes"
                continue
            pinned[stem][pin.name] = pin
            if not pin.hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in pin.hashes):
                yield f"{path.name}: {pin.name} has no sha256 hash"
    lock = root / "tests/guests/programs/package-lock.json"
    for name, one in json.loads(lock.read_text(encoding="utf-8"))["packages"].items():
        if name and not one.get("integrity", "").startswith("sha512-"):
            yield f"{lock.name}: {name} has no sha512 hash"
    yield from _disagreeing(pinned)
    declared = lists((root / "setup.py").read_text(encoding="utf-8"))
    yield from _not_resolved(declared, pinned)
    yield from _too_old(_read(root / "requirements/floors.yaml"), pinned)
    known = _read(root / "requirements/licences.yaml")
    licences = Licences(frozenset(known["allowed"]), known["written"], known["packages"])
    runs = {**pinned["runtime"], **pinned[OPTIONAL]}
    if not any(name in installed for name in set(pinned[OPTIONAL]) - set(pinned["runtime"])):
        runs = pinned["runtime"]
    extras = {canonicalize_name(Requirement(line).name) for line in declared["POSTGRES"]}
    yield from _not_as_pinned(runs, installed)
    yield from _not_pinned(declared["DEPENDENCIES"], pinned["runtime"], installed)
    audited = {
        name: installed[name] for name in sorted({*runs, *extras, "psycopg-binary"}) if name in installed
    }
    for name, package in audited.items():
        yield from _wrong_licence(name, package, licences)
        if files_too:
            yield from _changed(name, package)


def wheel_complaints(requires: Sequence[str], root: Path = ROOT) -> Iterator[str]:
    """`requires` are the Requires-Dist lines of a built package."""
    declared = lists((root / "setup.py").read_text(encoding="utf-8"))
    wanted = {_plain(line) for line in declared["DEPENDENCIES"]}
    got = {_plain(line) for line in requires if "extra ==" not in line}
    for line in sorted(wanted - got):
        yield f"the wheel does not require {line}, which setup.py does"
    for line in sorted(got - wanted):
        yield f"the wheel requires {line}, which setup.py does not"


def _plain(line: str) -> str:
    requirement = Requirement(line)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _disagreeing(pinned: Mapping[str, Mapping[str, Pin]]) -> Iterator[str]:
    for name in sorted({name for one in pinned.values() for name in one}):
        versions = {stem: one[name].version for stem, one in pinned.items() if name in one}
        if len(set(versions.values())) > 1:
            shown = ", ".join(f"{version} in {stem}.txt" for stem, version in versions.items())
            yield f"{name} is pinned differently: {shown}"


def _not_resolved(
    declared: Mapping[str, Sequence[str]], pinned: Mapping[str, Mapping[str, Pin]]
) -> Iterator[str]:
    for stem, names in RESOLVED.items():
        for line in dict.fromkeys(line for name in names for line in declared[name]):
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            pin = pinned[stem].get(name)
            if not re.fullmatch(r"==[^,*]+", str(requirement.specifier)):
                yield f"setup.py: {line} is no pin"
            elif pin is None:
                yield f"{stem}.txt does not pin {name}, which setup.py requires; run make requirements"
            elif pin.version != str(requirement.specifier).removeprefix("=="):
                yield f"{stem}.txt pins {name} {pin.version}, and setup.py requires {requirement.specifier}"


def _too_old(floors: Any, pinned: Mapping[str, Mapping[str, Pin]]) -> Iterator[str]:
    for name, row in floors["floors"].items():
        found = [(stem, one[name]) for stem, one in pinned.items() if name in one]
        if not found:
            yield f"floors.yaml: {name} is pinned nowhere; remove its line"
        for stem, pin in found:
            if Version(pin.version) < Version(str(row["floor"])):
                yield f"{stem}.txt: {name} {pin.version} is below {row['floor']} ({row['for']}, {row['source']})"


def _not_as_pinned(runs: Mapping[str, Pin], installed: Mapping[str, Distribution]) -> Iterator[str]:
    for name, pin in runs.items():
        if not pin.wanted:
            continue
        if name not in installed:
            yield f"{name} {pin.version} is pinned and not installed; run make"
        elif installed[name].version != pin.version:
            yield f"{name} {installed[name].version} is installed and {pin.version} is pinned; run make"


def _not_pinned(
    lines: Sequence[str], pinned: Mapping[str, Pin], installed: Mapping[str, Distribution]
) -> Iterator[str]:
    """What the runtime packages bring along by what they say themselves, and runtime.txt does not have."""
    waiting = [Requirement(line) for line in lines]
    seen: set[tuple[str, frozenset[str]]] = set()
    missing: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add((name, extras))
        if name not in pinned and name not in missing:
            missing.add(name)
            yield f"runtime.txt does not pin {name}, which an installed package requires"
        for line in (installed[name].requires or []) if name in installed else []:
            inner = Requirement(line)
            wanted = inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            )
            if wanted:
                inner.marker = None
                waiting.append(inner)


def _wrong_licence(name: str, package: Distribution, licences: Licences) -> Iterator[str]:
    expression = licences.of(package)
    by_name = licences.packages.get(name)
    if by_name is not None:
        if by_name["licence"] != expression:
            yield f"{name}: its licence is {expression!r} now; licences.yaml allows {by_name['licence']!r}"
    elif not licences.allows(expression):
        yield f"{name}: the licence {expression or 'that it does not tell'!r} is not in licences.yaml"


def _changed(name: str, package: Distribution) -> Iterator[str]:
    """Files that are no more what the wheel brought, by its own record."""
    for file in package.files or []:
        if file.hash is None or file.hash.mode != "sha256":
            continue
        path = Path(str(package.locate_file(file)))
        try:
            digest = hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            yield f"{name}: {file} is gone; install it anew"
            return
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            yield f"{name}: {file} is not what was installed; install it anew"


def here() -> Mapping[str, Distribution]:
    return {canonicalize_name(one.metadata["Name"]): one for one in distributions()}


def main() -> int:
    found = list(complaints(ROOT, here()))
    for line in found:
        sys.stdout.write(f"{line}\n")
    if not found:
        runtime = [
            pin for pin in pins((ROOT / "requirements/runtime.txt").read_text()) if isinstance(pin, Pin)
        ]
        floors = _read(ROOT / "requirements/floors.yaml")
        sys.stdout.write(
            f"{len(runtime)} runtime packages are pinned, as they came, and of licences that are allowed;"
            f" {len(floors['floors'])} floors hold, read on {floors['read_on']}\n"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
