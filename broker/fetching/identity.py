"""The identity that is shown to the service."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from stat import S_ISREG

from broker.errors import BrokerError, InputError
from broker.model.lease import Caller
from broker.model.redactor import Redactor
from broker.model.secret import Secret
from broker.paths import read_file
from broker.settings import AUTH_FORM, KUBERNETES
from broker.telemetry import log


class Identity:
    """The identity that BROKER_AUTH names. A file is read again when it changes: tokens are replaced in time."""

    def __init__(self, auth: str) -> None:
        self._auth = auth
        self._seen = self._stamp()
        self._caller = identity(auth)

    def __call__(self) -> Caller:
        """Return the identity, the last good one if the file cannot be read now."""
        stamp = self._stamp()
        if stamp != self._seen:
            with suppress(BrokerError):
                self._caller, self._seen = identity(self._auth), stamp
        return self._caller

    def _stamp(self) -> tuple[int, int] | None:
        method, _, source = self._auth.partition(":")
        try:
            found = Path(source).stat() if method.endswith("-file") else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ino) if found and S_ISREG(found.st_mode) else None


def identity(auth: str) -> Caller:
    """Return the identity that BROKER_AUTH names; raise `InputError`."""
    method, _, source = auth.partition(":")
    if not source:
        raise InputError(
            "no identity for the broker service is named", hint="export BROKER_AUTH=token-file:PATH (or jwt-file:PATH)"
        )
    if auth == KUBERNETES and not Path(source).exists():
        hint = f"project a service account token there, with the audience of the broker; or set BROKER_AUTH={AUTH_FORM}"
        raise InputError(f"there is no service account token at {source}", hint=hint)
    if method != "jwt-env":
        return Caller(token_of(_content(method, source), source), is_jwt=method == "jwt-file")
    if not os.environ.get(source):
        raise InputError(f"the variable {source} is not set", hint="put the JWT into it, or set BROKER_AUTH")
    return Caller(token_of(os.environb[os.fsencode(source)], f"the variable {source}"), is_jwt=True)


def token_of(content: bytes, source: str) -> Secret[str]:
    """Return the token or JWT in `content`, that of `source`; raise `InputError`."""
    text = content.decode("utf-8", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        del content, text  # error trackers keep the variables of frames
        raise InputError(f"{source} holds no token", hint="write one Vault token or JWT there, in one line")
    return _hidden(text)


def _content(method: str, file: str) -> bytes:
    try:
        return read_file(Path(file))
    except OSError as error:
        hint = f"write the token there, or name another file in BROKER_AUTH={method}:PATH"
        raise InputError(f"cannot read {file}: {(error.strerror or 'error').lower()}", hint=hint) from None


def _hidden(text: str) -> Secret[str]:
    found = Secret(text)
    redactor = cache(lambda: Redactor([found]))  # made for the first text: that takes 10 ms
    log.hide(lambda text: redactor().redact(text))
    return found
