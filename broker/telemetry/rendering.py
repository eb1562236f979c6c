"""Print log events with structlog, to stderr: JSON for machines, or aligned text for a terminal."""

import sys
from collections.abc import Mapping

import structlog

from broker.telemetry import log


def configure(level: log.Level, form: log.Form) -> None:
    """Log events of `level` and above to stderr."""
    json = structlog.processors.JSONRenderer(ensure_ascii=True)
    console = structlog.dev.ConsoleRenderer(colors=False)
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            console if form is log.Form.CONSOLE else json,
        ],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def write(at: log.Level, event: str, fields: Mapping[str, object]) -> None:
        getattr(logger, at.name.lower())(event, **{_NAMES.get(name, name): value for name, value in fields.items()})

    log.send_to(level, write)


_NAMES = {"event": "event_", "level": "level_", "timestamp": "timestamp_"}  # names that structlog sets itself
