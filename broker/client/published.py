"""Read a bundle that was published to a directory."""

import json
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST, FileFormat, digest, parse
from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Manifest
from broker.model.proxy import Proxy
from broker.model.secret import Secret
from broker.pki.tls import client_context
from broker.upstream.credentials import Credentials

_LARGEST: Final = 1024 * 1024


class NothingPublishedError(InputError):
    """The directory holds no bundle. Its lease may have ended."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"no bundle is published in {root}",
            hint=f"broker bundle get ACCOUNT/APPLICATION --consumer-token-file FILE --to {root} --hold",
        )


class Published(Struct, frozen=True):
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


def read(root: str | Path, *, proxy: Proxy | None = None) -> Published:
    """Read the bundle below `root`. The link is resolved once, so that all parts are of one generation. `proxy` is the
    way to the partner.

    Raise `NothingPublishedError`; `InputError` if a file is missing or differs from the manifest.
    """
    path = resolved(Path(root))
    data = _file(path / MANIFEST)
    if data is None:
        raise NothingPublishedError(Path(root))
    manifest = parse(data.reveal())
    text = partial(_text, path, manifest)
    key_and_chain = Secret(text(FileFormat.COMBINED).reveal().encode())
    credentials = Credentials(
        base_url=manifest.base_url,
        context=client_context(key_and_chain, text(FileFormat.TRUST).reveal()),
        login=text(FileFormat.USERNAME).reveal(),
        secrets=_secrets(path, manifest),
        client_id=text(FileFormat.CLIENT_ID).reveal(),
        authentication=manifest.authentication,
        proxy=proxy,
        not_after=manifest.not_after,
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


def _text(path: Path, manifest: Manifest, file: FileFormat) -> Secret[str]:
    found = _file(path / file.value)
    if found and manifest.files.get(file.value) in ("", digest(found)):
        with suppress(UnicodeDecodeError):
            return Secret(found.reveal().decode())
    raise _damaged(path / file.value)


def _file(path: Path) -> Secret[bytes] | None:
    try:
        with path.open("rb") as file:
            return Secret(file.read(_LARGEST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {(error.strerror or 'not a file').lower()}",
            hint="run as the user that published the bundle",
        ) from None


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is missing, or was changed after it was published", hint="get the bundle again")
