"""Bundles from the service: what is sent there, and answers that are not to be believed."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn

from broker.copies import replace
from broker.errors import (
    BrokerError,
    ConflictError,
    DeniedError,
    InputError,
    RefusedError,
    VaultUnavailableError,
    WaitingError,
)
from broker.fetching.service import Service
from broker.issuing.batch_issuer import Issued
from broker.issuing.usable import Usable
from broker.model.authentication import PASSWORD
from broker.model.bundle import Granted, Wanted
from broker.model.clock import Clock, system_clock
from broker.model.lease import Caller
from broker.model.secret import Secret
from broker.model.waiting import Ended, Event
from broker.service.answers import Contents
from broker.service.app import application
from broker.service.listeners import Address
from broker.service.listing import holding, listing
from tests.service.test_app import Bundles
from tests.support.accounts import MZP, PLANTED
from tests.support.console import inside
from tests.support.sources import ROOT

TOKEN = Caller(Secret("s.token"))
WANTED = Wanted(MZP, "fleet", timedelta(minutes=5))


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them to pytest."""
        yield

    async def main_loop(self) -> None:
        """End when asked to, not up to a tenth of a second later."""
        while not self.should_exit:
            await asyncio.sleep(0.005)


class Listed:
    """The use-case behind GET /v1/accounts."""

    def __init__(self, found: list[Usable]) -> None:
        self.found = found
        self.clock: Clock = system_clock

    async def of(self, caller: Caller) -> list[Usable]:
        """Return them to the one caller."""
        assert caller.credential.reveal() == "s.token"
        return self.found


@contextmanager
def served(bundles: Bundles, at: str = "127.0.0.1:0", usable: Sequence[Usable] = ()) -> Iterator[str]:
    """Yield the address of the real service in front of `bundles`."""
    more = {("GET", "/v1/accounts"): listing(Listed(list(usable))), ("GET", "/v1/leases"): holding(bundles)}
    app = application(bundles, more)
    address = Address.parse(at)
    bound = address.bound()
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    server = _Server(config)
    running = threading.Thread(target=lambda: asyncio.run(server.serve([bound])))
    running.start()
    while not server.started:
        time.sleep(0.001)
    try:
        yield address.at(bound)
    finally:
        server.should_exit = True
        running.join()


@dataclass
class Saying:
    """A server that answers what a test wants, and keeps what it was sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Yield its address."""
        saying = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                saying.got.append((self.path, dict(self.headers)))
                self.send_response(saying.status)
                for name, value in saying.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(saying.body)))
                self.end_headers()
                self.wfile.write(saying.body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            running = threading.Thread(target=server.serve_forever, args=(0.01,))
            running.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                running.join()


def asked(address: str, identity: Caller = TOKEN) -> object:
    return Service(address, lambda: identity).grant(WANTED)


def test_a_bundle_arrives_whole() -> None:
    bundles = Bundles()
    with served(bundles) as address:
        service = Service(address, lambda: TOKEN)
        granted = service.grant(WANTED)
        service.give_back(granted)
    direct = asyncio.run(Bundles().grant(bundles.callers[0], WANTED)).contents.bundle
    assert granted.bundle == direct
    assert granted.bundle.secrets[PASSWORD].reveal() == PLANTED
    assert granted.lease.expires == direct.expires
    assert [replace(wanted, idempotency_key="") for wanted in bundles.wanted] == [WANTED]
    assert bundles.texts == ["lease-text"]


class Losing(Bundles):
    """Bundles that are granted, and of which the first two are lost on the way."""

    async def grant(self, caller: Caller, wanted: Wanted) -> Issued[Contents]:
        found = await super().grant(caller, wanted)
        if len(self.wanted) <= 2:
            raise VaultUnavailableError("the connection was cut")
        return found


def test_a_lost_bundle_has_one_lease() -> None:
    """Or nobody could give the lease back whose text was lost: `rotation retire` would wait for its end."""
    bundles = Losing()
    with served(bundles) as address:
        service = Service(address, lambda: TOKEN)
        for _ in range(2):
            with pytest.raises(VaultUnavailableError):
                service.grant(WANTED)
        for _ in range(2):
            service.grant(WANTED)
    lost, again, arrived, another = (wanted.idempotency_key for wanted in bundles.wanted)
    assert lost == again == arrived != another


def test_a_unix_socket(tmp_path: Path) -> None:
    bundles = Bundles()
    with served(bundles, f"unix://{tmp_path}/s") as address:
        asked(address)
    assert [replace(wanted, idempotency_key="") for wanted in bundles.wanted] == [WANTED]
    with pytest.raises(VaultUnavailableError, match="no answer"):
        asked(f"unix://{tmp_path}/none")


@pytest.mark.parametrize(("is_jwt", "shown"), [(False, "s.token"), (True, "s.token")])
def test_the_identity_is_sent(is_jwt: bool, shown: str) -> None:
    bundles = Bundles()
    with served(bundles) as address:
        asked(address, Caller(Secret("s.token"), is_jwt=is_jwt))
    assert (bundles.callers[0].credential.reveal(), bundles.callers[0].is_jwt) == (shown, is_jwt)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DeniedError("x"), DeniedError),
        (RefusedError("expired"), RefusedError),
        (ConflictError("x"), ConflictError),
        (WaitingError("x"), WaitingError),
        (VaultUnavailableError("x"), VaultUnavailableError),
        (ZeroDivisionError("x"), VaultUnavailableError),
    ],
)
def test_its_errors_are_ours(error: BaseException, kind: type[BrokerError]) -> None:
    with served(Bundles(error)) as address, pytest.raises(kind) as raised:
        asked(address)
    assert type(raised.value) is kind
    assert re.search(r" \(request [0-9a-f]{16}\)$", raised.value.message)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"expires": 1}', b"[" * 100_000, b"\xff", json.dumps({"lease": "x"}).encode()],
)
def test_an_answer_that_is_none(body: bytes) -> None:
    with Saying(body=body).served() as address, pytest.raises(VaultUnavailableError, match="does not answer as"):
        asked(address)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b'{"code": "denied", "detail": "no"}'),
        (200, b'{"lease": "PLANTED"}'),
        (200, b'{"key": "PLANTED"'),
        (500, b""),
    ],
)
def test_errors_keep_nothing_secret(status: int, body: bytes) -> None:
    """Error trackers keep the variables of all frames."""
    granted, here = replace(fetched(), lease_text=Secret("PLANTED")), sys._getframe().f_code
    with Saying(status, body).served() as address:
        service = Service(address, lambda: Caller(Secret("s.PLANTED")))
        asking = (
            partial(service.grant, WANTED),
            partial(service.extend, WANTED, granted),
            partial(service.wait, granted),
        )
        for ask in asking:
            with pytest.raises(BrokerError) as raised:
                ask()
            frames = traceback.StackSummary.extract(
                (found for found in traceback.walk_tb(raised.value.__traceback__) if found[0].f_code is not here),
                capture_locals=True,
            )
            assert "_ask" in [frame.name for frame in frames]
            assert "PLANTED" not in "".join(frames.format())
            assert not raised.value.__context__


