"""Health and numbers of the agent, computed from the files on disk, on loopback or a unix socket."""

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker.agent.following import Condition, Follower
from broker.delivery.restoring import whole
from broker.errors import InputError
from broker.model.bundle import Manifest
from broker.model.clock import system_clock
from broker.network import is_loopback

_DEADLINE: Final = 2.0  # seconds for a request
_LARGEST: Final = 8192  # bytes of its head
_MOST: Final = 16  # requests at a time
_LINE: Final = re.compile(rb"(GET|HEAD|POST) (/[a-z]*)(?:\?\S*)? HTTP/1\.[01]\r?\n")
_HOST: Final = re.compile(rb"\nhost:[ \t]*([^\r\n]*)", re.IGNORECASE)
_REASONS: Final = {200: "OK", 202: "Accepted", 404: "Not Found", 405: "Method Not Allowed", 421: "Misdirected Request"}
_PREFIX: Final = "credential_broker_agent_"


@dataclass(frozen=True, slots=True)
class BundleHealth:
    """What the files of a bundle say now."""

    name: str
    is_alive: bool
    condition: Condition
    since: datetime
    message: str
    failures: int
    hook_failures: int
    manifest: Manifest | None

    @property
    def is_ready(self) -> bool:
        """Whether the published generation is whole and its certificate has not expired."""
        return self.manifest is not None and self.manifest.not_after > system_clock()

    @property
    def shown(self) -> dict[str, object]:
        """For people and programs. Nothing in it is secret."""
        found = self.manifest
        return {
            "bundle": self.name,
            "ready": self.is_ready,
            "condition": self.condition.value,
            "since": f"{self.since:%FT%TZ}",
            "message": self.message,
            "generation": found.generation if found else None,
            "expires": f"{found.expires:%FT%TZ}" if found else None,
            "not_after": f"{found.not_after:%FT%TZ}" if found else None,
        }


class Health:
    """The health of all bundles."""

    def __init__(self, followers: Callable[[], Sequence[Follower]]) -> None:
        self._followers = followers

    @property
    def is_started(self) -> bool:
        """Whether each bundle is on disk, whole."""
        return all(one.manifest for one in self.bundles())

    @property
    def is_alive(self) -> bool:
        """Whether each bundle is looked after. It does not depend on the broker, nor on any date."""
        return all(one.is_alive for one in self._followers())

    def bundles(self) -> list[BundleHealth]:
        """Return the health of each bundle."""
        return [
            BundleHealth(
                one.table.name,
                one.is_alive,
                one.standing.condition,
                one.standing.since,
                one.standing.message,
                one.failures,
                one.hooks.failures,
                whole(one.table.root),
            )
            for one in self._followers()
        ]

    def answer(self, path: str) -> tuple[int, str, str] | None:
        """Return status, media type and text, None for an unknown path."""
        if path == "/livez":
            return (
                (200 if self.is_alive else 503),
                "text/plain",
                "ok\n" if self.is_alive else "a bundle has no thread\n",
            )
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics(self.bundles())
        if path not in ("/startz", "/readyz"):
            return None
        found = self.bundles()
        good = all(one.is_ready if path == "/readyz" else one.manifest for one in found)
        return (200 if good else 503), "application/json", json.dumps([one.shown for one in found], indent=2) + "\n"


