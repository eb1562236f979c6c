"""deploy/systemd: the unit is valid and confined, and what it starts is ready, serves, and ends as systemd expects."""

from __future__ import annotations

import ctypes
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.vault.locks import TERM
from tests.e2e.test_service import ASKED
from tests.service.test_tls import write_pair
from tests.support.console import inside
from tests.support.deployed import DEPLOY, Workload
from tests.support.ports import free_ports
from tests.support.system import System

UNIT: Final = DEPLOY / "systemd" / "broker-serve.service"
AGENT: Final = UNIT.with_name("broker-agent.service")
TEXT: Final = UNIT.read_text(encoding="utf-8")
EXPOSED: Final = 20  # tenths of systemd's exposure level
_PR_SET_MDWE: Final = 65  # linux/prctl.h, since Linux 6.3: as MemoryDenyWriteExecute=


def values(key: str) -> list[str]:
    """Return the values of `key`, in the order of the unit."""
    return re.findall(rf"^{key}=(.*)$", TEXT, re.MULTILINE)


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.peer("systemd-analyze")
@pytest.mark.parametrize("unit", [UNIT, AGENT], ids=lambda unit: unit.stem)
def test_the_unit_is_valid(unit: Path, tmp_path: Path) -> None:
    """`verify` exits with 0 for an unknown key, so its output is read."""
    here = tmp_path / unit.name
    here.write_text(unit.read_text(encoding="utf-8").replace(values("ExecStart")[0].split()[0], sys.executable))
    ended = analyzed("verify", "--man=no", str(here))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_agents_configuration_is_valid(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s.token")
    text = (AGENT.parent / "agent.toml").read_text(encoding="utf-8")
    (tmp_path / "broker.toml").write_text(text.replace("/etc/credential-broker/agent.token", str(token)))
    assert inside(["config", "check"], home=tmp_path, environment={}).code == 0


def test_a_killed_agent_keeps_its_files() -> None:
    """Else systemd removes them before it starts the agent again; tests/cli/test_agent.py shows what a start does."""
    text = AGENT.read_text(encoding="utf-8")
    for line in ("Restart=on-failure", "RuntimeDirectory=broker-agent", "RuntimeDirectoryPreserve=restart"):
        assert f"\n{line}\n" in text
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in text


def test_a_killed_scheduler_finds_the_lock_free() -> None:
    text = (UNIT.parent / "broker-rotation.service").read_text(encoding="utf-8")
    assert timedelta(seconds=int(re.findall(r"^RestartSec=(.*)$", text, re.MULTILINE)[0])) > TERM


@pytest.mark.peer("systemd-analyze")
@pytest.mark.parametrize("unit", [UNIT, AGENT], ids=lambda unit: unit.stem)
def test_the_unit_is_confined(unit: Path) -> None:
    ended = analyzed("security", "--offline=yes", f"--threshold={EXPOSED}", str(unit))
    assert ended.returncode == 0, ended.stdout


@pytest.fixture
def workload(system: System) -> Workload:
    """The unit's command, with the credentials that systemd would load."""
    system.promoted()
    credentials, port = system.home / "credentials", free_ports(1)[0]
    credentials.mkdir()
    shutil.copy(system.home / "roles/server/role_id", credentials)
    shutil.copy(system.home / "roles/server/secret_id", credentials)
    write_pair(credentials, "localhost")
    loaded = [value.partition(":")[0] for value in values("LoadCredential")]
    assert sorted(loaded) == sorted(file.name for file in credentials.iterdir())
    places = {
        "/etc/credential-broker": str(system.home / "etc"),
        "${CREDENTIALS_DIRECTORY}": str(credentials),
        f"/run/credentials/{UNIT.name}": str(credentials),
        "https://vault.example:8200": system.vault.settings.address,
        "0.0.0.0:8443": f"127.0.0.1:{port}",
    }
    variables = dict(word.partition("=")[::2] for value in values("Environment") for word in value.split())
    made = Workload([*values("ExecStart")[0].split(), "--health", ""], variables, places)
    (system.home / "etc").mkdir()
    configuration = made.moved((UNIT.parent / "broker.toml").read_text())
    (system.home / "etc/broker.toml").write_text(
        configuration.replace("[vault]", f'[vault]\nmount = "{system.vault.settings.mount}"')
    )
    return made


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would wait for notices."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(60)
        yield made


def deny_executable_memory() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # refused by an older kernel


def allowed_calls() -> set[str]:
    """Return the system calls that SystemCallFilter= lets pass."""

    def expanded(names: str) -> set[str]:
        found: set[str] = set()
        for name in names.split():
            if not name.startswith("@"):
                found.add(name)
                continue
            listed = analyzed("syscall-filter", name).stdout.splitlines()[1:]
            members = " ".join(line.strip() for line in listed if not line.strip().startswith("#"))
            found |= expanded(members)
        return found

    allow, deny = values("SystemCallFilter")
    return expanded(allow) - expanded(deny.removeprefix("~"))


@pytest.mark.slow
@pytest.mark.peer("systemd-analyze", "strace")
def test_the_unit_runs(system: System, workload: Workload, manager: socket.socket, tmp_path: Path) -> None:
    """It starts without executable memory, uses permitted system calls only, and says when it is ready and ends."""
    workload = Workload(
        workload.command, {**workload.environment, "NOTIFY_SOCKET": manager.getsockname()}, workload.places
    )
    token = {"X-Vault-Token": system.consumer("acme/reporting").read_text()}
    trace = ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o", str(tmp_path / "calls")]
    with workload.running(*trace, preexec_fn=deny_executable_memory, cwd=system.home) as process:
        assert manager.recv(100) == b"READY=1"
        address = workload.moved("https://0.0.0.0:8443").replace("127.0.0.1", "localhost")
        pinned = ssl.create_default_context(cafile=system.home / "credentials/tls.crt")
        answer = httpx.post(f"{address}/v1/bundles", json=ASKED, headers=token, verify=pinned, trust_env=False)
        assert answer.status_code == 201, answer.text
        process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert process.wait(60) == 0
    calls = set(re.findall(r"^\d+ +(\w+)\(", (tmp_path / "calls").read_text(), re.MULTILINE))
    assert "openat" in calls
    assert not calls - allowed_calls()
