"""Print log events to stderr: JSON for machines, or lines for people."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from broker.telemetry import log

_NAMES: Final = {"event": "event_", "level": "level_", "timestamp": "timestamp_"}  # names that we set ourselves


def configure(level: log.Level, form: log.Form) -> None:
    """Log events of `level` and above to stderr."""
    if form is log.Form.JSON:
        log.send_to(level, _json)
    else:
        log.to_stderr(level)


def _json(at: log.Level, event: str, fields: Mapping[str, object]) -> None:
    """Write a line. A service writes one for each request."""
    named = {_NAMES.get(name, name): value for name, value in fields.items()}
    when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {**named, "event": event, "level": at.name.lower(), "timestamp": when}
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
