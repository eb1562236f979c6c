"""`broker exec` as a process, with the bundle of a real service."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.copies import replace
from broker.errors import DeniedError
from broker.model.lease import Lease
from tests.fetching.test_service import served
from tests.service.test_app import Bundles
from tests.support.accounts import PLANTED
from tests.support.console import inside
from tests.support.ended import Ended
from tests.support.sources import ROOT

FILES = "for f in KEY CERT CA USERNAME_FILE PASSWORD_FILE CLIENT_ID_FILE; do eval cat \\$PARTNER_$f; echo; done"


class Live(Bundles):
    """Their leases end in the future."""

    def _lease(self, ttl: timedelta) -> Lease:
        return replace(super()._lease(ttl), expires=datetime.now(UTC) + ttl)


class Bench:
    """A service, and a place in memory for the files."""

    def __init__(self, bundles: Bundles, address: str, home: Path) -> None:
        self.bundles, self.home = bundles, home
        (home / "token").write_text("s.token")
        (home / "token").chmod(0o600)
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "BROKER_ADDR": address,
            "BROKER_AUTH": f"token-file:{home}/token",
            "VAULT_TOKEN": "s.planted",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "broker", "exec", "mzp-1/fleet", *words],
            env=self.environment, cwd=self.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        said, complained = process.communicate()
        return process.returncode, said, complained

    def here(self, *words: str) -> Ended:
        """Run it in this process; what the program writes goes to this process's streams."""
        return inside(["exec", "mzp-1/fleet", *words], home=self.home, environment=self.environment)

    @property
    def left(self) -> list[Path]:
        """The files that are left."""
        return [path for path in self.home.rglob("*") if path.is_file() and path.name != "token"]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bundles = Live()
    with served(bundles) as address, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        yield Bench(bundles, address, Path(home))


def test_paths_are_in_the_environment(bench: Bench) -> None:
    code, said, complained = bench.run("--", "sh", "-c", f"env; {FILES}; exit 3")
    assert (code, complained) == (3, ""), "it says nothing of its own"
    environment, _, files = said.partition("-----BEGIN PRIVATE KEY-----")
    assert PLANTED in files
    assert PLANTED not in environment
    assert "VAULT_TOKEN" not in environment
    assert "PARTNER_BASE_URL=https://" in environment
    assert bench.bundles.texts == ["lease-text"], "it was given back"
    assert not bench.left


@pytest.mark.slow
def test_files_in_its_own_memory(bench: Bench) -> None:
    code, said, _ = bench.run("--memfd", "--", "sh", "-c", f"{FILES}; env; exit 4")
    assert code == 4
    assert PLANTED in said
    assert "PARTNER_KEY=/proc/self/fd/" in said
    assert not bench.left
    assert not bench.bundles.texts, "its lease ends by itself"


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Handle signals as before, though `--memfd` gave the program the default actions."""
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("memory", [(), ("--memfd",)])
def test_failures_have_their_codes(bench: Bench, own_signals: None, memory: tuple[str, ...]) -> None:
    ended = bench.here(*memory, "--", "no-such-program")
    assert (ended.code, ended.err.splitlines()[-1]) == (127, "error: no-such-program: no such file or directory")
    assert bench.here(*memory, "--", "/").code == 126
    bench.bundles.error = DeniedError("no right")
    assert bench.here(*memory, "--", "true").code == 125
    assert not bench.left
    assert not [*bench.home.rglob("exec-*")]


def test_a_run_leaves_nothing_behind(bench: Bench) -> None:
    """Neither its own files, nor those of a run that was killed: those of one that lives, in any container, stay."""
    ended = bench.here("--", "sh", "-c", "dirname $(dirname $PARTNER_DIRECTORY) > $HOME/place; exit 5")
    assert ended.code == 5
    place = Path((bench.home / "place").read_text().strip())
    (bench.home / "place").unlink()
    for number in ("1", "2"):
        (place / f"exec-{number}").mkdir(mode=0o700)
        (place / f"exec-{number}/exec.lock").touch()
    with (place / "exec-2/exec.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bench.here("--", "true").code == 0
    assert [path.name for path in place.iterdir()] == ["exec-2"]
    assert [path.name for path in bench.left] == ["exec.lock"]
    assert bench.bundles.texts == ["lease-text"] * 2, "each lease was given back"


def test_sigterm_ends_the_program_too(bench: Bench) -> None:
    process = bench.start("--", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 9
    assert not bench.left


def test_moved_file_keeps_the_code(bench: Bench) -> None:
    ended = bench.here("--", "sh", "-c", "mv $PARTNER_KEY $HOME/moved; exit 3")
    assert ended.code == 3
    assert "tls.key cannot be found" in ended.err
    assert [path.name for path in bench.left] == ["moved"]


@pytest.mark.slow
def test_next_run_removes_what_a_kill_left(bench: Bench) -> None:
    process = bench.start("--", "sh", "-c", "echo $$; exec sleep 60")
    assert process.stdout
    program = int(process.stdout.readline())
    process.kill()
    os.kill(program, signal.SIGKILL)
    process.communicate()
    assert bench.left
    while Path("/proc", str(process.pid)).exists():
        time.sleep(0.001)
    assert bench.run("--", "true")[0] == 0
    assert not bench.left
