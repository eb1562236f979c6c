"""Documents in Vault: a schema number beside the value, upgraded on reading, never downgraded."""

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from broker.errors import RefusedError
from broker.model.secret import Secret
from broker.typed import typed
from broker.vault.errors import Document

T = TypeVar("T")

DAMAGED_HINT: Final = "it was not written by the broker; an older version may be good: bao kv get -version=N"
SCHEMA: Final = 3
_TEXT: Final = "text"  # in place of "value"
_MOST_STRINGS: Final = 900
_CERTIFICATE: Final = ("key", "certificate", "issuing")  # one part


class NewerSchemaError(RefusedError):
    """A document of a newer broker: writing it back would drop the fields that we cannot read."""


class DamagedDocumentError(RefusedError):
    """A document that no broker wrote."""


def encoded(value: object) -> dict[str, Any]:
    """Return `value`, a struct of the model, as a document, exactly as reading returns it.

    One with many strings is kept as one text (ADR 33): OpenBao takes a request with 1,000 at most.
    """
    text = msgspec.json.encode(value, order="deterministic")
    plain = msgspec.json.decode(text)
    return {"schema": SCHEMA, _TEXT: text.decode()} if _strings(plain) > _MOST_STRINGS else enveloped(plain)


def enveloped(value: object) -> dict[str, Any]:
    """Return `value`, made of builtins or secrets, as a document."""
    return {"schema": SCHEMA, "value": value}


def in_base64(octets: bytes) -> Secret[str]:
    """Return secret `octets` as a document holds them, and as `decoded` reads a field of bytes."""
    return Secret(base64.b64encode(octets).decode())


def decoded(document: Document, kind: type[T], where: str) -> T:
    """Return the `kind` in `document`; raise `NewerSchemaError` or `DamagedDocumentError`, naming `where` it is stored.

    msgspec drops unknown fields silently, so a document that would not be written back as it is, is refused.
    """
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DamagedDocumentError(f"{where} is not a document of the broker: it has no schema", hint=DAMAGED_HINT)
    if schema > SCHEMA:
        message = f"{where} has schema {schema}, and this broker knows {SCHEMA}"
        raise NewerSchemaError(message, hint="upgrade this broker; nothing was changed")
    try:
        document = _unpacked(document)
        for step in range(schema, SCHEMA):
            document = UPGRADES[step](document)
        value = typed(document.get("value"), kind)
        same = _text(value) == _text(document["value"])
    except (msgspec.ValidationError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DamagedDocumentError(f"{where} is damaged: {error}", hint=DAMAGED_HINT) from None
    if not same:
        raise DamagedDocumentError(f"{where} has fields that this broker does not know", hint=DAMAGED_HINT)
    if _has_naive_time(msgspec.to_builtins(value, builtin_types=(datetime,))):
        raise DamagedDocumentError(f"{where} has a time without a zone", hint=DAMAGED_HINT)
    return value


def _unpacked(document: Document) -> Document:
    """Return `document` with its value, if it was kept as text."""
    if _TEXT not in document:
        return document
    return {"schema": document["schema"], "value": msgspec.json.decode(document[_TEXT])}


def _strings(value: object) -> int:
    """Return how many strings are in `value`, names of fields among them."""
    match value:
        case dict():
            return len(value) + sum(map(_strings, value.values()))
        case list():
            return sum(map(_strings, value))
    return isinstance(value, str)


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


def _one_to_two(document: Document) -> Document:
    """Schema 2: a candidate has only the parts that it changes, secrets have names, moves an order."""
    value = document["value"]
    if isinstance(value, Mapping) and "generations" in value:
        value = _account(value)
    return {"schema": 2, "value": value}


def _account(old: Document) -> Document:
    whole = {g["number"]: _parts(g["parts"]) for g in old["generations"]}
    orders = _orders(old["generations"])
    password = {"password": old["password"]} if old["password"] else {}
    tries = [{**t, "parts": whole[t["generation"]]} for t in old["tries"]]
    return _without(old, "password", "doomed_passwords") | {
        "generations": [_generation(g, whole) | {"order": orders[g["number"]]} for g in old["generations"]],
        "requests": [{**r, "imported": False, "held_by": []} for r in old["requests"]],
        "secrets": password,
        "renew_before": "",
        "suspended": None,
        "removed": None,
        "tries": tries,
        "doomed_secrets": sorted(f"password:{number}" for number in old["doomed_passwords"]),
    }


def _without(old: Document, *names: str) -> dict[str, Any]:
    """Return `old` without the fields `names`. Unknown fields stay, and are refused when it is decoded."""
    rest = dict(old)
    for name in names:
        del rest[name]
    return rest


def _parts(old: Document) -> Document:
    return _without(old, "password") | {"secrets": {"password": old["password"]}}


def _with_client_ids(old: Document) -> Document:
    return {**old, "parts": {**old["parts"], "client_ids": {}}}


def _generation(old: Document, whole: Mapping[int, Document]) -> dict[str, Any]:
    """Upgrade a generation. A held candidate was current, or joined to one that was: it becomes previous."""
    stage, parts = old["stage"], whole[old["number"]]
    if old["held"]:
        stage = "previous"
    elif stage == "candidate" and old["base"]:
        parts = _beyond(parts, whole[old["base"]])
    return _without(old, "base", "restores", "replaces", "held") | {"parts": parts, "stage": stage}


def _beyond(parts: Document, base: Document) -> Document:
    same = [*(_CERTIFICATE if parts["certificate"] == base["certificate"] else ())]
    same += ["trust"] if parts["trust"] == base["trust"] else []
    secrets = {} if parts["secrets"] == base["secrets"] else parts["secrets"]
    return {**parts, **dict.fromkeys(same, ""), "secrets": secrets}


def _orders(generations: list[Document]) -> dict[int, int]:
    """Number the moves by their times, which never went back. A displaced generation has the time of the current one.

    If a promotion displaced it, it comes just before the current one; if a roll-back did, after it.
    """
    times = sorted({datetime.fromisoformat(g["since"]) for g in generations})
    orders = {g["number"]: 4 * (1 + times.index(datetime.fromisoformat(g["since"]))) for g in generations}
    current = next((g for g in generations if g["stage"] == "current"), None)
    for other in generations:
        if current and other is not current and other["since"] == current["since"]:
            orders[other["number"]] += 1 if other["held"] else -1
    return orders


def _two_to_three(document: Document) -> Document:
    """Schema 3: an account has the decisions of people about its renewal, and their steps of a password rotation; a
    request has the reason of a refusal, and says whether others know its key; a set has client_ids.
    """
    value = document["value"]
    if isinstance(value, Mapping) and "generations" in value:
        new = {"closed_because": "", "compromised": None, "revoked_at": None}
        requests = [{**request, **new} for request in value["requests"]]
        value = {**value, "requests": requests, "renewal": "auto", "promotion": "manual", "snoozed": None}
        value |= {"submit_via": "", "language": "", "password_rotation": None}
        value |= {field: [_with_client_ids(one) for one in value[field]] for field in ("generations", "tries")}
    return {"schema": 3, "value": value}


# By the schema that a step starts from; each step takes every kind of document
UPGRADES: Final[Mapping[int, Callable[[Document], Document]]] = MappingProxyType({1: _one_to_two, 2: _two_to_three})
