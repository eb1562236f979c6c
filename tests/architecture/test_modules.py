"""Rules for every module: what is public is used by others, and it stays small enough to read."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import broker
from broker import errors
from broker.cli.exits import CODES
from tests.support.sources import MODULES, PRODUCT, committed, imports, label, tree

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
IGNORED = "# type: " + "ignore"
MOST_IGNORED = 2
NO_MEANING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def public_names(file: Path) -> list[str] | None:
    for node in tree(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def bound(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module's body binds."""
    if isinstance(node, DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        yield from (
            name for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt) for name in bound(inner)
        )


def is_empty(file: Path) -> bool:
    """Return whether a module is only its docstring and its version: the `__init__` of a room."""
    body = tree(file).body
    return all(isinstance(n, ast.Expr) or "__version__" in bound(n) for n in body)


@cache
def with_code() -> list[Path]:
    return [file for file in PRODUCT if not is_empty(file)]


def test_types_are_learned_in_one_place() -> None:
    """msgspec may crash if two threads use a class first at the same time; `broker.typed` prevents it."""
    makes = {"msgspec.convert": 1, "msgspec.json.decode": 1, "msgspec.json.Decoder": 0}  # where the type is given
    calls = [
        (file, call, ast.unparse(call.func))
        for file in MODULES
        if label(file) != "broker/typed.py"
        for call in ast.walk(tree(file))
        if isinstance(call, ast.Call)
    ]
    typed = [
        (label(file), call.lineno, [*call.args[makes[name] :], *(k.value for k in call.keywords if k.arg == "type")])
        for file, call, name in calls
        if name in makes
    ]
    found = [(file, line) for file, line, kinds in typed if kinds and ast.unparse(kinds[0]) != "datetime"]
    assert not found


def test_packages_list_what_they_export() -> None:
    wrong = []
    for file in with_code():
        names = public_names(file)
        there = {name for node in tree(file).body for name in bound(node)}
        if file.name == "__init__.py":
            if names is None or len(names) != len(set(names)) or not set(names) <= there:
                wrong.append(f"{label(file)}: no __all__, a name twice, or a name that is not there")
        elif names is not None:
            wrong.append(f"{label(file)}: `__all__`, though the names without an underscore are public")
    assert not wrong


def test_public_functions_are_used_by_others() -> None:
    """A function that only its module uses begins with an underscore, so that what is public is small."""
    sources = [file for file in committed() if file.suffix == ".py"]
    words = {file: set(re.findall(r"\w+", file.read_text(encoding="utf-8"))) for file in sources}
    alone = [
        f"{label(file)}: {node.name}"
        for file in MODULES
        for node in tree(file).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and not (node.decorator_list and "cli" in file.parts)
        and not any(node.name in found for other, found in words.items() if other != file)
    ]
    assert not alone


def test_private_names_stay_in_their_module() -> None:
    ours = [(file, name) for file in with_code() for name in imports(file) if name.startswith("broker.")]
    last = [(file, name, name.rpartition(".")[2]) for file, name in ours]
    assert not [f"{label(f)}: {name}" for f, name, end in last if end.startswith("_") and not end.endswith("__")]


def test_modules_are_small_and_well_named() -> None:
    lines = {label(file): file.read_text(encoding="utf-8").count("\n") for file in PRODUCT}
    assert not {name: count for name, count in lines.items() if count > LONGEST_FILE}
    assert not [label(file) for file in PRODUCT if file.stem in NO_MEANING]


def test_functions_fit_on_a_screen() -> None:
    functions = [
        (file, node)
        for file in PRODUCT
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [
        f"{label(file)}: {f.name}" for file, f in functions if (f.end_lineno or 0) - f.lineno + 1 > LONGEST_FUNCTION
    ]


def test_types_are_ignored_twice_at_most() -> None:
    ignored = [
        f"{label(file)}: {line}" for file in PRODUCT for line in file.read_text().splitlines() if IGNORED in line
    ]
    assert len(ignored) <= MOST_IGNORED, ignored


def test_no_exception_is_dropped_in_silence() -> None:
    """`except …: pass` hides what happened; `contextlib.suppress` at least says which, in one line."""
    handlers = [(f, n) for f in PRODUCT for n in ast.walk(tree(f)) if isinstance(n, ast.ExceptHandler)]
    silent = [(f, h) for f, h in handlers if all(isinstance(statement, ast.Pass) for statement in h.body)]
    assert not [f"{label(file)}:{handler.lineno}" for file, handler in silent]


def every_error() -> set[type[errors.BrokerError]]:
    for module in pkgutil.walk_packages(broker.__path__, "broker."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, new = {errors.BrokerError}, {errors.BrokerError}
    while new := {sub for kind in new for sub in kind.__subclasses__()} - found:
        found |= new
    return found


def test_every_error_kind_has_an_exit_code() -> None:
    assert set(CODES) == set(errors.Kind)
    assert 0 not in CODES.values()


def test_errors_have_a_kind_and_end_in_error() -> None:
    for error in every_error():
        assert error.__name__.endswith("Error")
        assert error.__doc__, f"{error.__name__} does not say what it means"
        assert CODES[error.kind]
    unexpected = {e for e in every_error() if e.kind is errors.Kind.UNEXPECTED}
    assert unexpected == {errors.BrokerError}, "an error of ours derives from the kind that fits, not from the base"
