"""Start, stop and find the embedded server.

There is no pid file to go stale: the kernel says who listens at the socket (SO_PEERCRED), and a lock that the server
inherits and holds for life says that one is alive, also before it listens.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from broker.embedded.binary import find_binary
from broker.embedded.config import Options, rendered
from broker.embedded.home import Home, write_private
from broker.errors import VaultUnavailableError

__all__ = ["Lifetime", "Running", "start", "status", "stop"]

_PATIENCE: Final = 20.0  # seconds to start or stop; both usually take a tenth of one
_TICK: Final = 0.02
# $1 the log, $2 "tied" or "detached", then the command. The server is no child of ours, so it leaves no zombie. It
# holds the write end of our stdout pipe, which thereby tells us of its death, and the lock that our stderr is, so that
# nobody takes its data for abandoned before it listens. When tied, a reader of our stdin pipe
# ends it as soon as that pipe's last writer is gone, however we died.
_LAUNCH: Final = """
ulimit -c 0
log=$1 lifetime=$2; shift 2
exec 3<&0 4>&1 5>&2 </dev/null >"$log" 2>&1
if [ "$lifetime" = tied ]; then
  (
    "$@" 3<&- & server=$!
    ( exec 4>&- 5>&-; read -r _ <&3; kill "$server" 2>&- ) & reader=$!
    exec 3<&- 4>&- 5>&-; wait "$server"; kill "$reader" 2>&-
  ) &
else
  "$@" 3<&- &
fi
"""


class Lifetime(Enum):
    """How long the server runs: until it is stopped, or at most as long as the process that started it."""

    DETACHED = "detached"
    TIED = "tied"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `lifeline` is the open end of a tied server's pipe, -1 where there is none."""

    home: Home
    pid: int
    lifeline: int = -1

    @property
    def address(self) -> str:
        """What VAULT_ADDR would be."""
        return f"unix://{self.home.socket}"

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        stop(self.home.root)
        if self.lifeline >= 0:
            os.close(self.lifeline)


def start(directory: Path, options: Options | None = None, *, lifetime: Lifetime = Lifetime.DETACHED) -> Running:
    """Make sure that the server of `directory` runs, initialised and unsealed; return once it answers.

    Two at once: one starts it, the other finds it running. `options` and `lifetime` are the starter's. Raise
    `InputError` or `RefusedError` where the directory cannot serve, `VaultUnavailableError` where the server does not
    come up.
    """
    home = Home(directory.absolute())
    home.claim()
    with _locked(home.lock):
        claim = _claimed(home)
        if claim < 0:
            home.initialized.touch(mode=0o600)  # whoever started it may have been killed before this
            return Running(home, _listener(home))
        try:
            home.prepare()
            write_private(home.config, rendered(home, options or Options()).encode())
            return _launched(home, lifetime, claim)
        finally:
            os.close(claim)


def status(directory: Path) -> Running | None:
    """Return the server of `directory` if it answers at its socket, else None."""
    home = Home(directory.absolute())
    pid = _listener(home)
    return Running(home, pid) if pid else None


def stop(directory: Path) -> bool:
    """End the server of `directory`, gently, then not; return whether there was one."""
    home = Home(directory.absolute())
    if not home.root.is_dir():
        return False
    with _locked(home.lock):
        pid = _listener(home)
        if not pid:
            return False
        watch = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(watch, signal.SIGTERM)
            if not _gone(watch, _PATIENCE):
                signal.pidfd_send_signal(watch, signal.SIGKILL)
                _gone(watch, _PATIENCE)
        finally:
            os.close(watch)
        home.socket.unlink(missing_ok=True)
        return True


def _claimed(home: Home) -> int:
    """Return the server's own lock, open and held; or -1 once a server that holds it answers.

    A server may live without listening yet: the one who started it was killed a moment ago.
    """
    claim = os.open(home.server_lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _listener(home) and _answers(home):
                os.close(claim)
                return -1
            time.sleep(_TICK)
        else:
            return claim
    os.close(claim)
    raise VaultUnavailableError(
        f"a server of {home.root} runs, but neither answers nor ends", hint=f"end it yourself; see {home.log}"
    )


def _launched(home: Home, lifetime: Lifetime, claim: int) -> Running:
    command = [str(find_binary()), "server", f"-config={home.config}"]
    read_life, write_life = os.pipe()
    read_death, write_death = os.pipe()
    try:
        subprocess.run(
            ["/bin/sh", "-c", _LAUNCH, "sh", str(home.log), lifetime.value, *command],
            stdin=read_life,
            stdout=write_death,
            stderr=claim,
            env={},  # BAO_… and proxies of the caller are not for the server
            umask=0o077,
            start_new_session=True,  # Ctrl-C is for us; we end the server in our own order
            check=True,
        )
        os.close(write_death)
        write_death = -1
        pid = _awaited(home, read_death)
        home.initialized.touch(mode=0o600)
        lifeline, write_life = (write_life, -1) if lifetime is Lifetime.TIED else (-1, write_life)
        return Running(home, pid, lifeline)
    finally:
        for descriptor in (read_life, write_life, read_death, write_death):
            if descriptor >= 0:
                os.close(descriptor)


def _awaited(home: Home, death: int) -> int:
    """Return the pid of the server once it answers as unsealed."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        pid = _listener(home)
        if pid and _answers(home):
            return pid
        if select.select([death], [], [], _TICK)[0]:
            raise VaultUnavailableError("the embedded vault ended as it started", hint=f"it says why in {home.log}")
    raise VaultUnavailableError("the embedded vault does not come up", hint=f"see {home.log}")


def _listener(home: Home) -> int:
    """Return the pid of who listens at the socket, 0 where nobody does."""
    if home.is_too_long:
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.connect(str(home.socket))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return 0
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def _answers(home: Home) -> bool:
    """Say whether the server at the socket is initialised and unsealed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(_PATIENCE)
        try:
            channel.connect(str(home.socket))
            channel.sendall(b"GET /v1/sys/health HTTP/1.0\r\n\r\n")
            return b" 200 " in channel.recv(64)
        except OSError:
            return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)  # for whoever waits in vain
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + 2 * _PATIENCE  # what the longest start, or stop, takes
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TICK)
        else:
            return
    pid = os.pread(descriptor, 16, 0).decode("ascii", errors="replace")
    raise VaultUnavailableError(
        f"process {pid or 'unknown'} does not end starting or stopping the vault of {path.parent}",
        hint="is it stopped, or does it hang? let it go on, or end it, and try again",
    )


def _gone(watch: int, seconds: float) -> bool:
    return bool(select.select([watch], [], [], seconds)[0])
