"""Run the service: bundles for callers on one address, health on another."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.compose.issuing import Issuing
from broker.compose.watching import metrics
from broker.errors import InputError
from broker.issuing.waits import Room
from broker.model.secret import Secret
from broker.service.app import application
from broker.service.health import Watched, health
from broker.service.limits import Guard, raise_open_files
from broker.service.listeners import Address, Listener, Ready, Report, serve
from broker.service.listing import course, holding, listing
from broker.service.tls import IssuedTls, ReloadedTls, Tls
from broker.service.waiting import waiting
from broker.service.workers import Worker, started
from broker.systemd import State

_WATCHERS: Final = 64  # connections


class Listening(Struct, frozen=True):
    """Where the service listens, as a person writes it."""

    address: str
    health: str = ""  # none
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    pki: str = ""  # MOUNT/ROLE of Vault's PKI, in place of both files
    name: str = ""  # of this server, in that certificate
    workers: int = 1  # processes

    @property
    def bundles(self) -> Address:
        """The address for bundles; raise `InputError`."""
        return Address.parse(self.address, behind_proxy=self.behind_proxy)

    def watched(self, number: int) -> Address:
        """Return the address for the health of worker `number`; raise `InputError`."""
        address = Address.parse(self.health, behind_proxy=True)  # nothing there is secret
        if address.path and self.workers > 1:
            raise InputError(
                "with --workers, --health needs a port: each worker has its own", hint="--health HOST:PORT"
            )
        return address.after(number)


def served(issuing: Callable[[], Issuing], listening: Listening, ready: Ready, report: Report) -> int:
    """Serve until a signal asks to end, and return the exit code; call `ready` with the addresses once they listen.

    Raise `BrokerError`. Workers come from here, before anything is logged in: each has its own login.
    """
    if listening.workers == 1:
        _serve(issuing(), listening, ready, report)
        return 0
    worker = started(listening.bundles, listening.workers, report)
    if isinstance(worker, int):
        return worker
    _serve(issuing(), listening, ready, worker.report, worker)
    return 0


def _serve(issuing: Issuing, listening: Listening, ready: Ready, report: Report, worker: Worker | None = None) -> None:
    issuing.check()  # a service that can issue nothing does not start
    address = listening.bundles
    waits = issuing.waits
    others = {
        ("POST", "/v1/wait"): waiting(waits),
        ("GET", "/v1/accounts"): listing(issuing.applications),
        ("GET", "/v1/leases"): holding(issuing.own_leases),
        ("GET", "/v1/accounts/*/timeline"): course(issuing.timelines),
    }
    app = application(issuing.service, others)
    guard = Guard(raise_open_files(), None if listening.behind_proxy else address.names)
    waits.room = Room.among(guard.connections)
    tls = tls_of(listening, address, issuing.server_certificate)
    listeners = [Listener(app, address, tls, guard, worker.bound if worker else None)]

    def reported(state: State) -> None:
        report(state)
        if state is State.STOPPING:
            waits.drain()

    with ExitStack() as reading:
        if listening.health:
            at = listening.watched(worker.number if worker else 0)
            expiries = reading.enter_context(issuing.expiries())
            watched = Watched(issuing.check, issuing.check_account, metrics(issuing, expiries, listeners[0]))
            listeners.append(Listener(health(watched), at, guard=Guard(_WATCHERS, at.names)))
        serve(listeners, ready=ready, report=reported, close=issuing.close_channel)


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
