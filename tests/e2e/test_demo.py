"""The demonstration as a process: it ends, it can be repeated, and however it ends it leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PASSWORD = b"not-a-real-password"
KEY = b"PRIVATE KEY-----"
BROKER = str(Path(sys.executable).parent / "broker")
STEPS = [str(number) for number in range(1, 16)]
STOPS = list(itertools.product((signal.SIGTERM, signal.SIGINT), ("5.", "1.", "2.", "8.", "9.", "10.", "14.", "")))
SETTLING = 15.0  # seconds in which what was tied to a killed process ends


@pytest.fixture
def place(tmp_path: Path) -> Mapping[str, str]:
    """An environment that keeps the files of the demo below `tmp_path`, and its processes known.

    Its proxies lead nowhere: what is on this machine needs none.
    """
    mark = f"demo-of-{os.getpid()}-{tmp_path.name}"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:1")
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "BROKER_DEMO_MARK": mark, **proxies}


def directories() -> set[Path]:
    return {path for base in ("/dev/shm", "/tmp") for path in Path(base).glob("broker-demo-*")}


def processes(place: Mapping[str, str], *directories: Path) -> list[str]:
    """Return the processes whose environment bears our mark, or whose command line names one of `directories`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        marked = place["BROKER_DEMO_MARK"].encode() in environment
        named = any(str(directory).encode() in line for directory in directories)
        if (marked or named) and line and int(entry.name) != os.getpid():
            found.append(f"{entry.name}: {line.decode(errors='replace')}")
    return found


def start(place: Mapping[str, str], *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([BROKER, "demo", *arguments], env=dict(place), start_new_session=True, **(pipes | options))


def eventually(holds: Callable[[], object], seconds: float = SETTLING) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)
    return bool(holds())


def assert_removed(before: set[Path]) -> None:
    """Assert that no directory is left that was not there before; a demonstration of another worker has its own."""
    assert eventually(lambda: directories() <= before, 120), directories() - before


def assert_complete(text: str) -> None:
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == STEPS
    assert "3 of the 137 vehicles of fleet North" in text
    assert re.findall(r"^   (\(200, .\))$", text, re.MULTILINE) == ["(200, 2)", "(200, 1)"], "the session follows"
    assert "permission denied" in text, "of Vault, to the application's token"
    assert text.count("whole") == 2  # the account's chain, and a count of those of bundles
    assert "broken" not in text
    assert PASSWORD.decode() not in text
    assert KEY.decode() not in text
    assert "Traceback" not in text


