"""Addresses to listen on, and a certificate that is replaced while the service runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from broker.errors import InputError
from broker.service import listeners
from broker.service.asgi import Response, routed
from broker.service.listeners import Address, Listener


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:8250", "http://127.0.0.1:8250"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("https://0.0.0.0:8443", "https://0.0.0.0:8443"),
        ("unix:///run/broker.sock", "unix:///run/broker.sock"),
        ("localhost:1", "http://localhost:1"),
    ],
)
def test_addresses_are_read(text: str, shown: str) -> None:
    assert str(Address.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", ":1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "ftp://127.0.0.1:1", "unix:x", "unix://h/x", "[::1"],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "http://192.0.2.1:1", "broker.example:1", "127.0.0.1.example:1"])
def test_plain_http_is_for_loopback(text: str) -> None:
    with pytest.raises(InputError, match="is not loopback"):
        Address.parse(text)
    assert Address.parse(text, behind_proxy=True).port == 1


def test_a_taken_address_is_said() -> None:
    with Address.parse("127.0.0.1:0").bound() as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(InputError, match="cannot listen") as taken:
            Address.parse(f"127.0.0.1:{port}").bound()
    assert taken.value.hint == "is another service there?"


def test_a_socket_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as missing:
        Address.parse(f"unix://{tmp_path}/none/s").bound()
    assert missing.value.hint == "make the directory of the socket first"


def test_a_living_socket_is_not_replaced(tmp_path: Path) -> None:
    address = Address.parse(f"unix://{tmp_path}/s")
    with address.bound() as first:
        first.listen()
        with pytest.raises(InputError, match="cannot listen"):
            address.bound()
    address.bound().close()  # what is left of a killed one is
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot listen"):
        Address.parse(f"unix://{tmp_path}/file").bound()
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("successor", [True, False])
def test_the_socket_of_a_successor_stays(tmp_path: Path, successor: bool) -> None:
    """One that starts while the service drains. Its own socket is removed."""
    path = tmp_path / "s"

    async def test() -> None:
        ready = asyncio.get_running_loop().create_future()
        listener = Listener(routed({}, lambda _, status: Response(status)), Address(path))
        task = asyncio.create_task(listeners._serve([listener], ready.set_result, lambda _: None))
        await ready
        if successor:
            path.unlink()
            Address(path).bound().close()
        signal.raise_signal(signal.SIGTERM)
        await task

    asyncio.run(asyncio.wait_for(test(), 60))
    assert path.exists() is successor
