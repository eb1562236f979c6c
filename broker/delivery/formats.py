"""Render a bundle as files.

A text file holds its value without a line end, as mounted Kubernetes secrets do: `$(cat password)` and a program that
reads the whole file get the same value.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from broker.delivery import curl
from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.pki import keys

__all__ = ["DEFAULT", "FileFormat", "render"]


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
    def needs_passphrase(self) -> bool:
        """Return whether the passphrase in `keystore.password` opens it."""
        return self in (FileFormat.KEYSTORE, FileFormat.TRUSTSTORE)

    @property
    def guessable(self) -> bool:
        """Return whether it holds secrets and nothing hard to guess: its digest must not be published."""
        return self in (FileFormat.PASSWORD, FileFormat.SECRETS, FileFormat.CURL, FileFormat.ENV)

    @property
    def random(self) -> bool:
        """Return whether two renderings of one bundle differ."""
        return self.needs_passphrase or self is FileFormat.PASSPHRASE


DEFAULT: Final = (
    FileFormat.KEY,
    FileFormat.CERTIFICATE,
    FileFormat.TRUST,
    FileFormat.COMBINED,
    FileFormat.USERNAME,
    FileFormat.PASSWORD,
    FileFormat.CLIENT_ID,
)


@dataclass(frozen=True, slots=True)
class _Job:
    """The input of a renderer."""

    bundle: Bundle
    at: Path
    passphrase: Secret[str]


def render(bundle: Bundle, formats: Collection[FileFormat], at: Path) -> dict[FileFormat, Secret[bytes]]:
    """Return the files in `formats` and the default ones, in the order of the enum.

    `at` is their future directory: `curl.conf` and `env` name the other files in it. It is the directory of the
    generation, not the link `current`: a program that opens key and certificate through a link can get each from
    another generation. Raise `InputError` for a value that a format cannot hold.
    """
    wanted = {*DEFAULT, *formats} - {FileFormat.PASSPHRASE, FileFormat.PASSWORD}
    wanted |= {FileFormat.PASSWORD if name == PASSWORD else FileFormat.SECRETS for name in bundle.secrets}
    if any(f.needs_passphrase for f in wanted):
        wanted.add(FileFormat.PASSPHRASE)
    job = _Job(bundle, at, Secret(secrets.token_urlsafe(32)))
    return {f: _RENDERERS[f](job) for f in FileFormat if f in wanted}


def _text(value: str) -> Secret[bytes]:
    return Secret(value.encode())


def _combined(job: _Job) -> Secret[bytes]:
    return Secret(keys.pem(job.bundle.key).reveal() + job.bundle.certificate.pem.encode())


def _curl(job: _Job) -> Secret[bytes]:
    names = (FileFormat.CERTIFICATE.value, FileFormat.KEY.value, FileFormat.TRUST.value)
    paths = curl.Paths(*(job.at / name for name in names))
    return _text(curl.config(paths, job.bundle.authentication, job.bundle.values))


def _others(job: _Job) -> Secret[bytes]:
    values = {name: secret.reveal() for name, secret in sorted(job.bundle.secrets.items()) if name != PASSWORD}
    return _text(json.dumps(values, ensure_ascii=False))


def _keystore(job: _Job) -> Secret[bytes]:
    return keys.pkcs12_bundle(job.bundle.key, job.bundle.certificate, job.passphrase)


def _env(job: _Job) -> Secret[bytes]:
    values = {
        "PARTNER_BASE_URL": job.bundle.base_url,
        "PARTNER_CLIENT_ID": job.bundle.client_id,
        "PARTNER_USERNAME": job.bundle.login,
        **{
            "PARTNER_PASSWORD" if name == PASSWORD else f"PARTNER_SECRET_{name.upper().replace('-', '_')}": s.reveal()
            for name, s in job.bundle.secrets.items()
        },
        "PARTNER_CERT": str(job.at / FileFormat.CERTIFICATE.value),
        "PARTNER_KEY": str(job.at / FileFormat.KEY.value),
        "PARTNER_CA": str(job.at / FileFormat.TRUST.value),
    }
    if any("\0" in value for value in values.values()):
        raise InputError("an environment variable cannot hold a NUL", hint="leave out --format env")
    return _text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))


_RENDERERS: Final[Mapping[FileFormat, Callable[[_Job], Secret[bytes]]]] = {
    FileFormat.KEY: lambda job: keys.pem(job.bundle.key),
    FileFormat.CERTIFICATE: lambda job: _text(job.bundle.certificate.pem),
    FileFormat.TRUST: lambda job: _text(job.bundle.trust.pem),
    FileFormat.COMBINED: _combined,
    FileFormat.USERNAME: lambda job: _text(job.bundle.login),
    FileFormat.PASSWORD: lambda job: _text(job.bundle.secrets[PASSWORD].reveal()),
    FileFormat.CLIENT_ID: lambda job: _text(job.bundle.client_id),
    FileFormat.SECRETS: _others,
    FileFormat.KEYSTORE: _keystore,
    FileFormat.TRUSTSTORE: lambda job: Secret(keys.truststore_p12(job.bundle.trust, job.passphrase)),
    FileFormat.PASSPHRASE: lambda job: _text(job.passphrase.reveal()),
    FileFormat.CURL: _curl,
    FileFormat.ENV: _env,
}
