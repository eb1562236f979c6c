"""What a command's end looks like from outside: exit codes, and errors as people read them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, Kind

if TYPE_CHECKING:
    import click

__all__ = ["BROKEN_PIPE", "CODES", "INTERRUPTED", "TERMINATED", "USAGE", "report", "report_unexpected", "report_usage"]

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
    from broker.cli.output import clean, show_findings

    if as_json:
        verdict = getattr(error, "verdict", None)  # of the partner's, where it was asked
        _tell_programs(error.kind, error.what, **({"verdict": verdict.value} if verdict else {}))
    findings = getattr(error, "findings", ())
    if findings:
        sys.stderr.write(f"error: {clean(error.what.partition(':')[0])} is refused\n")
        show_findings(findings)
    else:
        sys.stderr.write(f"error: {clean(error.what)}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {clean(error.hint)}\n")
    return CODES[error.kind]


def report_usage(error: click.ClickException, *, as_json: bool = False) -> int:
    """Tell of a command line that cannot be understood, as click words it."""
    if as_json:
        _tell_programs(Kind.INPUT, error.format_message())
    error.show()
    return USAGE


def report_unexpected(error: BaseException, *, as_json: bool = False) -> int:
    """Tell of a fault of ours: its type and place only, since its text may quote anything."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    what = f"a fault in the broker itself: {type(error).__name__} at {place}"
    if as_json:
        _tell_programs(Kind.UNEXPECTED, what)
    sys.stderr.write(f"error: {what}\n")
    sys.stderr.write("  hint: please report it with this line; what it says besides may hold secrets\n")
    return CODES[Kind.UNEXPECTED]


def _tell_programs(kind: Kind, message: str, **more: str) -> None:
    import json

    sys.stdout.write(json.dumps({"success": False, "code": kind.value, "message": message} | more) + "\n")
