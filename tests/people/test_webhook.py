"""The webhook, at real TLS servers on loopback."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from broker.copies import replace
from broker.errors import BrokerError, RefusedError
from broker.model.secret import Secret
from broker.people.webhook import Webhook, WebhookError
from tests.support.webhook_server import WebhookServer, webhook_server

NOW: Final = datetime(2026, 3, 1, 9, tzinfo=UTC)
KEY: Final = Secret("k3y-of-the-hmac-never-shown")
BODY: Final = {"version": 1, "text": "acme: its certificate expires\nsoon"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebhookServer]:
    with webhook_server(tmp_path) as found:
        yield found


def webhook(server: WebhookServer, **changes: Any) -> Webhook:
    return replace(Webhook(server.url, lambda: KEY, lambda: NOW, ca_file=server.ca_file, loopback=True), **changes)


def refused(hook: Webhook) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        hook.send("e1", BODY)
    assert KEY.reveal() not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    assert caught.value.hint
    return caught.value


@pytest.mark.peer("openssl")
def test_openssl_verifies_the_signature(server: WebhookServer) -> None:
    webhook(server).send("acme.due-g1.30d", BODY)
    [call] = server.calls
    assert call.line == "POST /hook HTTP/1.1"
    assert call.headers["Broker-Event"] == "acme.due-g1.30d"
    assert json.loads(call.body) == BODY
    stamp, _, mac = call.headers["Broker-Signature"].partition(",v1=")
    assert stamp == f"t={int(NOW.timestamp())}"
    command = ["openssl", "dgst", "-sha256", "-r", "-mac", "HMAC", "-macopt", f"key:{KEY.reveal()}"]
    signed = f"{stamp[2:]}.".encode() + call.body
    assert subprocess.run(command, input=signed, capture_output=True, check=True).stdout.split()[0].decode() == mac


def test_slack_gets_a_text_at_a_secret_path(server: WebhookServer) -> None:
    """Slack knows a channel by the path, so that is the secret, and there is no signature."""
    path = Secret("services/T0/B0/secret-of-slack")
    webhook(server, form="slack", secret=lambda: path, address=server.url.removesuffix("/hook")).send("e1", BODY)
    [call] = server.calls
    assert call.line == f"POST /{path.reveal()} HTTP/1.1"
    assert json.loads(call.body) == {"text": BODY["text"]}
    assert "Broker-Signature" not in call.headers


def test_no_redirect_is_followed(server: WebhookServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with webhook_server(tmp_path / "other") as other:
        server.answer = f"HTTP/1.1 307 T\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        assert "redirect" in refused(webhook(server)).message
        assert not other.calls


def endless(tls: ssl.SSLSocket) -> None:
    tls.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        tls.sendall(b"X-Header: " + b"x" * 8000 + b"\r\n")


def dripping(tls: ssl.SSLSocket) -> None:
    waiting = threading.Event()
    for octet in b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 500:
        tls.sendall(bytes([octet]))
        waiting.wait(0.05)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 500 secret-text\r\n\r\n", "the webhook answered 500"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP"),
        (b"", "its answer is not HTTP|connection was lost"),
        (b"HTTP/1.1 200" + b"0" * 9000 + b"\r\n\r\n", "cannot be reached"),
        (endless, "cannot be reached"),
        (dripping, "it took too long"),
    ],
    ids=["error", "no-http", "nothing", "number", "endless", "slow"],
)
def test_bad_answers_are_errors(server: WebhookServer, answer: Any, message: str) -> None:
    server.answer = answer
    error = refused(webhook(server, seconds=0.3 if answer is dripping else 10.0))
    assert isinstance(error, WebhookError)
    assert any(part in error.message for part in message.split("|")), error.message
    assert "secret-text" not in error.message


def test_a_huge_body_is_not_read(server: WebhookServer) -> None:
    def huge(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            tls.sendall(b"x" * 65536)

    server.answer = huge
    webhook(server).send("e1", BODY)


def test_another_ca_is_refused(server: WebhookServer, tmp_path: Path) -> None:
    assert "certificate is not accepted" in refused(webhook(server, ca_file=None)).message
    assert not server.calls


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "::1", "fe80::1%lo",
     "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "224.0.0.1"],
)  # fmt: skip
def test_private_addresses_are_refused(server: WebhookServer, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Also if only one of the addresses of a name is private."""
    answers(monkeypatch, ["93.184.216.34", address])
    error = refused(webhook(server, loopback=False))
    assert isinstance(error, RefusedError)
    assert f"has the address {address}" in error.message
    assert not server.calls


def test_the_name_is_resolved_once(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the second time leads nowhere (DNS rebinding)."""
    asked = answers(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    webhook(server).send("e1", BODY)
    assert asked == ["localhost"]
    assert len(server.calls) == 1


def test_each_address_is_tried(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # nobody listens at the first
    webhook(server).send("e1", BODY)
    assert len(server.calls) == 1


def answers(monkeypatch: pytest.MonkeyPatch, *found: list[str]) -> list[str]:
    """Let the resolver give `found` for names, one after the other; return the names that it is asked for."""
    real, asked, left = socket.getaddrinfo, list[str](), list(found)

    def resolve(host: str, port: int, *rest: Any, **named: Any) -> Any:
        if host[0].isdigit() or ":" in host:
            return real(host, port, *rest, **named)
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in left.pop(0)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_nobody_listens(server: WebhookServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "refused" in refused(webhook(server, address=f"https://localhost:{port}/")).message


def test_a_hostile_path_of_slack(server: WebhookServer) -> None:
    secret = Secret("services/x HTTP/1.1\r\nX-Evil: 1")
    with pytest.raises(BrokerError, match="has a character that no URL has"):
        webhook(server, form="slack", secret=lambda: secret).send("e1", BODY)
    assert not server.calls
