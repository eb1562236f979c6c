"""Read and write `manifest.json`, the public part of a published bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

import msgspec

from broker.delivery.formats import FileFormat
from broker.errors import InputError
from broker.model.bundle import Bundle, Manifest
from broker.model.names import account_name
from broker.model.secret import Secret
from broker.partners.authentication import authentication_of, document_of

MANIFEST: Final = "manifest.json"
SCHEMA: Final = 1


def manifest_of(bundle: Bundle, files: Mapping[FileFormat, Secret[bytes]]) -> Manifest:
    """Return the manifest of `bundle` rendered as `files`."""
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
    document = msgspec.to_builtins(manifest) | {
        "schema": SCHEMA,
        "authentication": document_of(manifest.authentication),
        "files": {name: {"sha256": digest} if digest else {} for name, digest in manifest.files.items()},
    }
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def parse(data: bytes) -> Manifest:
    """Read a manifest that this or an older release wrote; raise `InputError`."""
    try:
        document = json.loads(data)
        if document["schema"] > SCHEMA:
            raise InputError("a newer broker wrote the manifest", hint="upgrade the broker package of this program")
        document["account"] = account_name(document["account"])
        document["authentication"] = authentication_of(document["authentication"])
        document["files"] = {name: row.get("sha256", "") for name, row in document["files"].items()}
        return msgspec.convert(document, Manifest, from_attributes=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{MANIFEST} is damaged, or not the broker's", hint="get the bundle again") from None


def digest(content: Secret[bytes]) -> str:
    """Return the SHA-256 of `content` in lower-case hex."""
    return hashlib.sha256(content.reveal()).hexdigest()
