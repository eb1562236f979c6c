"""Run a demonstration: a temporary directory, child processes, and commands shown as a person would type them."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import click

from broker.cli.output import styled
from broker.errors import RefusedError
from broker.signals import undisturbed

_PARENT_DEATH: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # our own directory is made in it, 0700
_PATIENCE: Final = 20.0  # seconds
_INDENT: Final = " " * 5
_ENDLESS: Final = 10_000  # columns


class DemoError(RefusedError):
    """A step of the demonstration failed."""


class Demo:
    """One demonstration. `close` ends its processes and removes its directory."""

    def __init__(self) -> None:
        base = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="broker-demo-", dir=base))
        self._descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._running: list[subprocess.Popen[bytes]] = []
        self._leaving: list[Callable[[], object]] = []
        self._step = 0
        self._began = time.monotonic()

    def close(self) -> None:
        """End every process, the newest first, and remove the directory. The first Ctrl-C is delayed until then.

        Raise `DemoError` if files remain.
        """
        with undisturbed():
            for process in reversed(self._running):
                end(process)
            for leave in reversed(self._leaving):
                leave()
            self._remove()

    def on_close(self, leave: Callable[[], object]) -> None:
        """Call `leave` at the end, after the processes have ended."""
        self._leaving.append(leave)

    def echo(self, line: str) -> None:
        """Print a line."""
        click.echo(line)

    def title(self, text: str) -> None:
        """Begin a step."""
        self._step += 1
        elapsed = f"{time.monotonic() - self._began:4.0f}s"
        self.echo(f"\n{styled(f'{self._step}. {text}', bold=True)}  {styled(elapsed, dim=True)}")

    def say(self, text: str) -> None:
        """Print an explanation."""
        self.echo(styled(f"   {text}", dim=True))

    def show(self, *command: str, after: str = "") -> None:
        """Print a command as a person would type it."""
        for line in _typed(command, _width() - len(_INDENT), after):
            self.echo(styled(f"   {line}", fg="cyan"))

    def type(self, line: str) -> None:
        """Print a line of Python as a person would type it."""
        self.echo(styled(f"   >>> {line}", fg="cyan"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table, its lines shortened to the terminal."""
        lines = [[name.upper() for name in columns], *([str(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            self.echo(_cut("  ".join(map(str.ljust, line, widths)).rstrip()))

    def run(self, *command: str, expect: int = 0, quiet: bool = False) -> str:
        """Show a command, run it, print its output, and return its standard output.

        On a terminal, the command writes to a terminal too, and formats its tables for the width that is left.
        """
        self.show(*command)
        return self._finished(command, expect, quiet=quiet)

    def shell(self, script: str, expect: int = 0) -> None:
        """Show lines of a shell, run them, and print their output."""
        for number, line in enumerate(script.splitlines()):
            self.echo(styled(f"   {'' if number else '$ '}{line}", fg="cyan"))
        self._finished(("sh", "-c", script), expect)

    def _finished(self, command: Sequence[str], expect: int, *, quiet: bool = False) -> str:
        with tempfile.TemporaryFile() as errors:
            out, code = self._output(command, errors, terminal=sys.stdout.isatty() and not quiet)
            errors.seek(0)
            err = errors.read().decode(errors="replace")
        for line in [*([] if quiet else out.splitlines()), *err.splitlines()]:
            self.echo(_wrapped(line))
        if code != expect:
            hint = err.strip()[-300:] or "this is a fault of the demo"
            raise DemoError(f"{shlex.join(command)} ended with {code}", hint=hint)
        return out

    def _output(self, command: Sequence[str], errors: IO[bytes], *, terminal: bool) -> tuple[str, int]:
        """Run a command; return what it wrote to stdout, and its exit code."""
        reading, writing = os.openpty() if terminal else os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            if terminal:
                termios.tcsetwinsize(writing, (50, _width() - len(_INDENT)))
            process = subprocess.Popen(
                self._found(command),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=errors,
            )
            os.close(writing)
            try:
                out = b"".join(_pieces(pipe))
                return out.decode(errors="replace"), process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise

    def start(self, *command: str, outlives: bool = False) -> subprocess.Popen[bytes]:
        """Show a command and start it. It ends when this process ends, for any reason, unless it `outlives` it."""
        self.show(*command, after=" &")
        with self._log_of(len(self._running)).open("wb") as log:
            process = subprocess.Popen(
                self._found(command),
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us only, and we end processes in our order
                preexec_fn=None if outlives else end_with_parent,  # noqa: PLW1509  # this process has one thread
            )
        self._running.append(process)
        return process

    @property
    def left(self) -> Sequence[subprocess.Popen[bytes]]:
        """The processes that still run."""
        return [process for process in self._running if process.poll() is None]

    def said_by(self, process: subprocess.Popen[bytes]) -> str:
        """Return what a process that was started wrote to stderr."""
        return self._log_of(self._running.index(process)).read_text(errors="replace")

    def _log_of(self, number: int) -> Path:
        return self.directory / f"process-{number + 1}.log"

    def wait_for(self, path: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a file of `process`."""
        self.wait((self.directory / path).exists, process, path)

    def wait(self, holds: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
        """Wait for `process` to make `holds` true; `what` names it in the error."""
        until = time.monotonic() + _PATIENCE
        while not holds():
            if process.poll() is not None or time.monotonic() > until:
                ended = process.poll() is not None
                hint = self.said_by(process).strip()[-300:] if ended else "it is running, but took too long"
                raise DemoError(f"{what} did not appear", hint=hint)
            time.sleep(0.02)

    def read(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object in a file."""
        content: Mapping[str, Any] = json.loads((self.directory / path).read_text())
        return content

    def _remove(self) -> None:
        """Remove the directory; its files through the descriptor, since it may have been renamed."""
        shutil.rmtree(".", dir_fd=self._descriptor, ignore_errors=True)  # all but "." itself
        with os.scandir(self._descriptor) as entries:
            left = sorted(entry.name for entry in entries)
        os.close(self._descriptor)
        if left:
            here = shlex.quote(str(self.directory))
            raise DemoError(f"{', '.join(left)} cannot be removed from {self.directory}", hint=f"rm -r {here}")
        with suppress(OSError):  # a renamed directory stays, empty
            self.directory.rmdir()

    def _found(self, command: Sequence[str]) -> list[str]:
        here = Path(sys.executable).parent / command[0]  # `broker` of this environment, on the PATH or not
        return [str(here) if here.exists() else command[0], *command[1:]]

    def _environment(self) -> dict[str, str]:
        """Return our environment without settings of other vaults, configurations and proxies."""
        foreign = ("VAULT_", "BAO_", "BROKER_")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(foreign) and not name.lower().endswith("_proxy")
        }
        path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        return kept | {"BROKER_CONFIG": str(self.directory / "broker.toml"), "PATH": path}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and wait until it has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pieces(pipe: IO[bytes]) -> Iterator[bytes]:
    """Yield what is written to `pipe`. A terminal reports its end as an error."""
    with suppress(OSError):
        while piece := pipe.read(65536):
            yield piece


def _width() -> int:
    """Return the width of the terminal; without one, lines are not wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS


def _cut(line: str) -> str:
    line, width = f"{_INDENT}{line}", _width()
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _wrapped(line: str) -> str:
    if len(_INDENT) + len(click.unstyle(line)) <= _width():
        return f"{_INDENT}{line}".rstrip()
    inner = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, _width(), initial_indent=_INDENT, subsequent_indent=f"{_INDENT}{inner}  ", break_on_hyphens=False
    )


def _typed(command: Sequence[str], width: int, after: str) -> list[str]:
    """Return a command line as people write a long one: broken before its options, each line but the last with a \\."""
    whole = f"$ {shlex.join(command)}{after}"
    if len(whole) <= width:
        return [whole]
    units: list[str] = []
    for word in map(shlex.quote, command):
        if units and not word.startswith("-"):
            units[-1] += f" {word}"
        else:
            units.append(word)
    lines = [f"$ {units[0]}"]
    for unit in units[1:]:
        if len(lines[-1]) + len(unit) < width - len(" \\"):
            lines[-1] += f" {unit}"
        else:
            lines.append(f"    {unit}")
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1] + after]


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends: for `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
