"""`manifest.json`: what is public of a published bundle, written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from broker.delivery.formats import FileFormat
from broker.errors import InputError
from broker.model.bundle import Bundle, Manifest
from broker.model.names import account_name
from broker.model.secret import Secret
from broker.partners.authentication import authentication_of, document_of

__all__ = ["MANIFEST", "digest", "dump", "manifest_of", "parse"]

MANIFEST: Final = "manifest.json"
SCHEMA: Final = 1


def manifest_of(bundle: Bundle, files: Mapping[FileFormat, Secret[bytes]]) -> Manifest:
    """Return the manifest of `bundle` as written to `files`."""
    return Manifest(
        account=bundle.account,
        application=bundle.application,
        generation=bundle.generation,
        base_url=bundle.base_url,
        authentication=bundle.authentication,
        not_after=bundle.certificate.not_after,
        lease_id=bundle.lease_id,
        expires=bundle.expires,
        files={f.value: "" if f.guessable else digest(content) for f, content in files.items()},
    )


def dump(manifest: Manifest) -> bytes:
    """Return `manifest` as JSON, keys sorted, ending in a line end."""
    document = {
        "schema": SCHEMA,
        "account": manifest.account,
        "application": manifest.application,
        "generation": manifest.generation,
        "base_url": manifest.base_url,
        "authentication": document_of(manifest.authentication),
        "not_after": _moment(manifest.not_after),
        "lease_id": manifest.lease_id,
        "expires": _moment(manifest.expires),
        "files": {name: {"sha256": digest} if digest else {} for name, digest in manifest.files.items()},
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def parse(data: bytes) -> Manifest:
    """Read a manifest that this or an older release wrote; raise `InputError`."""
    try:
        document = json.loads(data)
        if document["schema"] > SCHEMA:
            raise InputError("the manifest was written by a newer broker", hint="upgrade this program's broker")
        return Manifest(
            account=account_name(document["account"]),
            application=str(document["application"]),
            generation=int(document["generation"]),
            base_url=str(document["base_url"]),
            authentication=authentication_of(document["authentication"]),
            not_after=datetime.fromisoformat(document["not_after"]),
            lease_id=str(document["lease_id"]),
            expires=datetime.fromisoformat(document["expires"]),
            files={str(name): str(row.get("sha256", "")) for name, row in document["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{MANIFEST} is not one of the broker's", hint="fetch the bundle again") from None


def digest(content: Secret[bytes]) -> str:
    """Return the SHA-256 of `content` in lower-case hex."""
    return hashlib.sha256(content.reveal()).hexdigest()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
