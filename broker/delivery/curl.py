"""Write config files for curl (`curl -K FILE URL`), with every value quoted."""

from __future__ import annotations

from pathlib import Path

from broker.errors import InputError
from broker.model.authentication import Authentication, Values

__all__ = ["config"]


def config(certificate: Path, key: Path, trust: Path, authentication: Authentication, values: Values) -> str:
    """Return a config for curl 7.20 or later, so that `curl -K curl.conf https://…/fleets` is a complete request.

    Redirects are not followed, and `-L` sends the password to no other host. A client_id in the query puts `-d` into
    the query too, so use a session for POST. Raise `InputError`, without the value, for one that the format or the
    authentication cannot hold.
    """
    authentication.check(values)
    lines = [
        "# curl -K THIS_FILE https://…   (--cacert, --cert, --key, --user and the client_id are here)",
        'proto = "=https"',
        "tlsv1.2",
        _line("cacert", str(trust)),
        # Without it, Debian's curl also trusts every CA of the system
        _line("capath", str(trust.parent)),
        # curl reads FILE:PASSPHRASE here, so it unescapes colons and backslashes again
        _line("cert", str(certificate).replace("\\", "\\\\").replace(":", "\\:")),
        _line("key", str(key)),
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
