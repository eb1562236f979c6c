"""A program on a terminal: what it prints is read, what it waits for is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["Terminal"]

_PATIENCE: Final = 60.0  # seconds


@dataclass
class Terminal:
    """`with Terminal(command, …) as terminal:` a process with its own terminal, 100 columns wide."""

    command: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    columns: int = 100
    said: str = ""

    def __enter__(self) -> Terminal:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, self.columns, 0, 0))
        self.process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=dict(self.env) | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509  # one call of the kernel, nothing that takes a lock
        )
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def wait_for(self, text: str) -> str:
        """Read until `text` was printed; return all that was."""
        until = time.monotonic() + _PATIENCE
        while text not in self.said:
            assert self._read(until), f"{text!r} was never printed, but: {self.said}"
        return self.said

    def type(self, text: str) -> None:
        """Type `text`, as keys; \\x03 is Ctrl-C."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        until = time.monotonic() + _PATIENCE
        while self._read(until):
            pass
        return self.process.wait(_PATIENCE)

    def _read(self, until: float) -> bool:
        if not select.select([self._ours], [], [], max(0, until - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.said += data.decode(errors="replace")
        return bool(data)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
