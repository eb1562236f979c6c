"""Programs and proxies of examples/: a request before and after a rotation, without a restart."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from partner_standin import Standin

from broker.agent.leases import STATE
from broker.copies import replace
from broker.delivery.formats import FileFormat
from broker.model.bundle import Bundle
from broker.model.secret import Secret
from tests.e2e.test_service import serving
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, publish
from tests.support.deployed import Workload
from tests.support.sources import ROOT
from tests.support.system import System

pytestmark = pytest.mark.slow
EXAMPLES: Final = ROOT / "examples"
FORMATS: Final = (FileFormat.KEYSTORE, FileFormat.TRUSTSTORE, FileFormat.CURL)
PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"
_PATIENCE: Final = 60.0


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    with Standin(tmp_path_factory.mktemp("partner"), accounts={}) as running:
        yield running
        assert not running.crashes


@dataclass
class Account:
    """An account of the partner, with a bundle that is published at `root`."""

    partner: Standin
    root: Path
    bundle: Bundle

    def rotate(self) -> None:
        """Publish another certificate and password; the partner takes the former ones no more."""
        (before,) = [one for one in self.partner.registry.issued if one.login == self.bundle.login]
        self.partner.registry.set_password(self.bundle.login, "another-päss")
        renewed = bundle_of(self.partner, login=self.bundle.login, number=2, generation=8)
        self.bundle = replace(renewed, secrets={"password": Secret("another-päss")})
        publish(self.root, self.bundle, FORMATS)
        self.partner.registry.revoke(before.serial, before.not_after.replace(year=2000))


@pytest.fixture
def account(partner: Standin, tmp_path: Path) -> Account:
    login = f"{LOGIN[:-2]}{len(partner.registry.accounts):02d}"
    partner.registry.add_account(login, PASSWORD)
    made = Account(partner, tmp_path / "acme", bundle_of(partner, login=login))
    publish(made.root, made.bundle, FORMATS)
    return made


@contextmanager
def conversation(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A program that answers each line on its standard input; it must end well."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env={"PATH": PATH}
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(_PATIENCE) == 0


def fleets(process: subprocess.Popen[str]) -> list[object]:
    assert process.stdin
    assert process.stdout
    print("/fleets?pageSize=2", file=process.stdin, flush=True)
    found: list[object] = json.loads(process.stdout.readline())["_embedded"]["fleets"]
    return found


def assert_follows_a_rotation(account: Account, *command: str | Path) -> None:
    with conversation(*command, account.root, account.bundle.base_url) as process:
        assert fleets(process)
        account.rotate()
        assert fleets(process)
        assert fleets(process), "on a connection that was kept"


@pytest.mark.peer("curl")
def test_shell(account: Account) -> None:
    assert_follows_a_rotation(account, EXAMPLES / "shell" / "partner.sh")


@pytest.mark.peer("node")
def test_node(account: Account) -> None:
    assert_follows_a_rotation(account, "node", EXAMPLES / "node" / "partner.mjs")


@pytest.mark.peer("java")
def test_java(account: Account) -> None:
    assert_follows_a_rotation(account, "java", EXAMPLES / "java" / "Partner.java")


@pytest.mark.peer("go")
def test_go(account: Account, tmp_path: Path) -> None:
    source, program = EXAMPLES / "go" / "partner.go", tmp_path / "partner"
    environment = {"PATH": PATH, "HOME": str(tmp_path), "GOCACHE": str(tmp_path / "go")}
    assert not subprocess.run(["gofmt", "-l", source], capture_output=True, check=True).stdout
    subprocess.run(["go", "build", "-o", program, source], env=environment, check=True)
    assert_follows_a_rotation(account, program)


@dataclass(frozen=True)
class Proxy:
    """A copy of a proxy's example, with the places of this test."""

    home: Path
    hook: Sequence[str | Path]
    command: Sequence[str | Path]

    def reload(self) -> None:
        done = subprocess.run(self.hook, env={"PATH": f"{self.home}:{PATH}"}, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def status(self, path: str) -> int:
        """Return the status of a request, or 0 if nobody listens."""
        connection = http.client.HTTPConnection("localhost", timeout=_PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.connect(str(self.home / "proxy.sock"))
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def awaited(self, path: str) -> None:
        """Wait until requests succeed: a process of before a reload may take some more."""
        until = time.monotonic() + _PATIENCE
        while (status := self.status(path)) != http.HTTPStatus.OK:
            assert time.monotonic() < until, status
            time.sleep(0.02)


def proxy(base_url: str, root: Path, name: str, home: Path) -> Proxy:
    """Copy the example called `name` to `home`, each file with the places of this machine."""
    address = urlsplit(base_url)
    unused = "".join(f"{kind}_temp_path {home};" for kind in ("client_body", "fastcgi", "uwsgi", "scgi", "proxy"))
    places = {
        "/dev/shm/acme": str(root),
        "/run/partner": str(home),
        f"/run/{name}.pid": f"{home}/pid",
        f"{name}.sock": "proxy.sock",
        "partner.example:443": f"localhost:{address.port}",
        "partner.example": "localhost",
        "/v3": address.path,
        "events {}": f"events {{}} pid {home}/pid;",
        "http {": f"http {{ {unused}",
    }
    home.mkdir()
    for file in (EXAMPLES / name).iterdir():
        (home / file.name).write_text(Workload([], {}, places).moved(file.read_text()))
    (home / "reload.sh").chmod(0o700)
    options = ("-c", home / "nginx.conf", "-e", "stderr")
    if name == "nginx":
        return Proxy(home, [home / "reload.sh", root, *options], [name, *options, "-g", "daemon off;"])
    config = home / "haproxy.cfg"
    return Proxy(home, [home / "reload.sh", root, config], [name, "-W", "-p", home / "pid", "-f", config])


def assert_proxy_follows(account: Account, served: Proxy) -> None:
    served.reload()
    with subprocess.Popen(served.command, env={"PATH": PATH}) as process:
        try:
            served.awaited("/fleets?pageSize=2")
            account.rotate()
            served.reload()
            served.awaited("/fleets")
            assert process.poll() is None
        finally:
            process.terminate()
    assert account.partner.log.entries(login=account.bundle.login)


@pytest.mark.peer("nginx")
def test_nginx(account: Account, tmp_path: Path) -> None:
    assert_proxy_follows(account, proxy(account.bundle.base_url, account.root, "nginx", tmp_path / "proxy"))


@pytest.mark.peer("haproxy")
def test_haproxy(account: Account, tmp_path: Path) -> None:
    assert_proxy_follows(account, proxy(account.bundle.base_url, account.root, "haproxy", tmp_path / "proxy"))


def bundle_table(application: str, served: Proxy, root: Path) -> str:
    """Return the table of examples/README.md for another application, and the places of this machine."""
    table = re.findall(r"^```toml\n(.*?)^```$", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    hook = json.dumps([str(word) for word in served.hook])
    places = {
        "acme/reporting": f"acme/{application}",
        '["/etc/nginx/partner/reload.sh", "/dev/shm/acme"]': hook,
        "/dev/shm/acme": str(root),
    }
    return Workload([], {}, places).moved(str(table))


@pytest.mark.peer("nginx")
@pytest.mark.peer("haproxy")
def test_a_running_agent_reloads_both(system: System) -> None:
    """Its hooks run before a proxy is there, and after a promotion: then the partner sees the new certificate."""
    system.renewed()
    known = system.account("acme").application("reporting").client_id
    system.ok("app", "add", "acme/fleet", "--client-id", known)
    token = system.consumer("acme/reporting", "acme/fleet")
    served = {"reporting": "nginx", "fleet": "haproxy"}
    roots = {name: system.home / "files" / name for name in served}
    url, log = system.partner.api_url, system.partner.log
    proxies = {name: proxy(url, roots[name], kind, system.home / kind) for name, kind in served.items()}
    with ExitStack() as running:
        service = running.enter_context(serving(system))
        login = f'[service]\naddress = "{service.addresses[0]}"\nauth = "token-file:{token}"\n'
        tables = [bundle_table(name, proxies[name], roots[name]) for name in served]
        (system.home / "agent.toml").write_text("\n".join(["version = 1", login, *tables]))
        system.changes = {"BROKER_CONFIG": str(system.home / "agent.toml"), "PATH": PATH, "VAULT_ADDR": ""}
        agent = running.enter_context(system.start("agent"))
        running.callback(agent.terminate)
        system.changes = {}
        for name, one in proxies.items():
            awaited(lambda: json.loads((roots[name] / STATE).read_text())["hooked"])  # noqa: B023  # called here
            process = running.enter_context(subprocess.Popen(one.command, env={"PATH": PATH}))
            running.callback(process.terminate)
            one.awaited("/fleets")
        (before,) = {entry.serial for entry in log.entries() if entry.serial and entry.path.endswith("/fleets")}
        system.ok("rotation", "promote", "acme")
        for one in proxies.values():
            log.clear()
            awaited(lambda: one.status("/fleets") == http.HTTPStatus.OK and log.entries()[-1].serial != before)  # noqa: B023


def awaited(condition: Callable[[], object]) -> None:
    """Wait until it holds; files that it reads may not be there yet."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            if condition():
                return
        time.sleep(0.02)
    raise TimeoutError
