"""Which test proves which threat (T…) or fault (F…): read from the `proves` marks, printed by `make proofs`."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parent
NUMBER = re.compile(r"[FT][1-9]\d?")


def marked(node: ast.AST) -> Iterator[str]:
    """The numbers of every `pytest.mark.proves(…)` in a decorator or an assignment."""
    for call in ast.walk(node):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == "proves"
            and isinstance(call.func.value, ast.Attribute)
            and call.func.value.attr == "mark"
        ):
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not NUMBER.fullmatch(str(argument.value)):
                    raise ValueError(f"line {call.lineno}: proves takes numbers such as F10 or T14")
                yield str(argument.value)


def proofs_of(path: Path) -> Iterator[tuple[str, str]]:
    """Number and name of each test of a file that proves something."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for number in sorted({number for mark in node.decorator_list for number in marked(mark)}):
                yield number, node.name


def proofs(tests: Path = TESTS) -> Mapping[str, list[str]]:
    """For each number the tests that prove it, as pytest names them from the checkout's top."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(tests.rglob("test_*.py")):
        for number, name in proofs_of(path):
            found[number].append(f"{path.relative_to(tests.parent).as_posix()}::{name}")
    return found


def order(number: str) -> tuple[str, int]:
    return number[0], int(number[1:])


def main() -> int:
    found = proofs()
    for number in sorted(found, key=order):
        for at, test in enumerate(found[number]):
            sys.stdout.write(f"{number if not at else '':4} {test}\n")
    sys.stdout.write(f"{len(found)} numbers, {sum(map(len, found.values()))} proofs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
