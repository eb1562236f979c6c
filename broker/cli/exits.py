"""Exit codes, and errors as they are printed."""

import json
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

from broker.cli.output import clean, show_findings
from broker.errors import BrokerError, InputError, Kind
from broker.telemetry import log

CODES: Final[Mapping[Kind, int]] = MappingProxyType(
    {
        Kind.UNEXPECTED: 1,
        Kind.INPUT: 2,
        Kind.UNKNOWN_NAME: 2,
        Kind.VAULT_UNAVAILABLE: 3,
        Kind.PARTNER_UNAVAILABLE: 4,
        Kind.MAIL_UNAVAILABLE: 4,
        Kind.DENIED: 5,
        Kind.REFUSED: 6,
        Kind.WAITING: 7,
        Kind.CONFLICT: 8,
        Kind.RATE: 8,
        Kind.STORAGE_FULL: 9,
    }
)
USAGE: Final = CODES[Kind.INPUT]
REFUSED: Final = CODES[Kind.REFUSED]  # also for a check that found errors
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell says it
SIGNALLED: Final = 128  # plus the signal's number
EXEC_FAILED: Final = 125  # as env(1) has it
CONDITION_FAILED: Final = 255  # systemd's ExecCondition= takes it for a failure, 1 to 254 for "no"
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE


def report(error: BrokerError, *, as_json: bool = False) -> int:
    """Print an error to stderr, with `as_json` also as JSON to stdout; return the exit code."""
    if as_json:
        _print_json(error)
    findings = getattr(error, "findings", ())
    if findings:
        sys.stderr.write(f"error: {clean(error.message.partition(':')[0])} is refused\n")
        show_findings(findings)
    else:
        hint = f"  hint: {clean(error.hint)}\n" if error.hint else ""
        sys.stderr.write(f"error: {clean(error.message)}\n{hint}")
    return CODES[error.kind]


def report_usage(error: click.ClickException, *, as_json: bool = False) -> int:
    """Print a usage error of click in our form."""
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    usage = InputError(message[:1].lower() + message[1:], hint=f"{context.command_path} --help" if context else "")
    if context:
        sys.stderr.write(f"{context.get_usage()}\n")
    return report(usage, as_json=as_json)


def report_unexpected(error: BaseException, *, as_json: bool = False) -> int:
    """Print a fault of the broker: its type and place only, since its text may hold a secret."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    log.error("unexpected fault", type=type(error).__name__, stack=log.frames(error))
    fault = BrokerError(
        f"a fault in the broker itself: {type(error).__name__} at {place}",
        hint="report it with this line; --log-level debug shows the stack",
    )
    return report(fault, as_json=as_json)


def _print_json(error: BrokerError) -> None:
    """Print the error, always with the same keys; `verdict` is the partner's, if it was asked."""
    verdict = getattr(error, "verdict", None)
    shown = {
        "version": 1,
        "success": False,
        "code": error.kind.value,
        "message": error.message,
        "hint": error.hint or None,
        "retryable": error.retryable,
        "verdict": verdict.value if verdict else None,
    }
    sys.stdout.write(json.dumps(shown) + "\n")
