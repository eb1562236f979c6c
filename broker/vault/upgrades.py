"""Documents of older schemas, one step at a time; each step takes every kind of document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

__all__ = ["UPGRADES"]

Document = Mapping[str, Any]
_CERTIFICATE: Final = ("key", "certificate", "issuing")  # one part


def _one_to_two(document: Document) -> Document:
    """A candidate has only the parts that it changes; secrets have names; moves have an order."""
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
        "secrets": password,
        "tries": tries,
        "doomed_secrets": sorted(f"password:{number}" for number in old["doomed_passwords"]),
    }


def _without(old: Document, *names: str) -> dict[str, Any]:
    """Return the rest of `old`: an unknown field stays, and is refused afterwards."""
    rest = dict(old)
    for name in names:
        del rest[name]
    return rest


def _parts(old: Document) -> Document:
    return _without(old, "password") | {"secrets": {"password": old["password"]}}


def _generation(old: Document, whole: Mapping[int, Document]) -> dict[str, Any]:
    """A held candidate was current, or joined to what was: it is previous, and a person promotes it, as before."""
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
    """Count the moves by their times, which never went back. One displaced has the time of the one that came.

    A generation that a promotion displaced comes just before the current one; one that a roll-back displaced, after.
    """
    times = sorted({datetime.fromisoformat(g["since"]) for g in generations})
    orders = {g["number"]: 4 * (1 + times.index(datetime.fromisoformat(g["since"]))) for g in generations}
    current = next((g for g in generations if g["stage"] == "current"), None)
    for other in generations:
        if current and other is not current and other["since"] == current["since"]:
            orders[other["number"]] += 1 if other["held"] else -1
    return orders


UPGRADES: Final[Mapping[int, Callable[[Document], Document]]] = MappingProxyType({1: _one_to_two})
