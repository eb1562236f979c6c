"""Print log events to stderr: JSON for machines, or lines for people."""

import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec

from broker.telemetry import log

Later = Callable[[Callable[[], None]], object]
PIECE: Final = select.PIPE_BUF  # bytes that a pipe keeps together: workers may share one
_NAMES: Final = {"event": "event_", "level": "level_", "timestamp": "timestamp_"}  # names that we set ourselves


def configure(level: log.Level, form: log.Form) -> None:
    """Log events of `level` and above to stderr."""
    if form is log.Form.JSON:
        log.send_to(level, _json)
    else:
        log.to_stderr(level)


@contextmanager
def gathered(later: Later) -> Iterator[None]:
    """Write JSON lines that this thread logs in one turn of its event loop together, as `PIECE` allows.

    `later` is the loop's `call_soon`: a system call for each line would take longer than all else about it. A process
    that is killed loses the lines of that turn.
    """
    gathered_lines = _Gathered(later)
    _write[0] = gathered_lines.write
    try:
        yield
    finally:
        _write[0] = _write_now
        gathered_lines.write_waiting()


def _json(at: log.Level, event: str, fields: Mapping[str, object]) -> None:
    """Write a line. A service writes one for each request."""
    named = {_NAMES.get(name, name): value for name, value in fields.items()}
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {**named, "event": event, "level": at.name.lower(), "timestamp": when}
    _write[0](msgspec.json.encode(line) + b"\n")


def _write_now(lines: bytes) -> None:
    sys.stderr.write(lines.decode())


_write: Final[list[Callable[[bytes], None]]] = [_write_now]  # of the process: one


class _Gathered:
    def __init__(self, later: Later) -> None:
        self._later = later
        self._thread = threading.get_ident()
        self._waiting: list[bytes] = []

    def write(self, line: bytes) -> None:
        if self._thread != threading.get_ident():
            _write_now(line)
            return
        if not self._waiting:
            self._later(self.write_waiting)
        self._waiting.append(line)

    def write_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        piece = b""
        for line in lines:
            if len(piece) + len(line) > PIECE:
                _write_now(piece)
                piece = b""
            piece += line
        _write_now(piece)
