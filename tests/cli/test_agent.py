"""`broker agent` as a process: the files of a real service, health, systemd, kills."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.agent.probe import probe
from broker.copies import replace
from broker.embedded.up import Embedded
from broker.errors import DeniedError
from broker.issuing.grant import Renewed
from broker.model.lease import Caller, Lease
from broker.model.secret import Secret
from broker.vault.connection import Connection
from tests.fetching.test_service import served
from tests.service.test_app import Bundles
from tests.support.accounts import PLANTED
from tests.support.console import inside
from tests.support.sources import ROOT
from tests.support.vault import token_of

pytestmark = pytest.mark.slow


class Live(Bundles):
    """Their leases end in the future, and there is one generation."""

    async def renew(self, caller: Caller, lease_text: Secret[str], ttl: timedelta) -> Renewed:
        return replace(await super().renew(caller, lease_text, ttl), newer=None)

    term = timedelta(hours=1)

    def _lease(self, ttl: timedelta) -> Lease:
        return replace(super()._lease(ttl), expires=datetime.now(UTC) + min(ttl, self.term))


class Host:
    """A host with an agent, and a place in memory."""

    def __init__(self, bundles: Live, address: str, home: Path) -> None:
        self.bundles, self.home = bundles, home
        self.directory, self.socket = home / "fleet", home / "agent.sock"
        (home / "token").write_text("s.token")
        (home / "token").chmod(0o600)
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(home / "notify"))
        self.notified.settimeout(30)
        self.configure()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "BROKER_ADDR": address,
            "BROKER_AUTH": f"token-file:{home}/token",
            "NOTIFY_SOCKET": str(home / "notify"),
            "WATCHDOG_USEC": "200000",
        }

    def configure(self, *lines: str) -> None:
        """Write broker.toml with one bundle, to which `lines` belong."""
        bundle = ["[[bundles]]", 'application = "mzp-1/fleet"', f'directory = "{self.directory}"', *lines]
        text = ["version = 1", "[agent]", f'socket = "{self.socket}"', *bundle, ""]
        (self.home / "broker.toml").write_text("\n".join(text))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "broker", "agent", *words],
            env=self.environment, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def hears(self, word: str) -> None:
        """Wait for a message to the service manager."""
        while not self.notified.recv(1000).decode().startswith(word):
            pass

    @property
    def left(self) -> list[str]:
        """The files that are left."""
        ours = ("token", "broker.toml", "notify")
        return [path.name for path in self.home.rglob("*") if path.name not in ours]


@pytest.fixture
def host() -> Iterator[Host]:
    bundles = Live()
    with served(bundles) as address, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        host = Host(bundles, address, Path(home))
        with host.notified:
            yield host


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """End a process, and return what it said."""
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out + err


def test_from_start_to_stop(host: Host) -> None:
    process = host.start()
    host.hears("STATUS=1 of 1 bundles are current")
    host.hears("READY=1")
    assert (host.directory / "current/password").read_text() == PLANTED
    host.hears("WATCHDOG=1")
    for path in ("/startz", "/readyz", "/livez", "/metrics"):
        assert probe(str(host.socket), path) == 0
    text = (host.home / "broker.toml").read_text()
    (host.home / "broker.toml").write_text(text.replace("[agent]", '[agent]\nlisten = "127.0.0.1:8253"'))
    process.send_signal(signal.SIGHUP)
    host.hears("RELOADING=1\nMONOTONIC_USEC=")
    host.hears("READY=1")
    (host.directory / "current/tls.key").write_text("half")
    assert probe(str(host.socket), "/readyz") == 1
    said = ended(process)
    host.hears("STOPPING=1")
    assert '"settings":"agent.listen"' in said, "it is not read again"
    assert not host.left
    assert host.bundles.texts == ["lease-text"], "it was revoked"
    assert PLANTED not in said
    assert "lease-text" not in said


def test_a_killed_one_is_taken_over(host: Host) -> None:
    process = host.start()
    host.hears("READY=1")
    process.kill()
    process.communicate()
    before = {path: path.stat().st_ino for path in host.directory.glob("gen-*/*")}
    process = host.start()
    host.hears("READY=1")
    while not host.bundles.texts:
        time.sleep(0.001)
    after = {path: path.stat().st_ino for path in host.directory.glob("gen-*/*")}
    assert {path.name for path in before if before[path] != after.get(path)} <= {"manifest.json"}
    assert (len(host.bundles.wanted), host.bundles.texts) == (1, ["lease-text"]), "it was renewed"
    ended(process)
    assert host.bundles.texts == ["lease-text", "renewed-text"]
    assert not host.left


def test_it_ends_with_a_process_or_a_request(host: Host) -> None:
    other = subprocess.Popen(["sleep", "60"])
    process = host.start("--until-exit-of", str(other.pid))
    host.hears("READY=1")
    other.kill()
    other.wait()
    process.communicate()
    assert (process.returncode, host.left) == (0, [])
    process = host.start()
    host.hears("READY=1")
    assert probe(str(host.socket), "/quit") == 0
    process.communicate()
    assert (process.returncode, host.left) == (0, [])


def test_once_leaves_files_and_lease(host: Host) -> None:
    marks = host.home / "ran"
    host.configure("[bundles.hooks]", f'command = ["sh", "-c", "echo x >> {marks}"]')
    for _ in range(2):
        out, err = host.start("--once", "-o", "json").communicate()
        assert json.loads(out)[0]["generation"] == 1, err
    assert marks.read_text() == "x\n", "one generation, one hook"
    assert len(host.bundles.wanted) == 1
    assert (host.directory / "current/tls.key").exists()


def test_secrets_are_nowhere_else(host: Host) -> None:
    """Neither in its arguments, nor in its environment; and it leaves no core."""
    process = host.start()
    host.hears("READY=1")
    proc = Path("/proc", str(process.pid))
    for name in ("cmdline", "environ", "comm"):
        text = (proc / name).read_bytes()
        for secret in (PLANTED, "lease-text", "s.token", "PRIVATE KEY"):
            assert secret.encode() not in text
    assert re.search(r"Max core file size +0 +0 ", (proc / "limits").read_text())
    ended(process)


def test_stopped_past_its_end(host: Host) -> None:
    """It sleeps while its lease ends and its right is taken away: awake, it removes all, and runs the hook."""
    said = host.home / "said"
    host.configure("[bundles.hooks]", f'on_failure = ["sh", "-c", "echo $BROKER_REASON > {said}"]')
    host.bundles.term = timedelta(seconds=1)
    process = host.start()
    host.hears("READY=1")
    process.send_signal(signal.SIGSTOP)
    host.bundles.error = DeniedError("no right")
    until = datetime.now(UTC) + timedelta(seconds=1.5)
    while datetime.now(UTC) < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGCONT)
    while not said.exists() or not said.read_text():
        time.sleep(0.01)
    assert said.read_text() == "revoked\n"
    assert not list(host.directory.glob("*/*"))
    said.unlink()
    ended(process)
    assert not host.left


@pytest.mark.peer("mount")
@pytest.mark.rights("mount")
def test_a_full_file_system_heals(host: Host) -> None:
    host.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k,mode=700", "tmpfs", host.directory], check=True)
    try:
        (host.directory / "gen-ballast").write_bytes(b"x" * 36_000)
        process = host.start()
        while probe(str(host.socket), "/livez"):
            assert process.poll() is None
            time.sleep(0.01)
        while "there is no space left" not in answer(host, "/readyz"):
            time.sleep(0.01)
        assert not list(host.directory.glob("*/tls.key"))
        (host.directory / "gen-ballast").unlink()
        host.hears("READY=1")  # not before: it is the only one
        ended(process)
        assert not [path.name for path in host.directory.iterdir()]
    finally:
        subprocess.run(["umount", "-l", host.directory], check=True)


def answer(host: Host, path: str) -> str:
    """Return what the agent answers on its socket."""
    written = io.StringIO()
    with redirect_stdout(written):
        probe(str(host.socket), path)
    return written.getvalue()


def test_in_this_process(host: Host) -> None:
    """The same without a process of its own, over loopback."""
    text = (host.home / "broker.toml").read_text()
    (host.home / "broker.toml").write_text(text.replace("[agent]", '[agent]\nlisten = "127.0.0.1:0"'))
    main = threading.main_thread().ident
    assert main

    def act() -> None:
        host.hears("READY=1")
        signal.pthread_kill(main, signal.SIGTERM)

    actor = threading.Thread(target=act)
    actor.start()
    done = inside(["agent"], home=host.home, environment=host.environment)
    actor.join()
    assert (done.code, host.left) == (0, []), done.err
    done = inside(["agent", "--once"], home=host.home, environment=host.environment)
    assert (done.code, "generation 1 of mzp-1/fleet in" in done.err) == (0, True), done.err
    host.bundles.error = DeniedError("no right")
    done = inside(["agent", "--once"], home=host.home, environment=host.environment)
    assert (done.code, "no right" in done.err) == (5, True), done.err
    assert not list(host.directory.glob("gen-*"))
    shown = inside(["config", "show"], home=host.home, environment={**host.environment, "VAULT_ADDR": ""})
    assert "mzp-1/fleet" in shown.out
    (host.home / "broker.toml").write_text("version = 1\n")
    done = inside(["agent"], home=host.home, environment=host.environment)
    assert (done.code, "the configuration has no bundles" in done.err) == (2, True)
    (host.home / "broker.toml").write_text("version = 1\nbundles = 7\n")
    assert "bundles must be tables" in inside(["agent"], home=host.home, environment=host.environment).err


def test_a_bundle_is_kept_in_another_vault(host: Host, vault_server: tuple[Embedded, Connection]) -> None:
    """From the configuration to the path, over a kill, until the stop."""
    _, admin = vault_server
    admin.call("POST", "sys/mounts/agents", {"type": "kv", "options": {"version": "2"}})
    rights = 'path "agents/*" { capabilities = ["create", "read", "update", "delete", "list"] }'
    admin.call("POST", "sys/policies/acl/agents", {"policy": rights})
    (host.home / "kv-token").write_text(token_of(admin, policies=["agents"]).reveal())
    (host.home / "kv-token").chmod(0o600)
    address, login = admin.settings.address, '[bundles.kv.login]\nmethod = "token"\nfile = "kv-token"'
    host.configure("[bundles.kv]", f'address = "{address}"', 'path = "agents/fleet"', login)
    place = Connection(replace(admin.settings, mount="agents"), admin.tokens)

    try:
        process = host.start()
        host.hears("READY=1")
        while not (stored := place.read_or_none("fleet")) or "password" not in stored.data:
            time.sleep(0.01)
        assert stored.data["password"] == PLANTED
        process.kill()
        process.communicate()
        process = host.start()
        host.hears("READY=1")
        said = ended(process)
        assert not place.versions("fleet")
        assert not place.list("")
        assert PLANTED not in said
    finally:
        admin.call("DELETE", "sys/mounts/agents")
