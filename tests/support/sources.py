"""The project's own files, read as text: for tests that judge how it is written."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["BROKER", "MODULES", "PRODUCT", "ROOT", "STANDIN", "committed", "imports", "label", "room", "tree"]

ROOT = Path(__file__).parents[2]
BROKER = ROOT / "broker"
STANDIN = ROOT / "standin" / "partner_standin"
MODULES = sorted(BROKER.rglob("*.py"))
PRODUCT = [*MODULES, *sorted((ROOT / "standin").rglob("*.py"))]


def label(file: Path) -> str:
    """Return a file's name as a test's id."""
    return str(file.relative_to(ROOT))


def room(file: Path) -> str:
    """Return the room a module of `broker/` stands in: "model", "cli", or "__init__" for the package itself."""
    return file.relative_to(BROKER).parts[0].removesuffix(".py")


@cache
def tree(file: Path) -> ast.Module:
    """Return a module's syntax."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imports(file: Path) -> Iterator[str]:
    """Yield the full name of all that a module imports, wherever in it: `from a import b` gives "a.b"."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


@cache
def committed() -> list[Path]:
    """Return the files that a commit of everything would hold; all but hidden ones without Git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        seen = (f for f in ROOT.rglob("*") if f.is_file())
        return [f for f in seen if not any(part.startswith(".") for part in f.relative_to(ROOT).parts)]
    files = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [file for file in files if file.is_file()]
