"""Values of a type, made by msgspec of what JSON or TOML gave, in any thread."""

import threading
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")
_LEARNING: Final = threading.Lock()
_known: set[object] = set()


def typed(value: object, kind: type[T], **options: Any) -> T:
    """Return `value` as a `kind`; raise `msgspec.ValidationError`. `options` are those of `msgspec.convert`.

    msgspec crashes if one thread uses a dataclass whose fields another still learns, so it learns each type before.
    """
    if kind not in _known:
        with _LEARNING:
            msgspec.json.Decoder(kind)
        _known.add(kind)
    found: T = msgspec.convert(value, kind, **options)
    return found
