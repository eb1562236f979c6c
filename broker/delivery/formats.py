"""Render a bundle as files, and write and read `manifest.json`, its public part.

A text file holds its value without a line end, as mounted Kubernetes secrets do: `$(cat password)` and a program that
reads the whole file get the same value.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec

from broker.errors import InputError
from broker.model.authentication import PASSWORD, Authentication, Values
from broker.model.bundle import Bundle, Manifest
from broker.model.names import account_name
from broker.model.secret import Secret
from broker.partners.authentication import authentication_of, document_of
from broker.typed import typed

MANIFEST: Final = "manifest.json"
SCHEMA: Final = 1


class FileFormat(Enum):
    """A file of a bundle: its name, and its meaning for people.

    `DEFAULT` are always written, the others on request. Two depend on the bundle: `PASSWORD` is left out if there is no
    password, `SECRETS` is added for other named secrets.
    """

    KEY = "tls.key", "the private key, PKCS#8 PEM, not encrypted"
    CERTIFICATE = "tls.crt", "the client certificate and its intermediates, PEM"
    TRUST = "ca.crt", "the CAs that verify the partner's server, PEM"
    COMBINED = "tls-combined.pem", "key, certificate and intermediates in one PEM"
    USERNAME = "username", "the login"
    PASSWORD = "password", "the password"
    CLIENT_ID = "client_id", "the application's client_id"
    SECRETS = "secrets.json", "the other named secrets, if the partner has any: a JSON object"
    KEYSTORE = "keystore.p12", "key and certificate as PKCS#12, for Java, curl and Node"
    TRUSTSTORE = "truststore.p12", "the server's CAs as a PKCS#12 trust store, for Java"
    PASSPHRASE = "keystore.password", "the passphrase of the key stores beside it"
    CURL = "curl.conf", "everything for curl: curl -K …/current/curl.conf URL"
    ENV = "env", "paths and values for a POSIX shell: set -a; . …/current/env"

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> FileFormat:
        """Make the member whose value is the file's name."""
        made = object.__new__(cls)
        made._value_, made.meaning = value, meaning
        return made

    @property
    def guessable(self) -> bool:
        """Return whether it holds secrets and nothing hard to guess: its digest must not be published."""
        return self in (FileFormat.PASSWORD, FileFormat.SECRETS, FileFormat.CURL, FileFormat.ENV)

    @property
    def random(self) -> bool:
        """Return whether two renderings of one bundle differ."""
        return self in (FileFormat.KEYSTORE, FileFormat.TRUSTSTORE, FileFormat.PASSPHRASE)


DEFAULT: Final = tuple(FileFormat)[:7]  # to the client_id


def render(bundle: Bundle, formats: Collection[FileFormat], at: Path) -> dict[FileFormat, Secret[bytes]]:
    """Return the files in `formats` and the default ones, in the order of the enum.

    `at` is their future directory: `curl.conf` and `env` name the other files in it. It is the directory of the
    generation, not the link `current`: a program that opens key and certificate through a link can get each from
    another generation. Raise `InputError` for a value that a format cannot hold.
    """
    wanted = {*DEFAULT, *formats} - {FileFormat.PASSPHRASE, FileFormat.PASSWORD}
    wanted |= {FileFormat.PASSWORD if name == PASSWORD else FileFormat.SECRETS for name in bundle.secrets}
    if wanted & {FileFormat.KEYSTORE, FileFormat.TRUSTSTORE}:
        wanted.add(FileFormat.PASSPHRASE)
    passphrase = Secret(os.urandom(32).hex())
    rendered: dict[FileFormat, Callable[[], str | bytes]] = {
        FileFormat.KEY: bundle.key.reveal,
        FileFormat.CERTIFICATE: lambda: bundle.certificate,
        FileFormat.TRUST: lambda: bundle.trust,
        FileFormat.COMBINED: lambda: bundle.key.reveal() + bundle.certificate.encode(),
        FileFormat.USERNAME: lambda: bundle.login,
        FileFormat.PASSWORD: lambda: bundle.secrets[PASSWORD].reveal(),  # noqa: PLW0108  # there may be none
        FileFormat.CLIENT_ID: lambda: bundle.client_id,
        FileFormat.SECRETS: lambda: _others(bundle),
        FileFormat.KEYSTORE: lambda: _keystore(bundle, passphrase),
        FileFormat.TRUSTSTORE: lambda: _truststore(bundle, passphrase),
        FileFormat.PASSPHRASE: passphrase.reveal,
        FileFormat.CURL: lambda: curl_config(at, bundle.authentication, bundle.values),
        FileFormat.ENV: lambda: _env(bundle, at),
    }
    contents = {f: rendered[f]() for f in FileFormat if f in wanted}
    return {f: Secret(c.encode() if isinstance(c, str) else c) for f, c in contents.items()}


