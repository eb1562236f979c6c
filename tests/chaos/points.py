"""Inject a fault into a command at a chosen write, in the command's own process.

Every write is a point, numbered from 1: a request to Vault that is no read, from any sender; a change of the file
system; a request to the partner; a mail; the start of another program. Python's own audit events, and the observer of
`Wiring`, are written down beside them: a write that found a way around us shows there.
"""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool

from broker.compose.graph import Wiring
from broker.model.clock import system_clock
from broker.people.smtp import Mailer

__all__ = ["disturb"]

READS: Final = ("GET", "LIST", "HEAD")
WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Functions of `os` that change a file system, and the audit event of each (Python's "Audit events table")
CHANGES: Final = {
    "mkdir": "os.mkdir",
    "rmdir": "os.rmdir",
    "rename": "os.rename",
    "replace": "os.rename",
    "unlink": "os.remove",
    "remove": "os.remove",
    "symlink": "os.symlink",
    "link": "os.link",
    "truncate": "os.truncate",
    "ftruncate": "os.truncate",
    "chmod": "os.chmod",
    "fchmod": "os.chmod",
    "chown": "os.chown",
    "fchown": "os.chown",
    "utime": "os.utime",
}
EVENTS: Final = frozenset(CHANGES.values())


def disturb(order: Mapping[str, Any], _: object) -> Wiring:
    """Number the writes of this process, and inject `order["fault"]` at number `order["at"]`."""
    watch = Watch(order)
    install(watch)
    later = timedelta(seconds=order["later"])
    return Wiring(lambda: system_clock() + later, lambda phase, path: watch.note("observed", phase.value, path))


class Watch:
    """Numbers the points of this process, writes them down, and does at one of them what the order says."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._trace = os.open(f"{order['folder']}/trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._count = 0
        self._on = True
        self._tight = False  # the next file to be written finds no room

    def note(self, *row: object) -> None:
        """Write a row of the trace, past every buffer: what comes next may be the end."""
        self._make_room()
        os.write(self._trace, json.dumps(row).encode() + b"\n")
        if self._tight:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._order["fault"]["room"], resource.RLIM_INFINITY))

    def surround(self, kind: str, name: Callable[..., str | None], real: Callable[..., Any]) -> Callable[..., Any]:
        """Return `real` as a point of `kind`, where `name` finds one in its arguments."""

        @functools.wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            what = name(*args, **kwargs) if self._on else None
            if what is None:
                return real(*args, **kwargs)
            number = self._before(kind, what)
            try:
                return real(*args, **kwargs)
            finally:
                self._after(number)

        return watched

    def audited(self, event: str, args: tuple[Any, ...]) -> None:
        """Write down every change of the file system that Python itself knows of."""
        if not self._on:
            return
        if event in EVENTS or event == "subprocess.Popen":
            self.note("audit", event)
        elif event == "open" and isinstance(args[0], str | bytes) and opened_for_writing(*args):
            self.note("audit", "open")

    def _before(self, kind: str, what: str) -> int:
        self._count += 1
        self._tight = self._tight and what == "fchmod"  # that comes between opening a file and writing it
        self.note("point", self._count, kind, what)
        if self._count == self._order.get("at"):
            self._meet("before")
        return self._count

    def _after(self, number: int) -> None:
        if number == self._order.get("at"):
            self._meet("after")

    def _meet(self, phase: str) -> None:
        fault = self._order["fault"]
        if phase != fault.get("phase", "before"):
            return
        if "signal" in fault:
            os.kill(os.getpid(), fault["signal"])
        elif "errno" in fault:
            raise OSError(fault["errno"], os.strerror(fault["errno"]))
        elif "vanish" in fault:
            self._on = False
            shutil.rmtree(fault["vanish"], ignore_errors=True)
            self._on = True
        elif "room" in fault:
            # The next write to a file gets no further than this; then it fails, or the kernel ends us within it
            if fault["deadly"]:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            self._tight = True
            self.note("tight")

    def _make_room(self) -> None:
        if "room" in self._order["fault"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def opened_for_writing(_: object, mode: str | None, flags: int) -> bool:
    """Say whether an `open` may change something: `flags` are those of open(2)."""
    return bool(flags & WRITING)


def install(watch: Watch) -> None:
    """Put `watch` around everything that writes."""

    def sent(_: object, method: str, url: str, *__: object, **___: object) -> str | None:
        path = urlsplit(url).path.removeprefix("/v1/")
        return None if method in READS else f"{method} {path}"

    HTTPConnectionPool.urlopen = watch.surround("vault", sent, HTTPConnectionPool.urlopen)  # type: ignore[method-assign]
    ssl.SSLSocket.sendall = watch.surround(  # type: ignore[method-assign]
        "partner", lambda *_, **__: "request", ssl.SSLSocket.sendall
    )
    Mailer.deliver = watch.surround("mail", lambda *_, **__: "deliver", Mailer.deliver)  # type: ignore[method-assign]
    subprocess.Popen.__init__ = watch.surround(  # type: ignore[method-assign]
        "process", lambda *_, **__: "start", subprocess.Popen.__init__
    )
    for name in CHANGES:
        setattr(os, name, watch.surround("disk", functools.partial(changed, name), getattr(os, name)))
    os.open = watch.surround("disk", os_opened, os.open)
    opened = watch.surround("disk", io_opened, io.open)
    io.open = builtins.open = opened
    sys.addaudithook(watch.audited)


def changed(name: str, *args: object, **_: object) -> str:
    """Return what a function of `os` does, to which file: not where, since that differs from run to run."""
    path = args[0] if args else ""
    return f"{name} {Path(path).name}" if isinstance(path, str | os.PathLike) else name


def os_opened(path: Any, flags: int, *_: object, **__: object) -> str | None:
    """Return a name for `os.open` where it may write."""
    return changed("open", path) if flags & WRITING else None


def io_opened(file: Any, mode: str = "r", *_: object, **__: object) -> str | None:
    """Return a name for `open` where it may write. What `os.open` has opened was a point already."""
    return changed("open", file) if set(mode) & set("wax+") and not isinstance(file, int) else None