def metrics(bundles: Sequence[BundleHealth]) -> str:
    """Return the numbers of all bundles, in the text format of Prometheus."""
    families: dict[str, tuple[str, Callable[[BundleHealth], float | None]]] = {
        f"{_PREFIX}ready": ("Whether the files are whole and the certificate has not expired.", lambda b: b.is_ready),
        f"{_PREFIX}generation": ("Generation of the files.", lambda b: b.manifest.generation if b.manifest else None),
        f"{_PREFIX}lease_expires_timestamp_seconds": (
            "End of the lease.",
            lambda b: b.manifest.expires.timestamp() if b.manifest else None,
        ),
        f"{_PREFIX}failures": ("Failures in a row.", lambda b: b.failures),
        f"{_PREFIX}hook_failures": ("Failures of the hook in a row.", lambda b: b.hook_failures),
        "x509_cert_not_after": (
            "End of the certificate.",
            lambda b: b.manifest.not_after.timestamp() if b.manifest else None,
        ),
    }
    lines = []
    for name, (meaning, value) in families.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
        lines += [
            f"{name}{{{_labels(one)}}} {float(found):.0f}" for one in bundles if (found := value(one)) is not None
        ]
    name = f"{_PREFIX}condition"
    lines += [f"# HELP {name} How it is with a bundle: 1 for the condition that it is in.", f"# TYPE {name} gauge"]
    for one in bundles:
        lines += [f'{name}{{{_labels(one)},condition="{c.value}"}} {int(c is one.condition)}' for c in Condition]
    return "\n".join(lines) + "\n"


def _labels(one: BundleHealth) -> str:
    account, _, application = one.name.partition("/")
    return f'account="{account}",application="{application}"'


class Listener(threading.Thread):
    """Answers requests at an address. `leave` is called for POST /quit, on our user's socket."""

    def __init__(self, bound: socket.socket, health: Health, leave: Callable[[], None] | None = None) -> None:
        super().__init__(name="health", daemon=True)
        self._bound, self._health, self._leave = bound, health, leave
        self._room = threading.BoundedSemaphore(_MOST)

    def run(self) -> None:
        """Answer for ever."""
        while True:
            with suppress(OSError):
                connection, _ = self._bound.accept()
                if self._room.acquire(blocking=False):
                    threading.Thread(target=self._answered, args=(connection,), daemon=True).start()
                else:
                    connection.close()

    def _answered(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(_DEADLINE)
                head = _head(connection)
                status, kind, text = self._answer(head)
                body = b"" if head.startswith(b"HEAD") else text.encode()
                reason = _REASONS.get(status, "Service Unavailable")
                lines = (
                    f"HTTP/1.0 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(text.encode())}\r\n"
                )
                connection.sendall(f"{lines}Connection: close\r\n\r\n".encode() + body)
        finally:
            self._room.release()

    def _answer(self, head: bytes) -> tuple[int, str, str]:
        line, host = _LINE.match(head), _HOST.search(head)
        if not line:
            return 405, "text/plain", "GET /startz, /livez, /readyz or /metrics\n"
        if host and not is_loopback(_name(host[1].decode("latin-1"))):
            return 421, "text/plain", "ask localhost\n"
        method, path = line[1].decode(), line[2].decode()
        if method == "POST":
            if path != "/quit" or not self._leave:
                return 405, "text/plain", "POST /quit is for the unix socket\n"
            self._leave()
            return 202, "text/plain", "ending\n"
        return self._health.answer(path) or (404, "text/plain", "there are /startz, /livez, /readyz and /metrics\n")


def bound_to(address: str) -> socket.socket:
    """Return a socket at HOST:PORT of this machine; raise `InputError`."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isdecimal() or not is_loopback(host):
        raise InputError(f"agent.listen {address[:80]!r} is not a loopback address", hint='listen = "127.0.0.1:8253"')
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise InputError(f"cannot listen on {address}: {reason.lower()}", hint="choose another port") from None


def bound_at(path: Path) -> socket.socket:
    """Return a unix socket that our user alone may use, in place of one that a killed process left."""
    if _is_listening(path):
        raise InputError(f"another process listens on {path}", hint="choose another agent.socket")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(_MOST)
    except OSError as error:
        made.close()
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot listen on {path}: {reason}", hint="see its directory: ls -ld") from None
    return made


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(str(path))
        except OSError:
            return False
    return True


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\n\r\n" not in head and b"\n\n" not in head and len(head) < _LARGEST:
        more = connection.recv(_LARGEST)
        if not more:
            break
        head += more
    return head


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
