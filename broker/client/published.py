"""Reading a bundle that was published as a directory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.delivery.directory import CURRENT
from broker.delivery.formats import FileFormat
from broker.delivery.manifest import MANIFEST, parse
from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Manifest
from broker.model.secret import Secret
from broker.pki.tls import client_context
from broker.upstream.credentials import Credentials

__all__ = ["NothingPublishedError", "Published", "read", "resolved"]

_LARGEST: Final = 1024 * 1024
_BEGIN_KEY: Final = "-----BEGIN PRIVATE KEY-----"
_END_KEY: Final = "-----END PRIVATE KEY-----"


class NothingPublishedError(InputError):
    """No bundle lies there, or none any more: its lease may have ended."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"no bundle is published in {root}", hint="fetch one: broker bundle get ACCOUNT/APPLICATION, with --hold"
        )


@dataclass(frozen=True, slots=True)
class Published:
    """One generation, read whole: what is public of it, and the set ready for calls."""

    path: Path  # the generation's own directory
    manifest: Manifest
    credentials: Credentials


def resolved(root: Path) -> Path:
    """Return the directory that `current` names just now; raise `NothingPublishedError`."""
    try:
        return root / os.readlink(root / CURRENT)  # noqa: PTH115  # one call, and no stat of what it names
    except OSError:
        raise NothingPublishedError(root) from None


def read(root: str | Path) -> Published:
    """Read the bundle below `root`: the link is resolved once, so that all parts are of one generation.

    Raise `NothingPublishedError`; `InputError` where a file is missing, or is not the one the manifest tells of.
    """
    path = resolved(Path(root))
    data = _file(path, MANIFEST)
    if data is None:
        raise NothingPublishedError(Path(root))
    manifest = parse(data)
    return Published(path, manifest, _credentials(path, manifest))


def _credentials(path: Path, manifest: Manifest) -> Credentials:
    return Credentials(
        base_url=manifest.base_url,
        context=_context(path, manifest),
        login=_text(path, manifest, FileFormat.USERNAME).reveal(),
        secrets=_secrets(path, manifest),
        client_id=_text(path, manifest, FileFormat.CLIENT_ID).reveal(),
        authentication=manifest.authentication,
    )


def _secrets(path: Path, manifest: Manifest) -> dict[str, Secret[str]]:
    found = {}
    if FileFormat.SECRETS.value in manifest.files:
        text = _text(path, manifest, FileFormat.SECRETS)
        try:
            found = {str(name): Secret(str(value)) for name, value in json.loads(text.reveal()).items()}
        except (ValueError, AttributeError, RecursionError):
            raise _damaged(path / FileFormat.SECRETS.value) from None
    if FileFormat.PASSWORD.value in manifest.files:
        found[PASSWORD] = _text(path, manifest, FileFormat.PASSWORD)
    return found


def _context(path: Path, manifest: Manifest) -> ssl.SSLContext:
    trust = _text(path, manifest, FileFormat.TRUST).reveal()
    key, chain = _key_and_chain(_text(path, manifest, FileFormat.COMBINED))
    if not key:
        raise _damaged(path / FileFormat.COMBINED.value)
    return client_context(key, chain, trust)


# What raises below holds no secret in its frame, nor in an error behind its own.


def _key_and_chain(combined: Secret[str]) -> tuple[Secret[bytes] | None, str]:
    key, end, chain = combined.reveal().partition(_END_KEY)
    try:
        der = base64.b64decode("".join(key.partition(_BEGIN_KEY)[2].split()), validate=True)
    except ValueError:
        der = b""
    return (Secret(der) if der and end else None), chain


def _text(path: Path, manifest: Manifest, file: FileFormat) -> Secret[str]:
    found = _decoded(_file(path, file.value), manifest.files.get(file.value))
    if found is None:
        raise _damaged(path / file.value)
    return found


def _decoded(data: bytes | None, digest: str | None) -> Secret[str] | None:
    if data is None or digest is None or (digest and hashlib.sha256(data).hexdigest() != digest):
        return None
    try:
        return Secret(data.decode())
    except UnicodeDecodeError:
        return None


def _file(path: Path, name: str) -> bytes | None:
    try:
        with (path / name).open("rb") as file:
            return file.read(_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path / name} cannot be read: {(error.strerror or 'it is no file').lower()}",
            hint="run as the user the bundle was published for, or publish with a group",
        ) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is missing, or is not what was published", hint="fetch the bundle again")
