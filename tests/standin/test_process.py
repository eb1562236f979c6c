"""The command starts, reports it, obeys signals, leaves no process, and shows no password."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from partner_standin import Standin
from partner_standin.server import InUseError

from tests.support.partner import LOGIN, PASSWORD, Customer

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "partner_standin"]


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], input=typed, capture_output=True, text=True, timeout=60, check=False)


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [*COMMAND, "serve", "--dir", str(directory), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout
    assert child.stdout.readline().startswith("ready: api https://127.0.0.1:")
    return child


def finish(child: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = child.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
    return out, err


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    child = start(tmp_path / "partner", "--account", f"{LOGIN}:{tmp_path / 'password'}")
    yield tmp_path / "partner", child
    if child.poll() is None:
        child.terminate()
        finish(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(served: tuple[Path, subprocess.Popen[str]], number: signal.Signals) -> None:
    directory, child = served
    described = json.loads((directory / "standin.json").read_text())
    assert described["pid"] == child.pid
    assert directory.stat().st_mode & 0o777 == 0o700
    child.send_signal(number)
    assert finish(child) == ("", "")
    assert child.returncode == 0
    assert not (directory / "standin.json").exists()


def test_a_signal_ends_it_with_open_clients(served: tuple[Path, subprocess.Popen[str]]) -> None:
    import socket

    directory, child = served
    port = urllib.parse.urlsplit(json.loads((directory / "standin.json").read_text())["api_url"]).port
    with socket.create_connection(("127.0.0.1", port or 0)):
        time.sleep(0.1)
        child.terminate()
        finish(child)
    assert child.returncode == 0


def test_commands_reach_a_running_stand_in(served: tuple[Path, subprocess.Popen[str]]) -> None:
    directory, _ = served
    desk_url = json.loads((directory / "standin.json").read_text())["desk_url"]
    added = run("account", "add", "--dir", str(directory), "MZP0000002", "--password-file", "-", typed="secret-two\n")
    assert (added.returncode, added.stdout) == (0, "MZP0000002 is registered\n")
    changed = run("account", "password", "--dir", str(directory), LOGIN, "--password-file", "-", typed="three\n")
    assert changed.returncode == 0
    assert run("fault", "set", "--desk-url", desk_url, "html-403@2", "status-503=1m").returncode == 0
    listed = json.loads(run("fault", "list", "--desk-url", desk_url, "-o", "json").stdout)
    on = {row["name"]: row["on"]["times"] for row in listed if row["on"]}
    assert on == {"html-403": 2, "status-503": None}
    shown = run("fault", "list", "--desk-url", desk_url).stdout.splitlines()
    assert shown[0].startswith("* is on")
    assert next(line for line in shown if line.startswith("* html-403")).endswith("(on, 2 left)")
    assert next(line for line in shown if line.startswith("* status-503")).endswith("(on=1m)")
    assert run("fault", "clear", "--desk-url", desk_url).returncode == 0
    assert not any(row["on"] for row in json.loads(run("fault", "list", "--desk-url", desk_url, "-o", "json").stdout))


def test_an_account_is_added_when_stopped(tmp_path: Path) -> None:
    added = run("account", "add", "--dir", str(tmp_path / "p"), LOGIN, "--password-file", "-", typed=f"{PASSWORD}\n")
    assert added.returncode == 0
    with Standin(tmp_path / "p") as partner:
        assert partner.registry.admits(LOGIN, PASSWORD, lockout=None)


def test_a_directory_is_used_once(tmp_path: Path) -> None:
    with Standin(tmp_path / "p"), pytest.raises(InUseError):
        Standin(tmp_path / "p")
    with Standin(tmp_path / "p"):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_serves_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Standin(tmp_path / "p", host=host)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "--dir", "p", "--fault", "nothing"],
        ["serve", "--dir", "p", "--account", "MZP1"],
        ["serve", "--dir", "p", "--account", "MZP1:missing"],
        ["serve", "--dir", "p", "--host", "0.0.0.0"],
        ["serve", "--dir", "p", "--tls", "1.1"],
        ["account", "add", "--dir", "p", "MZP1", "--password-file", "-"],
        ["account", "add", "--dir", "p", "a:b", "--password-file", "README"],
        ["account", "password", "--dir", "p", "nobody", "--password-file", "README"],
        ["fault", "set", "--desk-url", "http://127.0.0.1:1", "wrong-ca"],
        ["fault", "set", "--desk-url", "https://127.0.0.1:1", "wrong-ca"],
        ["fault", "set", "--desk-url", "http://127.0.0.1:1", "nothing"],
    ],
    ids=" ".join,
)
def test_usage_errors_have_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    from click.testing import CliRunner
    from partner_standin.__main__ import main

    monkeypatch.chdir(tmp_path)
    Path("README").write_text("a password\n")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output
    assert isinstance(result.exception, SystemExit)


def test_help_shows_examples() -> None:
    assert "Examples:" in run("--help").stdout


def test_the_documented_table_is_current() -> None:
    document = (Path(__file__).parents[2] / "docs" / "standin.md").read_text()
    assert run("fault", "list", "-o", "markdown").stdout in document


def test_no_password_is_stored_or_shown(customer: Customer) -> None:
    customer.call("/fleets")
    customer.but(login=PASSWORD, password=PASSWORD).call(f"/{urllib.parse.quote('nothing')}")
    customer.but(password=PASSWORD[:-1]).call("/fleets")
    raw = PASSWORD.encode()
    shapes = {raw, base64.b64encode(raw), raw.hex().encode(), urllib.parse.quote(PASSWORD, safe="").encode()}
    shapes |= {json.dumps(PASSWORD).strip('"').encode()}
    seen = {str(path): path.read_bytes() for path in customer.partner.directory.rglob("*") if path.is_file()}
    seen["log"] = repr(customer.partner.log.entries()).encode()
    assert [name for name, content in seen.items() for shape in shapes if shape in content] == []


def test_no_client_id_is_in_the_log(customer: Customer) -> None:
    customer.call("/fleets?pageSize=3")
    assert customer.client_id not in repr(customer.partner.log.entries())