@pytest.mark.deep
def test_two_at_once_leave_nothing(place: Mapping[str, str], tmp_path: Path) -> None:
    """One of them has no curl; both are in a pipe, so their lines are plain."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "ls", "python3"):
        (tools / name).symlink_to(shutil.which(name) or name)
    before = directories()
    with start(place) as one, start({**place, "PATH": str(tools)}) as other:
        texts = [process.communicate(timeout=200)[0].decode() for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], texts
    for text in texts:
        assert "\x1b" not in text
        assert "\r" not in text
        assert_complete(text)
        assert "done: processes ended, files removed" in text
    assert "curl is not installed" in texts[1]
    assert not processes(place)
    assert_removed(before)
    assert list(tmp_path.iterdir()) == [tools]


@pytest.mark.deep
@pytest.mark.parametrize(("number", "step"), STOPS)
def test_stopped_midway_it_leaves_nothing(place: Mapping[str, str], number: signal.Signals, step: str) -> None:
    before = directories()
    with start(place, *(["--keep"] if step == "1." else [])) as process:
        assert process.stdout
        lines = [process.stdout.readline()]  # before it has begun, a signal ends it as it would end any Python
        while not lines[-1].startswith(step.encode()):
            lines.append(process.stdout.readline())
            assert lines[-1], f"it never came to step {step}"
        process.send_signal(number)
        out = (b"".join(lines) + process.communicate(timeout=60)[0]).decode()
    assert process.returncode == 128 + number, out
    assert "interrupted" in out
    assert "Traceback" not in out
    assert not processes(place)
    assert_removed(before)
    assert not list(Path(place["HOME"]).iterdir())


def left_by(text: str) -> list[Path]:
    """Return what is left of the directories that `text` names."""
    return [path for path in set(map(Path, re.findall(r"/\w+/\w+/broker-demo-\w+", text))) if path.exists()]


@pytest.mark.deep
def test_a_closed_window_ends_it_too(place: Mapping[str, str], tmp_path: Path) -> None:
    with Terminal([BROKER, "demo"], tmp_path, place) as terminal:
        terminal.wait_for("3. An account")
        os.kill(terminal.process.pid, signal.SIGHUP)
        assert terminal.end() == 128 + signal.SIGHUP
    assert eventually(lambda: not processes(place))
    assert not left_by(terminal.said)


@pytest.mark.deep
def test_killed_demo_leaves_no_process(place: Mapping[str, str], tmp_path: Path) -> None:
    """Files stay, since no process is left to remove them. They lie in memory, and go with the machine."""
    with Terminal([BROKER, "demo"], tmp_path, place) as terminal:
        terminal.wait_for("manifest.json")
        terminal.process.kill()
        terminal.end()
    left = left_by(terminal.said)
    assert eventually(lambda: not processes(place, *left), 120)  # the service tries to give its token back
    for directory in left:
        assert directory.stat().st_mode & 0o077 == 0
        shutil.rmtree(directory)


@pytest.mark.deep
def test_a_broken_pipe_ends_it(place: Mapping[str, str]) -> None:
    with start(place) as process:
        assert process.stdout
        head = b"".join(process.stdout.readline() for _ in range(6)).decode()
        process.stdout.close()
        assert process.wait(60) == 141
    assert not processes(place)
    assert not left_by(head)


def test_a_kept_demo_goes_on_until_removed(place: Mapping[str, str]) -> None:
    """It is started by a path from here, which holds from nowhere else; README's commands find it on the PATH."""
    with Terminal([os.path.relpath(BROKER), "demo", "--keep"], Path.cwd(), place, columns=80) as terminal:
        for step in STEPS:  # each has time of its own: the machine may be busy
            terminal.wait_for(f"\x1b[1m{step}. ")
        assert terminal.end() == 0, terminal.said
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.said.replace("\r", ""))
    told, _, printed = text.partition("Continue with:")
    assert_complete(told)
    assert_is_readable(told)
    go, status, fetch, remove = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert left_by(told)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", f"{go} && {line}"]
        return subprocess.run(command, env=place, capture_output=True, text=True, check=False, timeout=60)

    shown = run(f"{status} -o json")
    assert json.loads(shown.stdout)[0]["account"] == "acme", shown.stderr
    assert "through unix:///" in run(fetch).stderr
    assert "generation 1" in run(status.replace("status", "rotation canary acme")).stderr
    assert run(remove).returncode == 0
    assert eventually(lambda: not processes(place))
    assert not left_by(told)


def assert_is_readable(text: str) -> None:
    """At 80 columns: no line is wider, but for a digest of a command; and what is typed can be copied."""
    assert not [line for line in text.splitlines() if len(line) > 80 and not re.search("[0-9a-f]{64}", line)]
    typed = re.findall(r"^   \$ ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    adding = next(shlex.split(line.replace("\\\n", " ")) for line in typed if "account add" in line)
    assert adding[:4] == ["broker", "account", "add", "acme"]
    assert adding.count("--subject") == 5


def test_ctrl_c_ends_it_on_a_terminal(place: Mapping[str, str], tmp_path: Path) -> None:
    """Here while a bundle is held; `test_stopped_midway_it_leaves_nothing` has other steps, and SIGTERM."""
    with Terminal([BROKER, "demo"], tmp_path, place) as terminal:
        terminal.wait_for("of fleet North")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert eventually(lambda: not processes(place))
    assert not left_by(terminal.said)
    assert "Traceback" not in terminal.said
    assert "\x1b[" in terminal.said
