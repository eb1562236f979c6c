"""Read a published bundle back, and judge whether it is whole."""

import json
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST, FileFormat, digest, parse
from broker.delivery.root import Root, held
from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Bundle, Manifest
from broker.model.secret import Secret


def whole(root: Path) -> Manifest | None:
    """Return the manifest of what `root` publishes, if each of its files is there with the digest that it names."""
    try:
        directory = (root / CURRENT).resolve(strict=True)
        manifest = parse((directory / MANIFEST).read_bytes())
        for name, expected in manifest.files.items():
            if not _fits(Secret((directory / name).read_bytes()), expected):
                return None
    except (OSError, InputError):
        return None
    return manifest


class Published(Struct, frozen=True):
    """The current generation of a directory: its path, its manifest, and the content of each file."""

    path: Path
    manifest: Manifest
    files: Mapping[str, Secret[bytes]]


def published(root: Path) -> Published | None:
    """Return what is published in `root`, None if that is not whole; raise `UnusableDirectoryError`."""
    with held(root) as directory:
        return read_back(directory)


def restored(directory: Root) -> tuple[str, Bundle] | None:
    """Return the published generation and its bundle, None if there is none that is whole."""
    try:
        found = read_back(directory)
        return (found.path.name, _bundle(found)) if found else None
    except (ValueError, AttributeError, KeyError):
        return None


def read_back(directory: Root) -> Published | None:
    """Return what is published in `directory`, None if that is not whole."""
    name = directory.link(CURRENT)
    if name is None or not directory.is_directory(name):
        return None
    with directory.opened(name) as generation:
        found = generation.read(MANIFEST)
        try:
            manifest = parse(found.reveal()) if found else None
        except InputError:
            return None
        read = {file: generation.read(file) for file in manifest.files} if manifest else {}
    files = {file: content for file, content in read.items() if content}
    if not manifest or any(file not in files or not _fits(files[file], manifest.files[file]) for file in read):
        return None
    return Published(directory.path / name, manifest, files)


def _bundle(found: Published) -> Bundle:
    manifest = found.manifest
    contents = {FileFormat(name): content for name, content in found.files.items()}
    texts = {file: content.reveal().decode() for file, content in contents.items() if not file.random}
    others = json.loads(texts.get(FileFormat.SECRETS, "{}"))
    if FileFormat.PASSWORD in texts:
        others[PASSWORD] = texts[FileFormat.PASSWORD]
    return Bundle(
        account=manifest.account,
        application=manifest.application,
        generation=manifest.generation,
        base_url=manifest.base_url,
        client_id=texts[FileFormat.CLIENT_ID],
        login=texts[FileFormat.USERNAME],
        secrets={name: Secret(text) for name, text in others.items()},
        key=contents[FileFormat.KEY],
        certificate=texts[FileFormat.CERTIFICATE],
        not_after=manifest.not_after,
        trust=texts[FileFormat.TRUST],
        lease_id=manifest.lease_id,
        expires=manifest.expires,
        authentication=manifest.authentication,
    )


def _fits(content: Secret[bytes], expected: str) -> bool:
    return digest(content) == expected if expected else bool(content.reveal())  # a password has no digest
