"""What a command's end looks like from outside: exit codes, and errors as people read them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker.errors import BrokerError, Kind

__all__ = ["BROKEN_PIPE", "CODES", "INTERRUPTED", "TERMINATED", "USAGE", "report", "report_unexpected"]

CODES: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.UNEXPECTED: 1,
        Kind.INPUT: 2,
        Kind.UNKNOWN_NAME: 2,
        Kind.VAULT_UNAVAILABLE: 3,
        Kind.PARTNER_UNAVAILABLE: 4,
        Kind.DENIED: 5,
        Kind.REFUSED: 6,
        Kind.WAITING: 7,
        Kind.CONFLICT: 8,
    }
)
USAGE: Final = 2
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell says it
TERMINATED: Final = 143  # 128 + SIGTERM
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE


def report(error: BrokerError, *, as_json: bool = False) -> int:
    """Tell people what went wrong on stderr, and programs on stdout where they asked for JSON; return the exit code."""
    if as_json:
        sys.stdout.write(json.dumps({"success": False, "code": error.kind.value, "message": error.what}) + "\n")
    findings = getattr(error, "findings", ())
    if findings:
        from broker.cli.output import show_findings

        sys.stderr.write(f"error: {error.what.partition(':')[0]} is refused\n")
        show_findings(findings)
    else:
        sys.stderr.write(f"error: {error.what}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
    return CODES[error.kind]


def report_unexpected(error: BaseException) -> int:
    """Tell of a fault of ours: its type and place only, since its text may quote anything."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    sys.stderr.write(f"error: a fault in the broker itself: {type(error).__name__} at {place}\n")
    sys.stderr.write("  hint: please report it with this line; what it says besides may hold secrets\n")
    return CODES[Kind.UNEXPECTED]
