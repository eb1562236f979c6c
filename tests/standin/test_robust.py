"""Garbage, huge headers, silence and crowds: the next client is always served."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from partner_standin import Standin

from tests.support.depth import sampled
from tests.support.partner import Customer, desk, soon


def raw(customer: Customer, sent: bytes) -> bytes:
    """Send bytes over good TLS and return what comes back."""
    address = urlsplit(customer.partner.api_url)
    with (
        socket.create_connection(("127.0.0.1", address.port or 0), timeout=5) as plain,
        customer.context().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(sent)
        return connection.recv(65536)


MALFORMED = {
    "garbage line": (b"\x00\x01\x02\x03\r\n\r\n", b"400"),
    "no method": (b" / HTTP/1.1\r\n\r\n", b"400"),
    "no version": (b"GET / FTP/1.1\r\n\r\n", b"400"),
    "version 3": (b"GET / HTTP/3.0\r\n\r\n", b"505"),
    "long line": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
    "long header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 200 + b"\r\n", b"431"),
    "unknown method": (b"BREW / HTTP/1.1\r\n\r\n", b"501"),
    "chunked": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
    "negative length": (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
    "endless length": (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
    "broken brackets": (b"GET http://[::1/ HTTP/1.1\r\n\r\n", b"401"),
}


@pytest.mark.parametrize("case", sampled(MALFORMED, every=4, rest=pytest.mark.slow))
def test_malformed_requests_get_a_status(customer: Customer, case: str) -> None:
    sent, status = MALFORMED[case]
    assert raw(customer, sent).split(b" ", 2)[1] == status
    assert customer.call("/fleets").status == 200


def test_plain_text_on_the_tls_port_is_safe(customer: Customer) -> None:
    address = urlsplit(customer.partner.api_url)
    with socket.create_connection(("127.0.0.1", address.port or 0), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        connection.recv(100)
    assert customer.call("/fleets").status == 200
    assert soon(lambda: any("http request" in entry.outcome for entry in customer.partner.log.entries()))


def test_clients_may_leave_in_mid_body(customer: Customer) -> None:
    address = urlsplit(customer.partner.api_url)
    with (
        socket.create_connection(("127.0.0.1", address.port or 0), timeout=5) as plain,
        customer.context().wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    assert customer.call("/fleets").status == 200


def test_a_silent_client_blocks_no_other(customer: Customer) -> None:
    address = urlsplit(customer.partner.api_url)
    with socket.create_connection(("127.0.0.1", address.port or 0)):
        assert customer.call("/fleets").status == 200


def test_eight_clients_keep_connections(customer: Customer) -> None:
    def ask(_: int) -> set[int]:
        connection = customer.connect()
        path = urlsplit(customer.url("/fleets"))
        statuses = set()
        for _ in range(20):
            connection.request("GET", f"{path.path}?{path.query}", headers=customer.headers())
            answer = connection.getresponse()
            answer.read()
            statuses.add(answer.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [{200}] * 8
    assert len(customer.partner.log.entries()) == 160


def test_faults_change_under_load(customer: Customer) -> None:
    def flip() -> None:
        for _ in range(10):
            for setting in ("status-500", "wrong-ca", "certificate-nginx", "reset-mid-body"):
                customer.partner.faults.apply(setting)
                customer.partner.faults.clear()

    def ask(_: int) -> None:
        try:
            customer.call("/fleets")
        except OSError:
            return

    flipper = threading.Thread(target=flip)
    flipper.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(40)))
    flipper.join()
    assert customer.call("/fleets").status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/desk/nothing", None, 404),
        ("POST", "/desk/log", None, 405),
        ("GET", "/desk/log?since=x", None, 400),
        ("POST", "/desk/accounts", b"{", 400),
        ("POST", "/desk/accounts", b'{"login": "a"}', 400),
        ("POST", "/desk/accounts", b'{"login": "a:b", "password": "x"}', 400),
        ("PUT", "/desk/accounts/nobody/password", b'{"password": "x"}', 404),
        ("DELETE", "/desk/accounts/nobody/lock", None, 404),
        ("POST", "/desk/revocations", b'{"serial": "ff"}', 404),
        ("POST", "/desk/revocations", b'{"serial": "ff", "after": "soon"}', 400),
        ("GET", "/desk/ca/other.pem", None, 404),
    ],
)
def test_the_desk_answers_errors_in_json(
    partner: Standin, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = desk(partner, method, path, body)
    assert (answer.status, bool(answer.json["error"])) == (status, True)


def test_desk_errors_never_quote_the_body(partner: Standin) -> None:
    answer = desk(partner, "POST", "/desk/accounts", b'{"login": "MZP1", "password": ["pl4nted"]}')
    assert answer.status == 400
    assert b"pl4nted" not in answer.body


def test_nothing_is_left_after_stop(customer: Customer) -> None:
    before = threading.active_count()
    with Standin(customer.directory / "second") as second:
        desk(second, "GET", "/desk/log")
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert not (second.directory / "standin.json").exists()
