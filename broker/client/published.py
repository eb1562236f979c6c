"""Read a bundle that was published to a directory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
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
    """The directory holds no bundle. Its lease may have ended."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"no bundle is published in {root}",
            hint=f"broker bundle get ACCOUNT/APPLICATION --consumer-token-file FILE --to {root} --hold",
        )


@dataclass(frozen=True, slots=True)
class Published:
    """One generation: its manifest, and its credentials ready for calls."""

    path: Path  # the generation's own directory
    manifest: Manifest
    credentials: Credentials


def resolved(root: Path) -> Path:
    """Return the directory that `current` points at now; raise `NothingPublishedError`."""
    try:
        return root / os.readlink(root / CURRENT)  # noqa: PTH115  # without a stat of the directory
    except OSError:
        raise NothingPublishedError(root) from None


def read(root: str | Path) -> Published:
    """Read the bundle below `root`. The link is resolved once, so that all parts are of one generation.

    Raise `NothingPublishedError`; `InputError` if a file is missing or differs from the manifest.
    """
    path = resolved(Path(root))
    data = _file(path / MANIFEST)
    if data is None:
        raise NothingPublishedError(Path(root))
    manifest = parse(data)
    text = partial(_text, path, manifest)
    key, chain = _key_and_chain(text(FileFormat.COMBINED))
    if not key:
        raise _damaged(path / FileFormat.COMBINED.value)
    credentials = Credentials(
        base_url=manifest.base_url,
        context=client_context(key, chain, text(FileFormat.TRUST).reveal()),
        login=text(FileFormat.USERNAME).reveal(),
        secrets=_secrets(path, manifest),
        client_id=text(FileFormat.CLIENT_ID).reveal(),
        authentication=manifest.authentication,
    )
    return Published(path, manifest, credentials)


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


# A function below that raises holds no secret in its frame, nor in the context of its error.


def _key_and_chain(combined: Secret[str]) -> tuple[Secret[bytes] | None, str]:
    key, end, chain = combined.reveal().partition(_END_KEY)
    try:
        der = base64.b64decode("".join(key.partition(_BEGIN_KEY)[2].split()), validate=True)
    except ValueError:
        der = b""
    return (Secret(der) if der and end else None), chain


def _text(path: Path, manifest: Manifest, file: FileFormat) -> Secret[str]:
    found = _decoded(_file(path / file.value), manifest.files.get(file.value))
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


def _file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {(error.strerror or 'not a file').lower()}",
            hint="run as the user that published the bundle",
        ) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is missing, or was changed after it was published", hint="get the bundle again")
