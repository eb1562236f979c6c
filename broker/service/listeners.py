"""Listen on a socket, loopback or TLS, with uvicorn; stop on a signal once open requests are answered."""

import asyncio
import errno
import gc
import os
import socket
import ssl
import stat
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import uvicorn
import uvloop
from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError
from broker.network import is_listening, is_loopback
from broker.service.limits import LOOPBACK_NAMES, Guard, GuardedProtocol
from broker.service.tls import Tls
from broker.signals import ASKING
from broker.systemd import State
from broker.telemetry import log, rendering

_DRAIN: Final = 9  # seconds for open requests, once the service is asked to end; then each is answered 503
_CUT: Final = 10  # seconds until connections are cut
_HANDSHAKE: Final = 10.0  # seconds for a TLS handshake
_AGAIN: Final = 0.1  # seconds until another connection is accepted after a failure
_IDLE: Final = 75  # seconds; longer than the 60 of common proxies
_OWNER_AND_GROUP: Final = 0o660
_HINTS: Final = {
    errno.EADDRINUSE: "is another service there?",
    errno.EADDRNOTAVAIL: "name an address of this host",
    errno.ENOENT: "make the directory of the socket first",
    errno.ENOTDIR: "make the directory of the socket first",
    errno.EACCES: "name a port above 1023, or a socket in a directory that this user may write to",
}
_FORM: Final = (
    "give 127.0.0.1:8250, unix:///run/broker/broker.sock, or https://0.0.0.0:8443 with --tls-cert and --tls-key"
)


class Address(Struct, frozen=True):
    """Where to listen: a unix socket, or host and port."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    tls: bool = False

    @classmethod
    def parse(cls, text: str, *, behind_proxy: bool = False) -> Self:
        """Read unix:///PATH, [http://]HOST:PORT or https://HOST:PORT; raise `InputError`.

        Plain HTTP is for loopback, unless a proxy in front of the service does TLS.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port
        except ValueError:
            raise InputError(f"{text[:80]!r} is not an address to listen on", hint=_FORM) from None
        if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
            return cls(path=Path(parts.path))
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None or parts.path.strip("/"):
            raise InputError(f"{text[:80]!r} is not an address to listen on", hint=_FORM)
        if parts.scheme == "http" and not behind_proxy and not is_loopback(parts.hostname):
            raise InputError(
                f"{parts.hostname} is not loopback: bundles would travel without TLS",
                hint="use https:// with --tls-cert and --tls-key, or --behind-proxy if a proxy on this host does TLS",
            )
        return cls(host=parts.hostname, port=port, tls=parts.scheme == "https")

    def bound(self, *, shared: bool = False) -> socket.socket:
        """Return the socket, bound; raise `InputError` if that is not possible. Others may share its port."""
        try:
            return self._unix(self.path) if self.path else self._tcp(shared=shared)
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            raise InputError(f"cannot listen on {self}: {error.strerror}", hint=hint) from None

    def shared(self, count: int) -> list[socket.socket]:
        """Return a socket for each of `count` processes; raise `InputError`, also if another service is there."""
        first = self.bound()
        if self.path:
            return [first, *(first.dup() for _ in range(count - 1))]
        port = first.getsockname()[1]
        first.close()
        return [replace(self, port=port).bound(shared=True) for _ in range(count)]

    def after(self, number: int) -> Self:
        """Return the address whose port is higher by `number`; that of any port is the same."""
        return replace(self, port=self.port + number) if self.port else self

    def at(self, bound: socket.socket) -> str:
        """Return the address as text, with the port that the system chose for 0."""
        return str(self if self.path else replace(self, port=bound.getsockname()[1]))

    @property
    def names(self) -> frozenset[bytes] | None:
        """The names that a Host header may have here: those of loopback, if this is plain HTTP there. None: any."""
        if self.path or self.tls or not is_loopback(self.host):
            return None
        own = f"[{self.host}]" if ":" in self.host else self.host
        return LOOPBACK_NAMES | {own.lower().encode()}

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.tls}://{host}:{self.port}"

    def _tcp(self, *, shared: bool) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            made.bind((self.host, self.port))
        except OSError:
            made.close()
            raise
        return made

    @staticmethod
    def _unix(path: Path) -> socket.socket:
        """Bind a socket that owner and group may use, in place of one that nothing listens on."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if path.exists() and stat.S_ISSOCK(path.lstat().st_mode) and not is_listening(path):
                path.unlink()
            before = os.umask(0o777 & ~_OWNER_AND_GROUP)
            try:
                made.bind(str(path))
            finally:
                os.umask(before)
        except OSError:
            made.close()
            raise
        return made


class Listener(Struct, frozen=True):
    """An application and the address that it is served at."""

    app: Any  # an ASGI application
    address: Address
    tls: Tls | None = None
    guard: Guard = field(default_factory=Guard)
    bound: socket.socket | None = None  # by another process; else it is bound here


Ready = Callable[[tuple[str, ...]], None]
Report = Callable[[State], None]


def serve(
    listeners: Sequence[Listener], *, ready: Ready, report: Report, close: Callable[[], None] = lambda: None
) -> None:
    """Serve all `listeners` until a signal asks to end; call `ready` with their addresses once they listen.

    `report` is called with each state, `close` on the event loop after the last answer.
    """

    async def serving() -> None:
        try:
            await _serve(listeners, ready, report)
        finally:
            close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving())


async def _serve(listeners: Sequence[Listener], ready: Ready, report: Report) -> None:
    sockets = _bound(listeners)
    files = [left(listener.address) for listener in listeners if not listener.bound]
    servers = [_Server(listener) for listener in listeners]
    loop = asyncio.get_running_loop()

    def end() -> None:
        report(State.STOPPING)
        for server in servers:
            server.should_exit = True
        loop.call_later(_DRAIN, _end_requests, servers)

    for number in ASKING:
        with suppress(ValueError, RuntimeError, OSError):
            loop.add_signal_handler(number, end)
    followers = [asyncio.create_task(listener.tls.follow()) for listener in listeners if listener.tls]
    tasks = [asyncio.create_task(server.serve([bound])) for server, bound in zip(servers, sockets, strict=True)]
    try:
        while not all(server.started for server in servers) and not any(task.done() for task in tasks):
            await asyncio.sleep(0.01)
        if all(server.started for server in servers):
            gc.freeze()  # what was made until now stays: no collection looks at it again
            ready(tuple(listener.address.at(bound) for listener, bound in zip(listeners, sockets, strict=True)))
            report(State.READY)
        with rendering.gathered(loop.call_soon):
            await asyncio.gather(*tasks)
    finally:
        for follower in followers:
            follower.cancel()
        for file in files:
            file.remove()


def _end_requests(servers: Sequence["_Server"]) -> None:
    """End what is open by `CancelledError`, which `app` answers."""
    for server in servers:
        for task in server.server_state.tasks:
            task.cancel()


def _bound(listeners: Sequence[Listener]) -> list[socket.socket]:
    """Return a socket for each address; raise `InputError`, and keep none open, if one cannot be had."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(listener.bound or listener.address.bound()) for listener in listeners]
        opened.pop_all()
        return sockets


