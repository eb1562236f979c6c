"""What an answer over HTTP says, read with suspicion: it may come from a proxy, a portal, or a server that died."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from broker.errors import BrokerError
from broker.vault.faults import UnclearError, fault

__all__ = ["Document", "field_of", "unclear", "understood"]

Document = Mapping[str, Any]


def understood(response: requests.Response, path: str) -> Document:
    """Return what a good answer says, empty where it has no body; raise what a bad one stands for (`faults.fault`)."""
    content = _parsed(response)
    if response.ok:
        if content is None and response.content:
            raise unclear(path)
        return content or {}
    if response.status_code == requests.codes.not_found and not (
        content and ("errors" in content or "data" in content)
    ):
        raise unclear(path)  # a web server's own: Vault says "not there" in JSON, and nothing else may count as that
    known = field_of(content or {}, "data", "metadata") is not None
    raise fault(response.status_code, path, _errors(content), wait=_wait(response), known=known)


def field_of(answer: Document, *names: str) -> Any:
    """Return what `answer` has under `names`, one inside the other; None where the way ends."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def unclear(path: str) -> BrokerError:
    """Return the error for an answer that Vault would not give."""
    return UnclearError(f"what answered for {path} is not Vault, or its answer is damaged", hint="check VAULT_ADDR")


def _parsed(response: requests.Response) -> Document | None:
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _errors(content: Document | None) -> list[str]:
    errors = (content or {}).get("errors")
    return [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []


def _wait(response: requests.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0
