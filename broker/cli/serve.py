"""`broker serve`: issue bundles over HTTP."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.cli.output import note
from broker.cli.start import Start
from broker.compose.serving import Listening
from broker.errors import InputError

_FILE = click.Path(path_type=Path)


def _setting(option: str, metavar: str, meaning: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return an option that overrides a setting."""

    def take(ctx: click.Context, param: click.Parameter, value: str) -> None:
        if value and param.name:
            ctx.obj.take(param.name, value)

    return click.option(option, default="", metavar=metavar, help=meaning, expose_value=False, callback=take)


@click.command(
    "serve",
    epilog="Example: broker serve --listen https://0.0.0.0:8443 --tls-cert tls.crt --tls-key tls.key",
)
@click.option(
    "--listen",
    "address",
    default="127.0.0.1:8250",
    show_default=True,
    metavar="ADDRESS",
    help="HOST:PORT on loopback, unix:///PATH, or https://HOST:PORT.",
)
@click.option("--tls-cert", "certificate", metavar="FILE", type=_FILE, help="The service's certificate chain, PEM.")
@click.option("--tls-key", "key", metavar="FILE", type=_FILE, help="Its key, PEM. Both are read again if they change.")
@_setting("--tls-pki", "MOUNT/ROLE", "Take certificates from Vault's PKI, in place of files.")
@_setting("--tls-name", "NAME", "Host name or IP address in that certificate.")
@click.option("--behind-proxy", is_flag=True, help="Allow plain HTTP off loopback: a proxy on this host does TLS.")
@click.option(
    "--health",
    default="127.0.0.1:8251",
    show_default=True,
    metavar="ADDRESS",
    help='Address of /livez, /readyz and /metrics, plain HTTP; "" for none.',
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the address."
)
@click.option("--dev", is_flag=True, help="With a vault, a partner stand-in and an account of its own, for a laptop.")
@click.pass_obj
def command(start: Start, /, dev: bool, **given: Any) -> int:
    """Issue bundles over HTTP, with the server role's login, to consumers that show a Vault token or a JWT.

    Runs until a signal asks it to end, then answers open requests first. Replicas hold no state: run as many as you
    like beside each other. With --workers N, N of them share the address, and the health of each has a port of its
    own: that of --health, and those after it. Each request is logged as a line of JSON, unless log.level or log.format
    say otherwise.

    --dev makes everything that the service needs in a temporary directory, prints a curl line that fetches a bundle,
    and removes it all at Ctrl-C.
    """
    if dev and given["workers"] > 1:
        raise InputError("--dev runs one process", hint="leave out --workers")
    if dev:
        importlib.import_module("broker_demo.dev").serve(Listening(**given))  # of the stand-in's distribution
        return 0
    start.suggest("vault.patience", "8s")  # clients wait 10 s for an answer
    start.suggest("log.level", "info")
    start.suggest("log.format", "json")
    pki, name = start.config["serve.tls_pki"], start.config["serve.tls_name"]
    return start.broker.serve(Listening(**given, pki=pki, name=name), note_addresses)


def note_addresses(addresses: tuple[str, ...]) -> None:
    """Print the addresses that a service listens at: the one for bundles, then the one for health, if there is one."""
    bundles, *health = addresses
    note(f"listening on {bundles}")
    for address in health:
        note(f"listening on {address} for /livez, /readyz and /metrics")
