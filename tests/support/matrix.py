"""`tests/policies/matrix.toml`: what each role may do. Read by the tests of the policies and by the auditor."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["CONSUMER", "FILE", "WAYS", "Matrix", "Row"]

CONSUMER: Final = "consumer"  # who is no role
FILE: Final = Path(__file__).parents[1] / "policies" / "matrix.toml"
WAYS: Final[Mapping[str, tuple[str, str]]] = {  # way: (which of KV's paths, Vault's operation)
    "read": ("data", "read"),
    "create": ("data", "create"),
    "update": ("data", "update"),
    "versions": ("metadata", "read"),
    "destroy": ("destroy", "update"),
    "list": ("metadata", "list"),
    "list-versions": ("detailed-metadata", "list"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One path, and what each role may do on it: ways on a path of the mount, operations on any other."""

    path: str
    example: str
    mounted: bool
    roles: Mapping[str, frozenset[str]]

    def ways(self, role: str) -> frozenset[str]:
        """Return what `role` may do here."""
        return self.roles.get(role, frozenset()) | self.roles.get("everyone" if role != CONSUMER else "", frozenset())

    def rights(self, role: str, mount: str) -> Iterator[tuple[str, str]]:
        """Yield the same as (operation, path of Vault's API)."""
        for way in sorted(self.ways(role)):
            kind, operation = WAYS[way] if self.mounted else ("", way)
            yield operation, f"{mount}/{kind}/{self.path}" if self.mounted else self.path


@dataclass(frozen=True, slots=True)
class Matrix:
    """All rows."""

    rows: tuple[Row, ...]

    @classmethod
    def load(cls, file: Path = FILE) -> Matrix:
        """Read the table; raise `ValueError` for a way that there is not."""
        tables = tomllib.loads(file.read_text())
        if set(tables) != {"mount", "api"}:
            raise ValueError(f"{file.name} has tables {sorted(tables)}, and should have mount and api")
        return cls(
            tuple(_row(path, t, name == "mount") for name in ("mount", "api") for path, t in tables[name].items())
        )

    @property
    def roles(self) -> frozenset[str]:
        """Every role that is named."""
        return frozenset(role for row in self.rows for role in row.roles) - {"everyone"}

    def allows(self, role: str, operation: str, path: str, mount: str) -> bool:
        """Say whether `role` may do `operation` on `path`, a path of Vault's API, with a broker under `mount`."""
        return any(
            operation == allowed and _fits(pattern, path)
            for row in self.rows
            for allowed, pattern in row.rights(role, mount)
        )


def _row(path: str, table: Mapping[str, object], mounted: bool) -> Row:
    example = str(table.get("example", path))
    roles = {r: frozenset(map(str, w)) for r, w in table.items() if r != "example" and isinstance(w, list)}
    listings = {"list", "list-versions"}
    known = listings if path.endswith("/") else set(WAYS) - listings if mounted else {"read", "update"}
    if "+" in example or any(not ways <= known for ways in roles.values()) or not _fits(path, example):
        raise ValueError(f"the row {path!r} of the matrix says what it cannot mean")
    return Row(path, example, mounted, roles)


def _fits(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\+", "[^/]+"), path) is not None
