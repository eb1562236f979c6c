"""Run the service: bundles for callers on one address, health on another."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from broker.compose.issuing import Issuing
from broker.compose.watching import metrics
from broker.errors import InputError
from broker.issuing.waits import Room
from broker.model.secret import Secret
from broker.service.app import application
from broker.service.health import Watched, health
from broker.service.limits import Guard, raise_open_files
from broker.service.listeners import Address, Listener, Ready, Report, serve
from broker.service.listing import listing
from broker.service.systemd import State
from broker.service.tls import IssuedTls, ReloadedTls, Tls
from broker.service.waiting import waiting

_WATCHERS: Final = 64  # connections


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the service listens, as a person writes it."""

    address: str
    health: str = ""  # none
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    pki: str = ""  # MOUNT/ROLE of Vault's PKI, in place of both files
    name: str = ""  # of this server, in that certificate


def run(issuing: Issuing, listening: Listening, ready: Ready, report: Report) -> None:
    """Serve until a signal asks to end; call `ready` with the addresses once they listen. Raise `InputError`."""
    address = Address.parse(listening.address, behind_proxy=listening.behind_proxy)
    waits = issuing.waits
    others = {("POST", "/v1/wait"): waiting(waits), ("GET", "/v1/accounts"): listing(issuing.applications)}
    app = application(issuing.service, others)
    guard = Guard(raise_open_files(), None if listening.behind_proxy else address.names)
    waits.room = Room.among(guard.connections)
    listeners = [Listener(app, address, tls_of(listening, address, issuing.server_certificate), guard)]

    def reported(state: State) -> None:
        report(state)
        if state is State.STOPPING:
            waits.drain()

    with ExitStack() as reading:
        if listening.health:
            at = Address.parse(listening.health, behind_proxy=True)  # nothing there is secret
            expiries = reading.enter_context(issuing.expiries())
            watched = Watched(issuing.check, issuing.check_account, metrics(issuing, expiries, listeners[0]))
            listeners.append(Listener(health(watched), at, guard=Guard(_WATCHERS, at.names)))
        serve(listeners, ready=ready, report=reported)


def tls_of(listening: Listening, address: Address, issue: Callable[[str, str], Secret[bytes]]) -> Tls | None:
    """Return the TLS of the service, None for plain HTTP; raise `InputError` without a certificate for https."""
    certificate, key = listening.certificate, listening.key
    if (certificate or key) and not address.tls:
        raise InputError("--tls-cert and --tls-key are for an address with https://", hint="--listen https://HOST:PORT")
    if not address.tls:
        return None
    if certificate and key:
        return ReloadedTls(certificate, key)
    if listening.pki and not listening.name:
        raise InputError("--tls-pki requires --tls-name", hint="--tls-name broker.example: the name that clients use")
    if not listening.pki:
        raise InputError(
            f"{address} needs a certificate", hint="give --tls-cert and --tls-key, or --tls-pki and --tls-name"
        )
    return IssuedTls(partial(issue, listening.pki, listening.name))
