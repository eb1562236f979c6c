"""Socket helpers: hard deadlines, error classification.

The time-out of a socket bounds one read. A server that sends a byte now and then, many dead addresses, or a name server
that does not answer could hold a command forever.
"""

import http.client
import io
import math
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, cast
from urllib.parse import urlsplit

from broker.errors import InputError
from broker.model.proxy import Proxy

_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052
_CLOSED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)
_LONGEST_LINE: Final = 64 * 1024  # bytes
_SUCCESS: Final = 2  # the first digit of the status
_REFUSALS: Final = {
    401: "the proxy rejected the login",  # tinyproxy
    403: "the proxy does not allow connections to the partner",
    407: "the proxy rejected the login",
    **dict.fromkeys((500, 502, 503, 504), "the proxy cannot reach the partner"),
}
# Errors of parsing bytes of others, besides OSError and HTTPException: huge numbers, deep nesting, odd charsets
UNREADABLE: Final = (ValueError, LookupError, ArithmeticError, MemoryError, RecursionError)


class Deadline:
    """A time by which everything must be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; raise `TimeoutError` if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this machine alone. Names are not looked up."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_listening(path: Path) -> bool:
    """Return whether a process listens on the unix socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def service_address(text: str) -> str:
    """Return the address of a service, without a slash at the end; raise `InputError`."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable |= parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise InputError("the address of the broker is not valid", hint="use https://HOST:PORT or unix:///PATH")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InputError(f"{parts.hostname} is not loopback: the bundle would travel without TLS", hint="use https://")
    return text.rstrip("/")


def is_public(text: str) -> bool:
    """Return whether `text` is an address in the Internet. An IPv4 address inside an IPv6 address counts as itself."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        teredo = address.teredo[1] if address.teredo else None
        nat64 = IPv4Address(address.packed[-4:]) if address in _NAT64 else None
        inner = address.ipv4_mapped or address.sixtofour or teredo or nat64
        if inner:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast


class TooMuchError(Exception):
    """More bytes came than the limit allows."""


FAULTS: Final = (OSError, http.client.HTTPException, TooMuchError, *UNREADABLE)  # of calling, and of reading an answer


class ProxyError(OSError):
    """The proxy gave no connection. Its text is ours: a proxy may repeat the login that we sent."""


