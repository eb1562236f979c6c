"""A program beside a bundle: signals, exit codes, rotations."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.agent import supervising
from broker.agent.files import Files
from broker.agent.holding import Held
from broker.agent.supervising import NotStartedError, Program, supervised
from broker.errors import DeniedError
from broker.model.clock import system_clock
from broker.telemetry import log
from tests.agent.test_holding import WANTED, Source, until

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_CAPABILITY_VERSION, _CAP_KILL = 0x20080522, 1 << 5  # of capget(2), capabilities(7)


def run(root: Path, script: str, on_rotation: int = 0, *, act: Callable[[Source], None] | None = None) -> int:
    """Run `script` in a shell beside a bundle below `root`, and `act` meanwhile; return its exit code."""
    source = Source()
    held = Held(source, WANTED, Files(root / "files", [], system_clock), system_clock)
    held.publish()
    actor = threading.Thread(target=act, args=(source,)) if act else None
    if actor:
        actor.start()
    program = Program(["sh", "-c", script], {"PATH": os.environ["PATH"], "ROOT": str(root)}, on_rotation)
    try:
        return supervised(held, program)
    finally:
        if actor:
            actor.join()
        held.close()


def send(number: signal.Signals) -> None:
    """Send a signal to the thread that waits: the runner of these tests has others."""
    main = threading.main_thread().ident
    assert main
    signal.pthread_kill(main, number)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_exit_code_is_kept(tmp_path: Path, script: str, code: int) -> None:
    assert run(tmp_path, script) == code


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGWINCH])
def test_signals_are_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    script = f"trap 'exit 7' {number.name.removeprefix('SIG')}; : > $ROOT/ready; while :; do sleep 0.01; done"

    def act(_: Source) -> None:
        until((tmp_path / "ready").exists)
        send(number)

    assert run(tmp_path, script, act=act) == 7


def test_urgent_data_is_not_passed_on(tmp_path: Path) -> None:
    script = "trap 'exit 7' URG; : > $ROOT/ready; until [ -e $ROOT/go ]; do sleep 0.01; done"

    def act(_: Source) -> None:
        until((tmp_path / "ready").exists)
        send(signal.SIGURG)
        (tmp_path / "go").touch()

    assert run(tmp_path, script, act=act) == 0


def test_a_rotation_signals_it_once(tmp_path: Path) -> None:
    script = (
        "n=0; trap 'n=$((n+1)); echo $n > $ROOT/heard' HUP; : > $ROOT/ready; "
        "until [ -e $ROOT/go ]; do sleep 0.01; done; exit $n"
    )

    def act(source: Source) -> None:
        until((tmp_path / "ready").exists)
        source.rotate()
        until((tmp_path / "heard").exists)
        assert (tmp_path / "files/current").readlink() == Path("gen-000002")
        (tmp_path / "go").touch()

    assert run(tmp_path, script, signal.SIGHUP, act=act) == 1


@pytest.mark.slow
def test_a_restart_waits_for_the_whole_group(tmp_path: Path) -> None:
    """The first start leaves a process that ignores SIGTERM for a while, and would write until it is gone."""
    script = (
        "echo $$ >> $ROOT/starts; if [ $(wc -l < $ROOT/starts) = 2 ]; then [ -e $ROOT/gone ]; exit $?; fi; "
        "(trap 'sleep 0.3; : > $ROOT/gone; exit' TERM; : > $ROOT/ready; while :; do sleep 0.01; done) & wait"
    )

    def act(source: Source) -> None:
        until((tmp_path / "ready").exists)
        source.rotate()

    assert run(tmp_path, script, signal.SIGTERM, act=act) == 0
    assert len((tmp_path / "starts").read_text().split()) == 2


def test_orphans_of_a_container_are_reaped(tmp_path: Path) -> None:
    """The init of a container is the parent of all orphans. A dead one in the group is not waited for."""
    adopt = ctypes.CDLL(None).prctl
    script = (
        "echo x >> $ROOT/starts; [ $(wc -l < $ROOT/starts) = 1 ] || exit 3; sleep 60 & : > $ROOT/ready; exec sleep 60"
    )

    def act(source: Source) -> None:
        until((tmp_path / "ready").exists)
        source.rotate()

    adopt(_SUBREAPER, 1, 0, 0, 0)
    try:
        assert run(tmp_path, script, signal.SIGTERM, act=act) == 3
    finally:
        adopt(_SUBREAPER, 0, 0, 0, 0)


def test_a_program_that_left_its_group(tmp_path: Path) -> None:
    """Signals reach it, and a restart waits for its end."""
    script = (
        "if [ -e $ROOT/pid ]; then kill -0 $(cat $ROOT/pid) 2> /dev/null && exit 9; exit 3; fi; echo $$ > $ROOT/pid; "
        f"exec {sys.executable} -c 'import os, sys, time; os.setpgid(0, os.getpgid(os.getppid())); "
        'open(sys.argv[1], "w"); time.sleep(60)\' $ROOT/ready'
    )

    def act(source: Source) -> None:
        until((tmp_path / "ready").exists)
        source.rotate()

    assert run(tmp_path, script, signal.SIGTERM, act=act) == 3


def test_a_stop_without_a_terminal(tmp_path: Path) -> None:
    """Nobody would continue us: files and lease go on beside a program that somebody stopped."""
    script = "echo $$ > $ROOT/pid; : > $ROOT/ready; until [ -e $ROOT/go ]; do sleep 0.01; done; exit 4"

    def act(source: Source) -> None:
        until((tmp_path / "ready").exists)
        program = int((tmp_path / "pid").read_text())
        os.kill(program, signal.SIGSTOP)
        until(lambda: "(stopped)" in Path(f"/proc/{program}/status").read_text())
        source.rotate()
        until(lambda: (tmp_path / "files/current").readlink() == Path("gen-000002"))
        (tmp_path / "go").touch()
        os.kill(program, signal.SIGCONT)

    assert run(tmp_path, script, act=act) == 4


def test_it_outlives_its_right(tmp_path: Path) -> None:
    """The files go, the program may hold copies and goes on."""
    script = "until [ -e $ROOT/go ]; do sleep 0.01; done; exit 5"

    def act(source: Source) -> None:
        source.errors.append(DeniedError("revoked"))
        source.rotate()
        until(lambda: not list((tmp_path / "files").iterdir()))
        (tmp_path / "go").touch()

    assert run(tmp_path, script, act=act) == 5


@pytest.mark.parametrize(("name", "code"), [("no-such-program", 127), ("/", 126)])
def test_a_program_that_cannot_be_run(tmp_path: Path, name: str, code: int) -> None:
    held = Held(Source(), WANTED, Files(tmp_path / "files", [], system_clock), system_clock)
    held.publish()
    with pytest.raises(NotStartedError) as raised:
        supervised(held, Program([name], {}))
    assert raised.value.code == code
    held.close()


def test_its_signals_are_as_ours_were(tmp_path: Path) -> None:
    """None is blocked or ignored in it that was not before."""
    assert run(tmp_path, "grep -E '^Sig(Blk|Ign)' /proc/self/status > $ROOT/masks") == 0
    masks = (tmp_path / "masks").read_text().split()
    assert masks[1] == "0000000000000000"
    assert int(masks[3], 16) & (1 << (signal.SIGPIPE - 1)) == 0


@contextmanager
def without_right_to_kill() -> Iterator[None]:
    """Take from this thread the right to signal processes of other users: CAP_KILL, capabilities(7)."""
    libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    before = sets[0]
    sets[0] &= ~_CAP_KILL
    assert not libc.capset(header, sets)
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(header, sets)


@pytest.mark.rights("setuid")
def test_a_program_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither signalled nor ended, and goes on."""
    monkeypatch.setattr(supervising, "_PATIENCE", 0.02)
    said: list[str] = []
    log.send_to(log.Level.INFO, lambda _level, event, _fields: said.append(event))
    command = ["setpriv", "--reuid=65534", "--clear-groups", "sleep", "60"]
    child = supervising._Child(Program(command, {"PATH": os.environ["PATH"]}, signal.SIGTERM), ())
    status = Path(f"/proc/{child._pid}/status")
    try:
        until(lambda: "Name:\tsleep" in status.read_text())
        with without_right_to_kill():
            assert not child.ended_by(signal.SIGHUP)
            child.rotated()
        assert {line.partition(":")[0] for line in said} == {
            "the program was not signalled",
            "the program was not restarted",
        }
        assert "State:\tS" in status.read_text()
    finally:
        log.reset()
        os.kill(child._pid, signal.SIGKILL)
        os.waitpid(child._pid, 0)
