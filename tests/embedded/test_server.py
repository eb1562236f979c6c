"""Starting, stopping, killing and finding the embedded server."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded import server
from broker.embedded.config import Options
from broker.embedded.server import Running, find_binary, start, status, stop
from broker.embedded.up import Embedded, administered, up
from broker.errors import InputError, RefusedError, VaultUnavailableError
from broker.model.role import Role
from broker.vault.connection import Connection
from broker.vault.logins import AppRoleLogin

pytestmark = pytest.mark.slow


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for a vault, short enough for a socket. Its server is stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="broker-test-") as folder:
        yield Path(folder) / "v"
        stop(Path(folder) / "v")


def servers_of(directory: Path) -> list[int]:
    """Return the pids of all servers that were started on `directory`, listening or not."""
    config = f"-config={directory}/bao.hcl".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if config in command and command[0].endswith(b"/bao"):
                found.append(int(process.name))
    return found


def connection_of(embedded: Embedded, role: Role) -> Connection:
    folder, mount = embedded.running.home.roles / role.value, embedded.settings.mount
    login = AppRoleLogin(Connection(embedded.settings), folder / "role_id", folder / "secret_id", mount=mount)
    return Connection(embedded.settings, login)


def kill(running: Running) -> None:
    gone = os.pidfd_open(running.pid)
    signal.pidfd_send_signal(gone, signal.SIGKILL)
    assert select.select([gone], [], [], 10)[0]
    os.close(gone)


def test_it_starts_once_and_is_found(directory: Path) -> None:
    assert status(directory) is None
    running = start(directory)
    assert start(directory).pid == running.pid
    found = status(directory)
    assert found is not None
    assert found.pid == running.pid
    assert running.address == f"unix://{directory}/bao.sock"
    assert stop(directory)
    assert status(directory) is None
    assert not stop(directory)


def test_concurrent_starts_share_one_server(directory: Path) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(start(directory).pid)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 1


def test_stopped_starter_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.1)
    directory.mkdir(mode=0o700)
    with server._locked(directory / "lock"):
        for act in (start, stop):
            with pytest.raises(VaultUnavailableError, match=f"process {os.getpid()} ") as caught:
                act(directory)
            assert caught.value.hint


def test_signal_waits_for_the_revoked_token(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    close = AppRoleLogin.close

    def signalled(login: AppRoleLogin) -> None:
        signal.raise_signal(signal.SIGTERM)
        close(login)

    embedded = up(directory)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(AppRoleLogin, "close", signalled)
            with pytest.raises(KeyboardInterrupt), administered(embedded) as vault:
                vault.ask("GET", "sys/mounts")
    finally:
        signal.signal(signal.SIGTERM, before)
    with administered(embedded) as vault:
        assert len(vault.ask("LIST", "auth/token/accessors")["data"]["keys"]) == 1  # the one that asks


def test_stored_data_survives_a_kill(directory: Path) -> None:
    embedded = up(directory)
    operator = connection_of(embedded, Role.OPERATOR)
    operator.create("accounts/a", {"kept": True})
    kill(embedded.running)
    assert status(directory) is None
    assert (directory / "bao.sock").exists()  # stale, and replaced
    again = up(directory)
    assert again.running.pid != embedded.running.pid
    assert operator.read("accounts/a").data == {"kept": True}
    operator.close()


def test_interrupted_first_start_is_repeated(directory: Path) -> None:
    running = start(directory)
    kill(running)
    (directory / "initialized").unlink()  # as if we had been killed before we wrote it
    (directory / "setup.secret").write_text("another")
    with administered(up(directory)) as vault:
        assert vault.ask("GET", "sys/mounts")


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3])
def test_killed_starter_leaves_no_damage(directory: Path, delay: float) -> None:
    code = "import sys, pathlib; from broker.embedded.up import up; print(flush=True); up(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        starter.stdout.readline()
        threading.Event().wait(delay)
        starter.kill()
    embedded = up(directory)
    connection = connection_of(embedded, Role.AUDITOR)
    assert connection.list("accounts") == ()
    connection.close()
    assert servers_of(directory) == [embedded.running.pid]


@pytest.mark.parametrize("lost", ["unseal.key", "setup.secret", "initialized"])
def test_used_vault_is_never_wiped(directory: Path, lost: str) -> None:
    up(directory)
    stop(directory)
    before = sorted(path.name for path in (directory / "data").iterdir())
    (directory / lost).unlink()
    with pytest.raises(RefusedError, match=lost) as caught:
        start(directory)
    assert caught.value.hint
    assert sorted(path.name for path in (directory / "data").iterdir()) == before


def test_tied_server_ends_with_its_starter(directory: Path) -> None:
    code = (
        "import sys, pathlib; from broker.embedded.config import Options; from broker.embedded.server import start\n"
        "print(start(pathlib.Path(sys.argv[1]), Options(tied=True)).pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        gone = os.pidfd_open(int(starter.stdout.readline()))
        assert not select.select([gone], [], [], 0.2)[0]
        starter.kill()
    assert select.select([gone], [], [], 10)[0]
    os.close(gone)
    assert status(directory) is None


def test_detached_server_outlives_starter(directory: Path) -> None:
    code = "import sys, pathlib; from broker.embedded.server import start; start(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True)
    assert status(directory)


def test_files_are_private(directory: Path) -> None:
    embedded = up(directory)
    for path in [directory, *directory.rglob("*")]:
        if "data" not in path.relative_to(directory).parts:
            assert path.stat().st_mode & 0o077 == 0, path
    assert resource.prlimit(embedded.running.pid, resource.RLIMIT_CORE) == (0, 0)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_open_directory_is_refused(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(RefusedError, match="open to others"):
        start(directory)
    assert list(directory.iterdir()) == []


def test_impossible_directory_is_input_error(directory: Path) -> None:
    directory.write_text("a file")
    with pytest.raises(InputError):
        start(directory)
    with pytest.raises(InputError, match="too long"):
        start(directory.parent / ("x" * 120))
    directory.unlink()


def test_failed_start_is_reported(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listener = f'listener "tcp" {{\n  address = "127.0.0.1:{taken.getsockname()[1]}"\n  tls_disable = true\n}}'
        with pytest.raises(VaultUnavailableError) as caught:
            start(directory, Options(listener=listener))
    assert "bao.log" in caught.value.hint
    assert status(directory) is None
    assert start(directory).pid


def test_server_ignores_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAO_TOKEN", "s.planted")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    pid = start(directory).pid
    assert b"planted" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"127.0.0.1" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_it_listens_at_its_socket_alone(directory: Path) -> None:
    pid = start(directory).pid
    inodes = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    tcp = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    listening = [row[9] for row in tcp if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    assert listening == []


def test_setup_leaves_no_root_token(directory: Path) -> None:
    embedded = up(directory)
    with administered(embedded) as vault:
        accessors = vault.ask("LIST", "auth/token/accessors")["data"]["keys"]
        assert len(accessors) == 1  # the one that asks
        found = vault.ask("POST", "auth/token/lookup-accessor", {"accessor": accessors[0]})["data"]
        assert "root" not in found["policies"]


def test_repeated_setup_changes_nothing(directory: Path) -> None:
    up(directory)
    secrets = {path: path.read_bytes() for path in (directory / "roles").rglob("*_id")}
    assert len(secrets) == 2 * len(Role)
    up(directory)
    assert {path: path.read_bytes() for path in (directory / "roles").rglob("*_id")} == secrets


def test_lost_secret_id_is_replaced(directory: Path) -> None:
    up(directory)
    lost, dead = directory / "roles/server/secret_id", directory / "roles/auditor/secret_id"
    lost.unlink()
    dead.write_text("dead")
    embedded = up(directory)
    assert lost.stat().st_mode & 0o777 == 0o600
    connection = connection_of(embedded, Role.AUDITOR)
    assert connection.list("accounts") == ()
    connection.close()


def test_audit_log_is_written_if_asked(directory: Path) -> None:
    up(directory, options=Options(audit=True))
    log = (directory / "audit.log").read_text()
    assert "auth/embedded-setup/login" in log
    assert (directory / "setup.secret").read_text() not in log


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_binary().name == "bao"
    monkeypatch.setattr(server, "PACKAGE", "no_such_package")
    with pytest.raises(InputError) as caught:
        find_binary()
    assert "[embedded]" in caught.value.hint
