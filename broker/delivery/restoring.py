"""Read a published bundle back, and judge whether it is whole."""

import json
from pathlib import Path

from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST, FileFormat, digest, parse
from broker.delivery.root import Root
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


def restored(directory: Root) -> tuple[str, Bundle] | None:
    """Return the published generation and its bundle, None if there is none that is whole."""
    name = directory.link(CURRENT)
    if name is None or not directory.is_directory(name):
        return None
    with directory.opened(name) as generation:
        try:
            found = generation.read(MANIFEST)
            manifest = parse(found.reveal()) if found else None
            files = {name: generation.read(name) for name in manifest.files} if manifest else {}
            return (name, _bundle(manifest, files)) if manifest else None
        except (InputError, ValueError, AttributeError, KeyError):
            return None


def _bundle(manifest: Manifest, files: dict[str, Secret[bytes] | None]) -> Bundle:
    contents: dict[FileFormat, Secret[bytes]] = {}
    for name, content in files.items():
        if content is None or not _fits(content, manifest.files[name]):
            raise ValueError
        contents[FileFormat(name)] = content
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
    return not expected or digest(content) == expected
