"""What a command's end looks like from outside: exit codes, and errors as people read them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

from broker.errors import BrokerError, InputError, Kind

__all__ = [
    "BROKEN_PIPE",
    "CODES",
    "INTERRUPTED",
    "REFUSED",
    "SIGNALLED",
    "USAGE",
    "report",
    "report_unexpected",
    "report_usage",
]

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
USAGE: Final = CODES[Kind.INPUT]
REFUSED: Final = CODES[Kind.REFUSED]  # also of a verdict that is no error of the command
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell says it
SIGNALLED: Final = 128  # plus the signal's number
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE


def report(error: BrokerError, *, as_json: bool = False) -> int:
    """Tell people what went wrong on stderr, and programs on stdout where they asked for JSON; return the exit code."""
    from broker.cli.output import clean, show_findings

    if as_json:
        _tell_programs(error)
    findings = getattr(error, "findings", ())
    if findings:
        sys.stderr.write(f"error: {clean(error.message.partition(':')[0])} is refused\n")
        show_findings(findings)
    else:
        _tell_people(clean(error.message), clean(error.hint) if error.hint else "")
    return CODES[error.kind]


def report_usage(error: click.ClickException, *, as_json: bool = False) -> int:
    """Tell of a command line that cannot be understood: click's words in our form."""
    said = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    told = InputError(said[:1].lower() + said[1:], hint=f"{context.command_path} --help" if context else "")
    if as_json:
        _tell_programs(told)
    if context:
        sys.stderr.write(f"{context.get_usage()}\n")
    _tell_people(told.message, told.hint)
    return USAGE


def report_unexpected(error: BaseException, *, as_json: bool = False) -> int:
    """Tell of a fault of ours: its type and place only, since its text may quote anything."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    told = BrokerError(
        f"a fault in the broker itself: {type(error).__name__} at {place}",
        hint="please report it with this line; what it says besides may hold secrets",
    )
    return report(told, as_json=as_json)


def _tell_people(what: str, hint: str) -> None:
    sys.stderr.write(f"error: {what}\n" + (f"  hint: {hint}\n" if hint else ""))


def _tell_programs(error: BrokerError) -> None:
    """Write the error with the same keys always; `verdict` is the partner's, where it was asked."""
    import json

    verdict = getattr(error, "verdict", None)
    told = {
        "success": False,
        "code": error.kind.value,
        "message": error.message,
        "hint": error.hint or None,
        "retryable": error.retryable,
        "verdict": verdict.value if verdict else None,
    }
    sys.stdout.write(json.dumps(told) + "\n")
