"""Read a bundle that was published to a directory, and call the partner with it, following its rotation."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import requests

from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST, FileFormat, digest, parse
from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Manifest
from broker.model.proxy import Proxy, proxy_of
from broker.model.secret import Secret
from broker.pki.tls import client_context
from broker.upstream.credentials import Credentials
from broker.upstream.session import TIMEOUT, PartnerSession

CHECK_EVERY: Final = 1.0  # seconds between two reads of the link `current`
_LARGEST: Final = 1024 * 1024


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


def _resolved(root: Path) -> Path:
    """Return the directory that `current` points at now; raise `NothingPublishedError`."""
    try:
        return root / os.readlink(root / CURRENT)  # noqa: PTH115  # without a stat of the directory
    except OSError:
        raise NothingPublishedError(root) from None


def read(root: str | Path) -> Published:
    """Read the bundle below `root`. The link is resolved once, so that all parts are of one generation.

    Raise `NothingPublishedError`; `InputError` if a file is missing or differs from the manifest.
    """
    path = _resolved(Path(root))
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
    )
    return Published(path, manifest, credentials)


class Session(PartnerSession):
    """A `PartnerSession` on a published bundle. Paths such as `/fleets` are below the account's base URL.

    Before a request, at most once a second, it reads the link `current`, and switches to a new generation as a whole.
    If the bundle is gone (its lease has ended) or cannot be read, it keeps the generation it has: the end of a lease
    takes nothing out of a program's memory. `withdrawn` reports it.
    """

    def __init__(self, root: Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: Proxy | None = None) -> None:
        self._root, self._proxy = root, proxy
        self._published = read(root)
        self._checked = time.monotonic()
        self._switching = threading.Lock()
        super().__init__(replace(self._published.credentials, proxy=proxy), timeout=timeout)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""
        return self._published.manifest

    @property
    def withdrawn(self) -> bool:
        """Return whether the bundle is gone from its directory. The program should then stop using it."""
        return not os.path.islink(self._root / CURRENT)  # noqa: PTH114  # Path.is_symlink raises without permission

    def follow(self) -> bool:
        """Switch to the current generation; return whether it is another than before.

        Raise `NothingPublishedError` if there is none, `InputError` if it cannot be read.
        """
        with self._switching:
            self._checked = time.monotonic()
            if _resolved(self._root) == self._published.path:
                return False
            published = read(self._root)
            self.swap(replace(published.credentials, proxy=self._proxy))
            self._published = published
            return True

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request with the current generation."""
        if time.monotonic() - self._checked >= CHECK_EVERY:
            try:
                with suppress(InputError):  # the set in use may still work; a second later this is tried again
                    self.follow()
            except RefusedError:
                self._checked = -CHECK_EVERY  # the bundle of another account: refuse every request
                raise
        return super().request(method, url, *args, **kwargs)

    def pages(self, path: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list, following `_links.next` to the end (HAL).

        Raise `requests.HTTPError` for an error status, `RefusedError` for a link out of the base URL, and
        `PartnerUnavailableError` for a page that is not a JSON object, or a link to an earlier page.
        """
        seen: set[str] = set()
        url: str | None = path
        while url is not None:
            response = self.get(url, **kwargs)
            response.raise_for_status()
            document = _document(response)
            yield document
            kwargs.pop("params", None)  # the link holds them
            href = _next(document)
            url = self.link(href, response.url) if href else None
            if url in seen:
                raise PartnerUnavailableError("the partner's list links to an earlier page")
            seen.add(url or "")


def open(  # noqa: A001  # broker.client.open
    directory: str | Path, *, timeout: tuple[float, float] = TIMEOUT, proxy: str = "", proxy_login: str = ""
) -> Session:
    """Return a session on the bundle published in `directory`.

    `proxy` is a forward proxy on the way to the partner, such as "http://proxy.example:3128", and `proxy_login` is
    "USER:PASSWORD" for it. Raise `NothingPublishedError` if there is no bundle, `InputError` if it cannot be read or is
    damaged, or if the proxy cannot be used.
    """
    return Session(Path(directory), timeout=timeout, proxy=proxy_of(proxy, proxy_login) if proxy else None)


def _document(response: requests.Response) -> dict[str, Any]:
    with suppress(requests.JSONDecodeError):
        if isinstance(found := response.json(), dict):
            return found
    raise PartnerUnavailableError(f"the partner's answer ({response.status_code}) is not a JSON object")


def _next(document: dict[str, Any]) -> str:
    links = document.get("_links")
    link = links.get("next") if isinstance(links, dict) else None
    href = link.get("href") if isinstance(link, dict) else None
    return href if isinstance(href, str) else ""


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
