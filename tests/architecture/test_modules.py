"""What every module of broker/ has in common: its public names are said, and it stays small enough to read."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker
from broker import errors
from broker.cli.exits import CODES
from tests.support.sources import PRODUCT, imports, label, tree

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
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
    """Whether a module is no more than its docstring and its version: the `__init__` of a room."""
    body = tree(file).body
    return all(isinstance(n, ast.Expr) or "__version__" in bound(n) for n in body)


WITH_CODE = [file for file in PRODUCT if not is_empty(file)]


@pytest.mark.parametrize("file", WITH_CODE, ids=label)
def test_all_says_what_is_public(file: Path) -> None:
    names = public_names(file)
    assert names is not None, "it has no __all__"
    assert len(names) == len(set(names))
    there = {name for node in tree(file).body for name in bound(node)}
    assert set(names) <= there, "__all__ names what is not there"
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("file", WITH_CODE, ids=label)
def test_what_looks_public_is(file: Path) -> None:
    """A class or function is in `__all__` or begins with an underscore; what a decorator registers may be neither."""
    names = public_names(file) or []
    undecided = [
        node.name
        for node in tree(file).body
        if isinstance(node, DEFINITIONS)
        and not node.name.startswith("_")
        and node.name not in names
        and not (node.decorator_list and ("cli" in file.parts or file.stem == "__main__"))
    ]
    assert not undecided


@pytest.mark.parametrize("file", WITH_CODE, ids=label)
def test_private_names_stay_where_they_are(file: Path) -> None:
    ours = ((name, name.rpartition(".")[2]) for name in imports(file) if name.startswith("broker."))
    assert not [name for name, last in ours if last.startswith("_") and not last.endswith("__")]


@pytest.mark.parametrize("file", PRODUCT, ids=label)
def test_modules_are_small_and_named_for_what_is_in_them(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE
    assert file.stem not in NO_MEANING


@pytest.mark.parametrize("file", PRODUCT, ids=label)
def test_functions_fit_on_a_screen(file: Path) -> None:
    functions = (n for n in ast.walk(tree(file)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > LONGEST_FUNCTION]
    assert not long


@pytest.mark.parametrize("file", PRODUCT, ids=label)
def test_no_exception_is_dropped_in_silence(file: Path) -> None:
    """`except …: pass` hides what happened; `contextlib.suppress` at least says which, in one line."""
    handlers = (n for n in ast.walk(tree(file)) if isinstance(n, ast.ExceptHandler))
    assert not [h.lineno for h in handlers if all(isinstance(statement, ast.Pass) for statement in h.body)]


def every_error() -> set[type[errors.BrokerError]]:
    for module in pkgutil.walk_packages(broker.__path__, "broker."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, new = {errors.BrokerError}, {errors.BrokerError}
    while new := {sub for kind in new for sub in kind.__subclasses__()} - found:
        found |= new
    return found


def test_every_kind_of_error_has_an_exit_code() -> None:
    assert set(CODES) == set(errors.Kind)
    assert 0 not in CODES.values(), "an error is no success"


def test_every_error_is_of_a_kind_and_says_so_in_its_name() -> None:
    for error in every_error():
        assert error.__name__.endswith("Error")
        assert error.__doc__, f"{error.__name__} does not say what it means"
        assert CODES[error.kind]
    unexpected = {e for e in every_error() if e.kind is errors.Kind.UNEXPECTED}
    assert unexpected == {errors.BrokerError}, "an error of ours is derived from the kind that fits, not from the base"
