"""OpenAPI 3.1 description of the service, made from the types of its messages."""

import re
from inspect import cleandoc
from typing import Any, Final

import msgspec

from broker import __version__
from broker.model.names import NAME
from broker.service.messages import (
    LONGEST_KEY,
    AccountsAnswer,
    BundleAnswer,
    BundleRequest,
    LeaseAnswer,
    LeaseRequest,
    LeasesAnswer,
    RevokeRequest,
    TimelineAnswer,
    WaitAnswer,
    WaitRequest,
)
from broker.service.problems import MEDIA_TYPE, RETRY_AFTER, STATUS, Problem

Document = dict[str, Any]
_JSON: Final = "application/json"
_NAME: Final = re.compile(r"{(\w+)}")  # of a part of a path
_SCHEMAS: Final = "#/components/schemas/{name}"
_TYPES: Final = (
    BundleRequest,
    BundleAnswer,
    LeaseRequest,
    LeaseAnswer,
    RevokeRequest,
    LeasesAnswer,
    WaitRequest,
    WaitAnswer,
    AccountsAnswer,
    TimelineAnswer,
    Problem,
)
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": LONGEST_KEY},
    "description": "Requests of one consumer with the same key share a lease.",
}
_FLAT: Final = {_JSON: {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}}
_FILES: Final = "Fetch a bundle as flat JSON, a value for each file. A consumer's requests share a lease."
_COURSE: Final = "Show where an account stands, what happened and what is planned."
# path, operation, summary, answer (None: one value for each file)
_READS: Final[tuple[tuple[str, str, str, type | None], ...]] = (
    ("/v1/bundles/{account}/{application}", "getBundle", _FILES, None),
    ("/v1/accounts", "getAccounts", "List the applications that the caller has a right to.", AccountsAnswer),
    ("/v1/leases", "getLeases", "List the caller's own leases.", LeasesAnswer),
    ("/v1/accounts/{account}/timeline", "getTimeline", _COURSE, TimelineAnswer),
)
# path, method, summary, parameters, request, status of success, answer
_OPERATIONS: Final[tuple[tuple[str, str, str, list[Document], type, int, type | None], ...]] = (
    ("/v1/bundles", "post", "Fetch a bundle.", [_KEY], BundleRequest, 201, BundleAnswer),
    ("/v1/leases/renew", "post", "Renew a lease.", [], LeaseRequest, 200, LeaseAnswer),
    ("/v1/leases/revoke", "post", "End a lease.", [], RevokeRequest, 204, None),
    ("/v1/wait", "post", "Wait for another generation, or an end.", [], WaitRequest, 200, WaitAnswer),
)


def _part(name: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"}}


def description() -> Document:
    """Return the description as a JSON document."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template=_SCHEMAS)
    for schema in components.values():  # Python 3.13 takes the indentation out of docstrings, 3.11 does not
        schema["description"] = cleandoc(schema["description"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "credential-broker",
            "version": __version__,
            "description": "Issues a partner's credentials to applications, for a limited time.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"vaultToken": []}, {"jwt": []}],
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "vaultToken": {"type": "apiKey", "in": "header", "name": "X-Vault-Token"},
                "jwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _paths() -> Document:
    paths: Document = {}
    for path, operation, summary, answer in _READS:
        paths[path] = {"get": _read(path, operation, summary, answer)}
    for path, method, summary, parameters, asked, status, answer in _OPERATIONS:
        paths.setdefault(path, {})[method] = {
            "operationId": f"{method}{''.join(part.capitalize() for part in path.split('/')[2:])}",
            "summary": summary,
            "parameters": parameters,
            "requestBody": {"required": True, "content": _content(_JSON, asked)},
            "responses": _responses(status, _content(_JSON, answer) if answer else None),
        }
    return paths


def _read(path: str, operation: str, summary: str, answer: type | None) -> Document:
    names = _NAME.findall(path)
    parameters = {"parameters": [_part(name) for name in names]} if names else {}
    responses = _responses(200, _content(_JSON, answer) if answer else _FLAT)
    return {"operationId": operation, "summary": summary, **parameters, "responses": responses}


def _responses(status: int, content: Document | None) -> Document:
    done = {"description": "Done.", **({"content": content} if content else {})}
    return {str(status): done, **_refusals()}


def _refusals() -> Document:
    return {str(code): _refusal(code) for code in sorted({401, 408, 421, 431, *STATUS.values()})}


def _refusal(code: int) -> Document:
    described: Document = {"description": "Refused; the body says why.", "content": _content(MEDIA_TYPE, Problem)}
    if code in RETRY_AFTER:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return described


def _content(media_type: str, message: type) -> Document:
    return {media_type: {"schema": {"$ref": _SCHEMAS.format(name=message.__name__)}}}
