"""Write log events with fields. Nothing is written until `rendering.configure` sets a sink.

Events get the fields that `bind` set in this context: command, account, request and lease id. Values are redacted:
texts pass the redactors that `hide` got, and of a `Secret`, or any other type that `_shown` does not list, only the
name of the type is written.
"""

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum, IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from broker.errors import InputError


class Level(IntEnum):
    """How much is logged."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Form(Enum):
    """The form of log lines: for machines, or for a terminal."""

    JSON = "json"
    CONSOLE = "console"


Sink = Callable[[Level, str, Mapping[str, object]], None]

_ROOT: Final = Path(__file__).parents[1]
_LONGEST: Final = 2000  # characters of a value
_NUMBERS: Final = (int, float, type(None))
_fields: ContextVar[Mapping[str, object]] = ContextVar("fields", default=MappingProxyType({}))
_redactors: ContextVar[tuple[Callable[[str], str], ...]] = ContextVar("redactors", default=())
_target: list[tuple[Level, Sink]] = []  # of the process: at most one


def level_of(text: str) -> Level:
    """Return the level called `text`; raise `InputError`."""
    if text.upper() not in Level.__members__:
        raise InputError(f"{text[:40]!r} is not a log level", hint=f"one of {', '.join(Level.__members__).lower()}")
    return Level[text.upper()]


def form_of(text: str) -> Form:
    """Return the form called `text`; raise `InputError`."""
    try:
        return Form(text)
    except ValueError:
        raise InputError(f"{text[:40]!r} is not a log format", hint="json or console") from None


def send_to(level: Level, sink: Sink) -> None:
    """Send events of `level` and above to `sink`, in place of an earlier one."""
    _target[:] = [(level, sink)]


def to_stderr(level: Level) -> None:
    """Write events as lines for people to stderr: time, level, event, fields."""

    def write(at: Level, event: str, fields: Mapping[str, object]) -> None:
        shown = [f"{name}={_quoted(value)}" for name, value in fields.items() if value != ""]
        sys.stderr.write(" ".join([f"{datetime.now(UTC):%FT%TZ}", f"{at.name.lower():7}", event, *shown]) + "\n")

    send_to(level, write)


def reset() -> None:
    """Stop logging; forget the fields and hidden texts of this context."""
    _target.clear()
    _fields.set(MappingProxyType({}))
    _redactors.set(())


def bind(**fields: object) -> None:
    """Add fields to all later events of this context."""
    _fields.set({**_fields.get(), **fields})


def hide(redact: Callable[[str], str]) -> None:
    """Pass all texts in later events of this context through `redact`, the method of a `Redactor`."""
    _redactors.set((*_redactors.get(), redact))


def is_on(level: Level) -> bool:
    """Return whether events of `level` are written: for fields that cost time."""
    return bool(_target) and level >= _target[0][0]


def debug(event: str, **fields: object) -> None:
    """Log a detail, such as a request."""
    _write(Level.DEBUG, event, fields)


def info(event: str, **fields: object) -> None:
    """Log a change."""
    _write(Level.INFO, event, fields)


def error(event: str, **fields: object) -> None:
    """Log a failure."""
    _write(Level.ERROR, event, fields)


def frames(fault: BaseException) -> list[str]:
    """Return our frames of a traceback as "file:line:function", without local values and without the error's text."""
    import traceback  # only here: start-up counts

    found = traceback.extract_tb(fault.__traceback__)
    ours = [(Path(frame.filename), frame) for frame in found if Path(frame.filename).is_relative_to(_ROOT)]
    return [f"broker/{file.relative_to(_ROOT)}:{frame.lineno}:{frame.name}" for file, frame in ours]


def _write(level: Level, event: str, fields: Mapping[str, object]) -> None:
    if is_on(level):
        shown = {name: _shown(value) for name, value in {**_fields.get(), **fields}.items()}
        _target[0][1](level, event, shown)


def _shown(value: object) -> object:
    if isinstance(value, str):  # nearly all are
        return _text(value)
    if isinstance(value, _NUMBERS):
        return value
    if isinstance(value, Enum):
        return _shown(value.value)
    if isinstance(value, Mapping):
        return {str(name): _shown(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(inner) for inner in value]
    return f"<{type(value).__name__.lower()}>"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text else text


def _text(value: str) -> str:
    for redact in _redactors.get():
        value = redact(value)
    value = value[:_LONGEST]  # a terminal obeys control characters
    return value if value.isprintable() else "".join(c if c.isprintable() else "?" for c in value)