class _Server(uvicorn.Server):
    """Leaves signals to `_serve`, which stops all servers of the process."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(_config(listener))
        self._guard = listener.guard

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does on sockets, with bounds on TLS handshakes."""
        loop, config = asyncio.get_running_loop(), self.config

        def connected() -> asyncio.Protocol:
            return GuardedProtocol(self._guard, config=config, server_state=self.server_state, app_state={})

        self.servers = []
        for bound in sockets or ():
            if config.ssl:
                bound.listen(config.backlog)
                bound.setblocking(False)
                server = _TlsServer(bound, partial(_shaken, connected, config.ssl), self._guard.handshakes)
                self.servers.append(cast("asyncio.Server", server))  # uvicorn only closes it
            else:
                self.servers.append(await loop.create_server(connected, sock=bound, backlog=config.backlog))
        self.started = True


class _TlsServer:
    """Accepts connections for `shake`, `most` at a time; the longest handshake makes room for another.

    A server of the loop calls no protocol before the end of the handshake, so it would hold any number of connections.
    """

    def __init__(
        self, bound: socket.socket, shake: Callable[[socket.socket], Coroutine[None, None, None]], most: int
    ) -> None:
        self._bound, self._shake, self._most = bound, shake, most
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Accept no more, and end all handshakes."""
        for task in (self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until that is done."""
        await asyncio.wait((self._accepting, *self._handshakes))

    async def _accept(self) -> None:
        while True:
            try:
                made, _ = await asyncio.get_running_loop().sock_accept(self._bound)
            except OSError as error:  # such as too many open files
                log.error("a connection cannot be accepted", reason=error.strerror)
                await asyncio.sleep(_AGAIN)
                continue
            if len(self._handshakes) >= self._most:
                oldest = next(iter(self._handshakes))
                del self._handshakes[oldest]
                oldest.cancel()
            task = asyncio.create_task(self._shake(made))
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))


async def _shaken(connected: Callable[[], asyncio.Protocol], context: ssl.SSLContext, made: socket.socket) -> None:
    """Do the handshake on a new connection, which is closed if that fails."""
    with suppress(Exception):
        await asyncio.get_running_loop().connect_accepted_socket(
            connected, made, ssl=context, ssl_handshake_timeout=_HANDSHAKE
        )


def _config(listener: Listener) -> uvicorn.Config:
    tls = listener.tls
    return uvicorn.Config(
        listener.app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        reset_contextvars=True,  # else a pipelined request is logged with what the one before it bound
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_CUT,
        ssl_context_factory=(lambda _config, _default: tls.context()) if tls else None,
    )


class _File(Struct, frozen=True):
    """The file of a unix socket, if there is one."""

    path: Path | None
    identity: tuple[int, int, int] | None

    def remove(self) -> None:
        """Remove it, unless it is a successor's."""
        if self.path and _identity(self.path) == self.identity:
            self.path.unlink(missing_ok=True)


def left(address: Address) -> _File:
    """Return the file that a socket at `address` leaves behind."""
    return _File(address.path, _identity(address.path) if address.path else None)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from a later one in its place, None if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns  # the number alone may be used again