def connected(host: str, port: int, deadline: Deadline, proxy: Proxy | None = None) -> socket.socket:
    """Return a connection to `host`, through `proxy` if there is one; raise `OSError`, of a proxy `ProxyError`."""
    if proxy is None:
        return opened(resolved(host, port, deadline), deadline)
    try:
        channel = opened(resolved(proxy.host, proxy.port, deadline), deadline)
    except (OSError, UnicodeError):
        raise ProxyError("the proxy cannot be reached") from None
    try:
        status = _asked_to_connect(channel, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", proxy, deadline)
    except FAULTS:
        channel.close()
        raise ProxyError("the proxy gave no answer") from None
    if status // 100 != _SUCCESS:
        channel.close()
        raise ProxyError(proxy_refusal(status))
    return channel


def proxy_refusal(status: int) -> str:
    """Return what a proxy's answer means, if it gives no connection."""
    return _REFUSALS.get(status, f"the proxy gave no connection: it answered {status}")


def _asked_to_connect(channel: socket.socket, target: str, proxy: Proxy, deadline: Deadline) -> int:
    """Return the status of the proxy's answer. No byte of the partner's is read: its server speaks second."""
    login = b64encode(proxy.login.reveal().encode()).decode() if proxy.login else ""
    headers = {"Host": target, **({"Proxy-Authorization": f"Basic {login}"} if login else {})}
    with answered(channel, http_request(f"CONNECT {target}", headers), deadline, _LONGEST_LINE) as answer:
        channel.settimeout(deadline.left)  # for a handshake
        return answer.status


def http_request(line: str, headers: Mapping[str, str], content: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request; `line` is its method and target."""
    lines = [f"{line} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + content


@contextmanager
def answered(
    channel: socket.socket, request: bytes, deadline: Deadline, largest: int
) -> Iterator[http.client.HTTPResponse]:
    """Send `request`, and lend its answer, whose head was read: `largest` bytes at most. Raise what is in `FAULTS`."""
    channel.settimeout(deadline.left)
    channel.sendall(request)
    with (
        Reader(channel, deadline, largest) as reader,
        http.client.HTTPResponse(cast("socket.socket", reader), method=request.split(b" ", 1)[0].decode()) as answer,
    ):
        answer.begin()
        yield answer


def opened(found: list[Any], deadline: Deadline) -> socket.socket:
    """Return a connection to the first of the addresses that `resolved` found and that answers; raise `OSError`.

    Each address gets its share of the time that is left, so that a dead one leaves some for the next.
    """
    for tried, (family, kind, protocol, _, address) in enumerate(found, 1):
        channel = socket.socket(family, kind, protocol)
        try:
            channel.settimeout(deadline.left / (len(found) - tried + 1))
            channel.connect(address)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel.settimeout(deadline.left)  # for a handshake
        except OSError:
            channel.close()
            if tried == len(found):
                raise
        else:
            return channel
    raise socket.gaierror(socket.EAI_NONAME, "no address")


def resolved(host: str, port: int, deadline: Deadline) -> list[Any]:
    """Return what `getaddrinfo` returns; raise `OSError`.

    It is asked in another thread: the resolver takes minutes if no name server answers.
    """
    found: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        answer = found.get(timeout=deadline.left)
    except Empty:
        raise TimeoutError("the name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class Reader(io.RawIOBase):
    """The bytes from a connection, as a file that ends at the deadline, and at `largest` bytes.

    It replaces the socket of an `http.client.HTTPResponse`, which only calls `makefile` on it.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline, largest: float) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline
        self._largest = largest
        self._raw = connection.makefile("rb", buffering=0)  # keeps the socket open, as http.client counts on
        self.count = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a buffered file on this, for `HTTPResponse`."""
        return _Buffered(self)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into `buffer`; raise `TimeoutError` at the deadline, `TooMuchError` after too many bytes."""
        self._connection.settimeout(self._deadline.left)
        count = self._raw.readinto(cast("bytearray", buffer)) or 0
        self.count += count
        if self.count > self._largest:
            raise TooMuchError
        return count

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()


class _Buffered(io.BufferedReader):
    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, or the beginning of an endless one: urllib3 sets no limit."""
        return super().readline(_LONGEST_LINE + 1 if size is None or size < 0 else size)


class InTime(http.client.HTTPResponse):
    """A response that must be complete within the time-out of the connection, not only each read of it."""

    def __init__(self, connection: socket.socket, *args: Any, **kwargs: Any) -> None:
        reader = Reader(connection, Deadline(connection.gettimeout() or 0), math.inf)
        super().__init__(cast("socket.socket", reader), *args, **kwargs)


def behind(error: object, depth: int = 8) -> Iterator[Exception]:
    """Yield the errors inside `error`, the innermost first: requests and urllib3 wrap them in their args."""
    if not isinstance(error, Exception) or not depth:
        return
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        yield from behind(inner, depth - 1)
    yield error


def is_closed(error: Exception) -> bool:
    """Return whether `error` means that the other side closed the connection without an alert."""
    return isinstance(error, _CLOSED) or getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"


def alert_of(error: Exception) -> str:
    """Return the TLS alert in `error`, in words of RFC 8446 ("unknown ca"), else ""."""
    match = _ALERT.fullmatch(error.reason or "") if isinstance(error, ssl.SSLError) else None
    return match[1].replace("_", " ").lower() if match else ""


def retry_after(value: str, now: datetime) -> int | None:
    """Return the seconds that a Retry-After header asks for, as a number or as a date; None if it is neither.

    Source: RFC 9110, section 10.2.3. A date in the past means 0.
    """
    text = value.strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, math.ceil((date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()))
