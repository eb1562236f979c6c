"""`broker serve --dev`: the service with everything it needs, for a laptop."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from broker.cli.output import note
from broker.cli.serve import note_addresses
from broker.compose.graph import Broker
from broker.compose.serving import Listening, tls_of
from broker.config import resolve
from broker.errors import BrokerError
from broker.model.secret import Secret
from broker.paths import write_atomically
from broker.service.listeners import Address
from broker.telemetry import log
from broker.telemetry.rendering import configure
from broker_demo import steps
from broker_demo.runner import Demo

_RENEWED: Final = 600.0  # seconds; a token lasts 20 minutes
_ASKED: Final = json.dumps({"account": "acme", "application": "reporting", "ttl": "15m"})


class _Silent(Demo):
    def echo(self, line: str) -> None:
        """Print nothing."""


def serve(listening: Listening) -> None:
    """Serve bundles of an account at the stand-in until a signal asks to end; then remove everything."""
    _check(listening)
    note("starting a vault, a partner and an account; this takes ten seconds")
    demo = _Silent()
    try:
        _prepare(demo)
        config = resolve(flags={}, environment={}, file=demo.directory / "broker.toml", defaults={"actor": "dev"})
        broker = Broker(config, {}, say=note)
        configure(log.Level.INFO, log.Form.CONSOLE)
        try:
            with _fresh_token(demo) as header:
                broker.serve(listening, lambda addresses: _say(addresses, header))
        finally:
            broker.close()
    finally:
        demo.close()
    note("everything is removed")


def _check(listening: Listening) -> None:
    """Raise `InputError` before the long work."""
    for text in filter(None, (listening.address, listening.health)):
        address = Address.parse(text, behind_proxy=listening.behind_proxy)
        address.bound().close()
        if text == listening.address:
            tls_of(listening, address, lambda _pki, _name: Secret(b""))  # there is no PKI


def _prepare(demo: Demo) -> None:
    steps.prepare(demo)
    steps.vault(demo, keep=False)
    steps.first_generation(demo)


@contextmanager
def _fresh_token(demo: Demo) -> Iterator[Path]:
    """Yield a file with a header for curl, whose token is replaced before it ends."""
    header, ended = demo.directory / "reporting.header", threading.Event()

    def write() -> None:
        steps.enrol(demo)
        token = (demo.directory / "reporting.token").read_text().strip()
        write_atomically(header, f"X-Vault-Token: {token}\n".encode(), 0o600)

    def renew() -> None:
        while not ended.wait(_RENEWED):
            with suppress(BrokerError):  # the old token is good for as long again
                write()

    write()
    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        yield header
    finally:
        ended.set()
        renewing.join()


def _say(addresses: tuple[str, ...], header: Path) -> None:
    note_addresses(addresses)
    where = addresses[0]
    target = f"--unix-socket {where.removeprefix('unix://')} http://broker" if where.startswith("unix:") else where
    note("\nAsk for a bundle:")
    note(f"  curl -sS --noproxy '*' {target}/v1/bundles -H @{header} -d {shlex.quote(_ASKED)}")
    auth = f"token-file:{header.with_suffix('.token')}"
    note("Or run a program with one:")
    note(f"  BROKER_ADDR={where} BROKER_AUTH={auth} broker exec acme/reporting -- env")
    note("Ctrl-C removes everything.")
