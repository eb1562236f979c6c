"""The stand-in as one object, in a directory. It listens on loopback only."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from partner_standin.api import BASES, Api, ApiListener
from partner_standin.authorities import Authorities, fingerprint, write_atomically
from partner_standin.desk import Desk
from partner_standin.desk_http import DeskListener
from partner_standin.desk_request import Parts
from partner_standin.faults import Faults
from partner_standin.gate import Gate
from partner_standin.operations import Operations
from partner_standin.quota import Quota
from partner_standin.registry import Registry
from partner_standin.reply import Reply
from partner_standin.request_log import RequestLog
from partner_standin.tls_contexts import Contexts

SEED: Final = "stand-in"


class InUseError(RuntimeError):
    """Another stand-in uses this directory, or it belongs to another user."""


class Standin:
    """A partner in a directory: `with Standin(directory) as partner:` and `partner.api_url` answers.

    `accounts` maps logins to passwords. `faults` are settings as `Faults.apply` reads them. `clock` applies to
    everything but OpenSSL. After the `with`, no thread, socket or `standin.json` is left. Raise `InUseError` if the
    directory is in use, `OSError` if a port is.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        accounts: Mapping[str, str] | None = None,
        faults: Iterable[str] = (),
        host: str = "127.0.0.1",
        names: Iterable[str] = (),
        api_port: int = 0,
        desk_port: int = 0,
        seed: str = SEED,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("the stand-in serves loopback addresses only, since any client controls it")
        self.directory = Path(directory)
        self.faults = Faults(faults)
        self.log = RequestLog(clock)
        self._lock = _own(self.directory)
        hosts = dict.fromkeys((host, "localhost", *names))
        self.authorities = Authorities(self.directory / "ca", hosts, self.directory / "issuing-ca.pem")
        self.registry = Registry(self.directory / "state.json", clock)
        for login, password in (accounts or {}).items():
            self.registry.add_account(login, password)
        self.desk = Desk(self.authorities, self.registry, self.faults, clock)
        gate = Gate(self.registry, self.faults, Quota(clock), clock)
        api = Api(gate, Operations(seed), self.faults, self.log, self.desk, clock)
        contexts = Contexts(self.directory / "ca", self.authorities, self.registry, self.faults)
        self._api = ApiListener((host, api_port), api, contexts)
        parts = Parts(self.desk, self.registry, self.faults, self.log, self.authorities, clock)
        self._desk = DeskListener((host, desk_port), parts)

    def __enter__(self) -> Standin:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, write `server-ca.pem`, and then `standin.json`."""
        self._api.start()
        self._desk.start()
        write_atomically(self.server_ca, self.authorities.server.pem.encode(), 0o644)
        write_atomically(self.directory / "standin.json", msgspec.json.encode(self.described()) + b"\n", 0o644)

    def stop(self) -> None:
        """Close both ports and every connection, and release the directory."""
        (self.directory / "standin.json").unlink(missing_ok=True)
        self._api.stop()
        self._desk.stop()
        os.close(self._lock)

    def described(self) -> Mapping[str, object]:
        """Return the content of `standin.json`: addresses, pid, fingerprints of the CAs."""
        return {
            "api_url": self.api_url,
            "desk_url": self.desk_url,
            "pid": os.getpid(),
            "server_ca_sha256": fingerprint(self.authorities.server.certificate),
            "issuing_ca_sha256": fingerprint(self.authorities.issuing[-1].certificate),
        }

    @property
    def api_url(self) -> str:
        """The base URL of the Fleet Owner API, v3."""
        return f"{self._api.origin}{BASES[0]}"

    @property
    def desk_url(self) -> str:
        """The URL of the desk; its paths start with `/desk`."""
        return self._desk.url

    @property
    def server_ca(self) -> Path:
        """The CA file that a client verifies the API with."""
        return self.directory / "server-ca.pem"

    @property
    def crashes(self) -> tuple[str, ...]:
        """Failures of the stand-in's own code: empty, unless it has a bug."""
        return (*self._api.crashes, *self._desk.crashes)

    def sign(self, csr: bytes | str, **options: str) -> Reply:
        """Submit `csr` to the desk and return the reply; `options` as `signing.terms` reads them.

        Raise `RejectedError` if the desk rejects it, `ValueError` if a delay leaves it unsigned.
        """
        request = self.desk.submit(csr.encode() if isinstance(csr, str) else csr, options)
        if request.reply is None:
            raise ValueError("the desk signs later: ask desk.request()")
        return request.reply


@contextmanager
def closed_registry(directory: Path) -> Iterator[Registry]:
    """Yield the registry of a directory; raise `InUseError` if a stand-in serves from it."""
    lock = _own(directory)
    try:
        yield Registry(directory / "state.json", lambda: datetime.now(UTC))
    finally:
        os.close(lock)


def _own(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.stat().st_uid != os.getuid():
        raise InUseError(f"{directory} belongs to another user")
    directory.chmod(0o700)
    (directory / "ca").mkdir(exist_ok=True, mode=0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InUseError(f"another stand-in uses {directory}") from None
    return lock
