"""Hold a bundle of the service in memory."""

import os
import random
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypedDict

from broker import config
from broker.agent.holding import Held
from broker.delivery.formats import manifest_of
from broker.errors import BrokerError, InputError, RefusedError, VaultUnavailableError
from broker.fetching.identity import Identity
from broker.fetching.service import Service
from broker.model.bundle import Bundle, Manifest, Source, Wanted
from broker.model.clock import system_clock
from broker.model.duration import parse_duration
from broker.model.names import account_name, checked_name
from broker.model.proxy import Proxy, proxy_of
from broker.upstream.credentials import Credentials, credentials_of
from broker.upstream.current import Current, Use

_GRACE: Final = timedelta(seconds=1)  # until the lease of an older generation is given back
_LOOK: Final = 1.0  # seconds between looks at the clock
_LATER: Final = (20.0, 40.0)  # seconds until another bundle is asked for, after one that ended
_PATIENCE: Final = 20.0  # seconds for an answer of the service


class Options(TypedDict, total=False):
    """How the service is reached, and the partner. What is left out comes from the configuration, as for commands."""

    address: str  # https://HOST:PORT or unix:///SOCKET; else BROKER_ADDR
    auth: str  # else BROKER_AUTH
    ca_file: str  # CA certificates that sign the service's; else BROKER_CACERT
    ttl: str  # of a lease, such as "15m"; it is renewed
    proxy: str  # forward proxy on the way to the partner: http://HOST:PORT
    proxy_login: str  # USER:PASSWORD for it


class Leased:
    """Follows a bundle of the service: renews its lease, hears of rotations, and gives it back.

    While no bundle may be used, because the lease or the right was taken away, the account is suspended or the service
    is away for longer than the lease, the session refuses every request, and another bundle is asked for now and then.
    """

    def __init__(self, source: Source, wanted: Wanted, proxy: Proxy | None) -> None:
        self._source, self._wanted, self._proxy = source, wanted, proxy
        self._ended = threading.Event()
        self._turn, self._turns = threading.Condition(), 0
        self._current: Current[Any] | None = None
        self._older: list[Use[Any]] = []
        self._held: Held | None = None
        self._hold()

    @property
    def credentials(self) -> Credentials:
        """The set to begin with."""
        return self._credentials

    @property
    def manifest(self) -> Manifest:
        """The manifest of the generation in use."""
        return self._manifest

    @property
    def withdrawn(self) -> bool:
        """Whether no bundle may be used now."""
        return self._held is None

    def begin(self, current: Current[Any]) -> None:
        """Keep `current` at the newest set, from a thread that ends with the process."""
        self._current = current
        current.ask = self.follow
        self._thread = threading.Thread(target=self._run, name="bundle", daemon=True)
        self._thread.start()

    def follow(self) -> bool:
        """Ask the service for the newest set now; return whether it is another one."""
        before, held = self._manifest.generation, self._held
        if held:
            with self._turn:
                turn = self._turns
                held.wake()
                self._turn.wait_for(lambda: self._turns > turn, _PATIENCE)
        return self._manifest.generation != before

    def check(self) -> None:
        """Do nothing: news are waited for."""

    def end(self) -> None:
        """Close the session, and give the bundle back."""
        if self._ended.is_set():
            return
        self._ended.set()
        if held := self._held:
            held.wake()
        if self._current:
            self._current.end(_closed())
            if threading.current_thread() is not self._thread:
                self._thread.join(_PATIENCE)

    # A place for `Held`: the session

    @property
    def path(self) -> Path:
        """The generation, in place of a path."""
        return Path(f"generation-{self._manifest.generation}")

    def write(self, bundle: Bundle) -> None:
        """Use `bundle` from now on."""
        if self._ended.is_set():
            raise _closed()
        self._credentials = credentials_of(bundle, self._proxy)
        if self._current:
            self._older.append(self._current.swap(self._credentials))
        self._manifest = manifest_of(bundle, {})

    def withdraw(self) -> tuple[Path, ...]:
        """Return nothing: no file was written."""
        return ()

    def prune(self, _now: datetime) -> None:
        """Forget sets that no request uses."""
        self._older = [use for use in self._older if use.count]

    def has(self, _generation: str) -> bool:
        """Return False: `_is_idle` says whether a set is used."""
        return False

    def close(self) -> None:
        """Hold nothing open."""

    def _is_idle(self) -> bool:
        return not self._older

    def _hold(self) -> None:
        held = Held(self._source, self._wanted, self, system_clock)
        held.grace, held.may_return = _GRACE, self._is_idle
        held.publish()
        self._held = held

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                error = self._followed()
                if error and self._current:
                    self._current.end(error)
                    self._release()
                    self._hold_again()
        finally:
            self._release()

    def _followed(self) -> BrokerError | None:
        """Return the error that ended the bundle, None at the end of the session."""
        try:
            if self._held and self._held.follow_by(self._wait):
                return None
        except BrokerError as error:
            return error
        return VaultUnavailableError("the lease has ended, and the broker gives no other", hint="check BROKER_ADDR")

    def _hold_again(self) -> None:
        while not self._ended.wait(random.uniform(*_LATER)):  # noqa: S311  # no secret
            try:
                self._hold()
            except BrokerError as error:
                if self._current:
                    self._current.end(error)
            else:
                return

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            held.close()
            with suppress(BrokerError):  # it ends by itself
                held.give_back()
        with self._turn:
            self._turns += 1
            self._turn.notify_all()

    def _wait(self, until: datetime, news: threading.Event) -> int:
        """Wait until a time or for news, and return 0; 1 at the end of the session."""
        with self._turn:
            self._turns += 1
            self._turn.notify_all()
        while not self._ended.is_set():
            left = (until - system_clock()).total_seconds()
            if left <= 0 or news.wait(min(left, _LOOK)):
                return int(self._ended.is_set())
            if self._current and self._credentials.has_expired(system_clock()):
                self._current.rest()
        return 1


def leased(application: str, options: Options) -> Leased:
    """Return a bundle of ACCOUNT/APPLICATION; raise `InputError`, and errors of the service."""
    account, _, name = application.partition("/")
    keys = {"address": "service.address", "auth": "service.auth", "ca_file": "service.ca_file", "ttl": "bundle.ttl"}
    flags = {key: str(options.get(option)) for option, key in keys.items() if options.get(option)}
    found = config.resolve(flags=flags, environment=os.environ, file=None)
    if not found["service.address"]:
        raise InputError("no broker service is named", hint="export BROKER_ADDR=https://HOST:PORT, or pass address=")
    ca_file = found["service.ca_file"]
    service = Service(found["service.address"], Identity(found["service.auth"]), Path(ca_file) if ca_file else None)
    wanted = Wanted(account_name(account), checked_name(name, "application"), parse_duration(found["bundle.ttl"]))
    through = options.get("proxy", "")
    return Leased(service, wanted, proxy_of(through, options.get("proxy_login", "")) if through else None)


def _closed() -> RefusedError:
    return RefusedError("the session is closed", hint="open another one")
