"""Start, stop and find the embedded server.

There is no pid file to go stale. The kernel tells the pid of the listener at the socket (SO_PEERCRED). A lock that the
server inherits and holds for life shows that one is alive, even before it listens.
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
from pathlib import Path
from typing import Final

from broker.embedded.binary import find_binary
from broker.embedded.config import Options, rendered
from broker.embedded.home import Home, write_private
from broker.errors import VaultUnavailableError

__all__ = ["Running", "start", "status", "stop"]

_PATIENCE: Final = 20.0  # seconds to start or stop; both usually take a tenth of one
_TICK: Final = 0.02
_DEFAULTS: Final = Options()
# $1 is the log, $2 "tied" or "detached", then follows the command. The server is not our child, so it leaves no zombie.
# It holds the write end of our stdout pipe, so that we notice its death, and the lock that is our stderr, so that its
# data is not taken for abandoned before it listens. When tied, a reader of our stdin pipe ends it as soon as the last
# writer of that pipe is gone, however we died.
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


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `lifeline` is the open end of a tied server's pipe, else -1."""

    home: Home
    pid: int
    lifeline: int = -1

    @property
    def address(self) -> str:
        """The value for VAULT_ADDR."""
        return f"unix://{self.home.socket}"

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        stop(self.home.root)
        if self.lifeline >= 0:
            os.close(self.lifeline)


def start(directory: Path, options: Options = _DEFAULTS) -> Running:
    """Make sure that the server of `directory` runs, initialised and unsealed; return once it answers.

    Of two concurrent calls, one starts it with its `options`, and the other finds it running. Raise `InputError` or
    `RefusedError` if the directory cannot be used, `VaultUnavailableError` if the server does not start.
    """
    home = Home(directory.absolute())
    home.claim()
    with _locked(home.lock):
        claim = _claimed(home)
        if claim < 0:
            home.initialized.touch(mode=0o600)  # its starter may have been killed before this
            return Running(home, _listener(home))
        try:
            home.prepare()
            write_private(home.config, rendered(home, options).encode())
            return _launched(home, claim, tied=options.tied)
        finally:
            os.close(claim)


def status(directory: Path) -> Running | None:
    """Return the server of `directory` if it answers at its socket, else None."""
    home = Home(directory.absolute())
    pid = _listener(home)
    return Running(home, pid) if pid else None


def stop(directory: Path) -> bool:
    """End the server of `directory`, by SIGTERM, then by SIGKILL; return whether there was one."""
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

    A server may be alive and not listen yet: its starter was killed a moment ago.
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
        f"a server of {home.root} runs, but neither answers nor ends", hint=f"kill it; see {home.log}"
    )


def _launched(home: Home, claim: int, *, tied: bool) -> Running:
    command = [str(find_binary()), "server", f"-config={home.config}"]
    read_life, write_life = os.pipe()
    read_death, write_death = os.pipe()
    try:
        subprocess.run(
            ["/bin/sh", "-c", _LAUNCH, "sh", str(home.log), "tied" if tied else "detached", *command],
            stdin=read_life,
            stdout=write_death,
            stderr=claim,
            env={},  # without BAO_… and proxies of the caller
            umask=0o077,
            start_new_session=True,  # Ctrl-C does not reach the server: we end it
            check=True,
        )
        os.close(write_death)
        write_death = -1
        pid = _awaited(home, read_death)
        home.initialized.touch(mode=0o600)
        lifeline, write_life = (write_life, -1) if tied else (-1, write_life)
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
            raise VaultUnavailableError("the embedded vault ended while it started", hint=f"see {home.log}")
    raise VaultUnavailableError("the embedded vault does not start", hint=f"see {home.log}")


def _listener(home: Home) -> int:
    """Return the pid of the listener at the socket, 0 if there is none."""
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
    """Return whether the server at the socket is initialised and unsealed."""
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
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)  # for the error of those that wait
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + 2 * _PATIENCE  # as long as the longest start or stop
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
        hint="is it stopped, or does it hang? continue it, or kill it, and try again",
    )


def _gone(watch: int, seconds: float) -> bool:
    return bool(select.select([watch], [], [], seconds)[0])
