"""Reading a table that somebody wrote by hand: every mistake names the file, the key, and the way to hint it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final, TypeVar, cast

from broker.errors import InputError
from broker.model.duration import parse_duration

__all__ = ["UNKNOWN", "Fields"]

UNKNOWN: Final = "unknown"  # said of what the partner has not published
_LONGEST: Final = 4000  # characters of one text
_KINDS: Final = {str: "text", bool: "true or false", int: "a whole number", list: "a list", dict: "a table"}
T = TypeVar("T")


class Fields:
    """One table, as read. Each getter takes its key; `done` complains of those that nobody took."""

    def __init__(self, source: str, table: Mapping[str, object], path: str = "") -> None:
        self._source = source
        self._table = table
        self._path = path
        self._asked: set[str] = set()

    def text(self, key: str, default: str | None = None, *, lines: bool = False) -> str:
        """Return a text without control characters; with `lines`, line breaks and tabs are allowed."""
        value = self._take(key, str, default)
        if len(value) > _LONGEST:
            raise self.wrong(key, f"has {len(value)} characters", f"{_LONGEST} are the most")
        if any(not (c.isprintable() or (lines and c in "\n\t")) for c in value):
            raise self.wrong(key, "has a control character", "write plain text")
        return value

    def known(self, key: str, read: Callable[[str], T]) -> T | None:
        """Return the text under `key` as `read` reads it, or None where it is absent or says unknown."""
        value = self.text(key, UNKNOWN)
        return None if value == UNKNOWN else self.said(key, lambda: read(value))

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        return self._take(key, bool, default)

    def number(self, key: str, default: int | None = None) -> int:
        """Return a whole number."""
        return self._take(key, int, default)

    def duration(self, key: str, default: timedelta) -> timedelta:
        """Return a duration written as `30d 10h`."""
        return default if key not in self._table else self.said(key, lambda: parse_duration(self.text(key)))

    def share(self, key: str, default: float) -> float:
        """Return a part of one, written as `66%` or 0.66."""
        if key not in self._table:
            return default
        raw = self._table[key]
        self._asked.add(key)
        if isinstance(raw, str) and raw.endswith("%") and raw[:-1].isascii() and raw[:-1].isdigit():
            raw = int(raw[:-1]) / 100
        if isinstance(raw, bool) or not isinstance(raw, float) or not 0 < raw < 1:
            raise self.wrong(key, "is not a share", "write a percentage between 1% and 99%")
        return raw

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        """Return one of the words in `allowed`."""
        value, words = self.text(key, default), tuple(allowed)
        if value not in words:
            raise self.wrong(key, f"is {value[:60]!r}", f"{_guess(value, words)}use one of {', '.join(words)}")
        return value

    def texts(self, key: str, allowed: Iterable[str] = ()) -> tuple[str, ...]:
        """Return a list of texts, each at most once, each in `allowed` where that is given."""
        values, words = cast("list[object]", self._take(key, list, [])), tuple(allowed)
        for value in values:
            if not isinstance(value, str) or not value.isprintable():
                raise self.wrong(key, "holds something other than plain text", "quote every item")
            if words and value not in words:
                raise self.wrong(key, f"holds {value[:60]!r}", f"{_guess(value, words)}use {', '.join(words)}")
        if len(set(values)) != len(values):
            raise self.wrong(key, "says something twice", "say it once")
        return tuple(cast("list[str]", values))

    def numbers(self, key: str, default: Iterable[int]) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        values = cast("list[object]", self._take(key, list, list(default)))
        if any(isinstance(v, bool) or not isinstance(v, int) for v in values):
            raise self.wrong(key, "holds something other than whole numbers", "write them as [200, 204]")
        return tuple(cast("list[int]", values))

    def table(self, key: str) -> Fields:
        """Return the table under `key`, an empty one where there is none."""
        return Fields(self._source, self._take(key, dict, {}), self._at(key))

    def tables(self, key: str) -> Iterator[Fields]:
        """Yield the tables of the list under `key`."""
        for index, row in enumerate(cast("list[object]", self._take(key, list, []))):
            if not isinstance(row, dict):
                raise self.wrong(key, "holds something other than tables", f"write [[{self._at(key)}]]")
            yield Fields(self._source, row, f"{self._at(key)}[{index}]")

    def names(self) -> tuple[str, ...]:
        """Return the keys that are there, of a table whose keys are names."""
        return tuple(self._table)

    def done(self) -> None:
        """Raise `InputError` for the first key that means nothing here."""
        for key in self._table:
            if key not in self._asked:
                words = sorted(self._asked)
                raise InputError(
                    f"{self._source}: {self._at(key)[:120]} is not a setting",
                    hint=f"{_guess(key, words)}{self._path or 'a profile'} may have {', '.join(words) or 'none'}",
                )

    def said(self, key: str, read: Callable[[], T]) -> T:
        """Return what `read` returns; an `InputError` of its own is told with file and key."""
        try:
            return read()
        except InputError as error:
            raise InputError(f"{self._source}: {self._at(key)}: {error.message}", hint=error.hint) from None

    def wrong(self, key: str, what: str, hint: str) -> InputError:
        """Return the error for the value under `key`."""
        return InputError(f"{self._source}: {self._at(key)} {what}", hint=hint)

    def _take(self, key: str, kind: type[T], default: T | None) -> T:
        self._asked.add(key)
        value = self._table.get(key, default)
        if value is None:
            raise InputError(f"{self._source}: {self._at(key)} is missing", hint=f"it must be {_KINDS[kind]}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(key, f"is not {_KINDS[kind]}", f"it must be {_KINDS[kind]}")
        return value

    def _at(self, key: str) -> str:
        name = "".join(c if c.isprintable() else "?" for c in key)
        return f"{self._path}.{name}" if self._path else name


def _guess(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {near[0]}? " if near else ""