def _keystore(bundle: Bundle, passphrase: Secret[str]) -> bytes:
    from broker.pki import keys  # loads cryptography, 70 ms, which no other file needs

    return keys.pkcs12_bundle(keys.from_pem(bundle.key), bundle.certificate, passphrase).reveal()


def _truststore(bundle: Bundle, passphrase: Secret[str]) -> bytes:
    from broker.pki import keys

    return keys.truststore_p12(bundle.trust, passphrase)


def curl_config(at: Path, authentication: Authentication, values: Values) -> str:
    """Return a config for curl 7.20 or later, so that `curl -K curl.conf https://…/fleets` is a complete
    request with the files in `at`.

    Redirects are not followed, and `-L` sends the password to no other host. A client_id in the query puts `-d` into
    the query too, so use a session for POST. Raise `InputError`, without the value, for one that the format or the
    authentication cannot hold.
    """
    authentication.check(values)
    lines = [
        "# curl -K THIS_FILE https://…   (--cacert, --cert, --key, --user and the client_id are here)",
        'proto = "=https"',
        "tlsv1.2",
        _line("cacert", str(at / FileFormat.TRUST.value)),
        # Without it, Debian's curl also trusts every CA of the system
        _line("capath", str(at)),
        # curl reads FILE:PASSPHRASE here, so it unescapes colons and backslashes again
        _line("cert", str(at / FileFormat.CERTIFICATE.value).replace("\\", "\\\\").replace(":", "\\:")),
        _line("key", str(at / FileFormat.KEY.value)),
        _line("header", f"Accept: {authentication.accept}"),
    ]
    for part in authentication.parts:
        options = part.curl(values)
        if options is None:
            raise InputError(
                f"curl.conf cannot hold the partner's {part.kind}, which differs in each request",
                hint="leave out --format curl.conf",
            )
        lines += [_line(*option) for option in options]
    return "\n".join(lines) + "\n"


def _line(name: str, value: str) -> str:
    if any(ord(c) < ord(" ") or ord(c) == 0x7F for c in value):  # noqa: PLR2004  # DEL
        raise InputError(f"curl's '{name}' cannot hold a control character", hint="leave out --format curl.conf")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name} = "{escaped}"' if value else name


def _others(bundle: Bundle) -> str:
    values = {name: secret.reveal() for name, secret in sorted(bundle.secrets.items()) if name != PASSWORD}
    return json.dumps(values, ensure_ascii=False)


def _env(bundle: Bundle, at: Path) -> str:
    values = {
        "PARTNER_BASE_URL": bundle.base_url,
        "PARTNER_CLIENT_ID": bundle.client_id,
        "PARTNER_USERNAME": bundle.login,
        **{
            "PARTNER_PASSWORD" if name == PASSWORD else f"PARTNER_SECRET_{name.upper().replace('-', '_')}": s.reveal()
            for name, s in bundle.secrets.items()
        },
        "PARTNER_CERT": str(at / FileFormat.CERTIFICATE.value),
        "PARTNER_KEY": str(at / FileFormat.KEY.value),
        "PARTNER_CA": str(at / FileFormat.TRUST.value),
    }
    if any("\0" in value for value in values.values()):
        raise InputError("an environment variable cannot hold a NUL", hint="leave out --format env")
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def manifest_of(bundle: Bundle, files: Mapping[FileFormat, Secret[bytes]]) -> Manifest:
    """Return the manifest of `bundle` rendered as `files`."""
    return Manifest(
        account=bundle.account,
        application=bundle.application,
        generation=bundle.generation,
        base_url=bundle.base_url,
        authentication=bundle.authentication,
        not_after=bundle.not_after,
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
        return typed(document, Manifest, from_attributes=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{MANIFEST} is damaged, or not the broker's", hint="get the bundle again") from None


def digest(content: Secret[bytes]) -> str:
    """Return the SHA-256 of `content` in lower-case hex."""
    return hashlib.sha256(content.reveal()).hexdigest()
