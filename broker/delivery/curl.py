"""curl's config file (`curl -K FILE URL`), in which every value survives its quoting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker.errors import InputError
from broker.model.authentication import Authentication, Place
from broker.model.secret import Secret

__all__ = ["Paths", "config"]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where certificate, key and CAs lie, absolute."""

    certificate: Path
    key: Path
    trust: Path


def config(paths: Paths, login: str, password: Secret[str], client_id: str, authentication: Authentication) -> str:
    """Return a config for curl 7.20 or later: `curl -K curl.conf https://…/fleets` is then a whole request.

    The client_id goes into the query by `get` with `data-urlencode`, which every curl has; `-d` then goes there too, so
    for POST use a session. A redirect is not followed, and `-L` would send the password to no other host.
    Raise `InputError` for a value that the format or HTTP Basic cannot hold, without quoting it.
    """
    lines = [
        "# curl -K THIS_FILE https://…   (--cacert, --cert, --key, --user and the client_id are here)",
        'proto = "=https"',
        "tlsv1.2",
        _line("cacert", str(paths.trust)),
        # Without it, curl as Debian builds it goes on trusting every CA of the system.
        _line("capath", str(paths.trust.parent)),
        # curl reads FILE:PASSPHRASE here, so it unescapes colons and backslashes once more.
        _line("cert", str(paths.certificate).replace("\\", "\\\\").replace(":", "\\:")),
        _line("key", str(paths.key)),
        _line("header", f"Accept: {authentication.accept}"),
    ]
    if authentication.basic:
        if ":" in login:
            raise InputError(
                "a login with a colon cannot be used with HTTP Basic", hint="add the account anew with its right login"
            )
        lines.append(_line("user", f"{login}:{password.reveal()}"))
    place = authentication.client_id
    if place and place.place is Place.QUERY:
        lines += ["get", _line("data-urlencode", f"{place.name}={client_id}")]
    elif place:
        lines.append(_line("header", f"{place.name}: {client_id}"))
    return "\n".join(lines) + "\n"


def _line(name: str, value: str) -> str:
    if any(ord(c) < ord(" ") or ord(c) == 0x7F for c in value):  # noqa: PLR2004  # DEL
        raise InputError(
            f"curl's '{name}' cannot hold a value with a control character", hint="leave out the file curl.conf"
        )
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name} = "{escaped}"'
