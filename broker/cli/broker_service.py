"""The broker service that a command goes through, if the configuration names one."""

from collections.abc import Callable
from pathlib import Path

from broker.cli.options import read_input
from broker.cli.output import note
from broker.cli.start import Start
from broker.errors import InputError
from broker.fetching.identity import Identity, token_of
from broker.fetching.service import Service
from broker.model.lease import Caller
from broker.model.secret import Secret


def service(start: Start, token_file: str = "", say: Callable[[str], None] = note) -> Service | None:
    """Return the service at BROKER_ADDR, None if none is set; `say` which way the command goes.

    `token_file` has the identity to show; without it, BROKER_AUTH names one. Raise `InputError`.
    """
    if start.config["service.address"]:
        return _made(start, f"token-file:{token_file}" if token_file else start.config["service.auth"], say)
    say("directly from Vault")
    return None


def required_service(start: Start, say: Callable[[str], None] = note) -> Service:
    """Return the service at BROKER_ADDR; raise `InputError` if none is set."""
    if not start.config["service.address"]:
        hint = "export BROKER_ADDR=URL BROKER_AUTH=token-file:PATH; or set [service] in broker.toml"
        raise InputError("no broker service is configured", hint=hint)
    return _made(start, start.config["service.auth"], say)


def _made(start: Start, auth: str, say: Callable[[str], None]) -> Service:
    address, ca_file = start.config["service.address"], start.config["service.ca_file"]
    found = Service(address, _shown(auth), Path(ca_file) if ca_file else None)
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
    return token_of(read_input(file), "standard input" if file == "-" else file)
