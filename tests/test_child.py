"""Programs of the host: no shell, a deadline, and nothing of theirs left behind."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from broker import child
from broker.errors import InputError, RefusedError


def test_arguments_reach_it_unchanged(tmp_path: Path) -> None:
    script = 'printf "%s|" "$@" > "$OUT"; env -0 >> "$OUT"'
    out = tmp_path / "out"
    child.run(["/bin/sh", "-c", script, "sh", "$(id)", "a b;"], {"OUT": str(out), "PATH": "/bin:/usr/bin"}, 10)
    arguments, _, environment = out.read_text().rpartition("|")
    assert arguments == "$(id)|a b;"
    names = {line.partition("=")[0] for line in environment.split("\0") if line}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"OUT", "PATH"}


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (["/nonexistent"], InputError, "cannot run nonexistent: No such file"),
        (["/bin/sh\0"], InputError, "cannot run"),
        (["/bin/sh", "-c", "exit 3"], RefusedError, "sh ended with exit code 3"),
        (["/bin/sh", "-c", "kill -9 $$"], RefusedError, "sh ended with signal 9"),
    ],
)
def test_failures_are_errors(command: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        child.run(command, {"PATH": "/bin:/usr/bin"}, 10)


def test_its_whole_group_is_killed(tmp_path: Path) -> None:
    """A grandchild that ignores SIGTERM does not outlive the deadline."""
    pid = tmp_path / "pid"
    script = f"sh -c 'trap \"\" TERM; echo $$ > {pid}; while :; do sleep 1; done' & wait"
    with pytest.raises(RefusedError, match="sh took longer than"):
        child.run(["/bin/sh", "-c", script], {"PATH": "/bin:/usr/bin"}, 0.5)
    with suppress(ProcessLookupError):
        while _state(int(pid.read_text())) not in "ZX":  # killed; whoever adopted it reaps it
            time.sleep(0.01)


def test_a_daemon_that_keeps_the_pipe(tmp_path: Path) -> None:
    """It left the group, so it lives on; we do not wait for it."""
    script = "setsid sh -c 'until [ -e $ROOT/go ]; do sleep 0.01; done' & sleep 60"
    with pytest.raises(RefusedError, match="sh took longer than"):
        child.output(["/bin/sh", "-c", script], {"PATH": "/bin:/usr/bin", "ROOT": str(tmp_path)}, 0.2, "[mail.oauth]")
    (tmp_path / "go").touch()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        raise ProcessLookupError from None


def test_no_input_waits_for_a_person() -> None:
    child.run(["/bin/cat"], dict(os.environ), 10)
