"""What an answer over HTTP says, read with suspicion: it may come from a proxy, a portal, or a server that died."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from broker.errors import BrokerError
from broker.model.clock import system_clock
from broker.network import retry_after
from broker.vault.errors import OversizedError, UnclearError, fault

__all__ = ["Answer", "Document", "field_of", "unclear", "understood"]

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as it came. Whatever case its names are in, `headers` finds them."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def understood(answer: Answer, path: str) -> Document:
    """Return what a good answer says, empty where it has no body; raise what a bad one stands for (`faults.fault`)."""
    content = _parsed(answer.body, path)
    if answer.status < HTTPStatus.BAD_REQUEST:
        if content is None and answer.body:
            raise unclear(path)
        return content or {}
    if answer.status == HTTPStatus.NOT_FOUND and not (content and ("errors" in content or "data" in content)):
        raise unclear(path)  # a web server's own: Vault says "not there" in JSON, and nothing else may count as that
    known = field_of(content or {}, "data", "metadata") is not None
    raise fault(answer.status, path, _errors(content), wait=_wait(answer), known=known)


def field_of(answer: Document, *names: str) -> Any:
    """Return what `answer` has under `names`, one inside the other; None where the way ends."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def unclear(path: str) -> BrokerError:
    """Return the error for an answer that Vault would not give."""
    return UnclearError(f"what answered for {path} is not Vault, or its answer is damaged", hint="check VAULT_ADDR")


def _parsed(body: bytes, path: str) -> Document | None:
    try:
        content = json.loads(body)
    except RecursionError:
        raise OversizedError(f"the answer for {path} is nested too deep to be read", hint="is it a Vault?") from None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _errors(content: Document | None) -> list[str]:
    errors = (content or {}).get("errors")
    return [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []


def _wait(answer: Answer) -> float:
    return retry_after(answer.headers.get("Retry-After", ""), system_clock()) or 0
