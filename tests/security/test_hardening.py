"""A process that may hold secrets, seen from outside: by the kernel, by its own user's other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.pki import a_ca, a_key, a_leaf, pem
from tests.support.vault import TestVault

NOBODY = 65534
WAITING = [sys.executable, "-m", "broker", "cert", "inspect", "-"]  # reads its standard input, which never ends
PLAIN = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def as_nobody(command: Sequence[str]) -> list[str]:
    """Return `command` run by an ordinary user: ourselves, or for root another, who may read this Python."""
    if os.geteuid() != 0:
        return list(command)
    another = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]  # root by name, for a clone that root alone reads
    readable = not subprocess.run([*another, *PLAIN[:2], "import broker"], capture_output=True, check=False).returncode
    return [*(another if readable else powerless), *command]


def status(pid: int) -> dict[str, str]:
    pairs = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


@contextmanager
def running(command: Sequence[str], cwd: Path, ready: Callable[[int], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process once `ready` says so of its pid; it is ended afterwards."""

    with_cores = ["sh", "-c", 'ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh", *command]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # A separate umask: commands that ran inside this process have tightened ours, and `hardened` goes by it
    with subprocess.Popen(with_cores, cwd=cwd, umask=0o022, **pipes) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready(process.pid):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def hardened(pid: int) -> bool:
    return status(pid).get("Umask") == "0077" and reads(pid)


def reads(pid: int) -> bool:
    """Return whether a process waits for its standard input."""
    wchan = Path(f"/proc/{pid}/wchan").read_text()
    return "pipe" in wchan or (wchan in ("", "0") and status(pid)["State"].startswith("S"))


def core_limit(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4:6]


def may_open(command_prefix: Sequence[str], path: str) -> bool:
    """Return whether another process of that user may open `path`."""
    program = f"import os; os.close(os.open({path!r}, os.O_RDONLY))"
    ended = subprocess.run([*command_prefix, sys.executable, "-c", program], capture_output=True, check=False)
    return ended.returncode == 0


def test_no_core_and_private_files(tmp_path: Path) -> None:
    with running(WAITING, tmp_path, hardened) as process:
        assert core_limit(process.pid) == ["0", "0"]
        assert status(process.pid)["Umask"] == "0077"


@pytest.mark.slow
@pytest.mark.peer("setpriv")
def test_same_user_cannot_read_memory(tmp_path: Path) -> None:
    command = as_nobody(WAITING)
    prefix = command[: -len(WAITING)]
    tmp_path.chmod(0o777)
    with running([*prefix, *PLAIN], Path("/"), reads) as control:
        if not may_open(prefix, f"/proc/{control.pid}/mem"):
            pytest.skip("this kernel closes /proc/PID/mem to everybody: nothing to show")
    with running(command, Path("/"), hardened) as process:
        for name in ("mem", "environ", "maps", "fd/0", "stack"):
            assert not may_open(prefix, f"/proc/{process.pid}/{name}"), name
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0


@pytest.mark.slow
def test_an_abort_leaves_no_core(tmp_path: Path) -> None:
    def ended_by_abort(command: Sequence[str], ready: Callable[[int], bool]) -> int:
        with running(command, tmp_path, ready) as process:
            process.send_signal(signal.SIGABRT)
            _, code = os.waitpid(process.pid, 0)
            process.returncode = -os.WTERMSIG(code)
            return code

    control = ended_by_abort(PLAIN, reads)
    for file in tmp_path.iterdir():
        file.unlink()
    code = ended_by_abort(WAITING, hardened)
    assert os.WTERMSIG(code) == signal.SIGABRT
    assert not os.WCOREDUMP(code)
    assert not list(tmp_path.iterdir())
    if not os.WCOREDUMP(control):
        pytest.skip("no process dumps core here: shown is only that ours does not either")


@pytest.mark.peer("setpriv", "prlimit")
def test_pages_are_locked_if_allowed(tmp_path: Path) -> None:
    program = "from broker.cli.hardening import harden; print(harden().locked); bytearray(64 * 2**20)"
    for prefix in ([], ["prlimit", "--memlock=65536:65536"], as_nobody([])):
        ended = subprocess.run(
            [*prefix, sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/"
        )
        locked = ended.stdout.strip() == "True"
        if os.geteuid() != 0 or "setpriv" in prefix:
            assert not locked


CONTEXT = """
import sys
from broker.cli.hardening import harden
from broker.model.secret import Secret
from broker.pki.tls import client_context
assert harden().private
key, chain = sys.stdin.buffer.read().split(b"|")
client_context(Secret(key + chain), chain.decode())
print("loaded")
"""


@pytest.mark.peer("setpriv")
def test_a_key_still_loads_from_memory(tmp_path: Path) -> None:
    """/proc/self/fd belongs to root once a process is not dumpable; its own threads may still use it."""
    authority = a_ca()
    leaf = a_leaf(authority, a_key())
    key = a_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = pem(leaf).encode()
    ended = subprocess.run(
        as_nobody([sys.executable, "-c", CONTEXT]), input=key + b"|" + chain,
        capture_output=True, check=False, cwd="/",
    )  # fmt: skip
    assert ended.stdout == b"loaded\n", ended.stderr


def test_embedded_server_inherits_nothing(vault: TestVault) -> None:
    pid = vault.embedded.running.pid
    names = {pair.partition(b"=")[0] for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if pair}
    assert names <= {b"PWD"}  # by the shell that starts it
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert [w for w in words[1:] if w] == [b"server", f"-config={vault.embedded.running.home.config}".encode()]
    assert core_limit(pid) == ["0", "0"]
    files = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the server opens and closes connections meanwhile
            files.add(str(link.readlink()))
    ours = {name for name in files if name.startswith("/") and not name.startswith(("/dev/null", "/sys/", "/proc/"))}
    assert all(name.startswith(str(vault.embedded.running.home.root)) for name in ours), ours
