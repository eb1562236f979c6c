"""The files a bundle can be written as, and how each is made.

A text file holds its value and no line end, as mounted Kubernetes secrets do: `$(cat password)` and a program that
reads the whole file then agree.
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from broker.delivery import curl
from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from broker.pki import keys, keystores

__all__ = ["DEFAULT", "FileFormat", "render"]


class FileFormat(Enum):
    """A file of a bundle, by its name. `DEFAULT` are always written, the others on request.

    Two follow what the bundle has: `PASSWORD` is left out if there is none, `SECRETS` is added for other named secrets.
    """

    KEY = "tls.key"
    CERTIFICATE = "tls.crt"
    TRUST = "ca.crt"
    COMBINED = "tls-combined.pem"
    USERNAME = "username"
    PASSWORD = "password"  # noqa: S105  # the name of a file
    CLIENT_ID = "client_id"
    SECRETS = "secrets.json"  # the name of a file
    KEYSTORE = "keystore.p12"
    TRUSTSTORE = "truststore.p12"
    PASSPHRASE = "keystore.password"  # noqa: S105  # the name of a file
    CURL = "curl.conf"
    ENV = "env"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANINGS[self]

    @property
    def needs_passphrase(self) -> bool:
        """Whether the passphrase in `keystore.password` opens it."""
        return self in (FileFormat.KEYSTORE, FileFormat.TRUSTSTORE)

    @property
    def guessable(self) -> bool:
        """Whether it holds named secrets and nothing that is hard to guess: no digest of it may lie about."""
        return self in (FileFormat.PASSWORD, FileFormat.SECRETS, FileFormat.CURL, FileFormat.ENV)

    @property
    def random(self) -> bool:
        """Whether two renderings of one bundle differ."""
        return self.needs_passphrase or self is FileFormat.PASSPHRASE


_MEANINGS: Final[Mapping[FileFormat, str]] = MappingProxyType(
    {
        FileFormat.KEY: "the private key, PKCS#8 PEM, not encrypted",
        FileFormat.CERTIFICATE: "the client certificate and its intermediates, PEM",
        FileFormat.TRUST: "the CAs by which the partner's server is known, PEM",
        FileFormat.COMBINED: "key, certificate and intermediates in one PEM",
        FileFormat.USERNAME: "the login",
        FileFormat.PASSWORD: "the password",
        FileFormat.CLIENT_ID: "the application's client_id",
        FileFormat.SECRETS: "the other named secrets, if the partner has any: a JSON object",
        FileFormat.KEYSTORE: "key and certificate as PKCS#12, for Java, curl and Node",
        FileFormat.TRUSTSTORE: "the server's CAs as a PKCS#12 trust store, for Java",
        FileFormat.PASSPHRASE: "the passphrase of the key stores beside it",
        FileFormat.CURL: "all of it for curl: curl -K …/current/curl.conf URL",
        FileFormat.ENV: "paths and values for a POSIX shell: set -a; . …/current/env",
    }
)
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
    """What a file is made of."""

    bundle: Bundle
    at: Path
    passphrase: Secret[str]


def render(bundle: Bundle, formats: Collection[FileFormat], at: Path) -> dict[FileFormat, Secret[bytes]]:
    """Return the files in `formats` and those that are always there, in the order of the enum.

    `at` is the directory they are going to lie in: `curl.conf` and `env` name the others by it. They name the
    generation's own directory, not the link `current`, since a program that opens the key and then the certificate
    through a link can get each from another generation. Raise `InputError` for what a format cannot hold.
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
    at, b = job.at, job.bundle
    paths = curl.Paths(at / FileFormat.CERTIFICATE.value, at / FileFormat.KEY.value, at / FileFormat.TRUST.value)
    return _text(curl.config(paths, b.authentication, b.values))


def _others(bundle: Bundle) -> dict[str, str]:
    """Return the named secrets that have no file of their own."""
    return {name: secret.reveal() for name, secret in sorted(bundle.secrets.items()) if name != PASSWORD}


def _env(job: _Job) -> Secret[bytes]:
    values = {
        "PARTNER_BASE_URL": job.bundle.base_url,
        "PARTNER_CLIENT_ID": job.bundle.client_id,
        "PARTNER_USERNAME": job.bundle.login,
        **{f"PARTNER_{_variable(name)}": secret.reveal() for name, secret in job.bundle.secrets.items()},
        "PARTNER_CERT": str(job.at / FileFormat.CERTIFICATE.value),
        "PARTNER_KEY": str(job.at / FileFormat.KEY.value),
        "PARTNER_CA": str(job.at / FileFormat.TRUST.value),
    }
    if any("\0" in value for value in values.values()):
        raise InputError("a NUL cannot stand in an environment variable", hint="leave out the file `env`")
    return _text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))


def _variable(name: str) -> str:
    return "PASSWORD" if name == PASSWORD else f"SECRET_{name.upper().replace('-', '_')}"


_RENDERERS: Final[Mapping[FileFormat, Callable[[_Job], Secret[bytes]]]] = MappingProxyType(
    {
        FileFormat.KEY: lambda job: keys.pem(job.bundle.key),
        FileFormat.CERTIFICATE: lambda job: _text(job.bundle.certificate.pem),
        FileFormat.TRUST: lambda job: _text(job.bundle.trust.pem),
        FileFormat.COMBINED: _combined,
        FileFormat.USERNAME: lambda job: _text(job.bundle.login),
        FileFormat.PASSWORD: lambda job: _text(job.bundle.secrets[PASSWORD].reveal()),
        FileFormat.CLIENT_ID: lambda job: _text(job.bundle.client_id),
        FileFormat.SECRETS: lambda job: _text(json.dumps(_others(job.bundle), ensure_ascii=False)),
        FileFormat.KEYSTORE: lambda job: keystores.pkcs12_bundle(
            job.bundle.key, job.bundle.certificate, None, job.passphrase
        ),
        FileFormat.TRUSTSTORE: lambda job: Secret(keystores.truststore_p12(job.bundle.trust, job.passphrase)),
        FileFormat.PASSPHRASE: lambda job: _text(job.passphrase.reveal()),
        FileFormat.CURL: _curl,
        FileFormat.ENV: _env,
    }
)