def test_an_endless_answer_is_cut() -> None:
    with Saying(body=b" " * 3_000_000).served() as address, pytest.raises(VaultUnavailableError):
        asked(address)


def test_no_redirect_is_followed() -> None:
    with Saying(body=b"{}").served() as other:
        there = Saying(status=307, headers={"location": f"{other}/v1/bundles"})
        with there.served() as address, pytest.raises(VaultUnavailableError):
            asked(address)


def test_nothing_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_TOKEN", "BAO_TOKEN"):
        monkeypatch.setenv(name, "s.planted")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    saying = Saying(status=403, body=b"{}")
    with saying.served() as address, pytest.raises(BrokerError):
        asked(address)
    assert "s.planted" not in str(saying.got)


@pytest.mark.parametrize(
    "address",
    [
        "http://192.0.2.1:1",
        "http://broker.example",
        "ftp://127.0.0.1",
        "127.0.0.1:1",
        "https://u:p@h",
        "https://h?x",
        "unix://h/s",
        "unix:",
        "",
    ],
)
def test_addresses_that_are_refused(address: str) -> None:
    with pytest.raises(InputError):
        Service(address, lambda: TOKEN)


def usable(application: str, days: int | None, *, suspended: bool = False) -> Usable:
    end = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    return Usable(MZP, application, None if days is None else 7, end, suspended)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 0),
        ([usable("fleet", 9)], 0),
        ([usable("fleet", 9), usable("new", None)], 0),
        ([usable("fleet", 9), usable("held", 9, suspended=True)], 7),
        ([usable("fleet", 9), usable("held", 9, suspended=True), usable("old", -1)], 6),
    ],
)
def test_status_asks_the_service(tmp_path: Path, found: list[Usable], code: int) -> None:
    """Without a right at Vault, and the worst comes first."""
    (tmp_path / "token").write_text("s.token")
    with served(Bundles(), usable=found) as address:
        environment = {"BROKER_ADDR": address, "BROKER_AUTH": "token-file:token", "HOME": str(tmp_path)}
        ended = inside(["status", "-o", "json", "--detailed-exitcode"], home=tmp_path, environment=environment)
        other = inside(["status", "other"], home=tmp_path, environment=environment)
    assert (ended.code, f"through {address}" in ended.err) == (code, True), ended.err
    assert [one["application"] for one in ended.json] == [one.application for one in reversed(found)]
    assert (other.code, "no right to other" in other.err) == (5, True)


def test_a_ca_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        Service("https://127.0.0.1:1", lambda: TOKEN, tmp_path / "none")


def test_a_service_that_is_away() -> None:
    with pytest.raises(VaultUnavailableError, match="no answer"):
        asked("http://127.0.0.1:1")


