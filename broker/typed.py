"""Values of a type, made by msgspec of what JSON or TOML gave, in any thread.

msgspec crashes if one thread uses a class whose fields another still learns, so each type is learned here, by one
thread. All types with classes of ours are made here; `tests/architecture` looks for others.
"""

import json
import threading
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")
_LEARNING: Final = threading.Lock()
_known: set[object] = set()


def typed(value: object, kind: type[T], **options: Any) -> T:
    """Return `value` as a `kind`; raise `msgspec.ValidationError`. `options` are those of `msgspec.convert`."""
    _learn(kind)
    found: T = msgspec.convert(value, kind, **options)
    return found


def from_json(text: bytes | str, kind: type[T]) -> T:
    """Return the value that `text` holds as a `kind`; raise `msgspec.DecodeError`, or `ValidationError` of it."""
    _learn(kind)
    return msgspec.json.decode(text, type=kind)


def json_object(text: bytes | str) -> dict[str, Any] | None:
    """Return the object that `text` holds, None if that is no JSON or something else."""
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), dict):
            return found
    return None


def _learn(kind: object) -> None:
    if kind not in _known:
        with _LEARNING:
            msgspec.json.Decoder(kind)
        _known.add(kind)
