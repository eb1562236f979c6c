"""Run a program of the host's own configuration: no shell, a hard deadline, its whole process group killed then."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from broker.errors import InputError, RefusedError
from broker.model.secret import Secret


def run(command: Sequence[str], environment: Mapping[str, str], seconds: float, where: str = "[hooks]") -> None:
    """Run `command` to its end with exactly `environment`; raise `InputError` or `RefusedError`.

    Its output is discarded: it may hold anything. It gets no input. If it takes too long, it is killed with every
    process that it started and that did not leave its group.
    """
    _ended(command, environment, seconds, where, subprocess.DEVNULL)


def output(command: Sequence[str], environment: Mapping[str, str], seconds: float, where: str) -> Secret[bytes]:
    """Run `command`, which `where` in broker.toml names, as `run` does; return what it prints, which is never shown."""
    return Secret(_ended(command, environment, seconds, where, subprocess.PIPE))


def _ended(command: Sequence[str], environment: Mapping[str, str], seconds: float, where: str, stdout: int) -> bytes:
    program = os.path.basename(command[0])  # noqa: PTH119  # arguments may be private: only this is shown
    is_blocking = bool(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    try:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_unblock if is_blocking else None,  # noqa: PLW1509  # one system call, which takes no lock
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name or an argument cannot be used"
        raise InputError(f"cannot run {program}: {reason}", hint=f"check {where} in broker.toml") from None
    try:
        printed, _ = child.communicate(timeout=seconds)
    except BaseException as error:  # also if we are asked to end meanwhile
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdout:
            child.stdout.close()  # a process that has left the group may hold the other end forever
        child.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RefusedError(f"{program} took longer than {seconds:.0f} s and was killed") from None
        raise
    if child.returncode:
        code = child.returncode
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise RefusedError(f"{program} ended with {ended}", hint="its own log says why; run it by hand")
    return printed or b""


def _unblock() -> None:
    """Block no signal in the program. A thread of ours that did not block them for a moment would take them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