def test_a_service_without_tls() -> None:
    """Its certificate is not to blame."""
    with Saying().served() as address, pytest.raises(VaultUnavailableError, match="does not speak TLS") as raised:
        asked(address.replace("http:", "https:"))
    assert "BROKER_ADDR" in raised.value.hint


WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jwt", "OpenSSL", "stamina", "uvicorn", "uvloop", "yaml"):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Absent())
from broker.cli.main import run
sys.exit(max(map(run, json.loads(sys.argv[1]))))
"""


def test_the_base_install_fetches_a_bundle(tmp_path: Path) -> None:
    """With the configuration that `init --consumer` writes, and no variable."""
    (tmp_path / "token").write_text("s.token")
    (tmp_path / "token").chmod(0o600)
    with served(Bundles(), usable=[usable("fleet", 9)]) as address:
        lines = [
            ["init", "--consumer", "--addr", address, "--auth", "token-file:token"],
            ["config", "check"],
            ["bundle", "get", "mzp-1/fleet", "--to", "bundle"],
            ["lease", "show", "bundle"],
            ["status"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, json.dumps(lines)],
            env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"the configuration is valid; broker at {address}" in done.stderr
    assert f"through {address}" in done.stderr
    assert (tmp_path / "bundle/current/password").read_text() == PLANTED
    assert re.search(r"application +mzp-1/fleet\n *state +ready|mzp-1/fleet +ready +7", done.stdout)


def fetched() -> Granted:
    """Return a bundle of the real service."""
    with served(Bundles()) as address:
        service = Service(address, lambda: TOKEN)
        return service.grant(WANTED)


def renewed(granted: Granted, answer: object, *, status: int = 200) -> Granted:
    """Renew a bundle at a service that answers `answer`."""
    with Saying(status, json.dumps(answer).encode()).served() as address:
        service = Service(address, lambda: TOKEN)
        return service.renew(WANTED, granted)


LATER = "2999-01-01T00:00:00Z"
LONGER = {"lease": "next", "lease_id": "x", "generation": 1, "expires": LATER, "newer": None}


def test_a_renewed_bundle_ends_later() -> None:
    granted = fetched()
    after = renewed(granted, LONGER)
    assert (after.lease.id, after.lease_text.reveal()) == (granted.lease.id, "next")
    assert after.bundle.expires == after.lease.expires > granted.lease.expires


def test_only_a_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder of files acts on no signal while the service stalls."""
    granted, seconds = fetched(), list[float | None]()

    class Stalled(socket.socket):
        def settimeout(self, value: float | None) -> None:
            seconds.append(value)

        def sendall(self, *_: object) -> None:
            raise TimeoutError

    def connect(connection: http.client.HTTPConnection) -> None:
        seconds.append(connection.timeout)
        connection.sock = Stalled()

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
    service = Service("http://127.0.0.1:1", lambda: TOKEN)
    for ask in (
        lambda: service.grant(WANTED),
        lambda: service.renew(WANTED, granted),
        lambda: service.give_back(granted),
        lambda: service.wait(granted),
    ):
        with pytest.raises(VaultUnavailableError, match="no answer in time"):
            ask()
    assert seconds == [5, 10, 5, 10, 5, 10, 5, 60]


@pytest.mark.parametrize("answer", [{}, {"expires": "soon"}, {"expires": LATER, "newer": None}, []])
def test_a_renewal_that_is_none(answer: object) -> None:
    with pytest.raises(VaultUnavailableError, match="does not answer as"):
        renewed(fetched(), answer)


def test_a_newer_generation_is_fetched() -> None:
    """The real service names a newer one: then a new bundle comes with a lease of its own."""
    bundles = Bundles()
    with served(bundles) as address:
        service = Service(address, lambda: TOKEN)
        granted = service.grant(WANTED)
        after = service.renew(WANTED, granted)
    assert after is granted, "it is the same, so it was given back"
    assert len(bundles.wanted) == 2
    assert bundles.texts == ["lease-text", "lease-text"]


def test_a_denied_renewal_is_an_end() -> None:
    with pytest.raises(DeniedError):
        renewed(fetched(), {"code": "denied", "detail": "ended"}, status=403)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'    {"event":"generation","generation":2}', Ended(Event.GENERATION, 2)),
        (b'{"event":"drain","generation":null}', Ended(Event.DRAIN)),
        (b'{"event":"new","generation":null}', None),
        (b'{"event":"drain"}', None),
        (b"    ", None),
    ],
)
def test_a_wait_has_an_event(body: bytes, found: Ended | None) -> None:
    granted, saying = fetched(), Saying(body=body)
    with saying.served() as address:
        service = Service(address, lambda: TOKEN)
        if found:
            assert service.wait(granted) == found
        else:
            with pytest.raises(VaultUnavailableError):
                service.wait(granted)
    assert [path for path, _ in saying.got] == ["/v1/wait"]
