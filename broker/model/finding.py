"""Results of checks: a stable code for programs, a message and a hint for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct

from broker.errors import RefusedError


class Severity(Enum):
    """The weight of a finding. Only an `ERROR` refuses."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(Struct, frozen=True):
    """One fact about a CSR, a certificate, a configuration or a running system.

    `code` is dotted, lower-case and never changes its meaning (`subject.ou.wrong`); `message` names field and value
    and the fault; `hint` says what to do, and is empty if there is nothing to do.
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""

    @classmethod
    def error(cls, code: str, message: str, hint: str = "") -> Finding:
        """Return a finding that refuses."""
        return cls(code, Severity.ERROR, message, hint)

    @classmethod
    def warning(cls, code: str, message: str, hint: str = "") -> Finding:
        """Return a finding to look at."""
        return cls(code, Severity.WARNING, message, hint)

    @classmethod
    def note(cls, code: str, message: str, hint: str = "") -> Finding:
        """Return a finding that is good to know."""
        return cls(code, Severity.NOTE, message, hint)


class FindingsError(RefusedError):
    """A check found at least one error. Carries all findings, warnings too."""

    def __init__(self, subject: str, findings: Sequence[Finding]) -> None:
        errors = [f for f in findings if f.severity is Severity.ERROR]
        super().__init__(
            f"{subject}: " + "; ".join(f.message for f in errors),
            hint="; ".join(dict.fromkeys(f.hint for f in errors if f.hint)),
        )
        self.findings = tuple(findings)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Return whether any of `findings` is an error."""
    return any(f.severity is Severity.ERROR for f in findings)


def refuse_errors(subject: str, findings: Sequence[Finding]) -> None:
    """Raise `FindingsError` if any of `findings` is an error."""
    if has_errors(findings):
        raise FindingsError(subject, findings)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return `findings`, each once, errors first."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: list(Severity).index(f.severity)))
