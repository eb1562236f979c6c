"""The way to the partner through real forward proxies, and through some that misbehave."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from partner_standin import Standin

import broker.client
from broker.copies import replace
from broker.errors import InputError
from broker.model.bundle import Bundle
from broker.model.proxy import Proxy, proxy_of
from broker.model.verdict import CanaryResult, Verdict
from broker.partners.catalogue import builtin
from broker.upstream.canary import ask
from tests.support.credential_sets import credentials_of, publish
from tests.support.forward_proxies import LOGIN, intercepting, running
from tests.support.ports import free_ports
from tests.support.tls_server import Saying
from tests.upstream.test_session import frames_of

PROBE = builtin("stellantis").probe
KINDS = [
    pytest.param("tinyproxy", marks=pytest.mark.peer("tinyproxy")),
    pytest.param("squid", marks=[pytest.mark.slow, pytest.mark.peer("squid")]),
]


def answer_through(proxy: Proxy, bundle: Bundle, seconds: float = 20) -> CanaryResult:
    credentials = replace(credentials_of(bundle), proxy=proxy)
    found = ask(credentials, PROBE, deadline=timedelta(seconds=seconds))
    assert "planted" not in repr(found) + repr(credentials)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_canary_and_session_use_the_proxy(
    partner: Standin, bundle: Bundle, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy alone looks up the partner's name."""
    local = replace(bundle, base_url=bundle.base_url.replace("127.0.0.1", "localhost"))
    publish(tmp_path / "r", local)
    asked: list[object] = []
    resolve = socket.getaddrinfo

    def resolving(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve(host, *arguments, **options)

    with running(kind) as proxy:
        monkeypatch.setattr(socket, "getaddrinfo", resolving)
        assert answer_through(proxy, bundle).verdict is Verdict.OK
        url = f"http://{proxy.host}:{proxy.port}"
        with broker.client.open(tmp_path / "r", proxy=url, proxy_login=LOGIN) as session:
            assert session.get("/fleets").status_code == 200
            publish(tmp_path / "r", replace(local, generation=8))
            assert session.follow()
            assert session.get("/fleets").status_code == 200
    assert set(asked) == {"127.0.0.1"}


@pytest.mark.parametrize("kind", KINDS)
def test_rejected_login_is_the_proxys_fault(partner: Standin, bundle: Bundle, tmp_path: Path, kind: str) -> None:
    """Nothing reaches the partner then, and no error shows the login."""
    publish(tmp_path / "r", bundle)
    partner.log.clear()
    with running(kind) as proxy:
        url = f"http://{proxy.host}:{proxy.port}"
        for login in ("", "fleet:planted-wrong"):
            found = answer_through(proxy_of(url, login), bundle)
            assert (found.verdict, found.detail) == (Verdict.PROXY, "the proxy rejected the login")
            session = broker.client.open(tmp_path / "r", proxy=url, proxy_login=login)
            with session, pytest.raises(requests.ConnectionError, match="the proxy rejected the login") as caught:
                session.get("/fleets")
            shown = frames_of(caught.value) + repr(caught.value)
            assert caught.value.__context__ is None
            assert "planted" not in shown
            assert b64encode(b"fleet:planted-wrong").decode() not in shown
    assert partner.log.entries() == ()


@pytest.mark.parametrize("kind", KINDS)
def test_refused_connections_are_explained(bundle: Bundle, kind: str) -> None:
    closed, other = free_ports(2)
    away = replace(bundle, base_url=f"https://127.0.0.1:{closed}/v3")
    with running(kind) as proxy:
        found = answer_through(proxy, away)
    assert (found.verdict, found.detail) == (Verdict.PROXY, "the proxy cannot reach the partner")
    with running(kind, only=other) as proxy:
        found = answer_through(proxy, away)
    assert found.detail == "the proxy does not allow connections to the partner"


@pytest.mark.peer("tinyproxy")
def test_proxys_login_never_reaches_partner(partner: Standin, bundle: Bundle) -> None:
    saying = Saying(partner, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    with running("tinyproxy") as proxy, saying as url:
        assert answer_through(proxy, replace(bundle, base_url=url)).verdict is Verdict.OK
    (request,) = saying.got
    assert b"\r\nAuthorization: Basic " in request
    assert b"proxy" not in request.lower()


@pytest.mark.slow
@pytest.mark.peer("mitmdump")
def test_interception_is_a_wrong_ca(partner: Standin, bundle: Bundle, tmp_path: Path) -> None:
    publish(tmp_path / "r", bundle)
    partner.log.clear()
    with intercepting() as proxy:
        found = answer_through(proxy, bundle)
        session = broker.client.open(tmp_path / "r", proxy=f"http://{proxy.host}:{proxy.port}")
        with session, pytest.raises(requests.ConnectionError, match="was not verified"):
            session.get("/fleets")
    assert found.verdict is Verdict.WRONG_CA
    assert "does the proxy intercept TLS?" in found.detail
    assert not [entry for entry in partner.log.entries() if entry.outcome == "ok"]


def test_absent_proxy_is_named(bundle: Bundle) -> None:
    (port,) = free_ports(1)
    found = answer_through(proxy_of(f"http://127.0.0.1:{port}"), bundle)
    assert (found.verdict, found.detail) == (Verdict.PROXY, "the proxy cannot be reached")


@contextmanager
def misbehaving(serve: Callable[[socket.socket], object]) -> Iterator[Proxy]:
    """A proxy that takes one connection and calls `serve` with it."""

    def take() -> None:
        channel, _ = server.accept()
        with channel, suppress(OSError):
            serve(channel)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=take)
        thread.start()
        yield proxy_of(f"http://127.0.0.1:{server.getsockname()[1]}", LOGIN)
        thread.join()


def says_nothing(channel: socket.socket) -> None:
    while channel.recv(4096):
        pass


def closes(channel: socket.socket) -> None:
    channel.recv(4096)


def garbles(channel: socket.socket) -> None:
    channel.sendall(b"\x00\xff garbage\r\n\r\n")
    says_nothing(channel)


def drips(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        channel.sendall(b"A: b\r\n" * 10)


def echoes(channel: socket.socket) -> None:
    channel.sendall(b"HTTP/1.1 599 " + channel.recv(4096).replace(b"\r\n", b" ") + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("serve", "detail"),
    [
        (says_nothing, "the proxy gave no answer"),
        (closes, "the proxy gave no answer"),
        (garbles, "the proxy gave no answer"),
        (drips, "the proxy gave no answer"),
        (echoes, "the proxy gave no connection: it answered 599"),
    ],
)
def test_misbehaving_proxy_is_blamed(bundle: Bundle, serve: Callable[[socket.socket], object], detail: str) -> None:
    with misbehaving(serve) as proxy:
        found = answer_through(proxy, bundle, seconds=0.3 if serve is says_nothing else 20)
    assert (found.verdict, found.detail) == (Verdict.PROXY, detail)


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("https://proxy.example:3128", ""),
        ("proxy.example:3128", ""),
        ("http://user:planted@proxy.example:3128", ""),
        ("http://proxy.example:3128/path", ""),
        ("http://proxy.example:99999", ""),
        ("http://[::1", ""),
        ("", ""),
        ("http://proxy.example:3128", "planted"),
        ("http://proxy.example:3128", "user:planted\nx"),
    ],
)
def test_unusable_proxy_is_refused(url: str, login: str) -> None:
    with pytest.raises(InputError) as caught:
        proxy_of(url, login)
    assert caught.value.hint
    assert "planted" not in f"{caught.value}{caught.value.hint}"


def test_a_proxy_has_a_default_port() -> None:
    found = proxy_of("http://[::1]/")
    assert (found.host, found.port, found.login) == ("::1", 80, None)
