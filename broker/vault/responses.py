"""Parse answers over HTTP, with suspicion: they may come from a proxy, a portal, or a server that died."""

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
    """A complete answer. `headers` ignores the case of names."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def understood(answer: Answer, path: str) -> Document:
    """Return the content of a good answer, empty if it has no body; raise the error for a bad one (`errors.fault`)."""
    try:
        content = json.loads(answer.body)
    except RecursionError:
        hint = "is it a Vault? check VAULT_ADDR"
        raise OversizedError(f"the answer for {path} is nested too deeply", hint=hint) from None
    except ValueError:
        content = None
    if answer.status < HTTPStatus.BAD_REQUEST:
        if answer.body and not isinstance(content, dict):
            raise unclear(path)
        return content or {}
    content = content if isinstance(content, dict) else {}
    if answer.status == HTTPStatus.NOT_FOUND and not {"errors", "data"} & set(content):
        raise unclear(path)  # of a web server: Vault sends JSON, and nothing else may mean "nothing stored"
    said = content["errors"] if isinstance(content.get("errors"), list) else []
    wait = retry_after(answer.headers.get("Retry-After", ""), system_clock()) or 0
    known = field_of(content, "data", "metadata") is not None
    raise fault(answer.status, path, " ".join(text for text in said if isinstance(text, str)), wait=wait, known=known)


def field_of(answer: Document, *names: str) -> Any:
    """Return the value in `answer` at the nested `names`; None if there is none."""
    found: Any = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def unclear(path: str) -> BrokerError:
    """Return the error for an answer that Vault would not give."""
    return UnclearError(f"the answer for {path} is not from a Vault, or damaged", hint="check VAULT_ADDR")
