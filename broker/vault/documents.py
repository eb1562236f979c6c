"""Documents in Vault: a schema number beside the value, upgraded on reading, never downgraded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from broker.errors import RefusedError
from broker.vault.upgrades import UPGRADES

__all__ = ["DAMAGED_HINT", "SCHEMA", "DamagedDocumentError", "NewerSchemaError", "decoded", "encoded", "enveloped"]

Document = Mapping[str, Any]
T = TypeVar("T")

DAMAGED_HINT: Final = "it was not written by the broker; an older version may be good: bao kv get -version=N"
SCHEMA: Final = 2


class NewerSchemaError(RefusedError):
    """A document of a newer broker: writing it back would drop the fields that we cannot read."""


class DamagedDocumentError(RefusedError):
    """A document that no broker wrote."""


def encoded(value: object) -> dict[str, Any]:
    """Return `value`, a dataclass of the model, as a document, exactly as reading returns it."""
    return enveloped(msgspec.json.decode(msgspec.json.encode(value, order="deterministic")))


def enveloped(value: object) -> dict[str, Any]:
    """Return `value`, made of builtins or secrets, as a document."""
    return {"schema": SCHEMA, "value": value}


def decoded(document: Document, kind: type[T], where: str) -> T:
    """Return the `kind` in `document`; raise `NewerSchemaError` or `DamagedDocumentError`, naming `where` it is stored.

    msgspec drops unknown fields silently, so a document that would not be written back as it is, is refused.
    """
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DamagedDocumentError(f"{where} is not a document of the broker: it has no schema", hint=DAMAGED_HINT)
    if schema > SCHEMA:
        raise NewerSchemaError(
            f"{where} has schema {schema}, and this broker knows {SCHEMA}",
            hint="upgrade this broker; nothing was changed",
        )
    try:
        for step in range(schema, SCHEMA):
            document = UPGRADES[step](document)
        value = msgspec.convert(document.get("value"), kind)
        same = _text(encoded(value)["value"]) == _text(document["value"])
    except (msgspec.ValidationError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedDocumentError(f"{where} is damaged: {error}", hint=DAMAGED_HINT) from None
    if not same:
        raise DamagedDocumentError(f"{where} has fields that this broker does not know", hint=DAMAGED_HINT)
    if _has_naive_time(msgspec.to_builtins(value, builtin_types=(datetime,))):
        raise DamagedDocumentError(f"{where} has a time without a zone", hint=DAMAGED_HINT)
    return value


def _has_naive_time(value: object) -> bool:
    """Return whether a time in `value`, which is made of builtins, has no zone: it compares with no other."""
    match value:
        case datetime():
            return value.tzinfo is None
        case dict():
            return any(map(_has_naive_time, value.values()))
        case list() | tuple() | set() | frozenset():
            return any(map(_has_naive_time, value))
    return False


def _text(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
