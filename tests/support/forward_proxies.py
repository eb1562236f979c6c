"""Real forward proxies on loopback, which ask for a login."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from broker.model.proxy import Proxy, proxy_of
from tests.support.ports import free_ports

__all__ = ["LOGIN", "PROXIES", "intercepting", "running"]

LOGIN: Final = "fleet:pr0xy-planted"
PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"


def _tinyproxy(folder: Path, port: int, only: int) -> Sequence[str | Path]:
    user, password = LOGIN.split(":")
    allowed = f"ConnectPort {only}\n" if only else ""
    config = f"Listen 127.0.0.1\nPort {port}\nTimeout 60\nBasicAuth {user} {password}\n{allowed}"
    (folder / "tinyproxy.conf").write_text(config)
    return "tinyproxy", "-d", "-c", folder / "tinyproxy.conf"


def _squid(folder: Path, port: int, only: int) -> Sequence[str | Path]:
    # One line a request, user and password URL-encoded; the answer is OK or ERR
    script = f'while read -r user password; do [ "$user:$password" = "{LOGIN}" ] && echo OK || echo ERR; done\n'
    (folder / "login.sh").write_text(script)
    denied = f"acl others port {only}\nhttp_access deny !others\n" if only else ""
    (folder / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\nauth_param basic program /bin/sh {folder}/login.sh\n"
        f"acl known proxy_auth REQUIRED\n{denied}http_access allow known\nhttp_access deny all\ncache deny all\n"
        "access_log none\ncache_log /dev/null\ncache_store_log none\npid_filename none\nshutdown_lifetime 0 seconds\n"
        "connect_timeout 5 seconds\nforward_max_tries 1\n"
    )
    return "squid", "-N", "-f", folder / "squid.conf"


PROXIES: Final[dict[str, Callable[[Path, int, int], Sequence[str | Path]]]] = {
    "tinyproxy": _tinyproxy,
    "squid": _squid,
}


@contextmanager
def running(kind: str, *, only: int = 0) -> Iterator[Proxy]:
    """Run a proxy that wants `LOGIN`, and connects to any port, or to `only` one."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="broker-proxy-") as folder:
        command = PROXIES[kind](Path(folder), port, only)
        for path in (Path(folder), *Path(folder).iterdir()):
            path.chmod(0o755)  # squid, started by root, reads them as another user
        with _served(command, port):
            yield proxy_of(f"http://127.0.0.1:{port}", LOGIN)


@contextmanager
def intercepting() -> Iterator[Proxy]:
    """Run a proxy that opens TLS with certificates of its own."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="broker-proxy-") as folder:
        lazy = ("--set", "connection_strategy=lazy", "--set", f"confdir={folder}")
        with _served(("mitmdump", "-q", "--listen-host", "127.0.0.1", "-p", str(port), *lazy), port, HOME=folder):
            yield proxy_of(f"http://127.0.0.1:{port}")


@contextmanager
def _served(command: Sequence[str | Path], port: int, patience: float = 30.0, **environment: str) -> Iterator[None]:
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", **environment}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            _await(process, port, time.monotonic() + patience)
            yield
        finally:
            process.kill()  # squid takes a second to end by itself


def _await(process: subprocess.Popen[bytes], port: int, until: float) -> None:
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} does not listen")
