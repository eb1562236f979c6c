"""Convert tables written by people into values, with msgspec. Every error names the key and has a hint."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from functools import partial
from inspect import signature
from typing import Any, Final, TypeVar

import msgspec

from broker.errors import InputError
from broker.model.names import guess
from broker.model.setting import SettingError
from broker.typed import typed

T = TypeVar("T")

_LONGEST: Final = 4000  # characters of one text
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`", re.ASCII)
_WRONG: Final = re.compile(r"Expected `(\w+)(?:[^$]* - at `\$\.([^\[`]*)(\[)?)?", re.ASCII)
_KINDS: Final = {
    "str": "plain text",
    "bool": "true or false",
    "int": "a whole number",
    "array": "a list",
    "object": "a table",
}


def converted(table: object, kind: type[T], readers: Mapping[str, Callable[[Any], object]] | None = None) -> T:
    """Return `table` as the struct `kind`. Raise `SettingError` for the first mistake, its key within the table.

    `readers` read the values that are written as text, by key.
    """
    if not isinstance(table, Mapping):
        raise SettingError("", "is not a table", "it must be a table")
    require_known(table, signature(kind).parameters)
    known = readers or {}
    values = {key: read(key, known[key], value) if key in known else value for key, value in table.items()}
    try:
        return typed(values, kind, builtin_types=(timedelta,))
    except msgspec.ValidationError as error:
        raise _explained(error) from None


def read(key: str, reader: Callable[[Any], T], value: object) -> T:
    """Return `reader(value)`; report its error under `key`."""
    try:
        return reader(value)
    except SettingError as error:
        raise error.below(key) from None
    except InputError as error:
        raise SettingError(key, f"cannot be used: {error.message}", error.hint) from None


def text(value: object) -> str:
    """Return `value` if it is text; raise `SettingError`."""
    if not isinstance(value, str):
        raise SettingError("", "is not text", "it must be text")
    return value


def of_text(reader: Callable[[str], T]) -> Callable[[object], T]:
    """Return `reader` for values of any type."""
    return lambda value: reader(text(value))


def choice(*words: str | int) -> Callable[[object], object]:
    """Return a reader that accepts one of `words`. It leaves a value of another type to msgspec, which refuses it."""

    def chosen(value: object) -> object:
        if type(value) is type(words[0]) and value not in words:
            given, known = value if isinstance(value, str) else "", [str(word) for word in words]
            has = f"has {given[:60]!r}" if given else "has another value"
            raise SettingError("", has, f"{guess(given, known)}use {', '.join(known)}")
        return value

    return chosen


def require_known(table: Mapping[str, object], names: Iterable[str]) -> None:
    """Raise `SettingError` for the first key of `table` that is not among `names`."""
    known = sorted(names)
    for key in table:
        if key not in known:
            raise SettingError(key, "is not a setting", f"{guess(key, known)}known are {', '.join(known) or 'none'}")


def require_plain(value: object, lines: Collection[str], key: str = "") -> None:
    """Raise `SettingError` for a text in `value` that is too long or has control characters, or stands in a list twice.

    The keys in `lines` may have line breaks and tabs.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            read(name, partial(require_plain, lines=lines, key=name), inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            read(f"[{index}]", partial(require_plain, lines=lines), item)
        texts = [item for item in value if isinstance(item, str)]
        if len(set(texts)) != len(texts):
            raise SettingError("", "has a value twice", "write it once")
    elif isinstance(value, str) and len(value) > _LONGEST:
        raise SettingError("", f"has {len(value)} characters", f"use at most {_LONGEST}")
    elif isinstance(value, str) and any(not (c.isprintable() or (key in lines and c in "\n\t")) for c in value):
        raise SettingError("", "has a control character", "write plain text")


def _explained(error: msgspec.ValidationError) -> SettingError:
    """Return msgspec's error, which has the path in its text, as ours; or our error that caused it."""
    if isinstance(error.__cause__, SettingError):
        return error.__cause__
    if missing := _MISSING.match(str(error)):
        return SettingError(missing[1], "is missing", "the broker has no default for it")
    found = _WRONG.match(str(error))
    if not found:
        return SettingError("", "cannot be used", str(error)[:300])
    kind, key, within = _KINDS.get(found[1], found[1]), found[2] or "", found[3]
    return SettingError(key, f"{'holds something other than' if within else 'is not'} {kind}", f"write {kind}")
