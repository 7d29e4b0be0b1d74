"""Which small faults in a module do its tests not notice?

    python tests/mutate.py trafficcast/stores/registry.py tests/stores/test_registry.py [--sample 40 --seed 1]

The script makes one mutation of the module at a time and runs the given tests on each. It prints the mutations that
survive, and exits with 1 if there is any. A mutation

- shifts a comparison (< and <=, > and >=) or inverts it (== and !=, is and is not, in and not in),
- exchanges + and -, `and` and `or`, min and max (also as methods and in numpy: minimum and maximum),
- removes a `not` or negates the condition of an `if`,
- adds 1 to a number or replaces it by 0.

The mutated module lies in a temporary copy of its package, which comes first on PYTHONPATH: the working tree is only
read. Functions of numba run as plain Python, so that none comes from a cache. A survivor is a gap in the tests or a
mutation that changes no behaviour, and only a reader can tell which.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class _Mutant:
    """A mutation: the line of the module, the statement before and after, and the whole source after."""

    line: int
    before: str
    after: str
    source: str


def _edits(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the mutations of one node, each as an attribute and its new value."""
    match node:
        case ast.Compare(ops=operators):
            for i, operator in enumerate(operators):
                yield "ops", [*operators[:i], _OPERATORS[type(operator)](), *operators[i + 1 :]]
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) | ast.BoolOp(op=operator):
            if type(operator) in _OPERATORS:
                yield "op", _OPERATORS[type(operator)]()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "operand", ast.UnaryOp(ast.Not(), operand)  # `not not x` stands for x
        case ast.If(test=condition) | ast.IfExp(test=condition):
            # A single comparison that is inverted is negated already.
            shifted = isinstance(condition, ast.Compare) and isinstance(
                condition.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE
            )
            if shifted or not isinstance(condition, ast.Compare):
                yield "test", ast.UnaryOp(ast.Not(), condition)
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            yield "value", number + 1
            if number:
                yield "value", 0
        case ast.Name(id=name) if name in _NAMES:
            yield "id", _NAMES[name]
        case ast.Attribute(attr=name) if name in _NAMES:
            yield "attr", _NAMES[name]


def mutants(source: str) -> list[_Mutant]:
    """Return all mutations of a module that differ, in the order of its lines."""
    tree = ast.parse(source)
    original = ast.unparse(tree)  # one line a statement, so that a mutation changes one line
    found: dict[str, _Mutant] = {}
    for node in ast.walk(tree):
        for name, value in _edits(node):
            kept = copy.copy(getattr(node, name))
            setattr(node, name, value)
            mutated = ast.unparse(tree)
            setattr(node, name, kept)
            for before, after in zip(original.splitlines(), mutated.splitlines(), strict=True):
                if before != after:
                    found.setdefault(mutated, _Mutant(node.lineno, before.strip(), after.strip(), mutated))
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _passes(folder: Path, tests: list[str], limit: float | None = None) -> bool:
    """Tell whether the tests pass with the package in this folder, within a limit in seconds."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_DISABLE_JIT": "1",
    }
    # -P keeps the working directory from coming before PYTHONPATH.
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, f"--basetemp={folder / 'tests'}", *tests],
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Mutate a module and print the mutations that its tests do not notice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, help="the module's file, from the repository's root")
    parser.add_argument("tests", nargs="+", help="test files, or other arguments of pytest")
    parser.add_argument("--sample", type=int, help="try only so many of the mutations, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    arguments, more = parser.parse_known_args()
    chosen = mutants(arguments.module.read_text(encoding="utf-8"))
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = sorted(random.Random(arguments.seed).sample(chosen, arguments.sample), key=lambda m: m.line)
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder, tests = Path(name), [*arguments.tests, *more]
        package = arguments.module.parts[0]
        shutil.copytree(package, folder / package, ignore=shutil.ignore_patterns("*.nbi", "*.nbc"))
        started = time.monotonic()
        if not _passes(folder, tests):
            sys.exit("the tests fail without any mutation")
        limit = 10 + 3 * (time.monotonic() - started)
        survived = 0
        for mutant in chosen:
            (folder / arguments.module).write_text(mutant.source, encoding="utf-8")
            if _passes(folder, tests, limit):
                survived += 1
                print(f"{arguments.module}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
    print(f"{len(chosen)} mutations, {survived} survived")
    sys.exit(survived > 0)


if __name__ == "__main__":
    main()
