"""The broker service that a command goes through, if the configuration names one."""

from collections.abc import Callable
from pathlib import Path

from broker.cli.options import read_input
from broker.cli.output import note
from broker.cli.start import Start
from broker.fetching.identity import Identity, token_of
from broker.fetching.service import Service
from broker.model.lease import Caller
from broker.model.secret import Secret


def service(start: Start, token_file: str = "", say: Callable[[str], None] = note) -> Service | None:
    """Return the service at BROKER_ADDR, None if none is set; `say` which way the command goes.

    `token_file` has the identity to show; without it, BROKER_AUTH names one. Raise `InputError`.
    """
    address, ca_file = start.config["service.address"], start.config["service.ca_file"]
    if not address:
        say("directly from Vault")
        return None
    shown = _shown(f"token-file:{token_file}" if token_file else start.config["service.auth"])
    found = Service(address, shown, Path(ca_file) if ca_file else None)
    say(f"through {address}")
    return found


def _shown(auth: str) -> Callable[[], Caller]:
    """Return the identity that `auth` names; standard input is read once."""
    method, _, source = auth.partition(":")
    if source != "-":
        return Identity(auth)
    caller = Caller(token(source), is_jwt=method == "jwt-file")
    return lambda: caller


def token(file: str) -> Secret[str]:
    """Return the token in `file`, `-` for standard input; raise `InputError`."""
    return token_of(read_input(file), file)
