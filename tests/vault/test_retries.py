"""The connection while Vault, or a proxy before it, misbehaves."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from urllib3 import PoolManager

from broker.errors import BrokerError, ConflictError, Kind, VaultUnavailableError
from broker.model.secret import Secret
from broker.telemetry import metrics, trace
from broker.vault.connection import Connection
from broker.vault.errors import InvalidError, MissingError, PassingError, UnclearError
from broker.vault.logins import FixedToken
from broker.vault.settings import VaultSettings
from broker.vault.transport import Seen, new_pool
from tests.support.scripted_server import Answer, Misbehaving, errors, misbehaving

pytestmark = pytest.mark.slow

TOKEN = "s.PlantedTokenNeverSeen"
STORED = Answer(body=b'{"data": {"data": {"a": 1}, "metadata": {"version": 3}}}')
WRITTEN = Answer(body=b'{"data": {"version": 4}}')


def connected(server: Misbehaving, patience: float = 8.0) -> Connection:
    return Connection(VaultSettings(server.address, patience=patience, timeout=1.0), FixedToken(Secret(TOKEN)))


def test_a_request_carries_the_callers_trace() -> None:
    trace.begin(trace.continued(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], ["a=1"]))
    try:
        with misbehaving(STORED) as server:
            connected(server).read("accounts/a")
            assert server.headers[0]["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
            assert server.headers[0]["tracestate"] == "a=1"
    finally:
        trace.begin(None)


def test_requests_are_counted_with_their_end() -> None:
    metrics.reset()
    with misbehaving(Answer(hang_up=True), errors(503, "Vault is sealed"), STORED) as server:
        connected(server).read("accounts/a")
    assert metrics.numbers().vault == {"none": 1, "5xx": 1, "2xx": server.probes + 1}
    assert metrics.numbers().vault_answered


@pytest.mark.parametrize(
    "passing",
    [
        errors(412, "required index state not present"),
        errors(429, "too many"),
        errors(500, "local node not active but active cluster node not found"),
        errors(500, "1 error occurred:\n\t* transaction commit failed\n\n"),
        Answer(502, b"<html>Bad Gateway</html>"),
        errors(503, "Vault is sealed"),
        Answer(504, b""),
        errors(400, "Upgrading from non-versioned to versioned data. This backend will be unavailable."),
        errors(400, "Waiting for the primary to upgrade from non-versioned to versioned data."),  # a standby
        Answer(hang_up=True),
        Answer(body=b'{"data": {"da', length=500),
        Answer(body=b"-5\r\n{}", headers={"Transfer_Encoding": "chunked"}),
        Answer(body=b"f" * 70_000, headers={"Transfer_Encoding": "chunked"}),
    ],
)
def test_passing_faults_are_retried(passing: Answer) -> None:
    with misbehaving(passing, passing, STORED) as server:
        connection = connected(server)
        assert connection.read("accounts/a").version == 3
        assert len(server.asked) == 3
        connection.close()


def test_patience_ends(caplog: pytest.LogCaptureFixture) -> None:
    with misbehaving(errors(503, "Vault is sealed")) as server:
        connection = connected(server, patience=0.5)
        with pytest.raises(PassingError, match="sealed"):
            connection.read("accounts/a")
        assert len(server.asked) > 1
        connection.close()
    assert TOKEN not in caplog.text


def test_too_long_wait_is_not_waited_for() -> None:
    with misbehaving(errors(429, Retry_After="1000")) as server:
        connection = connected(server)
        with pytest.raises(PassingError) as caught:
            connection.read("accounts/a")
        assert len(server.asked) == 1
        assert caught.value.retryable
        connection.close()


def test_a_token_is_revoked_in_one_attempt() -> None:
    """A service that ends while Vault is away does not stay for its login."""
    with misbehaving(errors(503, "Vault is sealed"), Answer(204)) as server, pytest.raises(VaultUnavailableError):
        connected(server).revoke(Secret(TOKEN))
    assert server.asked == ["POST /v1/auth/token/revoke-self"]


def test_a_wait_that_vault_asks_for_is_kept() -> None:
    with misbehaving(errors(429, Retry_After="1"), STORED) as server:
        connection, began = connected(server), time.monotonic()
        connection.read("accounts/a")
        assert time.monotonic() - began >= 1
        connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        Answer(body=b"<html>Welcome to the hotel's network</html>"),
        Answer(body=b"[1, 2]"),
        Answer(body=b'"text"'),
        Answer(body=b"{}"),
        Answer(body=b'{"data": null}'),
        Answer(body=b'{"data": {"data": "text", "metadata": {"version": 1}}}'),
        Answer(body=b'{"data": {"data": {}, "metadata": {"version": "1"}}}'),
        Answer(body=b"[" * 100_000),
        Answer(204, b""),
        Answer(500, b'["not as Vault words it"]'),
        Answer(500, b'{"errors": "text"}'),
        Answer(500, b'{"errors": [{"a": 1}, null]}'),
        Answer(405, b'{"errors": []}'),
        Answer(418, b"teapot"),
    ],
)
def test_unclear_answer_is_not_retried(garbage: Answer) -> None:
    with misbehaving(garbage) as server:
        connection = connected(server)
        with pytest.raises(UnclearError) as caught:
            connection.read("accounts/a")
        assert len(server.asked) == 1
        assert not caught.value.retryable
        connection.close()


@pytest.mark.parametrize("body", [b'{"data": {"keys": "abc"}}', b'{"data": {"keys": [1]}}', b"{}"])
def test_a_damaged_list_is_refused(body: bytes) -> None:
    with misbehaving(Answer(body=body)) as server:
        connection = connected(server)
        with pytest.raises(UnclearError):
            connection.list("accounts")
        connection.close()


def test_resent_write_conflicts_with_itself() -> None:
    lost = errors(400, "check-and-set parameter did not match the current version")
    with misbehaving(Answer(hang_up=True), lost) as server:
        connection = connected(server)
        with pytest.raises(ConflictError):
            connection.write("accounts/a", {}, replacing=3)
        assert len(server.asked) == 2
        connection.close()


def test_no_error_quotes_vault_or_the_token() -> None:
    planted = "the password is hunter2"
    for status in (400, 403, 404, 405, 412, 418, 429, 500, 502, 503):
        with misbehaving(errors(status, planted)) as server:
            connection = connected(server, patience=0.05)
            with pytest.raises(BrokerError) as caught:
                connection.read("accounts/a")
            said = f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
            assert planted not in said
            assert TOKEN not in said
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
            connection.close()


def test_redirect_to_same_host_is_followed() -> None:
    with misbehaving(STORED) as active:
        standby_says = Answer(307, b"", {"Location": f"{active.address}/v1/credential-broker/data/accounts/a"})
        with misbehaving(standby_says) as standby:
            connection = connected(standby)
            assert connection.read("accounts/a").version == 3
            connection.close()
        assert active.headers[0]["X-Vault-Token"] == TOKEN


@pytest.mark.parametrize(
    "location",
    ["http://localhost:1/v1/x", "https://127.0.0.1:1/v1/x", "//evil.example/v1", "/v1/x", "", "ftp://127.0.0.1"],
)
def test_redirect_elsewhere_is_refused(location: str) -> None:
    with misbehaving(Answer(307, b"", {"Location": location})) as server:
        connection = connected(server)
        with pytest.raises(VaultUnavailableError, match="does not trust"):
            connection.read("accounts/a")
        assert len(server.asked) == 1
        connection.close()


def test_redirect_loop_ends() -> None:
    with misbehaving(Answer(307, b"", {"Location": "http://127.0.0.1:1/"})) as server:
        looping = Answer(307, b"", {"Location": server.address})
        with misbehaving(looping) as other:
            connection = connected(other, patience=0.2)
            with pytest.raises(PassingError):
                connection.read("accounts/a")
            connection.close()


def test_a_read_asks_for_what_it_has_seen() -> None:
    written = Answer(body=WRITTEN.body, headers={"X-Vault-Index": "djE6MTIz"})
    with misbehaving(written, STORED) as server:
        connection = connected(server)
        connection.write("accounts/a", {}, replacing=3)
        connection.read("accounts/a")
        connection.close()
        assert "X-Vault-Index" not in server.headers[0]
        assert server.headers[1]["X-Vault-Index"] == "djE6MTIz"
        assert server.headers[1]["X-Vault-Inconsistent"] == "forward-active-node"


def test_dead_address_names_its_source() -> None:
    settings = VaultSettings("http://127.0.0.1:1", patience=0.1, namespace="team", source="$BAO_ADDR")
    connection = Connection(settings, FixedToken(Secret(TOKEN)))
    with pytest.raises(PassingError, match="not reached") as caught:
        connection.read("accounts/a")
    assert "Max retries" not in caught.value.message, "what requests says quotes headers and proxies"
    assert "http://127.0.0.1:1 ($BAO_ADDR) in namespace team" in caught.value.message
    assert "config show" in caught.value.hint
    connection.close()


def test_missing_path_is_not_retried() -> None:
    with misbehaving(errors(404)) as server:
        connection = connected(server)
        with pytest.raises(MissingError):
            connection.read("accounts/a")
        assert len(server.asked) == 1
        connection.close()


def test_session_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "VAULT_ADDR", "VAULT_TOKEN", "VAULT_CACERT", "BAO_ADDR"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with misbehaving(STORED) as server:
        connection = connected(server)
        assert connection.read("accounts/a").version == 3
        connection.close()


def test_threads_share_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(settings: VaultSettings) -> PoolManager:
        made.append(settings)
        return new_pool(settings)

    monkeypatch.setattr("broker.vault.transport.new_pool", counted)
    with misbehaving(Answer(body=STORED.body, headers={"Set_Cookie": "balancer=1"})) as server:
        connection = connected(server)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(connection.read, ["accounts/a"] * 16))
        connection.close()
        assert not [headers for headers in server.headers if "Cookie" in headers]
    assert len(made) == 1


def test_404_of_others_is_unclear() -> None:
    with misbehaving(Answer(404, b"<html>Not Found</html>")) as server:
        connection = connected(server)
        with pytest.raises(UnclearError):
            connection.read_or_none("keys/a/1")
        with pytest.raises(UnclearError):
            connection.list("consumers")
        connection.close()


def test_invalid_request_is_not_input_error() -> None:
    with misbehaving(errors(400, "invalid request")) as server:
        connection = connected(server)
        with pytest.raises(InvalidError) as caught:
            connection.read("accounts/a")
        assert caught.value.kind is Kind.VAULT_UNAVAILABLE
        assert caught.value.hint
        connection.close()


def test_a_missing_path_says_where_to_look() -> None:
    with misbehaving(errors(404)) as server:
        connection = connected(server)
        with pytest.raises(MissingError) as caught:
            connection.read("accounts/a")
        assert caught.value.hint
        connection.close()


def test_destroying_is_read_back() -> None:
    """A 404 in the place of the metadata, or an empty 200 in the place of Vault, must leave no key behind."""
    alive = Answer(body=b'{"data": {"versions": {"1": {"destroyed": false, "deletion_time": ""}}}}')
    dead = Answer(body=b'{"data": {"versions": {"1": {"destroyed": true, "deletion_time": ""}}}}')
    with misbehaving(errors(404), Answer(204, b""), dead) as server:
        connection = connected(server)
        connection.destroy_all("keys/a/1")
        assert [line.split()[0] for line in server.asked] == ["GET", "POST", "GET"]
        connection.close()
    with misbehaving(alive, Answer(body=b""), alive) as server:
        connection = connected(server)
        with pytest.raises(UnclearError):
            connection.destroy_all("keys/a/1")
        connection.close()


def test_connections_share_the_index() -> None:
    written = Answer(body=WRITTEN.body, headers={"X-Vault-Index": "djE6MTIz"})
    with misbehaving(written, STORED) as server:
        settings, tokens, seen = VaultSettings(server.address), FixedToken(Secret(TOKEN)), Seen()
        writer, reader = (Connection(settings, tokens, seen=seen) for _ in range(2))
        writer.write("accounts/a", {}, replacing=3)
        reader.read("accounts/a")
        assert server.headers[1]["X-Vault-Index"] == "djE6MTIz"
        writer.close()
        reader.close()


def test_hanging_vault_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = VaultSettings(address, patience=0.6, timeout=3600.0)  # one read alone would outlast the test
        connection = Connection(settings, FixedToken(Secret(TOKEN)))
        with pytest.raises(PassingError):
            connection.read("accounts/a")
        connection.close()


@pytest.mark.parametrize("packed", [True, False])
def test_oversized_answer_is_refused(packed: bool) -> None:
    body = b" " * (17 * 1024 * 1024)
    sent = Answer(body=gzip.compress(body), headers={"Content-Encoding": "gzip"}) if packed else Answer(body=body)
    with misbehaving(sent) as server:
        connection = connected(server)
        with pytest.raises(UnclearError, match="more"):
            connection.read("accounts/a")
        assert len(server.asked) == 1
        connection.close()


def test_a_wait_until_a_date_is_kept_too() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    with misbehaving(errors(429, Retry_After=until)) as server:
        connection = connected(server)
        with pytest.raises(PassingError) as caught:
            connection.read("accounts/a")
        assert len(server.asked) == 1
        assert 3500 < caught.value.wait <= 3600
        connection.close()


def test_only_closed_handshakes_are_retried() -> None:
    """A load balancer without a server behind it closes at the hello; a plain-text port stays one."""
    hellos: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        hellos.append(connection.recv(65536))
        if len(hellos) > 2:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(serve) as port:
        settings = VaultSettings(f"https://127.0.0.1:{port}", patience=30.0)
        connection = Connection(settings, FixedToken(Secret(TOKEN)))
        with pytest.raises(UnclearError, match="does not speak TLS"):
            connection.read("accounts/a")
        connection.close()
    assert len(hellos) == 3


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a server that does `serve` with each connection, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_late_standby_shows_what_was_stored() -> None:
    """The conflict says that it is there; a standby that is behind shows it a moment later."""
    taken = errors(400, "check-and-set parameter did not match the current version")
    with misbehaving(errors(404), taken, errors(404), errors(404), STORED) as server:
        assert connected(server).adopt("signers/lease", lambda: {"a": 2}) == {"a": 1}
